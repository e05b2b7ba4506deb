"""Turns EC2's instances into machines: a container each. What the engine says of a container, EC2 says of the instance."""
import base64
import shutil
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

from . import docker, image, labels
from .host import Refused
from .machine import Machine
from .mends.instances import RUNNING, STOPPED, TERMINATED, enter
from .metadata import Metadata
from .node_engine import NodeEngine
from .volumes import Volumes

# How many are seen to at a time, and for how many of them the engine works.
HANDS, AT_ONCE = 24, 3
# How long a container has to end when its machine goes down in good order, in seconds, where it does not say so itself.
GRACE = 10
# How much of a console is kept of machines that are gone.
CONSOLE = 65536
# How long a machine may take to have its disks and its metadata, in seconds.
BOOT_LIMIT = 60


class Hypervisor:
    """`endpoints` are the environment variables by which programs on instances find AWS; `boot_delay` is how long a machine boots, in seconds."""

    def __init__(self, cloud, network, run, directory, endpoints, boot_delay, scripts):
        self.cloud, self.network, self.run, self.directory = cloud, network, run, directory
        self.endpoints, self.boot_delay, self.scripts = endpoints, boot_delay, scripts
        self.machines = {}
        self.lifecycle_target = lambda instance_id: None
        self.volumes = Volumes(cloud, run, network)
        self._woken, self._closed = threading.Event(), False
        self._hands = ThreadPoolExecutor(HANDS, thread_name_prefix="hypervisor")
        self._engine = threading.BoundedSemaphore(AT_ONCE)
        # What machines that are gone had printed.
        self._consoles = {}

    def start(self):
        self.image = image.ensure()
        self.volumes.start(self.image)
        self._events = docker.Events(f"{labels.RUN}={self.run}", self._hear)
        self._thread = threading.Thread(target=self._work, name="hypervisor", daemon=True)
        self._thread.start()

    def wake(self):
        self._woken.set()

    def close(self):
        self._closed = True
        self.wake()
        self._thread.join(10)
        self._hands.shutdown(cancel_futures=True)
        self._events.close()
        for machine in self.machines.values():
            for service in machine.services:
                service.close()

    # ---- what EC2 wants and what there is

    def _work(self):
        while not self._closed:
            self._woken.wait(0.5)
            self._woken.clear()
            try:
                self._compare()
                self._look_for_the_dead()
                self.volumes.forget_deleted(self.machines.values())
            except (docker.EngineError, OSError) as error:
                complain("hypervisor", error)

    def _compare(self):
        with self.cloud.lock:
            for instance in self.cloud.ec2.all_instances():
                machine = self.machines.get(instance.id)
                if machine and machine.busy:
                    continue
                if task := self._task(instance, machine):
                    if machine is None:
                        machine = self.machines[instance.id] = Machine(instance, self.directory / instance.id)
                    machine.busy = True
                    self._hands.submit(self._carry_out, task, instance, machine)

    def _task(self, instance, machine):
        """What has to be done so that the machine is as EC2 says; None where it is."""
        match instance.state:
            case "pending":
                return self._boot if machine is None else self._start_again
            case "stopping" if machine:
                return self._stop
            case "shutting-down" if machine:
                return self._end
            case "shutting-down":
                enter(instance, TERMINATED)
            case "running" if machine and instance.needs_reboot:
                return self._reboot
            case "running" if machine and machine.is_up:
                return self.volumes.task(instance, machine)

    def _carry_out(self, task, instance, machine):
        try:
            task(instance, machine)
        except Exception as error:  # a machine that cannot be made is EC2's to tell of, whatever the reason
            complain(f"{instance.id}: {task.__name__.strip('_')}", error)
            self._fail(instance, machine)
        finally:
            machine.busy = False
            self.wake()

    def _fail(self, instance, machine):
        """What could not be made is terminated, as EC2 does with an internal error."""
        with self.cloud.lock:
            if instance.state in ("pending", "running"):
                instance.died = "InternalError"
                instance.terminate()
                return
        # Ending it is tried again, not at once.
        time.sleep(0.5)

    def _look_for_the_dead(self):
        """Those whose end no event told of: it came while we were busy with them."""
        running = {found["Id"] for found in docker.containers(f"{labels.RUN}={self.run}", f"{labels.ROLE}=instance") if found["State"] in ("running", "paused", "restarting")}
        for machine in list(self.machines.values()):
            if machine.is_up and not machine.busy and machine.container not in running and not is_running(machine.container):
                self._died(machine)

    # ---- the tasks

    def _boot(self, instance, machine):
        began = time.monotonic()
        machine.directory.mkdir(mode=0o755, exist_ok=True)
        with self.cloud.lock:
            user_data, address, name = instance.user_data, instance.private_ip, instance.private_dns_name
            devices = self.volumes.of(instance)
        self._write_files(machine, user_data, name, devices)
        machine.services = [Metadata(self, instance, machine), NodeEngine(self, machine)]
        for service in machine.services:
            service.start()
        with self._engine:
            machine.container = docker.create(f"region-{self.run}-{instance.id}", self._definition(instance, machine, address, name))
        time.sleep(max(0.0, self.boot_delay - (time.monotonic() - began)))
        self._power_on(machine)
        self._is_up(instance, machine)

    def _power_on(self, machine):
        machine.booted.clear()
        with self._engine:
            docker.start(machine.container)
        if not machine.booted.wait(BOOT_LIMIT):
            raise Refused(f"it did not come up within {BOOT_LIMIT} s; its console: docker logs {machine.container[:12]}")

    def _write_files(self, machine, user_data, name, devices):
        root, others = devices[0], devices[1:]
        files = {"root-volume": root[0], "hostname": name, "volumes": "".join(f"{volume} {device}\n" for volume, device in others),
                 "environment": "".join(f"{key}={value}\n" for key, value in self.endpoints.items())}
        for file, content in files.items():
            (machine.directory / file).write_text(content)
        if user_data:
            (machine.directory / "user-data").write_bytes(bytes_of(user_data))
        machine.root, machine.attached = root[0], {volume for volume, _ in others}
        self.volumes.begin(devices)

    def _definition(self, instance, machine, address, name):
        return {
            "Image": self.image, "Cmd": ["/usr/lib/region/boot"], "Hostname": name.split(".")[0], "Labels": labels.of(self.run, "instance", instance.id),
            "StopSignal": "SIGTERM", "NetworkingConfig": self.network.at(address),
            "HostConfig": {
                "NetworkMode": self.network.name, "CapAdd": ["NET_ADMIN", "SYS_ADMIN"], "SecurityOpt": ["apparmor=unconfined"],
                "Binds": [f"{machine.directory}:/region", f"{self.scripts}:/usr/lib/region:ro", f"{self.volumes.name}:/disks"],
            },
        }

    def _is_up(self, instance, machine):
        machine.is_up = True
        with self.cloud.lock:
            if instance.state == "pending":
                enter(instance, RUNNING)
        self.on_change()

    # Called whenever an instance came up or is gone; Auto Scaling looks again then.
    on_change = staticmethod(lambda: None)

    def _start_again(self, instance, machine):
        self._power_on(machine)
        # As dockerd does after a boot: what nobody stopped runs again.
        for sibling in machine.siblings:
            if sibling["Id"] in machine.running and docker.inspect(sibling["Id"])["HostConfig"]["RestartPolicy"]["Name"] in ("always", "unless-stopped"):
                docker.start(sibling["Id"])
        self._is_up(instance, machine)

    def _shut_down(self, machine):
        """In good order: every container on it is told to end, and has time to."""
        machine.is_up = False
        siblings = [sibling["Id"] for sibling in machine.siblings if sibling["State"] in ("running", "restarting")]
        machine.running = set(siblings)
        with ThreadPoolExecutor(max(len(siblings), 1)) as hands:
            list(hands.map(self._stop_container, siblings))
        docker.stop(machine.container, 5)

    @staticmethod
    def _stop_container(name):
        if found := docker.inspect(name):
            docker.stop(name, found["Config"].get("StopTimeout") or GRACE)

    def _stop(self, instance, machine):
        self._shut_down(machine)
        with self.cloud.lock:
            enter(instance, STOPPED)
        self.on_change()

    def _reboot(self, instance, machine):
        instance.needs_reboot = False
        self._shut_down(machine)
        self._start_again(instance, machine)

    def _end(self, instance, machine):
        if machine.is_up and not instance.died:
            self._shut_down(machine)
        machine.is_up, machine.is_gone = False, True
        self._remove_siblings(machine)
        if machine.container:
            self._consoles[machine.id] = self.console(machine)[-CONSOLE:]
            docker.remove(machine.container)
        # One that was about to be made meanwhile.
        self._remove_siblings(machine)
        for service in machine.services:
            service.close()
        shutil.rmtree(machine.directory, ignore_errors=True)
        with self.cloud.lock:
            enter(instance, TERMINATED)
            self.machines.pop(instance.id, None)
        self.on_change()

    def _remove_siblings(self, machine):
        for sibling in machine.siblings:
            docker.remove(sibling["Id"])

    # ---- consoles

    @staticmethod
    def console(machine):
        """What the machine printed so far."""
        return docker.logs(machine.container) if machine.container and docker.inspect(machine.container) else ""

    def console_of(self, name):
        """Also of one that is gone; raises KeyError where there never was one."""
        machine = self.machines.get(name)
        return self.console(machine) if machine else self._consoles[name]

    # ---- what happens to containers

    def _hear(self, action, attributes):
        machine = self.machines.get(attributes.get(labels.INSTANCE))
        if machine is None or attributes.get(labels.ROLE) != "instance":
            return
        if action == "die" and machine.is_up and not machine.busy:
            # On another thread: the next event must not wait.
            threading.Thread(target=self._died, args=(machine,), daemon=True).start()

    def _died(self, machine):
        """The machine lost its power: so did everything on it, at once."""
        machine.is_gone = True
        for sibling in machine.siblings:
            docker.signal(sibling["Id"])
        with self.cloud.lock:
            instance = self.cloud.ec2.get_instance_by_id(machine.id)
            if instance and instance.state == "running":
                instance.died = "HostFailure"
                instance.disable_api_termination = False
                instance.terminate()
        self.on_change()


def complain(doing, error):
    expected = isinstance(error, (docker.EngineError, Refused, OSError))
    print(f"{doing}: {error}" if expected else f"{doing}: {''.join(traceback.format_exception(error))}", file=sys.stderr, flush=True)


def is_running(container):
    found = docker.inspect(container)
    return bool(found and found["State"]["Running"])


def bytes_of(user_data):
    """As it was before it was encoded for the API."""
    if isinstance(user_data, bytes):
        return user_data
    return base64.b64decode(str(user_data))
