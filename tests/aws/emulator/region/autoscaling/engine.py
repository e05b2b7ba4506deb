"""Auto Scaling at work: looks at every group again and again, and takes each of its members a step further."""
import math
import sys
import threading
import time
import traceback

import botocore.exceptions

from . import launch, placement
from .group import (ENDING, IN_SERVICE, LAUNCHING, PENDING_PROCEED, PENDING_WAIT, TERMINATING, TERMINATING_PROCEED, TERMINATING_WAIT, Wait)

# How long after a launch that failed the next one is tried, in seconds.
PAUSE_AFTER_FAILURE = 3


class Engine:
    """`detect` is how many seconds an instance may be down before its group knows. Everything is done with the cloud's lock held."""

    def __init__(self, cloud, detect=1.0, clock=time.time):
        self.cloud, self.detect, self.clock = cloud, detect, clock
        self.groups = {}
        self._woken, self._closed = threading.Event(), False
        # Replaced by whoever checks targets: the state of an instance in a target group.
        self.target_state = lambda arn, instance_id: None

    def start(self):
        self._thread = threading.Thread(target=self._work, name="auto scaling", daemon=True)
        self._thread.start()

    def wake(self):
        self._woken.set()

    def close(self):
        self._closed = True
        self.wake()
        self._thread.join(10)

    def _work(self):
        while not self._closed:
            self._woken.wait(0.25)
            self._woken.clear()
            try:
                self.tick()
            except Exception:  # one group's mishap must not end all others' care; it is shown
                traceback.print_exc(file=sys.stderr)

    def tick(self):
        now = self.clock()
        with self.cloud.lock:
            for group in list(self.groups.values()):
                for member in list(group.members):
                    # As many steps as it can take now; there are fewer than this.
                    for _ in range(8):
                        before = member.state
                        self._follow(group, member, now)
                        if member.state == before:
                            break
                if group.refresh:
                    group.refresh.tick(self, group, now)
                self._hold_capacity(group, now)
                if group.deleting and not group.members:
                    del self.groups[group.name]

    def lifecycle_target(self, instance_id):
        """What the metadata service says is wanted of an instance; None of one in no group. Call with the cloud's lock held."""
        for group in self.groups.values():
            if member := group.member(instance_id):
                return IN_SERVICE if member.is_active else "Terminated"
        return None

    # ---- one member

    def _follow(self, group, member, now):
        instance = self.cloud.ec2.get_instance_by_id(member.id)
        state = instance.state if instance else "terminated"
        match member.state:
            case s if s.startswith("Pending") and state not in ("pending", "running"):
                member.activity.finish("Failed", now, f"Instance became {state} before it was in service")
                self.begin_end(group, member, "an instance failed to come up.", now, without_hooks=True)
            case "Pending" if state == "running":
                self._enter(group, member, LAUNCHING, PENDING_WAIT, PENDING_PROCEED, now)
            case "Pending:Wait":
                self._wait(group, member, PENDING_PROCEED, now)
            case "Pending:Proceed":
                self._enter_service(group, member, now)
            case "InService":
                self._check(group, member, state, now)
            case "Terminating":
                self._deregister(group, member)
                if member.without_hooks:
                    member.state = TERMINATING_PROCEED
                else:
                    self._enter(group, member, ENDING, TERMINATING_WAIT, TERMINATING_PROCEED, now)
            case "Terminating:Wait":
                self._wait(group, member, TERMINATING_PROCEED, now)
            case "Terminating:Proceed":
                self._terminate(group, member, state, now)

    def _enter(self, group, member, transition, waiting, proceeding, now):
        member.waits = [Wait(hook, now, now + hook.heartbeat) for hook in group.hooks.values() if hook.transition == transition]
        member.state = waiting if member.waits else proceeding
        if member.waits:
            member.activity.status, member.activity.progress = "MidLifecycleAction", 60

    def _wait(self, group, member, proceeding, now):
        for wait in member.waits:
            if wait.result is None and now >= wait.deadline:
                wait.result = wait.hook.default
        if member.state == PENDING_WAIT and any(wait.result == "ABANDON" for wait in member.waits):
            member.activity.finish("Cancelled", now, "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token "
                                   + next(wait.token for wait in member.waits if wait.result == "ABANDON") + " was abandoned")
            return self.begin_end(group, member, "a lifecycle action was abandoned.", now, without_hooks=True)
        # While ending, one that abandons ends the others' waiting too: the instance goes in any case.
        if all(wait.result for wait in member.waits) or member.state == TERMINATING_WAIT and any(wait.result == "ABANDON" for wait in member.waits):
            member.state, member.waits = proceeding, []

    def _enter_service(self, group, member, now):
        if group.may("AddToLoadBalancer"):
            for arn in group.target_groups:
                self.register(arn, member.id)
        member.state, member.in_service_since = IN_SERVICE, now
        member.activity.finish("Successful", now)

    def _check(self, group, member, state, now):
        if state != "running":
            member.seen_dead = member.seen_dead or now
            if now - member.seen_dead >= self.detect and group.may("HealthCheck"):
                member.health = "Unhealthy"
                member.complaint = f"an instance was taken out of service in response to an EC2 health check indicating it has been terminated or stopped ({state})."
        elif "ELB" in group["HealthCheckType"] and group.may("HealthCheck") and now - member.in_service_since >= group["HealthCheckGracePeriod"]:
            if any(self.target_state(arn, member.id) == "unhealthy" for arn in group.target_groups):
                member.health, member.complaint = "Unhealthy", "an instance was taken out of service in response to an ELB system health check failure."
        if member.health == "Unhealthy" and group.may("ReplaceUnhealthy") and not self._waits_for_its_replacement(group, member):
            self.begin_end(group, member, member.complaint or "an instance was taken out of service in response to a user health-check.", now)

    def _waits_for_its_replacement(self, group, member):
        """With a maintenance policy of at least all, the next one serves before this one goes; a dead one nobody waits for."""
        policy = group["InstanceMaintenancePolicy"] or {}
        if member.seen_dead or policy.get("MinHealthyPercentage", 0) < 100 or policy.get("MaxHealthyPercentage", 100) <= 100:
            return False
        return sum(1 for other in group.active if other.state == IN_SERVICE and other.health == "Healthy") < group.desired

    def begin_end(self, group, member, cause, now, without_hooks=False):
        if member.state.startswith("Terminating"):
            return None
        member.state, member.waits, member.without_hooks = TERMINATING, [], without_hooks
        member.activity = group.note(f"Terminating EC2 instance: {member.id}", cause, now)
        return member.activity

    def _terminate(self, group, member, state, now):
        if state in ("pending", "running", "stopping", "stopped"):
            self.cloud.ec2.get_instance_by_id(member.id).disable_api_termination = False
            self.cloud.ec2.terminate_instances([member.id])
        elif state == "terminated":
            group.members.remove(member)
            member.activity.finish("Successful", now)

    # ---- target groups

    def register(self, arn, instance_id):
        try:
            self.cloud.client("elbv2").register_targets(TargetGroupArn=arn, Targets=[{"Id": instance_id}])
        except botocore.exceptions.ClientError as error:
            print(f"auto scaling: {instance_id} is not registered in '{arn}': {error}", file=sys.stderr)

    def deregister(self, arn, instance_id):
        group = self.cloud.elb.target_groups.get(arn)
        if group and instance_id in group.targets:
            group.deregister([{"Id": instance_id}])

    def _deregister(self, group, member):
        for arn in group.target_groups:
            self.deregister(arn, member.id)

    # ---- capacity

    def _hold_capacity(self, group, now):
        if group.deleting:
            for member in group.active:
                self.begin_end(group, member, "the group is deleted.", now, without_hooks=group.forced)
            for member in group.members:
                if group.forced and member.state == TERMINATING_WAIT:
                    member.state, member.waits = TERMINATING_PROCEED, []
            return
        missing = group.desired + self._extra(group) - len(group.active)
        if missing > 0 and group.may("Launch") and now >= group.retry_at:
            for _ in range(missing):
                if not self._launch(group, now):
                    break
        elif missing < 0 and group.may("Terminate") and not group.refresh:
            self._scale_in(group, -missing, now)

    def _extra(self, group):
        """How many more there may be for a while, so that replacements serve before what they replace goes."""
        if group.refresh:
            return group.refresh.extra(group)
        policy = group["InstanceMaintenancePolicy"] or {}
        allowed = math.floor(group.desired * policy.get("MaxHealthyPercentage", 100) / 100) - group.desired
        if policy.get("MinHealthyPercentage", 0) < 100 or allowed <= 0 or not group.may("ReplaceUnhealthy"):
            return 0
        return min(allowed, sum(1 for member in group.active if member.health == "Unhealthy" and not member.seen_dead))

    def _launch(self, group, now):
        specification, override = (group.refresh.specification(group) if group.refresh else group.template_specification())
        cause = f"an instance was started in response to a difference between desired and actual capacity, increasing the capacity from {len(group.active)} to {len(group.active) + 1}."
        subnets = {self.cloud.ec2.get_subnet(name).availability_zone: self.cloud.ec2.get_subnet(name) for name in reversed(group.subnets)}
        zone = placement.zone_to_launch_in(sorted(subnets), group.active)
        try:
            group.members.append(launch.launch(self.cloud, group, specification, override, subnets[zone], cause, now))
            return True
        except botocore.exceptions.ClientError as error:
            launch.failed(group, f"{error.response['Error']['Message']} Launching EC2 instance failed.", cause, now)
            group.retry_at = now + PAUSE_AFTER_FAILURE
            return False

    def _scale_in(self, group, count, now):
        version = launch.resolve(self.cloud, group.template_specification()[0])[1]["Version"]
        for member in placement.victims(group.active, count, version):
            before = len(group.active)
            change = f"shrinking the capacity from {before} to {before - 1}."
            self.begin_end(group, member, f"an instance was taken out of service in response to a difference between desired and actual capacity, {change}", now)
