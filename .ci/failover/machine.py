"""This machine: the user PostgreSQL runs as, free ports, and processes by the directory they work in."""
import os
import pwd
import signal
import socket
import time
from pathlib import Path


class Failed(Exception):
    """Something could not be measured; the text says what and what to do."""


class Account:
    """Who PostgreSQL and the agents run as: the user 'postgres' when we are root, else whoever we are."""

    def __init__(self):
        try:
            entry = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        except KeyError:
            raise Failed("PostgreSQL does not run as root, and there is no user 'postgres'; hint: make setup") from None
        self.uid, self.gid = entry.pw_uid, entry.pw_gid

    def own(self, path):
        os.chown(path, self.uid, self.gid)

    def popen_arguments(self):
        """For subprocess: run as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if os.geteuid() == 0 else {}


_taken = set()


def free_port():
    """A port below those that clients' own ends take: between our asking and the server's binding nobody gets it by chance."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    span = range(12000, lowest if lowest > 12500 else 30000)
    for offset in range(len(span)):
        port = span[(os.getpid() * 97 + offset) % len(span)]
        if port in _taken:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _taken.add(port)
        return port
    raise Failed("no port on 127.0.0.1 is free")


def working_in(directory):
    """Ids of the processes whose working directory is `directory` or below: nobody else's can be, the directory is ours."""
    inside, found = str(directory).rstrip("/"), []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        if is_in(int(entry), inside):
            found.append(int(entry))
    return sorted(found)


def is_in(pid, inside):
    try:
        at = os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")
    except PermissionError:
        # An agent lets nobody but root look into it; that its configuration lies there everybody may see.
        return f"{inside}/".encode() in read_or_nothing(f"/proc/{pid}/cmdline")
    except OSError:
        return False
    return at == inside or at.startswith(inside + "/")


def read_or_nothing(path):
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def program(pid):
    """The name of the process as the kernel has it; '' for one that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    name, rest = stat[stat.index("(") + 1:].rsplit(")", 1)
    return "" if rest.split()[0] == "Z" else name


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_at_once(pids):
    """As a power cut does: nobody has time to react to another's death."""
    send(pids, signal.SIGSTOP)
    send(pids, signal.SIGKILL)


def kill_all_in(directory):
    """Ends every process that works in `directory`; those that a dying one starts as well."""
    until = time.monotonic() + 20
    while pids := [pid for pid in working_in(directory) if program(pid)]:
        kill_at_once(pids)
        if time.monotonic() > until:
            raise Failed(f"these processes in '{directory}' cannot be killed: {pids}")
        time.sleep(0.05)


def memory(pids):
    """Resident size in MB, all of them together: as `ps` adds it up, and with shared pages counted once (None where only root may know)."""
    resident = sum(kilobytes(f"/proc/{pid}/status", "VmRSS") for pid in pids)
    try:
        shared_once = sum(kilobytes(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids)
    except PermissionError:
        return resident / 1024, None
    return resident / 1024, shared_once / 1024


def kilobytes(path, key):
    return next(int(line.split()[1]) for line in Path(path).read_text().splitlines() if line.startswith(key + ":"))


def cpu_seconds(pids):
    """Time that they have computed so far, all of them together."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_until(what, limit, ready, pause=0.1):
    """The first true answer of `ready`."""
    until = time.monotonic() + limit
    while True:
        if answer := ready():
            return answer
        if time.monotonic() > until:
            raise Failed(f"waited {limit:.0f} s until {what}")
        time.sleep(pause)
