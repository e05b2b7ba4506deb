"""The door of the control plane: who comes in is known, what they ask for is recorded, and what is to go wrong goes wrong here."""
import io
import socket
import sys
import time
import traceback

from . import callers
from .calls import identify
from .faults import THROTTLING


class Front:
    """A WSGI application before moto's. `enforce` says whether policies are."""

    def __init__(self, cloud, recorder, faults, enforce):
        self.cloud, self.recorder, self.faults, self.enforce = cloud, recorder, faults, enforce
        self._answers = {}

    def __call__(self, environ, start_response):
        began = time.monotonic()
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        renew = lambda: environ.update({"wsgi.input": io.BytesIO(body)})  # noqa: E731
        renew()
        call = identify(environ)
        renew()
        fault = None
        try:
            callers.authenticate(self.cloud, call, environ["REQUEST_METHOD"], environ.get("RAW_URI") or environ["PATH_INFO"], headers_of(environ), body, self.enforce)
            fault = self.faults.take(call)
            if fault and fault.kind == "delay":
                time.sleep(fault.seconds)
            if fault and fault.kind == "reset":
                self.recorder.write(call, 0, "reset", began, fault.kind)
                return reset(environ)
            status, headers, content = self._failure(call, fault) or self._answer(call, environ)
        except callers.Denied as denied:
            status, headers, content = call.error(denied.code, str(denied), denied.status)
        code = code_of(content) if status >= 400 else None
        self.recorder.write(call, status, code, began, fault and fault.kind)
        if fault and fault.kind == "reset-after":
            return reset(environ)
        content = content.encode() if isinstance(content, str) else content
        headers = {name: value for name, value in headers.items() if name.lower() not in ("content-length", "status")}
        start_response(f"{status} {'OK' if status < 400 else 'Failed'}", [*((name, str(value)) for name, value in headers.items()), ("Content-Length", str(len(content)))])
        return [content]

    @staticmethod
    def _failure(call, fault):
        if fault and fault.kind == "error":
            return call.error(fault.code, fault.message, fault.status)
        if fault and fault.kind == "throttle":
            default = ("ThrottlingException" if "json" in call.protocol else "Throttling", 400)
            code, status = THROTTLING.get(call.service, default)
            return call.error(code, "Rate exceeded", status)
        return None

    def _answer(self, call, environ):
        if call.operation is None:
            return call.error("InvalidAction", f"no action '{call.action}' of the service '{call.service}' is known: {call.parameters}")
        if call.service == "s3":
            return call.error("InvalidRequest", "S3 has an address of its own in the emulated region; hint: AWS_ENDPOINT_URL_S3")
        # A token that was seen: nothing is done again, and nothing else under its name.
        token = call.parameters.get("ClientToken") if call.service in ("ec2", "autoscaling") else None
        with self.cloud.lock:
            known = self._answers.get((call.action, token)) if token else None
            if known:
                return known[1] if known[0] == call.parameters else call.error("IdempotentParameterMismatch", f"The client token '{token}' was used with other parameters")
            answer = self._ask(call, environ)
            if token and answer[0] < 400:
                self._answers[call.action, token] = (call.parameters, answer)
            return answer

    def _ask(self, call, environ):
        found = {}

        def start_response(status, headers, *_):
            found.update(status=int(status.split()[0]), headers=dict(headers))
            return lambda _: None
        try:
            content = b"".join(self.cloud(environ, start_response))
        except NotImplementedError as error:
            print(f"{call.service}:{call.action}: {error}", file=sys.stderr, flush=True)
            return call.error("UnsupportedOperation", f"the emulated region does not know {call.service}:{call.action}: {error}")
        except Exception:  # a mistake of moto's or ours must look like one, and be seen
            traceback.print_exc(file=sys.stderr)
            return call.error("InternalFailure", f"the emulated region failed in {call.service}:{call.action}; its error output says why", 500)
        return found["status"], found["headers"], content


def headers_of(environ):
    """By their names as HTTP has them."""
    found = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    return found | {name.replace("_", "-").lower(): environ[name] for name in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(name)}


def reset(environ):
    """The connection ends without an answer."""
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("made to break")


def code_of(content):
    """The error's code as the answer has it."""
    text = content.decode(errors="replace") if isinstance(content, bytes) else content
    for begin, end in (("<Code>", "</Code>"), ('"__type": "', '"'), ('"__type":"', '"'), ('"code": "', '"')):
        if begin in text:
            return text.partition(begin)[2].partition(end)[0].rpartition("#")[2]
    return text[:60]
