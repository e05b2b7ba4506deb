"""Three agents, each with a PostgreSQL, and one etcd, all on loopback; everything of it lies in one directory."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psycopg2

from .agents import command_of
from .machine import Account, Failed, free_port, kill_all_in, program, wait_until, working_in

# How long a cluster may take to be well again.
HEALING = 240


class Node:
    """One member."""

    def __init__(self, name, home):
        self.name, self.home = name, home
        self.data = home / "data"
        self.postgres_port, self.api_port = free_port(), free_port()
        self.process = None

    def server_pids(self):
        """Every process of its PostgreSQL, the postmaster first."""
        pids = [pid for pid in working_in(self.data) if program(pid)]
        try:
            postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            postmaster = 0
        return sorted(pids, key=lambda pid: pid != postmaster)

    def agent_pids(self):
        """Every process of its agent, the one that we started (of two, the guard) first."""
        server = set(working_in(self.data))
        pids = [pid for pid in working_in(self.home) if pid not in server and program(pid)]
        return sorted(pids, key=lambda pid: self.process is None or pid != self.process.pid)

    def ask(self, path, body=None, limit=3):
        """Status and text of a request to its REST API; status 0 when nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.api_port}{path}", data=data, headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=limit) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def query(self, sql, *values):
        """All rows of one statement on its server."""
        session = psycopg2.connect(**self.address(), connect_timeout=3, options="-c statement_timeout=20s")
        try:
            session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute(sql, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            session.close()

    def address(self):
        return {"host": "127.0.0.1", "port": self.postgres_port, "user": "postgres", "password": "bench-superuser", "dbname": "postgres"}


class Cluster:
    """Use it with `with`: whatever happens, nothing of it is left."""

    def __init__(self, subject, binary, bin_dir):
        self.subject, self.bin_dir, self.account = subject, bin_dir, Account()
        self.home = Path(tempfile.mkdtemp(prefix="bench-failover-"))
        self.account.own(self.home)
        self.etcd_process, self.etcd_ports = None, (free_port(), free_port())
        self.nodes = [Node(f"n{number}", self.home / f"n{number}") for number in (1, 2, 3)]
        self.keep_logs = None
        # The user who runs PostgreSQL may not be able to look into the build's directory.
        self.binary = self.home / "spilo"
        if subject.agent == "spilo":
            shutil.copy(binary, self.binary)
            self.binary.chmod(0o755)

    def __enter__(self):
        try:
            self.start_etcd()
            for node in self.nodes:
                node.home.mkdir(mode=0o700)
                self.account.own(node.home)
                self.write_config(node)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        kill_all_in(self.home)
        for process in [self.etcd_process, *(node.process for node in self.nodes)]:
            if process is not None:
                process.wait(20)
        if self.keep_logs is not None:
            for log in self.home.glob("**/log"):
                shutil.copy(log, self.keep_logs / f"{self.home.name}-{log.parent.name}.log")
        shutil.rmtree(self.home, ignore_errors=True)

    def start_etcd(self):
        home = self.home / "etcd"
        home.mkdir(exist_ok=True)
        client, peer = (f"http://127.0.0.1:{port}" for port in self.etcd_ports)
        command = ["etcd", "--data-dir", str(home / "data"), "--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        with open(home / "log", "ab") as log:
            self.etcd_process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_until("etcd answers", 30, self.etcd_answers)

    def etcd_answers(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.etcd_ports[0]}/health", timeout=1) as answer:
                return b"true" in answer.read()
        except OSError:
            return False

    def write_config(self, node):
        sync = {"off": {}, "on": {"synchronous_mode": True}, "quorum": {"synchronous_mode": "quorum"}}[self.subject.sync]
        parameters = {"max_connections": 100, "wal_keep_size": "128MB", "max_wal_senders": 10}
        dcs = {**self.subject.timings, **sync, "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": parameters}}
        hba = ["local all all scram-sha-256", "host replication replicator 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"]
        users = {
            "superuser": {"username": "postgres", "password": "bench-superuser"},
            "replication": {"username": "replicator", "password": "bench-replicator"},
            "rewind": {"username": "rewinder", "password": "bench-rewinder"},
        }
        postgresql = {
            "listen": f"127.0.0.1:{node.postgres_port}", "connect_address": f"127.0.0.1:{node.postgres_port}", "data_dir": str(node.data),
            "bin_dir": str(self.bin_dir), "pgpass": str(node.home / "pgpass"), "authentication": users,
            # As `create cluster` has it.
            "use_unix_socket": True,
            "parameters": {"unix_socket_directories": str(node.home), "password_encryption": "scram-sha-256"},
        }
        api = {"listen": f"127.0.0.1:{node.api_port}", "connect_address": f"127.0.0.1:{node.api_port}"}
        bootstrap = {"dcs": dcs, "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"], "pg_hba": hba}
        config = {
            "scope": "bench", "namespace": "/service/", "name": node.name, "restapi": api,
            "etcd3": {"host": f"127.0.0.1:{self.etcd_ports[0]}"}, "bootstrap": bootstrap, "postgresql": postgresql,
        }
        # JSON is YAML.
        path = node.home / "agent.yml"
        path.write_text(json.dumps(config, indent=1))
        path.chmod(0o600)
        self.account.own(path)

    def start(self, node):
        command = command_of(self.subject.agent, self.binary, node.home / "agent.yml")
        environment = {"PATH": f"{self.bin_dir}:/usr/bin:/bin", "HOME": str(node.home), "LC_ALL": "C.UTF-8"}
        with open(node.home / "log", "ab") as log:
            node.process = subprocess.Popen(
                command, cwd=node.home, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                **self.account.popen_arguments(),
            )

    def reap(self):
        """Collects our dead children: to whoever asks for a process, a zombie looks alive."""
        for process in [self.etcd_process, *(node.process for node in self.nodes)]:
            if process is not None:
                process.poll()

    def leader(self):
        self.reap()
        return next((node for node in self.nodes if node.ask("/primary")[0] == 200), None)

    def healthy_leader(self):
        """The leader, when the other two stream from it and, in a synchronous mode, somebody confirms its commits."""
        leader = self.leader()
        if leader is None:
            return None
        try:
            members = json.loads(leader.ask("/cluster")[1])["members"]
            streams = leader.query("select application_name, sync_state from pg_stat_replication where state = 'streaming'")
        except (ValueError, KeyError, psycopg2.Error):
            return None
        if len(members) != 3 or {name for name, _ in streams} != {node.name for node in self.nodes} - {leader.name}:
            return None
        well = {member["name"] for member in members if member["state"] == ("running" if member["role"] == "leader" else "streaming")}
        confirming = sum(state in ("sync", "quorum") for _, state in streams)
        wanted = {"off": 0, "on": 1, "quorum": 2}[self.subject.sync]
        return leader if len(well) == 3 and confirming >= wanted else None

    def wait_healthy(self, limit=HEALING):
        return wait_until("one leads and the other two stream", limit, self.healthy_leader)

    def heal(self):
        """Lets go on what was stopped, and starts again what died."""
        if self.etcd_process.poll() is not None:
            self.start_etcd()
        pids = working_in(self.home)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
        for node in self.nodes:
            if node.process.poll() is not None:
                # What outlived the process that a supervisor would watch: it is of the old start and goes with it, as with a container.
                kill_left(node)
                self.start(node)


def kill_left(node):
    until = time.monotonic() + 10
    while pids := node.agent_pids():
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if time.monotonic() > until:
            raise Failed(f"the agent's processes {pids} of '{node.name}' cannot be killed")
        time.sleep(0.02)
