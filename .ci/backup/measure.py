"""The measurements. Each returns a dictionary of numbers for one tool, or raises Failed with what the tool said."""
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from failover.machine import Failed, wait_until

from .postgres import Postgres, copy_for_wal, opened
from .store import TOOL_CORE

HERE = Path(__file__).parent
PYTHON = "/usr/bin/python3" if sys.executable.startswith("/root") else sys.executable
# So many times the client is run for a segment that is durable, and so long a server takes for a segment.
CLIENTS, REPLAY_MS = 50, (0, 60)


class Bench:
    """What all measurements share: the machine's PostgreSQL, the store, and a place for what a run makes."""

    def __init__(self, directory, postgres, store, bin_dir, keep_output):
        self.directory, self.postgres, self.store, self.bin_dir, self.keep_output = Path(directory), postgres, store, bin_dir, keep_output
        self.serial = 0

    def place(self, name):
        """A new path."""
        self.serial += 1
        return self.directory / f"{name}-{self.serial}"

    def own_place(self, name):
        path = self.place(name)
        path.mkdir(mode=0o700)
        return self.postgres.own(path) or path

    def environment(self):
        return {**os.environ, **self.store.environment(), "PATH": f"{self.bin_dir}:{os.environ['PATH']}"}

    def run(self, *command, **more):
        done = self.postgres.run("taskset", "-c", TOOL_CORE, *command, check=False, env=self.environment(), **more)
        if self.keep_output and done.stderr:
            print(done.stderr, file=sys.stderr)
        if done.returncode:
            raise Failed(f"'{' '.join(map(str, command[:4]))} …' ended with {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
        return done.stdout

    def measured(self, script, *words):
        """What one of our scripts prints on its last line; with a Python that the server's user can run."""
        return json.loads(self.run(PYTHON, script, *words).splitlines()[-1])

    def metered(self, command):
        """Runs a tool's command; its numbers, with the requests it made."""
        self.store.counted()
        numbers = self.measured(HERE / "meter.py", *command)
        time.sleep(0.2)
        if numbers["status"]:
            raise Failed(f"'{' '.join(map(str, command[:4]))} …' ended with {numbers['status']}")
        return {**numbers, "requests": sum(self.store.counted().values())}

    def prepare(self, subject):
        for command in subject.prepare(self.postgres, self.bin_dir):
            self.run(*command)

    def use_archive(self, subject):
        """From here on the running server archives with this tool. What waits from before is none of its business, and counts as archived: of what has
        no status the next checkpoint would say that it waits."""
        self.postgres.stop()
        for waiting in (self.postgres.data / "pg_wal/archive_status").glob("*.ready"):
            waiting.rename(waiting.with_suffix(".done"))
        environment = " ".join(f"{key}={value}" for key, value in self.store.environment().items())
        command = f"env PATH={self.bin_dir}:$PATH {environment} {subject.archive_command(self.postgres.data)}"
        quoted = command.replace("'", "''")
        (self.postgres.data / "postgresql.auto.conf").write_text(f"archive_command = '{quoted}'\n")
        self.postgres.start()


def push(bench, subject):
    """W1, W3, W4: archives all WAL that waits, as PostgreSQL's archiver would ask for it."""
    bench.prepare(subject)
    data = copy_for_wal(bench.postgres, bench.own_place("wal") / "data")
    bench.store.counted()
    archiver = [HERE / "archiver.py", data, subject.push(data), subject.resident(data)]
    numbers = bench.measured(*archiver)
    time.sleep(0.2)
    requests, stored = bench.store.counted(), bench.store.stored(subject.kept("wal"))
    client = bench.measured(*archiver, CLIENTS)
    shutil.rmtree(data.parent)
    gigabytes = numbers["files"] * 16 / 1024
    return {"segments/s": numbers["files"] / numbers["seconds"], "CPU s/GB": numbers["cpu"] / gigabytes, "segments/CPU s": numbers["files"] / numbers["cpu"],
            "requests/segment": sum(requests.values()) / numbers["files"], "stored MB/GB": stored / 1e6 / gigabytes, "median ms": numbers["median"] * 1000, "client ms": client["median"] * 1000, "MB": numbers["rss"] / 1024}


def fetch(bench, subject):
    """F1: asks for all WAL that `push` archived, as a server does that needs REPLAY_MS for each segment."""
    data = copy_for_wal(bench.postgres, bench.own_place("wal") / "data")
    for folder in (data / "pg_wal", data / "pg_wal/archive_status"):
        for path in (path for path in folder.iterdir() if path.is_file()):
            path.unlink()
    wanted = data / "wanted"
    wanted.write_text("\n".join(archived(bench.postgres)))
    found = {}
    for replay_ms in REPLAY_MS:
        numbers = bench.measured(HERE / "startup.py", data, subject.fetch(data), subject.resident(data), replay_ms, wanted)
        found |= {f"segments/s at {replay_ms} ms": numbers["files"] / numbers["seconds"], f"median wait at {replay_ms} ms": numbers["median"] * 1000, f"worst wait at {replay_ms} ms": numbers["worst"] * 1000}
    shutil.rmtree(data.parent)
    return found


def replay(bench, subject):
    """F2: a real server recovers from a cold copy and all WAL that `push` archived; before it the same with all of that WAL in `pg_wal`. On both cores."""
    seconds = {}
    for way in ("local", "archive"):
        server = Postgres(bench.own_place("server"), bench.bin_dir)
        shutil.copytree(bench.cold, server.data)
        if way == "local":
            for name in archived(bench.postgres):
                shutil.copy(bench.postgres.data / "pg_wal" / name, server.data / "pg_wal" / name)
        else:
            for segment in (path for path in (server.data / "pg_wal").iterdir() if path.is_file()):
                segment.unlink()
        for path in [server.data, *server.data.rglob("*")]:
            bench.postgres.own(path)
        command, resident = ("false", "") if way == "local" else (subject.fetch(server.data), subject.resident(server.data))
        seconds[way] = recovered(bench, server, command, resident)
        server.away()
    return {"seconds": seconds["archive"], "local seconds": seconds["local"], "ratio": seconds["archive"] / seconds["local"]}


def archived(postgres):
    """The segments that waited for archiving."""
    return sorted(path.name.removesuffix(".ready") for path in (postgres.data / "pg_wal/archive_status").glob("*.ready"))


def recovered(bench, server, command, resident):
    """Seconds until a server on this directory has replayed all there is and takes writes."""
    (server.data / "recovery.signal").touch()
    bench.postgres.own(server.data / "recovery.signal")
    quoted = command.replace("'", "''")
    (server.data / "postgresql.auto.conf").write_text(f"restore_command = '{quoted}'\narchive_mode = off\nport = {server.port}\nunix_socket_directories = '{server.directory}'\n")
    service = subprocess.Popen(shlex.split(resident), stdin=subprocess.DEVNULL, env=bench.environment(), **server.account.popen_arguments()) if resident else None
    time.sleep(1)
    began = time.monotonic()
    server.start(pinned=False, env=bench.environment())
    wait_until("the server has recovered", 600, lambda: server.sql("select pg_is_in_recovery()") == "f")
    took = time.monotonic() - began
    server.stop()
    if service:
        service.terminate()
        service.wait(60)
    return took


def full(bench, subject):
    """B1, B2: a full backup of the running server."""
    subject.full = backup(bench, subject, True)
    return subject.full


def backup(bench, subject, full):
    """A backup, and the bytes by which it makes the store's backups grow."""
    before = bench.store.stored(subject.kept("backup"))
    numbers = bench.metered(subject.backup(bench.postgres, full))
    return {**summary(bench, numbers), "stored MB": (bench.store.stored(subject.kept("backup")) - before) / 1e6}


def incremental(bench, subject):
    """I1: another one after few pages have changed, and which part of the full one's costs it has."""
    bench.postgres.touch(0.01)
    part = backup(bench, subject, False)
    return {**part, **{f"{key} of a full": part[key] / subject.full[key] for key in ("seconds", "CPU s", "stored MB")}}


def restore(bench, subject):
    """R1: back into an empty directory; counted only when the server that is started on it has the same rows."""
    to = bench.own_place("restored") / "data"
    to.mkdir(mode=0o700)
    bench.postgres.own(to)
    numbers = bench.metered(subject.restore(to, bench.bin_dir))
    subject.complete(to)
    wanted = bench.postgres.digest()
    server = opened(to, bench.own_place("server"), bench.bin_dir, bench.environment())
    found = server.digest()
    server.stop()
    shutil.rmtree(to.parent)
    if found != wanted:
        raise Failed(f"'{subject.name}' restored other rows: {found} instead of {wanted}")
    return summary(bench, numbers)


def summary(bench, numbers):
    return {"seconds": numbers["seconds"], "MB/s": bench.postgres.size() / 1e6 / numbers["seconds"], "CPU s": numbers["cpu"], "MB": numbers["rss"] / 1024, "requests": numbers["requests"]}
