"""Network load balancers: each has an address in the VPC's network, held by a container; what is connected to its listeners is forwarded from here
to a target that is well, or to any where none is."""
import asyncio
import itertools
import sys
import threading

from . import docker, labels
from .health import Health
from .mends.balancers import target_groups


class Balancers:
    """The data plane: one thread with a loop, for health checks and forwarding."""

    def __init__(self, cloud, network, run, directory):
        self.cloud, self.network, self.run, self.directory = cloud, network, run, directory
        self.health = Health(cloud)
        self.on_change = lambda: None
        self._numbers = itertools.count(16)
        self._made, self._listening, self._turns = {}, {}, {}
        self._woken, self._closed = threading.Event(), False

    def address(self):
        return self.network.balancer_address(next(self._numbers))

    def start(self, image):
        self.image = image
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._run_loop, name="data plane", daemon=True).start()
        self._thread = threading.Thread(target=self._work, name="load balancers", daemon=True)
        self._thread.start()

    def wake(self):
        self._woken.set()

    def close(self):
        self._closed = True
        self.wake()
        self._thread.join(10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _run_loop(self):
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self.health.work(lambda: self.on_change()))
        self._loop.run_forever()

    # ---- what there has to be, and what there is

    def _work(self):
        while not self._closed:
            self._woken.wait(2)
            self._woken.clear()
            try:
                self._compare()
            except (docker.EngineError, OSError) as error:
                print(f"load balancers: {error}", file=sys.stderr, flush=True)

    def _compare(self):
        with self.cloud.lock:
            wanted = {balancer.arn: (balancer, {int(listener.port) for listener in balancer.listeners.values()}) for balancer in self.cloud.elb.load_balancers.values()}
        for arn in self._made.keys() - wanted.keys():
            docker.remove(self._made.pop(arn))
            for key in [key for key in self._listening if key[0] == arn]:
                self._stop_listening(key)
        for arn, (balancer, listeners) in wanted.items():
            if arn not in self._made:
                self._made[arn] = self._make(balancer)
            for key in [key for key in self._listening if key[0] == arn and key[1] not in listeners]:
                docker.run_inside(self._made[arn], "pkill", "-f", f"TCP-LISTEN:{key[1]},")
                self._stop_listening(key)
            for port in listeners - {port for of, port in self._listening if of == arn}:
                self._listen(arn, port)
            # With its listeners, if it has some already.
            balancer.state = "active"

    def _directory(self, balancer):
        return self.directory / balancer.arn.rpartition("/")[2]

    def _make(self, balancer):
        directory = self._directory(balancer)
        directory.mkdir(mode=0o755)
        name = f"region-{self.run}-{balancer.name}"
        container = docker.create(name, {
            "Image": self.image, "Cmd": ["sleep", "infinity"], "StopSignal": "SIGKILL", "Labels": labels.of(self.run, "balancer"), "NetworkingConfig": self.network.at(balancer.address),
            "HostConfig": {"NetworkMode": self.network.name, "Init": True, "Binds": [f"{directory}:/listeners"]}})
        docker.start(container)
        return container

    def _listen(self, arn, port):
        directory = self.directory / arn.rpartition("/")[2]
        serving = asyncio.start_unix_server(lambda reader, writer: self._forward(arn, port, reader, writer), directory / str(port))
        started = asyncio.run_coroutine_threadsafe(serving, self._loop)
        self._listening[arn, port] = started.result(10)
        (directory / str(port)).chmod(0o666)
        command = ["socat", "-t", "60", f"TCP-LISTEN:{port},fork,reuseaddr,backlog=256,nodelay", f"UNIX-CONNECT:/listeners/{port}"]
        made = docker.ask("POST", f"/containers/{self._made[arn]}/exec", {"Cmd": command})
        docker.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})

    def _stop_listening(self, key):
        server = self._listening.pop(key)
        self._loop.call_soon_threadsafe(server.close)

    # ---- forwarding

    async def _forward(self, arn, port, reader, writer):
        chosen = self._choose(arn, port)
        if chosen is None:
            return writer.close()
        target, address, at = chosen
        try:
            their_reader, their_writer = await asyncio.wait_for(asyncio.open_connection(address, at), 5)
        except (OSError, asyncio.TimeoutError):
            return writer.close()

        def close():
            for side in (writer, their_writer):
                side.transport.abort()
        target.connections.add(close)
        try:
            await asyncio.gather(pump(reader, their_writer), pump(their_reader, writer))
        finally:
            target.connections.discard(close)
            for side in (writer, their_writer):
                side.close()

    def _choose(self, arn, port):
        """(target, address, port), in turn of those that are well; of all where none is."""
        with self.cloud.lock:
            balancer = self.cloud.elb.load_balancers.get(arn)
            listener = next((one for one in balancer.listeners.values() if int(one.port) == port), None) if balancer else None
            every = []
            for action in listener.default_actions if listener else ():
                for group_arn in target_groups(action.data):
                    group = self.cloud.elb.target_groups[group_arn]
                    every += [(self.health.targets[group_arn, name], name, int(words["Port"])) for name, words in group.targets.items() if (group_arn, name) in self.health.targets]
            candidates = [one for one in every if one[0].state == "healthy"] or every
            if not candidates:
                return None
            turn = self._turns[arn, port] = self._turns.get((arn, port), -1) + 1
            target, name, at = candidates[turn % len(candidates)]
            instance = self.cloud.ec2.get_instance_by_id(name)
            return target, instance.private_ip if instance else name, at


async def pump(reader, writer):
    """One direction, to its end; the other one may go on."""
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except (OSError, RuntimeError):
        writer.transport.abort()
