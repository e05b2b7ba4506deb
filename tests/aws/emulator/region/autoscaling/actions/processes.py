"""Processes that are suspended, activities, tags, and the account."""
from moto.core.responses import ActionResult

from ..checks import check_tags
from ..errors import Invalid
from ..group import PROCESSES
from .request import Request


class Processes(Request):
    def suspend_processes(self):
        group = self.group()
        for name in self._processes():
            group.suspended[name] = f"User suspended at {self.now:.0f}"
        return self.done()

    def resume_processes(self):
        group = self.group()
        for name in self._processes():
            group.suspended.pop(name, None)
        return self.done()

    def _processes(self):
        names = self.wanted.get("ScalingProcesses") or PROCESSES
        if unknown := [name for name in names if name not in PROCESSES]:
            raise Invalid(f"{unknown[0]} is not a valid scaling process")
        return names

    def describe_scaling_activities(self):
        name, ids = self.wanted.get("AutoScalingGroupName"), self.wanted.get("ActivityIds")
        groups = [self.group(name)] if name else self.groups.values()
        found = [activity for group in groups for activity in group.activities if not ids or activity.id in ids]
        return self.page("Activities", [activity.describe() for activity in sorted(found, key=lambda activity: -activity.start)], 100)

    def create_or_update_tags(self):
        check_tags(self.wanted["Tags"])
        groups = [self.group(tag["ResourceId"]) for tag in self.wanted["Tags"]]
        for group, tag in zip(groups, self.wanted["Tags"]):
            group.tags[tag["Key"]] = (tag.get("Value", ""), tag.get("PropagateAtLaunch", False))
        return self.done()

    def delete_tags(self):
        for tag in self.wanted["Tags"]:
            self.group(tag["ResourceId"]).tags.pop(tag["Key"], None)
        return self.done()

    def describe_tags(self):
        fields = {"auto-scaling-group": "ResourceId", "key": "Key", "value": "Value"}
        found = [tag for group in self.groups.values() for tag in group.describe_tags()]
        for one in self.wanted.get("Filters", []):
            if one["Name"] == "propagate-at-launch":
                found = [tag for tag in found if str(tag["PropagateAtLaunch"]).lower() in one["Values"]]
            elif one["Name"] in fields:
                found = [tag for tag in found if tag[fields[one["Name"]]] in one["Values"]]
            else:
                raise Invalid(f"Filter type {one['Name']} is not correct.")
        return self.page("Tags", found)

    def describe_account_limits(self):
        return ActionResult({"MaxNumberOfAutoScalingGroups": 500, "MaxNumberOfLaunchConfigurations": 200, "NumberOfAutoScalingGroups": len(self.groups), "NumberOfLaunchConfigurations": 0})

    def describe_termination_policy_types(self):
        return ActionResult({"TerminationPolicyTypes": ["Default"]})
