"""Lifecycle hooks, and those who complete them."""
from moto.core.responses import ActionResult

from ..checks import hook_from
from ..errors import Invalid
from ..group import PENDING_WAIT, TERMINATING_WAIT
from .request import Request


class Hooks(Request):
    def put_lifecycle_hook(self):
        group, wanted = self.group(), self.wanted
        old = group.hooks.get(wanted["LifecycleHookName"])
        group.hooks[wanted["LifecycleHookName"]] = hook_from(wanted, old)
        return self.done({})

    def delete_lifecycle_hook(self):
        group, name = self.group(), self.wanted["LifecycleHookName"]
        if name not in group.hooks:
            raise Invalid(f"Lifecycle Hook {name} not found")
        hook = group.hooks.pop(name)
        # Nobody is waited for on its account any longer.
        for member in group.members:
            for wait in member.waits:
                if wait.hook is hook and wait.result is None:
                    wait.result = hook.default if member.state == PENDING_WAIT else "CONTINUE"
        return self.done({})

    def describe_lifecycle_hooks(self):
        group, names = self.group(), self.wanted.get("LifecycleHookNames")
        return ActionResult({"LifecycleHooks": [hook.describe(group.name) for hook in group.hooks.values() if not names or hook.name in names]})

    def describe_lifecycle_hook_types(self):
        return ActionResult({"LifecycleHookTypes": ["autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"]})

    def complete_lifecycle_action(self):
        if self.wanted["LifecycleActionResult"] not in ("CONTINUE", "ABANDON"):
            raise Invalid("LifecycleActionResult must be CONTINUE or ABANDON")
        self._wait().result = self.wanted["LifecycleActionResult"]
        return self.done({})

    def record_lifecycle_action_heartbeat(self):
        self._wait().beat(self.now)
        return self.done({})

    def _wait(self):
        """The waiting that the request is about, by token or instance."""
        group, wanted = self.group(), self.wanted
        if wanted["LifecycleHookName"] not in group.hooks:
            raise Invalid(f"No Lifecycle Hook found with name {wanted['LifecycleHookName']}")
        token, instance = wanted.get("LifecycleActionToken"), wanted.get("InstanceId")
        for member in group.members:
            for wait in member.waits:
                if wait.hook.name == wanted["LifecycleHookName"] and wait.result is None and (wait.token == token or not token and member.id == instance) \
                        and member.state in (PENDING_WAIT, TERMINATING_WAIT):
                    return wait
        raise Invalid(f"No active Lifecycle Action found with token {token}" if token else f"No active Lifecycle Action found with instance ID {instance}")
