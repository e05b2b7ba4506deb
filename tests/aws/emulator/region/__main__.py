"""An AWS region on this machine.  python -m region --run ID | --clean ID

Prints one line of JSON when everything is ready: where it is reached, and with which key. Ends with SIGTERM, and removes all that it made."""
import argparse
import os
import signal
import sys
import threading

from . import cleanup
from .docker import EngineError
from .host import Lock, Refused


def arguments():
    words = argparse.ArgumentParser(prog="python -m region", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = words.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", metavar="ID", help="start a region of this name; everything it makes is labelled with it")
    what.add_argument("--clean", metavar="ID", help="remove what a region of this name left, whose process was killed")
    words.add_argument("--region", default="eu-central-1", help="the region's name (%(default)s)")
    words.add_argument("--while-stdin", action="store_true", help="end, too, when the standard input does: with whoever holds its other end")
    words.add_argument("--boot-delay", type=float, default=0, metavar="S", help="how long a machine boots before its user data runs (%(default)s s)")
    words.add_argument("--detect", type=float, default=1, metavar="S", help="how long Auto Scaling takes to see that an instance is gone (%(default)s s)")
    words.add_argument("--iam-lag", type=float, default=0, metavar="S", help="how long EC2 does not know a new instance profile (%(default)s s)")
    words.add_argument("--enforce-policies", action="store_true", help="refuse what the policies of users and roles do not allow")
    return words.parse_args()


def wait_for_end_of_input(ended):
    # Not by Python's own buffer: its lock would still be held when we end.
    while os.read(0, 4096):
        pass
    ended.set()


def main():
    options = arguments()
    if options.clean:
        # Held while we clean: nobody starts one of the name meanwhile.
        held = Lock(options.clean)
        print(f"removed {cleanup.clean(options.clean)} objects of the run '{options.clean}'", file=sys.stderr)
        return 0 if held else 1
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ended.set())
    if options.while_stdin:
        threading.Thread(target=wait_for_end_of_input, args=(ended,), daemon=True).start()
    # Importing moto takes a second: bad words are refused before.
    from .world import World
    world = World(options)
    try:
        world.start()
        world.announce()
        ended.wait()
    finally:
        world.close()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Refused, EngineError) as error:
        sys.exit(f"error: {error}")
