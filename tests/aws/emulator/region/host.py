"""This machine: ports that are free, directories and locks of runs."""
import fcntl
import os
import re
import socket
import tempfile
import time
from pathlib import Path


class Refused(Exception):
    """Something that cannot be done; the text says what, and what to do."""


_taken = set()


def free_port(*addresses):
    """A port that is free on all of the addresses, below those that the kernel gives to outgoing connections: nobody gets it by chance
    between our asking and the server's binding."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    span = range(10000, lowest if lowest > 12500 else 30000)
    for offset in range(len(span)):
        port = span[(os.getpid() * 97 + offset) % len(span)]
        if port not in _taken and all(_is_free(address, port) for address in addresses or ("127.0.0.1",)):
            _taken.add(port)
            return port
    raise Refused("no port is free below those of outgoing connections")


def _is_free(address, port):
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def wait_until(what, limit, ready, pause=0.1):
    """The first true answer of `ready`, asked for at most `limit` seconds."""
    until = time.monotonic() + limit
    while True:
        if answer := ready():
            return answer
        if time.monotonic() > until:
            raise Refused(f"waited {limit:.0f} s until {what}")
        time.sleep(pause)


def directory_of(run):
    """Where a run keeps its sockets and files: the paths of sockets must be short."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,23}", run):
        raise Refused(f"'{run}' cannot name a run; hint: at most 24 of a-z, 0-9 and -")
    return Path(tempfile.gettempdir()) / f"region-{os.geteuid()}-{run}"


class Lock:
    """Held for as long as the process lives: the kernel gives it up, however it ends."""

    def __init__(self, run):
        directory = directory_of(run)
        directory.mkdir(mode=0o700, exist_ok=True)
        self.file = (directory / "lock").open("a+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.seek(0)
            raise Refused(f"the run '{run}' is at work, as process {self.file.read().strip() or '?'}; hint: end that one with SIGTERM, it cleans up") from None
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()
