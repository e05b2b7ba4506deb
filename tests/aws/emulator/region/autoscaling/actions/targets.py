"""Target groups that members are registered in."""
from moto.core.responses import ActionResult

from ..checks import require_target_groups
from ..errors import Invalid
from ..group import IN_SERVICE
from .request import Request


class Targets(Request):
    def attach_load_balancer_target_groups(self):
        return self._attach(self.wanted["TargetGroupARNs"])

    def attach_traffic_sources(self):
        return self._attach([one["Identifier"] for one in self.wanted["TrafficSources"]])

    def _attach(self, arns):
        group = self.group()
        require_target_groups(self.engine.cloud, arns)
        for arn in arns:
            if arn not in group.target_groups:
                group.target_groups.append(arn)
                for member in group.active:
                    if member.state == IN_SERVICE and group.may("AddToLoadBalancer"):
                        self.engine.register(arn, member.id)
        return self.done({})

    def detach_load_balancer_target_groups(self):
        return self._detach(self.wanted["TargetGroupARNs"])

    def detach_traffic_sources(self):
        return self._detach([one["Identifier"] for one in self.wanted["TrafficSources"]])

    def _detach(self, arns):
        group = self.group()
        for arn in arns:
            if arn not in group.target_groups:
                raise Invalid(f"Trying to remove Target Groups that are not part of the group: [{arn}]")
            group.target_groups.remove(arn)
            for member in group.members:
                self.engine.deregister(arn, member.id)
        return self.done({})

    def describe_load_balancer_target_groups(self):
        return ActionResult({"LoadBalancerTargetGroups": [{"LoadBalancerTargetGroupARN": arn, "State": "InService"} for arn in self.group().target_groups]})

    def describe_traffic_sources(self):
        return ActionResult({"TrafficSources": [{"TrafficSource": arn, "Identifier": arn, "Type": "elbv2", "State": "InService"} for arn in self.group().target_groups]})
