"""Instance refreshes, and scaling policies."""
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult

from ..errors import Invalid, NoRefresh, RefreshInProgress
from ..refresh import Refresh, check
from .request import Request


class Refreshes(Request):
    def start_instance_refresh(self):
        group, wanted = self.group(), self.wanted
        if group.refresh:
            raise RefreshInProgress(f"An Instance Refresh is already in progress and blocks the execution of this Instance Refresh. Instance refresh ID: {group.refresh.id}")
        if complaint := check(self.engine.cloud, wanted.get("Preferences", {}), wanted.get("DesiredConfiguration")):
            raise Invalid(complaint)
        group.refreshes.insert(0, Refresh(group, wanted.get("Preferences", {}), wanted.get("DesiredConfiguration"), self.engine, self.now))
        return self.done({"InstanceRefreshId": group.refreshes[0].id})

    def describe_instance_refreshes(self):
        group, ids = self.group(), self.wanted.get("InstanceRefreshIds")
        return self.page("InstanceRefreshes", [refresh.describe(group) for refresh in group.refreshes if not ids or refresh.id in ids])

    def cancel_instance_refresh(self):
        group = self.group()
        refresh = self._refresh(group)
        refresh.cancel()
        return self.done({"InstanceRefreshId": refresh.id})

    def rollback_instance_refresh(self):
        group = self.group()
        refresh = self._refresh(group)
        if not refresh.desired:
            raise ServiceException("IrreversibleInstanceRefresh", "The instance refresh has no desired configuration, and so nothing to roll back to")
        refresh.roll_back(group, self.now)
        return self.done({"InstanceRefreshId": refresh.id})

    @staticmethod
    def _refresh(group):
        if not group.refresh:
            raise NoRefresh(f"No in progress or pending Instance Refresh found for Auto Scaling group {group.name}")
        return group.refresh

    # Kept, and followed by whoever reads them: there are no metrics here.

    def put_scaling_policy(self):
        group, wanted = self.group(), self.wanted
        known = group.policies.get(wanted["PolicyName"], {})
        arn = known.get("PolicyARN") or f"{group.arn.replace(':autoScalingGroup:', ':scalingPolicy:')}:policyName/{wanted['PolicyName']}"
        group.policies[wanted["PolicyName"]] = {"PolicyType": "SimpleScaling", "Enabled": True} | wanted | {"PolicyARN": arn, "Alarms": []}
        return ActionResult({"PolicyARN": arn, "Alarms": []})

    def describe_policies(self):
        name, names = self.wanted.get("AutoScalingGroupName"), self.wanted.get("PolicyNames")
        groups = [self.group(name)] if name else self.groups.values()
        return self.page("ScalingPolicies", [policy for group in groups for policy in group.policies.values() if not names or policy["PolicyName"] in names])

    def delete_policy(self):
        group, name = self.group(), self.wanted["PolicyName"].rpartition("policyName/")[2]
        if name not in group.policies:
            raise Invalid("PolicyName not found")
        del group.policies[name]
        return EmptyResult()
