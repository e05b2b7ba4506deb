"""Asks for WAL as PostgreSQL's startup process does, and measures it: `startup.py DATA_DIR COMMAND RESIDENT REPLAY_MS NAMES`, in DATA_DIR.

One file after the other, through `sh -c`; each is then "replayed" for so long and removed. NAMES is a file with their names, one a line. A resident
process, if RESIDENT is not empty, is started before and ended after. Prints one JSON object.
"""
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from archiver import adopt, reap, usage

# Whoever fetches ahead knows after so many files that it is worth it; what they take is not counted as waiting.
FIRST = 2


def main(data, command, resident, replay, names):
    adopt()
    os.chdir(data)
    wanted = Path(names).read_text().split()
    server = subprocess.Popen(shlex.split(resident), stdin=subprocess.DEVNULL) if resident else None
    if server:
        time.sleep(1)
    place, waits = Path("pg_wal/RECOVERYXLOG"), []
    began = time.monotonic()
    for name in wanted:
        asked = time.monotonic()
        done = subprocess.run(["sh", "-c", command.replace("%p", str(place)).replace("%f", name)], stdin=subprocess.DEVNULL)
        if done.returncode or place.stat().st_size != 16 << 20:
            sys.exit(f"'{name}' was not restored: exit {done.returncode}")
        waits.append(time.monotonic() - asked)
        time.sleep(replay)
        place.unlink()
    wall = time.monotonic() - began
    if server:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    reap()
    later = sorted(waits[FIRST:])
    print(json.dumps({"files": len(wanted), "seconds": wall, "cpu": usage(), "median": later[len(later) // 2], "worst": later[-1], "waited": sum(later)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]) / 1000, sys.argv[5])
