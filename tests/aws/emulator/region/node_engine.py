"""The Docker engine of one machine: the engine's own API on a socket there. What it is asked for happens on this machine's engine, beside the
machine's container: same network, same disks, its own names, gone when it goes. What would reach further is refused."""
import json
import re
import socket
import threading
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from . import docker, labels
from .sibling import Refusal, translate
from .unix_http import Handler, Server, connect

# Label of a sibling: its name on its machine.
NAME = "io.emulated-region.name"

# What is passed on as it is. Of images there is one store for all machines: it is added to, never changed.
PLAIN = [("GET|HEAD", r"/_ping"), ("GET", r"/version"), ("GET", r"/info"), ("POST", r"/auth"), ("GET", r"/images/json"), ("GET", r"/images/.+/json"),
         ("POST", r"/exec/[0-9a-f]+/(start|resize)"), ("GET", r"/exec/[0-9a-f]+/json")]
OF_CONTAINER = [("GET", "logs|top|stats|json"), ("POST", "start|stop|restart|kill|wait|attach|resize|pause|unpause|exec")]


class NodeEngine:
    def __init__(self, hypervisor, machine):
        self.hypervisor, self.machine = hypervisor, machine

    def start(self):
        owner = self

        class Requests(Handler):
            def do_GET(self):
                try:
                    owner.serve(self)
                except Refusal as refusal:
                    self.answer(refusal.status, json.dumps({"message": str(refusal)}), Content_Type="application/json")
                except docker.EngineError as error:
                    self.answer(error.status, json.dumps({"message": error.message}), Content_Type="application/json")

            do_POST = do_PUT = do_DELETE = do_HEAD = do_GET

        path = self.machine.directory / "docker.sock"
        path.unlink(missing_ok=True)
        self._server = Server(path, Requests)
        self._server.start(f"engine of {self.machine.id}")

    def close(self):
        self._server.close()

    # ---- one request

    def serve(self, request):
        url = urlsplit(request.path)
        version, path = re.fullmatch(r"(/v[\d.]+)?(/.*)", url.path).groups()
        query = {key: values[-1] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        method = request.command
        if any(re.fullmatch(methods, method) and re.fullmatch(pattern, path) for methods, pattern in PLAIN):
            return self._pass_on(request, request.path, request.body(), hijack=path.startswith("/exec/") and path.endswith("/start"))
        if (method, path) == ("POST", "/images/create"):
            if "fromSrc" in query:
                raise Refusal("import")
            return self._pass_on(request, request.path, request.body())
        if (method, path) == ("POST", "/containers/create"):
            return self._create(request, version or "", query, json.loads(request.body()))
        if (method, path) == ("GET", "/containers/json"):
            return self._list(request, version or "", query)
        if found := re.fullmatch(r"/containers/([^/]+)(?:/(\w+))?", path):
            verb = found[2]
            if method == "DELETE" and verb is None or any(method == allowed and verb and re.fullmatch(verbs, verb) for allowed, verbs in OF_CONTAINER):
                return self._of_container(request, version or "", found[1], verb, url.query)
        raise Refusal(f"{method} {path}")

    def _of_container(self, request, version, name, verb, query):
        found = self.find(name)
        path = f"{version}/containers/{found['Id']}" + (f"/{verb}" if verb else "") + (f"?{query}" if query else "")
        if verb == "json":
            content = docker.ask("GET", path)
            content["Name"] = f"/{found['Labels'][NAME]}"
            return request.answer(200, json.dumps(content), Content_Type="application/json")
        self._pass_on(request, path, request.body(), hijack=verb == "attach")

    def find(self, name):
        """The machine's container of this name or id."""
        name = name.removeprefix("/")
        every = self.machine.siblings
        matching = [found for found in every if found["Labels"].get(NAME) == name] or [found for found in every if len(name) >= 3 and found["Id"].startswith(name)]
        if not matching:
            raise Refusal(f"No such container: {name}", 404, plain=True)
        return matching[0]

    def _create(self, request, version, query, body):
        name = query.pop("name", "") or f"unnamed-{threading.get_native_id()}-{len(self.machine.siblings)}"
        translate(body, self)
        body["Labels"] = (body.get("Labels") or {}) | labels.of(self.hypervisor.run, "sibling", self.machine.id) | {NAME: name}
        query["name"] = f"region-{self.hypervisor.run}-{self.machine.id}.{name}"
        try:
            made = docker.ask("POST", f"{version}/containers/create?{urlencode(query)}", body)
        except docker.EngineError as error:
            raise docker.EngineError("create", error.status, error.message.replace(query["name"], name)) from None
        # The machine may have gone meanwhile, and nobody would look for this one any more.
        if not self.machine.is_alive:
            docker.remove(made["Id"])
            raise Refusal("the machine is going down", 500, plain=True)
        request.answer(201, json.dumps(made), Content_Type="application/json")

    def _list(self, request, version, query):
        filters = json.loads(query.get("filters") or "{}")
        filters = {key: list(values) if isinstance(values, list) else [value for value, wanted in values.items() if wanted] for key, values in filters.items()}
        names = filters.pop("name", [])
        filters["label"] = filters.get("label", []) + [f"{labels.INSTANCE}={self.machine.id}", f"{labels.ROLE}=sibling"]
        query["filters"] = json.dumps(filters)
        found = docker.ask("GET", f"{version}/containers/json?{urlencode(query)}")
        found = [one for one in found if not names or any(re.search(name.replace("^/", "^"), one["Labels"][NAME]) for name in names)]
        for one in found:
            one["Names"] = [f"/{one['Labels'][NAME]}"]
        request.answer(200, json.dumps(found), Content_Type="application/json")

    # ---- passing on

    def _pass_on(self, request, path, body, hijack=False):
        """The engine's answer as it comes, to its end; with `hijack` also what the client writes meanwhile."""
        request.close_connection = True
        kept = {name: value for name, value in request.headers.items() if name.lower() not in ("connection", "content-length", "transfer-encoding", "host")}
        head = [f"{request.command} {path} HTTP/1.1", "Host: docker", f"Connection: {request.headers.get('Connection', 'close') if hijack else 'close'}"]
        head += [f"{name}: {value}" for name, value in kept.items()] + [f"Content-Length: {len(body)}", "", ""]
        with connect(docker.SOCKET) as engine:
            engine.sendall("\r\n".join(head).encode() + body)
            if hijack:
                threading.Thread(target=pump, args=(request.rfile, engine), daemon=True).start()
            while chunk := engine.recv(65536):
                request.wfile.write(chunk)
                request.wfile.flush()
        try:
            request.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    # ---- paths on the machine

    def path_on_host(self, path, make):
        """Where the engine finds what the machine has at `path`."""
        code, output = docker.run_inside(self.machine.container, "/usr/lib/region/where", *(["--make"] if make else []), path)
        if code != 0:
            raise Refusal(f"invalid mount config for type \"bind\": {output.strip()}", 400, plain=True)
        mount, real = output.strip().splitlines()[-2:]
        root, target = mount.split(" ")
        inner = real[len(target):] if target != "/" else real
        if target == "/region":
            return f"{self.machine.directory}{inner}"
        volume = f"/volumes/{self.hypervisor.volumes.name}/_data"
        if volume in root:
            mountpoint = docker.ask("GET", f"/volumes/{quote(self.hypervisor.volumes.name)}")["Mountpoint"]
            return f"{mountpoint}{root.partition(volume)[2]}{inner}"
        if target == "/" and (merged := (docker.inspect(self.machine.container)["GraphDriver"]["Data"] or {}).get("MergedDir")):
            return f"{merged}{inner}"
        raise Refusal(f"'{path}' lies on no disk of the instance that the engine can reach; use one below /var, /etc, /opt, /srv, /home, /mnt, /run or /tmp", 400, plain=True)


def pump(source, sink):
    try:
        while chunk := source.read1(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
    except (OSError, ValueError):
        pass
