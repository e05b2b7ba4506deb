"""The PostgreSQL whose data and WAL every tool gets: filled once, then stopped, copied and started as a measurement needs it."""
import os
import shutil
import subprocess
from pathlib import Path

from failover.machine import Account, free_port, kill_all_in, wait_until

from .store import TOOL_CORE


class Postgres:
    """One data directory, and the server on it."""

    def __init__(self, directory, bin_dir):
        self.directory, self.bin, self.account, self.port = Path(directory), Path(bin_dir), Account(), free_port()
        self.touched = 0
        self.data = self.directory / "data"

    def own(self, path):
        self.account.own(path)
        return path

    def run(self, *command, check=True, **more):
        """As the user that PostgreSQL runs as."""
        return subprocess.run(list(map(str, command)), cwd=self.directory, check=check, capture_output=True, text=True, **self.account.popen_arguments(), **more)

    def init(self):
        self.directory.mkdir()
        self.own(self.directory)
        self.run(self.bin / "initdb", "-D", self.data, "-U", "postgres", "--data-checksums", "--no-sync", "--auth=trust")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(f"port={self.port}\nlisten_addresses=''\nunix_socket_directories='{self.directory}'\nshared_buffers=512MB\nmax_wal_size=20GB\n"
                       "checkpoint_timeout=1h\nwal_level=replica\nautovacuum=off\nsynchronous_commit=off\nfsync=off\narchive_mode=on\narchive_command='false'\nwal_compression=off\n")

    def start(self, *options, pinned=True, **more):
        self.run(self.bin / "pg_ctl", "-D", self.data, "-w", "-t", "600", "-l", self.directory / "server.log", "-o", " ".join(options) or "-c client_min_messages=notice", "start", **more)
        for entry in (self.data / "postmaster.pid").read_text().splitlines()[:1 if pinned else 0]:
            subprocess.run(["taskset", "-apc", TOOL_CORE, entry], check=True, capture_output=True)

    def stop(self):
        self.run(self.bin / "pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop", check=False)

    def sql(self, statement):
        done = self.run(self.bin / "psql", "-h", self.directory, "-p", self.port, "-U", "postgres", "-d", "postgres", "-XAtc", statement)
        return done.stdout.strip()

    def fill(self, scale, small_tables):
        """About 15 MB a unit of scale, and many small files."""
        self.run(self.bin / "pgbench", "-h", self.directory, "-p", self.port, "-U", "postgres", "-i", "-I", "dtGp", "-q", "-F", 90, "-s", scale, "postgres")
        for first in range(0, small_tables, 1000):
            last = min(first + 1000, small_tables)
            self.sql(f"do $$ begin for i in {first}..{last - 1} loop execute format('create table small_%s as select i as id, repeat(''x'', 100) as text from generate_series(1, 20) i', i); end loop; end $$")
        self.sql("checkpoint")

    def touch(self, share):
        """Changes a row in this share of the pages of the largest table, spread evenly, and other ones each time; there is room for it in the page, so
        that no other page and no index changes."""
        self.touched += 1
        rows = int(self.sql("select round(reltuples / relpages) from pg_class where relname = 'pgbench_accounts'"))
        self.sql(f"update pgbench_accounts set abalance = abalance + 1 where aid % {round(rows / share)} = {self.touched * rows}")
        self.sql("checkpoint")

    def make_wal(self, segments):
        """Real WAL of pgbench until so many segments wait for archiving; they are left waiting."""
        waiting = self.data / "pg_wal/archive_status"
        while len(list(waiting.glob("*.ready"))) < segments:
            self.run(self.bin / "pgbench", "-h", self.directory, "-p", self.port, "-U", "postgres", "-n", "-c", 4, "-T", 5, "postgres")
            self.sql("select pg_switch_wal()")
            self.sql("checkpoint")

    def digest(self):
        """Of all rows of the largest table."""
        return self.sql("select count(*), sum(hashtext(aid::text || ':' || abalance::text)::bigint) from pgbench_accounts")

    def size(self):
        return sum(path.stat().st_size for path in self.data.rglob("*") if path.is_file() and "pg_wal" not in path.parts)

    def away(self):
        kill_all_in(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)


def opened(data, directory, bin_dir, environment):
    """The server on a restored directory, once it has recovered and takes writes."""
    server = Postgres(directory, bin_dir)
    server.data = Path(data)
    server.start(f"-c port={server.port}", f"-c unix_socket_directories={server.directory}", "-c archive_mode=off", env=environment)
    wait_until("the restored server has recovered", 600, lambda: server.sql("select pg_is_in_recovery()") == "f")
    return server


def copy_for_wal(postgres, to):
    """As much of a data directory as a tool needs to archive the WAL in it."""
    to = Path(to)
    for part in ("global", "pg_wal/archive_status"):
        (to / part).mkdir(parents=True)
    for name in ("PG_VERSION", "global/pg_control", "postgresql.conf"):
        shutil.copy(postgres.data / name, to / name)
    for segment in (postgres.data / "pg_wal").iterdir():
        if segment.is_file():
            os.link(segment, to / "pg_wal" / segment.name)
    for ready in (postgres.data / "pg_wal/archive_status").iterdir():
        shutil.copy(ready, to / "pg_wal/archive_status" / ready.name)
    for path in [to, *to.rglob("*")]:
        postgres.own(path)
    return to
