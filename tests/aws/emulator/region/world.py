"""A run: all parts of the region, put together, and taken apart again."""
import json
import shutil
import threading
import traceback
import warnings
from pathlib import Path

from werkzeug.serving import make_server
from moto.moto_server.werkzeug_app import MotoRequestHandler

from . import cleanup
from .autoscaling import api
from .autoscaling.engine import Engine
from .balancer import Balancers
from .control import Control
from .cloud import ROOT_KEY, ROOT_SECRET, Cloud
from .faults import Faults
from .front import Front
from .hypervisor import Hypervisor
from .host import Lock, directory_of, free_port
from .mends import balancers, groups, instances, profiles, templates, vpc
from .network import Network
from .recorder import Recorder
from .registry import Registry
from .s3 import Door
from .seaweed import Seaweed

SCRIPTS = Path(__file__).resolve().parent.parent / "machine"


class Quiet(MotoRequestHandler):
    """The recorder tells of requests."""

    def log(self, *_, **__):
        pass


class Stopped:
    def __init__(self, server):
        self.close = server.shutdown


class World:
    def __init__(self, options):
        self.options, self.run = options, options.run
        self.lock = Lock(self.run)
        self.directory = directory_of(self.run)
        self._servers = []

    def start(self):
        # What an earlier process of this name left, which did not end as it should.
        cleanup.clean(self.run, keep_directory=True)
        # Moto tells its developers of error codes that no model has; AWS uses many of these.
        warnings.filterwarnings("ignore", message="Exception.*does not match an error shape")
        self.network = Network(self.run).create()
        self.scripts = self.directory / "machine"
        shutil.copytree(SCRIPTS, self.scripts)
        # It takes longest to be ready, and needs nothing of the rest.
        self.seaweed = Seaweed(self.directory / "seaweed").start()
        self.cloud = Cloud(self.options.region)
        self.port, self.s3_port = (free_port("127.0.0.1", self.network.gateway) for _ in range(2))
        self.hypervisor = Hypervisor(self.cloud, self.network, self.run, self.directory, self.endpoints(self.network.gateway), self.options.boot_delay, self.scripts)
        vpc.apply(self.cloud, self.network.cidr)
        instances.apply(self.cloud, self.hypervisor.wake, self.hypervisor.console_of)
        templates.apply()
        profiles.apply(self.options.iam_lag)
        self.scaling = Engine(self.cloud, self.options.detect)
        api.install(self.scaling)
        self.balancers = Balancers(self.cloud, self.network, self.run, self.directory)
        balancers.apply(self.balancers.address, self.balancers.wake)
        groups.apply(self.cloud)
        self.registry = Registry(self.cloud, self.directory / "registry", free_port())
        (self.directory / "registry-address").write_text(self.registry.address)
        self.registry.mend_ecr()
        self.registry.start()
        self.scaling.target_state = self.balancers.health.state
        self.balancers.on_change = self.scaling.wake
        self.hypervisor.on_change = self.scaling.wake
        self.hypervisor.lifecycle_target = self.scaling.lifecycle_target
        with self.cloud.lock:
            self.cloud.ec2  # its zones and subnets are there before anybody asks
        self.hypervisor.start()
        self.scaling.start()
        self.balancers.start(self.hypervisor.image)
        self.recorder, self.faults = Recorder(self.directory / "requests.jsonl"), Faults()
        self.front = Front(self.cloud, self.recorder, self.faults, self.options.enforce_policies)
        for address in ("127.0.0.1", self.network.gateway):
            self._listen(address, self.port, self.front)
        self.seaweed.wait()
        self.door = Door(self.cloud, self.seaweed, self.recorder, self.faults, self.front)
        for address in ("127.0.0.1", self.network.gateway):
            self.door.listen(address, self.s3_port)
        self.control = Control(self)
        self.control_port = free_port()
        self.control.start(self.control_port)

    def enforce(self, wanted):
        self.front.enforce = wanted

    def endpoints(self, address):
        """Environment variables by which SDKs find the region from a place that reaches `address`."""
        return {"AWS_ENDPOINT_URL": f"http://{address}:{self.port}", "AWS_ENDPOINT_URL_S3": f"http://{address}:{self.s3_port}", "AWS_REGION": self.options.region}

    def _listen(self, address, port, app):
        server = make_server(address, port, app, threaded=True, request_handler=Quiet)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name=f"server of {address}:{port}", daemon=True).start()
        self._servers.append(server)

    def description(self):
        """What whoever started us needs to know."""
        return {
            "run": self.run, "region": self.options.region,
            "environment": self.endpoints("127.0.0.1") | {"AWS_ACCESS_KEY_ID": ROOT_KEY, "AWS_SECRET_ACCESS_KEY": ROOT_SECRET},
            "endpoint": f"http://127.0.0.1:{self.port}",
            "gateway_endpoint": f"http://{self.network.gateway}:{self.port}",
            "control": f"http://127.0.0.1:{self.control_port}",
            "registry": self.registry.address,
            "requests": str(self.recorder.path),
            "network": {"name": self.network.name, "cidr": self.network.cidr, "gateway": self.network.gateway},
        }

    def close(self):
        """Ends what was started, as far as that went, and removes all of it."""
        parts = [getattr(self, name, None) for name in ("control", "door", "registry", "scaling", "balancers", "hypervisor", "seaweed")]
        for part in [*(Stopped(server) for server in self._servers), *parts]:
            try:
                if part:
                    part.close()
            except Exception:  # whatever it is, the rest must go all the same
                traceback.print_exc()
        cleanup.clean(self.run)

    def announce(self):
        print(json.dumps(self.description()), flush=True)
