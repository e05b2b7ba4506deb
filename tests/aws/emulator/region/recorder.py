"""Every request to the region, one line of JSON each, with what its service's model says against it."""
import json
import threading
import time
from datetime import datetime

from . import model_check


class Recorder:
    def __init__(self, path):
        self.path = path
        self._file = path.open("a")
        path.chmod(0o600)
        self._lock, self._entries = threading.Lock(), []

    def write(self, call, status, code, began, fault=None):
        try:
            against = model_check.problems(call.service, call.action, call.parameters) if call.operation is not None and call.service != "s3" else []
        except (KeyError, TypeError, AttributeError) as error:
            against = [f"cannot be checked: {error!r}"]
        if call.operation is None:
            against = [f"no action of the service '{call.service}'"]
        entry = {"time": datetime.now().isoformat(timespec="milliseconds"), "service": call.service, "action": call.action, "caller": call.caller, "status": status, "code": code,
                 "ms": round(1000 * (time.monotonic() - began), 1), "fault": fault, "problems": against, "parameters": call.parameters}
        with self._lock:
            entry["number"] = len(self._entries) + 1
            self._entries.append(entry)
            self._file.write(json.dumps(entry, default=as_text) + "\n")
            self._file.flush()

    def entries(self, since=0):
        with self._lock:
            return json.loads(json.dumps(self._entries[since:], default=as_text))


def as_text(value):
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
