"""The measurements. Each returns a dictionary of numbers for one tool, or raises Failed with what the tool said."""
import json
import os
import shutil
import sys
import time
from pathlib import Path

from failover.machine import Failed

from .postgres import copy_for_wal, opened
from .store import TOOL_CORE

HERE = Path(__file__).parent


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

    def run(self, *command, **more):
        environment = {**os.environ, **self.store.environment(), "PATH": f"{self.bin_dir}:{os.environ['PATH']}"}
        done = self.postgres.run("taskset", "-c", TOOL_CORE, *command, check=False, env=environment, **more)
        if self.keep_output and done.stderr:
            print(done.stderr, file=sys.stderr)
        if done.returncode:
            raise Failed(f"'{' '.join(map(str, command[:4]))} …' ended with {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
        return done.stdout

    def metered(self, command):
        """Runs a tool's command; its numbers, with the requests it made."""
        self.store.counted()
        numbers = json.loads(self.run(sys.executable if os.access(sys.executable, os.X_OK) and not sys.executable.startswith("/root") else "/usr/bin/python3", HERE / "meter.py", *command).splitlines()[-1])
        time.sleep(0.2)
        if numbers["status"]:
            raise Failed(f"'{' '.join(map(str, command[:4]))} …' ended with {numbers['status']}")
        return {**numbers, "requests": sum(self.store.counted().values())}

    def prepare(self, subject):
        for command in subject.prepare(self.postgres, self.bin_dir):
            self.run(*command)

    def use_archive(self, subject):
        """From here on the running server archives with this tool. What waits from before is none of its business."""
        self.postgres.stop()
        for waiting in (self.postgres.data / "pg_wal/archive_status").iterdir():
            waiting.unlink()
        environment = " ".join(f"{key}={value}" for key, value in self.store.environment().items())
        command = f"env PATH={self.bin_dir}:$PATH {environment} {subject.archive_command(self.postgres.data)}"
        quoted = command.replace("'", "''")
        (self.postgres.data / "postgresql.auto.conf").write_text(f"archive_command = '{quoted}'\n")
        self.postgres.start()


def push(bench, subject):
    """W1, W3, W4: archives all WAL that waits, as PostgreSQL's archiver would ask for it."""
    bench.prepare(subject)
    data = copy_for_wal(bench.postgres, bench.place("wal"))
    bench.store.counted()
    numbers = json.loads(bench.run("/usr/bin/python3", HERE / "archiver.py", data, subject.push(data), subject.resident(data)).splitlines()[-1])
    time.sleep(0.2)
    requests = bench.store.counted()
    shutil.rmtree(data)
    gigabytes = numbers["files"] * 16 / 1024
    return {"segments/s": numbers["files"] / numbers["seconds"], "CPU s/GB": numbers["cpu"] / gigabytes, "segments/CPU s": numbers["files"] / numbers["cpu"],
            "requests/segment": sum(requests.values()) / numbers["files"], "median ms": numbers["median"] * 1000, "MB": numbers["rss"] / 1024}


def full(bench, subject):
    """B1, B2: a full backup of the running server."""
    numbers = bench.metered(subject.backup(bench.postgres, True))
    return summary(bench, numbers)


def incremental(bench, subject):
    """I1: another one after few pages have changed."""
    bench.postgres.touch(0.01)
    return summary(bench, bench.metered(subject.backup(bench.postgres, False)))


def restore(bench, subject):
    """R1: back into an empty directory; counted only when the server that is started on it has the same rows."""
    to = bench.own_place("restored")
    numbers = bench.metered(subject.restore(to, bench.bin_dir))
    wanted = bench.postgres.digest()
    home = bench.own_place("server")
    server = opened(to, home, bench.bin_dir)
    found = server.digest()
    server.stop()
    shutil.rmtree(to)
    if found != wanted:
        raise Failed(f"'{subject.name}' restored other rows: {found} instead of {wanted}")
    return summary(bench, numbers)


def summary(bench, numbers):
    return {"seconds": numbers["seconds"], "MB/s": bench.postgres.size() / 1e6 / numbers["seconds"], "CPU s": numbers["cpu"], "MB": numbers["rss"] / 1024, "requests": numbers["requests"]}
