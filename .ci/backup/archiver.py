"""Does what PostgreSQL's archiver does, and measures it: `archiver.py DATA_DIR COMMAND RESIDENT [AGAIN]`, in DATA_DIR.

One file at a time, oldest first, through `sh -c`; `.ready` becomes `.done`. A command that fails is asked again after a second. A resident
process, if RESIDENT is not empty, is started before and ended after; its time counts, and so does that of whatever a command leaves running: this
process adopts it. AGAIN is how many times the last file is then archived once more, without a shell.
Prints one JSON object.
"""
import ctypes
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def usage():
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def reap():
    """Waits for whatever was left running, so that its time is known."""
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass


def adopt():
    """From here on whatever our children leave running is ours."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def named(command, name):
    return command.replace("%p", f"pg_wal/{name}").replace("%f", name)


def once_more(line):
    """Seconds of the whole process for a file that is durable."""
    began = time.monotonic()
    if status := subprocess.run(shlex.split(line), stdin=subprocess.DEVNULL).returncode:
        sys.exit(f"'{line}' ended with {status}, though its file is archived")
    return time.monotonic() - began


def main(data, command, resident, again):
    adopt()
    os.chdir(data)
    server = subprocess.Popen(shlex.split(resident), stdin=subprocess.DEVNULL) if resident else None
    if server:
        time.sleep(1)
    waiting = sorted(path.name.removesuffix(".ready") for path in Path("pg_wal/archive_status").glob("*.ready"))
    began, took, failures = time.monotonic(), [], 0
    for name in waiting:
        line = named(command, name)
        while True:
            asked = time.monotonic()
            if subprocess.run(["sh", "-c", line], stdin=subprocess.DEVNULL).returncode == 0:
                break
            failures += 1
            if failures > 50:
                sys.exit(f"'{line}' failed {failures} times")
            time.sleep(1)
        took.append(time.monotonic() - asked)
        os.rename(f"pg_wal/archive_status/{name}.ready", f"pg_wal/archive_status/{name}.done")
    wall = time.monotonic() - began
    if again:
        last = max(path.name.removesuffix(".done") for path in Path("pg_wal/archive_status").glob("*.done"))
        took = [once_more(named(command, last)) for _ in range(again)]
    if server:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    reap()
    took.sort()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"files": len(waiting), "seconds": wall, "cpu": usage(), "median": took[len(took) // 2], "worst": took[-1], "failures": failures, "rss": largest}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 0)
