"""Instances begin as pending and end by shutting down: the hypervisor says when they run and when they are gone."""
from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.models.instances import Instance, InstanceState
from moto.ec2.responses.general import General

PENDING, RUNNING, SHUTTING_DOWN, TERMINATED, STOPPING, STOPPED = (
    ("pending", 0), ("running", 16), ("shutting-down", 32), ("terminated", 48), ("stopping", 64), ("stopped", 80))


def enter(instance, state):
    instance._state = InstanceState(*state)


def apply(cloud, wake, console_of=lambda name: ""):
    """`wake` is called when an instance has to be seen to; `console_of` says what one has printed."""
    add_block_device = Instance.add_block_device

    def add_block_device_of(self, size, device_path, snapshot_id, encrypted, delete_on_termination, *args, **kwargs):
        # The root volume goes with its instance unless somebody says otherwise, which moto cannot tell apart from saying nothing.
        is_root = device_path in (self.root_device_name, "/dev/xvda", "/dev/sda1")
        add_block_device(self, size or 8, device_path, snapshot_id, encrypted, delete_on_termination or is_root, *args, **kwargs)

    Instance.add_block_device = add_block_device_of
    original = {name: getattr(Instance, name) for name in ("__init__", "terminate", "stop", "start", "reboot")}

    def __init__(self, ec2_backend, *args, **kwargs):
        # Without a subnet it is the zone's default one: EC2-Classic, which moto keeps alive, is no more.
        if not kwargs.get("subnet_id") and not any("SubnetId" in nic or "NetworkInterfaceId" in nic for nic in kwargs.get("nics") or []):
            subnets = ec2_backend.get_default_subnets()
            kwargs["subnet_id"] = subnets[kwargs.get("placement") or min(subnets)].id
        args = (ec2_backend, *args)
        original["__init__"](self, *args, **kwargs)
        enter(self, PENDING)
        self.died = None
        self.needs_reboot = False
        wake()

    def terminate(self):
        # A second call changes nothing.
        if self.state in ("shutting-down", "terminated"):
            return InstanceState(self.state, self.state_code)
        before = original["terminate"](self)
        enter(self, SHUTTING_DOWN)
        if self.died:
            self.state_reason.message, self.state_reason.code = f"Server.{self.died}", f"Server.{self.died}"
        wake()
        return before

    def stop(self):
        before = original["stop"](self)
        enter(self, STOPPING)
        wake()
        return before

    def start(self):
        before = original["start"](self)
        if before.name != "running":
            enter(self, PENDING)
        wake()
        return before

    def reboot(self):
        self.needs_reboot = True
        wake()

    def get_console_output(self):
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        output = Base64EncodedString.from_raw_string(console_of(instance.id))
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})

    General.get_console_output = get_console_output
    for method in (__init__, terminate, stop, start, reboot):
        setattr(Instance, method.__name__, method)
