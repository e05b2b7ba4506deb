"""An instance refresh: a group's instances are replaced, so many at a time that enough of them serve."""
import math
import uuid

import botocore.exceptions

from . import launch
from .group import IN_SERVICE, at

# How long one may go without any progress, in seconds, before it fails: so long AWS waits for protected instances too.
PATIENCE = 3600

AT_WORK = ("Pending", "InProgress", "Cancelling", "RollbackInProgress")
# What is not done here is refused rather than forgotten.
UNKNOWN = ("AlarmSpecification", "BakeTime")


class Refresh:
    """`preferences` and `desired` are StartInstanceRefresh's; `desired` may be None. Goes on with every tick."""

    def __init__(self, group, preferences, desired, engine, now):
        self.id, self.group, self.start, self.end = str(uuid.uuid4()), group.name, now, None
        self.preferences = {"MinHealthyPercentage": 90, "MaxHealthyPercentage": 100, "SkipMatching": False, "ScaleInProtectedInstances": "Wait", "StandbyInstances": "Wait",
                            "AutoRollback": False} | preferences
        self.desired, self.status, self.reason = desired, "Pending", None
        self.original = group.template_specification()
        self.before = set()
        self.total, self.progressed, self.paused_until, self.checkpoints_passed = 0, now, None, 0

    @property
    def is_at_work(self):
        return self.status in AT_WORK

    def specification(self, group):
        """What a launch during the refresh uses: the template and the first override."""
        if self.status == "RollbackInProgress" or not self.desired:
            return group.template_specification() if self.status != "RollbackInProgress" else self.original
        if policy := self.desired.get("MixedInstancesPolicy"):
            overrides = policy["LaunchTemplate"].get("Overrides") or [{}]
            return overrides[0].get("LaunchTemplateSpecification") or policy["LaunchTemplate"]["LaunchTemplateSpecification"], overrides[0]
        return self.desired["LaunchTemplate"], {}

    def extra(self, group):
        """How many more instances than desired there may be for a while."""
        if self.status not in ("InProgress", "RollbackInProgress") or self._is_paused:
            return 0
        allowed = math.floor(group.desired * self.preferences["MaxHealthyPercentage"] / 100) - group.desired
        return max(0, min(allowed, len(self._old(group))))

    # ---- step by step

    def tick(self, engine, group, now):
        if self.status == "Pending":
            self._begin(engine, group, now)
        old, fresh = self._old(group), [member for member in group.active if member.id not in self.before]
        settled = [member for member in fresh if self._is_settled(engine, group, member, now)]
        if self.status == "Cancelling":
            if all(member in settled for member in fresh):
                self._finish("Cancelled", now)
            return
        if self._all_replaced(group, old, fresh, settled):
            return self._complete(group, now)
        self._pass_checkpoints(old, now)
        if self._is_paused and now < self.paused_until or not group.may("InstanceRefresh"):
            return
        self.paused_until = None
        self._replace(engine, group, old, settled, now)
        if now - self.progressed > PATIENCE:
            self.fail(group, f"no instance could be replaced for {PATIENCE} seconds", now)

    def _begin(self, engine, group, now):
        self.status, self.progressed = "InProgress", now
        exact = launch.resolve(engine.cloud, self.specification(group)[0])[1]
        override = self.specification(group)[1]
        skipped = [member for member in group.active if self.preferences["SkipMatching"] and member.matches(exact, override)]
        if self.preferences["ScaleInProtectedInstances"] == "Ignore":
            skipped += [member for member in group.active if member.protected]
        self.before = {member.id for member in group.active if member not in skipped}
        self.total = len(self.before)

    def _old(self, group):
        return [member for member in group.active if member.id in self.before]

    def _is_settled(self, engine, group, member, now):
        """In service, well, and warm."""
        warmup = next(value for value in (self.preferences.get("InstanceWarmup"), group["DefaultInstanceWarmup"], group["HealthCheckGracePeriod"]) if value is not None)
        if member.state != IN_SERVICE or member.health != "Healthy" or now - member.in_service_since < warmup:
            return False
        return "ELB" not in group["HealthCheckType"] or all(engine.target_state(arn, member.id) in ("healthy", "unused", None) for arn in group.target_groups)

    def _all_replaced(self, group, old, fresh, settled):
        ended = [member for member in group.members if member.id in self.before]
        return not ended and len(group.active) == group.desired and len(settled) == len(fresh)

    def _replace(self, engine, group, old, settled, now):
        serving = len(settled) + sum(1 for member in old if member.state == IN_SERVICE and member.health == "Healthy")
        needed = math.ceil(group.desired * self.preferences["MinHealthyPercentage"] / 100)
        surge = math.floor(group.desired * self.preferences["MaxHealthyPercentage"] / 100) - group.desired
        # Where neither one less nor one more is allowed, one at a time is replaced all the same.
        spare = serving - (min(needed, group.desired - 1) if surge <= 0 else needed)
        candidates = [member for member in old if not member.protected or self.preferences["ScaleInProtectedInstances"] == "Refresh"]
        self.reason = "waits for instances that are protected from scale-in" if old and not candidates else None
        for member in sorted(candidates, key=lambda member: (member.state == IN_SERVICE, member.launched)):
            if member.state == IN_SERVICE and member.health == "Healthy":
                if spare <= 0:
                    return
                spare -= 1
            engine.begin_end(group, member, f"an instance was taken out of service in response to an instance refresh ({self.id}).", now)
            self.progressed = now

    def _complete(self, group, now):
        if self.status == "RollbackInProgress":
            return self._finish("RollbackSuccessful", now)
        if self.desired:
            group.settings.pop("LaunchTemplate", None)
            group.settings.pop("MixedInstancesPolicy", None)
            group.settings.update(self.desired)
        self._finish("Successful", now)

    def _finish(self, status, now):
        self.status, self.end = status, now

    # ---- checkpoints

    @property
    def _is_paused(self):
        return self.paused_until is not None

    def _pass_checkpoints(self, old, now):
        points = self.preferences.get("CheckpointPercentages") or []
        done = 100 if not self.total else 100 * (self.total - len(old)) // self.total
        if self.checkpoints_passed < len(points) and done >= points[self.checkpoints_passed] and done < 100:
            self.checkpoints_passed += 1
            self.paused_until = now + self.preferences.get("CheckpointDelay", 3600)
            self.progressed = self.paused_until
            self.reason = f"waits at the checkpoint of {points[self.checkpoints_passed - 1]} %"

    # ---- ends before the end

    def cancel(self):
        self.status = "Cancelling"

    def fail(self, group, reason, now):
        if self.preferences["AutoRollback"] and self.desired and self.status != "RollbackInProgress":
            return self.roll_back(group, now, reason)
        self.reason = reason
        self._finish("RollbackFailed" if self.status == "RollbackInProgress" else "Failed", now)

    def roll_back(self, group, now, reason="User requested"):
        """What was launched with the wanted configuration is replaced by what was before."""
        replaced = {member.id for member in group.active if member.id not in self.before}
        self.status, self.reason, self.progressed, self.paused_until = "RollbackInProgress", reason, now, None
        self.before, self.total = replaced, len(replaced)

    def describe(self, group):
        left = len([member for member in group.members if member.id in self.before])
        found = {"InstanceRefreshId": self.id, "AutoScalingGroupName": self.group, "Status": self.status, "StatusReason": self.reason, "StartTime": at(self.start),
                 "EndTime": at(self.end) if self.end else None, "PercentageComplete": 100 if not self.total and not self.is_at_work else 100 * (self.total - left) // max(self.total, 1),
                 "InstancesToUpdate": left, "Preferences": self.preferences, "DesiredConfiguration": self.desired, "Strategy": "Rolling"}
        return {key: value for key, value in found.items() if value is not None}


def check(cloud, preferences, desired):
    """What is wrong with the wish, as AWS would put it; None where it can be done."""
    low, high = preferences.get("MinHealthyPercentage", 90), preferences.get("MaxHealthyPercentage", 100)
    if unknown := [name for name in UNKNOWN if preferences.get(name)]:
        return f"the emulated region does not know the preference {unknown[0]}"
    if high - low > 100:
        return "The difference between MinHealthyPercentage and MaxHealthyPercentage cannot be greater than 100"
    if preferences.get("AutoRollback") and not desired:
        return "AutoRollback needs a DesiredConfiguration"
    if desired and preferences.get("AutoRollback"):
        specification = desired.get("LaunchTemplate") or desired["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]
        if (specification.get("Version") or "$Default").startswith("$"):
            return "AutoRollback cannot be used with the launch template version $Latest or $Default"
    if desired:
        try:
            specification = desired.get("LaunchTemplate") or desired["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]
            launch.resolve(cloud, specification)
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Message"]
    return None
