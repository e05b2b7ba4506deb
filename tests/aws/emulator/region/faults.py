"""What goes wrong on demand: with which request, how, how often."""
import threading
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase

from .host import Refused

# What SDKs take for throttling, by service.
THROTTLING = {"ec2": ("RequestLimitExceeded", 503), "s3": ("SlowDown", 503)}
THROTTLING |= dict.fromkeys(("autoscaling", "cloudwatch", "elbv2", "iam", "route53", "sts"), ("Throttling", 400))
KINDS = ("error", "throttle", "reset", "reset-after", "delay")


@dataclass
class Fault:
    """`service`, `action` and `caller` are patterns as of file names. Of the requests that match, the first `skip` pass, the next `times` are hit
    (0: all further ones). `reset` breaks the connection before anything is done, `reset-after` when it was done but before it is said;
    `error` answers `code`, `message` and `status`; `delay` waits `seconds` and goes on. `changes_only` spares requests that only read."""
    service: str = "*"
    action: str = "*"
    caller: str = "*"
    kind: str = "error"
    code: str = "InternalFailure"
    message: str = "made to fail"
    status: int = 500
    skip: int = 0
    times: int = 1
    seconds: float = 0
    changes_only: bool = False
    number: int = 0
    seen: int = 0
    hit: int = field(default=0)

    def matches(self, call):
        is_meant = fnmatchcase(call.service, self.service) and fnmatchcase(call.action, self.action) and fnmatchcase(call.caller or "", self.caller)
        return is_meant and not (self.changes_only and call.is_read)


class Faults:
    def __init__(self):
        self._lock, self._faults, self._numbers = threading.Lock(), [], 0

    def add(self, words):
        known = {one.name for one in fields(Fault)} - {"number", "seen", "hit"}
        if unknown := words.keys() - known:
            raise Refused(f"a fault has no '{min(unknown)}'; it may have: {', '.join(sorted(known))}")
        if words.get("kind", "error") not in KINDS:
            raise Refused(f"there is no kind '{words['kind']}'; there are: {', '.join(KINDS)}")
        with self._lock:
            self._numbers += 1
            made = Fault(**words, number=self._numbers)
            self._faults.append(made)
            return made

    def remove(self, number=None):
        """One of them, or all."""
        with self._lock:
            self._faults = [fault for fault in self._faults if number is not None and fault.number != number]

    def list(self):
        with self._lock:
            return [vars(fault).copy() for fault in self._faults]

    def take(self, call):
        """The fault that hits this call; None for most. Each that matches counts it."""
        chosen = None
        with self._lock:
            for fault in self._faults:
                if fault.matches(call):
                    fault.seen += 1
                    if chosen is None and fault.seen > fault.skip and (not fault.times or fault.hit < fault.times):
                        fault.hit += 1
                        chosen = fault
        return chosen
