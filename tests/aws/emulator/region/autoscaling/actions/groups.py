"""Groups: made, changed, deleted, described."""
import uuid

import botocore.exceptions

from .. import launch
from ..checks import check_size, check_subnets, check_tags, hook_from, require_target_groups
from ..errors import AlreadyExists, Invalid, ResourceInUse, ScalingInProgress
from ..group import Group
from .request import Request


class Groups(Request):
    def create_auto_scaling_group(self):
        wanted = self.wanted
        name = wanted["AutoScalingGroupName"]
        if self.region != self.engine.cloud.region:
            raise Invalid(f"machines are in {self.engine.cloud.region} only")
        if name in self.groups:
            raise AlreadyExists(f"AutoScalingGroup by this name already exists - A group with the name {name} already exists")
        wanted.setdefault("DesiredCapacity", wanted["MinSize"])
        group = Group(wanted, f"arn:aws:autoscaling:{self.region}:{self.current_account}:autoScalingGroup:{uuid.uuid4()}:autoScalingGroupName/{name}", self.now)
        self._check(group)
        check_tags(wanted.get("Tags", []))
        group.tags = {tag["Key"]: (tag.get("Value", ""), tag.get("PropagateAtLaunch", False)) for tag in wanted.get("Tags", [])}
        group.hooks = {one["LifecycleHookName"]: hook_from(one) for one in wanted.get("LifecycleHookSpecificationList", [])}
        group.target_groups = wanted.pop("TargetGroupARNs", []) + [one["Identifier"] for one in wanted.get("TrafficSources", [])]
        require_target_groups(self.engine.cloud, group.target_groups)
        group.settings.pop("TargetGroupARNs", None)
        self.groups[name] = group
        return self.done()

    def _check(self, group):
        check_size(group.settings)
        check_subnets(self.engine.cloud, group)
        if sum(1 for kind in ("LaunchTemplate", "MixedInstancesPolicy", "LaunchConfigurationName", "InstanceId") if group[kind]) != 1:
            raise Invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
        if group["LaunchConfigurationName"] or group["InstanceId"]:
            raise Invalid("the emulated region launches from launch templates only")
        try:
            launch.resolve(self.engine.cloud, group.template_specification()[0])
        except botocore.exceptions.ClientError as error:
            raise Invalid(f"You must use a valid fully-formed launch template. {error.response['Error']['Message']}") from None

    def update_auto_scaling_group(self):
        group, wanted = self.group(), self.wanted
        settings = group.settings | wanted
        if "LaunchTemplate" in wanted:
            settings.pop("MixedInstancesPolicy", None)
        elif "MixedInstancesPolicy" in wanted:
            settings.pop("LaunchTemplate", None)
        # Only the size that is not given follows the limits that are.
        if "DesiredCapacity" not in wanted:
            settings["DesiredCapacity"] = max(settings["MinSize"], min(settings["MaxSize"], settings["DesiredCapacity"]))
        changed = Group(settings, group.arn, group.created)
        self._check(changed)
        group.settings = changed.settings
        return self.done()

    def delete_auto_scaling_group(self):
        group, forced = self.group(), self.wanted.get("ForceDelete", False)
        if group["DeletionProtection"] == "prevent-all-deletion" or forced and group["DeletionProtection"] == "prevent-force-deletion":
            raise Invalid(f"AutoScalingGroup {group.name} has deletion protection: {group['DeletionProtection']}")
        if not forced and group.members:
            raise ResourceInUse("You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.")
        group.deleting, group.forced = True, forced
        if not group.members:
            del self.groups[group.name]
        return self.done()

    def describe_auto_scaling_groups(self):
        names, filters = self.wanted.get("AutoScalingGroupNames"), self.wanted.get("Filters", [])
        found = [group for group in self.groups.values() if (not names or group.name in names) and all(self._matches(group, one) for one in filters)]
        return self.page("AutoScalingGroups", [group.describe(self._zones(group)) for group in sorted(found, key=lambda group: group.name)])

    @staticmethod
    def _matches(group, one):
        name, values = one["Name"], one["Values"]
        if name == "tag-key":
            return any(key in values for key in group.tags)
        if name == "tag-value":
            return any(value in values for value, _ in group.tags.values())
        if name.startswith("tag:"):
            return name[4:] in group.tags and group.tags[name[4:]][0] in values
        raise Invalid(f"Filter type {name} is not correct. Allowed Filter types are: tag-key tag-value tag:<key>")

    def _zones(self, group):
        return sorted({self.engine.cloud.ec2.get_subnet(name).availability_zone for name in group.subnets})

    def set_desired_capacity(self):
        group, wanted = self.group(), self.wanted
        check_size(group.settings | {"DesiredCapacity": wanted["DesiredCapacity"]})
        if wanted.get("HonorCooldown") and self.now - group.scaled_at < group["DefaultCooldown"]:
            raise ScalingInProgress(f"Scaling activity in progress: the cooldown of AutoScalingGroup {group.name} is not over")
        group.settings["DesiredCapacity"], group.scaled_at = wanted["DesiredCapacity"], self.now
        return self.done()
