"""The Docker engine of this machine, over its socket."""
import http.client
import json
import os
import socket
import threading
from urllib.parse import quote, urlencode

SOCKET = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class EngineError(Exception):
    """The engine's refusal, in its own words; `status` is HTTP's."""

    def __init__(self, doing, status, message):
        super().__init__(f"cannot {doing}: {message}")
        self.status, self.message = status, message


class Connection(http.client.HTTPConnection):
    """HTTP over a socket of the file system."""

    def __init__(self, path=SOCKET, timeout=120):
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(method, path, body=None, doing=None, accept=(), timeout=120, **query):
    """The engine's answer: parsed where it is JSON. A status in `accept` is none of an error; the answer is None then."""
    connection = Connection(timeout=timeout)
    try:
        if query:
            path += "?" + urlencode({key: value if isinstance(value, str) else json.dumps(value) for key, value in query.items()})
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"} if data is not None else {})
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status in accept:
        return None
    if answer.status >= 400:
        raise EngineError(doing or f"{method} {path}", answer.status, message_of(content))
    return json.loads(content) if answer.getheader("Content-Type", "").startswith("application/json") and content else content


def message_of(content):
    try:
        return json.loads(content)["message"]
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace").strip()


def create(name, definition):
    """Makes a container and returns its id."""
    return ask("POST", "/containers/create", definition, f"create container '{name}'", name=name)["Id"]


def start(container):
    ask("POST", f"/containers/{container}/start", doing=f"start container '{container}'", accept=(304,))


def inspect(container):
    """What the engine knows of it; None where there is none."""
    return ask("GET", f"/containers/{container}/json", doing=f"inspect container '{container}'", accept=(404,))


def remove(container):
    """It is gone, with what it wrote. One that another removes at the moment (409) is as good as gone."""
    ask("DELETE", f"/containers/{container}", doing=f"remove container '{container}'", accept=(404, 409), force=True, v=True)


def signal(container, name="SIGKILL"):
    ask("POST", f"/containers/{container}/kill", doing=f"send {name} to container '{container}'", accept=(404, 409), signal=name)


def stop(container, seconds):
    ask("POST", f"/containers/{container}/stop", doing=f"stop container '{container}'", accept=(304, 404), t=seconds)


def pause(container):
    ask("POST", f"/containers/{container}/pause", doing=f"pause container '{container}'", accept=(409,))


def unpause(container):
    ask("POST", f"/containers/{container}/unpause", doing=f"unpause container '{container}'", accept=(404, 409))


def containers(*labels):
    return ask("GET", "/containers/json", all=True, filters={"label": list(labels)})


def volumes(*labels):
    return ask("GET", "/volumes", filters={"label": list(labels)})["Volumes"] or []


def networks(*labels):
    return ask("GET", "/networks", filters={"label": list(labels)})


def create_volume(name, labels):
    ask("POST", "/volumes/create", {"Name": name, "Labels": labels}, f"create volume '{name}'")


def remove_volume(name):
    ask("DELETE", f"/volumes/{name}", doing=f"remove volume '{name}'", accept=(404,), force=True)


def has_image(name):
    return ask("GET", f"/images/{quote(name)}/json", accept=(404,)) is not None


def run_inside(container, *argv, user=""):
    """Runs a program in the container, to its end: its exit code and what it wrote, both streams together."""
    made = ask("POST", f"/containers/{container}/exec", {"AttachStdout": True, "AttachStderr": True, "Tty": True, "Cmd": list(argv), "User": user},
               f"run '{argv[0]}' in container '{container}'")
    written = ask("POST", f"/exec/{made['Id']}/start", {"Detach": False, "Tty": True}, f"run '{argv[0]}' in container '{container}'")
    written = written if isinstance(written, bytes) else json.dumps(written).encode()
    return ask("GET", f"/exec/{made['Id']}/json")["ExitCode"], written.decode(errors="replace").replace("\r\n", "\n")


def logs(container):
    """What it wrote so far, both streams as they came."""
    raw, text = ask("GET", f"/containers/{container}/logs", doing=f"read what container '{container}' wrote", stdout=True, stderr=True), b""
    # Without a terminal each piece has a head of eight bytes, of which the last four are its length.
    while raw:
        length = int.from_bytes(raw[4:8], "big")
        text, raw = text + raw[8:8 + length], raw[8 + length:]
    return text.decode(errors="replace")


class Events:
    """What happens to containers of one label, told to `hear(action, attributes)` from a thread of its own, until it is closed."""

    def __init__(self, label, hear):
        self.label, self.hear, self.closed = label, hear, False
        self.connection = self._connect()
        threading.Thread(target=self._listen, name="events", daemon=True).start()

    def _connect(self):
        connection = Connection(timeout=None)
        connection.connect()
        self.sock = connection.sock
        connection.request("GET", "/events?" + urlencode({"filters": json.dumps({"type": ["container"], "label": [self.label]})}))
        self.answer = connection.getresponse()
        return connection

    def _listen(self):
        while not self.closed:
            try:
                line = self.answer.readline()
            except (OSError, ValueError, AttributeError, http.client.HTTPException):
                # Closed under our hands; http.client has no one way to say so.
                return
            if not line:
                return
            event = json.loads(line)
            self.hear(event["Action"].split(":")[0], event["Actor"]["Attributes"] | {"container": event["Actor"]["ID"]})

    def close(self):
        self.closed = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()
