"""What requests to Auto Scaling have in common."""
from moto.core.responses import ActionResult, BaseResponse, EmptyResult

from ..errors import Invalid, ScalingInProgress

PAGE = 50


def plain(value):
    """Moto's dictionaries as Python's own."""
    if hasattr(value, "original_dict"):
        value = value.original_dict()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


class Request(BaseResponse):
    """One request. Whatever is no method of it fails with a sentence."""

    # Set by `install`.
    engine = None

    def __init__(self):
        super().__init__(service_name="autoscaling")
        self.automated_parameter_parsing = True

    def call_action(self):
        if not hasattr(self, method_name(self._get_action())):
            return self.serialized(ActionResult(Invalid(f"the emulated region does not know autoscaling:{self._get_action()}")))
        return super().call_action()

    @property
    def wanted(self):
        return plain(self._get_params())

    @property
    def now(self):
        return self.engine.clock()

    @property
    def groups(self):
        return self.engine.groups if self.region == self.engine.cloud.region else {}

    def group(self, name=None):
        name = name or self.wanted["AutoScalingGroupName"]
        if name not in self.groups:
            raise Invalid(f"AutoScalingGroup name not found - AutoScalingGroup {name} not found")
        if self.groups[name].deleting and self._get_action() not in ("DeleteAutoScalingGroup", "CompleteLifecycleAction", "RecordLifecycleActionHeartbeat"):
            raise ScalingInProgress(f"AutoScalingGroup {name} is being deleted")
        return self.groups[name]

    def member(self, instance_id):
        for group in self.groups.values():
            if member := group.member(instance_id):
                return group, member
        raise Invalid(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")

    def page(self, name, entries, size=PAGE):
        """So many of them at a time, the place where to go on in a token."""
        begin = int(self.wanted.get("NextToken") or 0)
        size = min(self.wanted.get("MaxRecords") or size, 100)
        rest = {"NextToken": str(begin + size)} if begin + size < len(entries) else {}
        return ActionResult({name: entries[begin:begin + size]} | rest)

    def done(self, result=None):
        self.engine.wake()
        return ActionResult(result) if result is not None else EmptyResult()


def method_name(action):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in action).lstrip("_")
