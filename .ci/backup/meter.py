"""Runs one command and prints what it took: `meter.py COMMAND …`: seconds, seconds of computing (of all that it started), the most memory that all
of its processes had at once (anonymous pages, so that a page cache that is mapped does not count), its exit status. One JSON object on the last line.
"""
import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def anonymous(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        own = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")), 0)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return own + sum(anonymous(child) for child in children)


def main(command):
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    most, over = [0], threading.Event()

    def watch():
        while not over.wait(0.03):
            most[0] = max(most[0], anonymous(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = child.wait()
    wall = time.monotonic() - began
    over.set()
    watcher.join()
    try:
        while True:
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"status": status, "seconds": wall, "cpu": spent.ru_utime + spent.ru_stime, "rss": most[0]}))


if __name__ == "__main__":
    main(sys.argv[1:])
