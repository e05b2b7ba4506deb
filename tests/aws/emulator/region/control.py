"""The region's own address, for tests: requests that were made, faults to come, machines to harm.

    GET  /requests[?since=N]      GET|POST|DELETE /faults      DELETE /faults/N
    GET  /machines                GET /machines/ID/console
    POST /machines/ID/{kill,cut,mend,freeze,thaw,spot-notice}
    POST /policies {"enforce": true}
"""
import json
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from . import docker, harm
from .host import Refused
from .unix_http import Handler


class Control:
    def __init__(self, world):
        self.world = world

    def start(self, port):
        control = self

        class Requests(Handler):
            def do_GET(self):
                try:
                    body = self.body()
                    found = control.answer(self.command, urlsplit(self.path), json.loads(body) if body else {})
                    self.answer(200, json.dumps(found) if not isinstance(found, str) else found, Content_Type="application/json")
                except KeyError as error:
                    self.answer(404, json.dumps({"error": f"there is no {error}"}))
                except (Refused, docker.EngineError, TypeError, ValueError) as error:
                    self.answer(400, json.dumps({"error": str(error)}))

            do_POST = do_DELETE = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Requests)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="control", daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method, url, body):
        match method, url.path.strip("/").split("/"):
            case "GET", ["requests"]:
                return self.world.recorder.entries(int(parse_qs(url.query).get("since", ["0"])[0]))
            case "GET", ["faults"]:
                return self.world.faults.list()
            case "POST", ["faults"]:
                return vars(self.world.faults.add(body))
            case "DELETE", ["faults"]:
                self.world.faults.remove()
                return {}
            case "DELETE", ["faults", number]:
                self.world.faults.remove(int(number))
                return {}
            case "POST", ["policies"]:
                self.world.enforce(bool(body["enforce"]))
                return {}
            case "GET", ["machines"]:
                return [{"id": one.id, "address": one.address, "container": one.container, "up": one.is_up, "cut": one.is_cut, "frozen": one.is_frozen}
                        for one in list(self.world.hypervisor.machines.values())]
            case "GET", ["machines", name, "console"]:
                return json.dumps(self.world.hypervisor.console_of(name))
            case "POST", ["machines", name, "spot-notice"]:
                at = datetime.now(timezone.utc) + timedelta(seconds=body.get("seconds", 120))
                self._machine(name).spot_notice = {"action": body.get("action", "terminate"), "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
                return {}
            case "POST", ["machines", name, ("kill" | "cut" | "mend" | "freeze" | "thaw") as what]:
                began = time.monotonic()
                getattr(harm, what)(self._machine(name), self.world.network)
                return {"seconds": time.monotonic() - began}
        raise KeyError(f"{method} {url.path}")

    def _machine(self, name):
        return self.world.hypervisor.machines[name]
