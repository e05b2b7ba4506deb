"""Members of groups: described, ended, called unhealthy, protected."""
from ..errors import Invalid
from ..group import IN_SERVICE
from .request import Request


class Instances(Request):
    def describe_auto_scaling_instances(self):
        ids = self.wanted.get("InstanceIds")
        found = [member.describe() | {"AutoScalingGroupName": group.name, "HealthStatus": member.health.upper()} for group in self.groups.values() for member in group.members
                 if not ids or member.id in ids]
        return self.page("AutoScalingInstances", found)

    def terminate_instance_in_auto_scaling_group(self):
        wanted = self.wanted
        group, member = self.member(wanted["InstanceId"])
        if wanted["ShouldDecrementDesiredCapacity"]:
            if group.desired <= group["MinSize"]:
                raise Invalid(f"Currently, desiredSize equals minSize ({group['MinSize']}). Terminating instance without replacement will violate group's min size constraint. "
                              "Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.")
            group.settings["DesiredCapacity"] -= 1
        activity = self.engine.begin_end(group, member, "an instance was taken out of service in response to a user request.", self.now) or member.activity
        return self.done({"Activity": activity.describe()})

    def set_instance_health(self):
        group, member = self.member(self.wanted["InstanceId"])
        if self.wanted["HealthStatus"] not in ("Healthy", "Unhealthy"):
            raise Invalid("HealthStatus must be Healthy or Unhealthy")
        # Respected unless told otherwise: within the grace period nothing is replaced.
        respects = self.wanted.get("ShouldRespectGracePeriod", True) and member.in_service_since is not None
        if not respects or self.now - member.in_service_since >= group["HealthCheckGracePeriod"] or self.wanted["HealthStatus"] == "Healthy":
            member.health, member.complaint = self.wanted["HealthStatus"], "an instance was taken out of service in response to a user health-check."
        return self.done()

    def set_instance_protection(self):
        group, wanted = self.group(), self.wanted
        members = [group.member(name) for name in wanted["InstanceIds"]]
        for name, member in zip(wanted["InstanceIds"], members):
            if member is None:
                raise Invalid(f"The instance {name} is not part of Auto Scaling group {group.name}.")
            if member.state != IN_SERVICE:
                raise Invalid(f"The instance {name} is not in InService or EnteringStandby or Standby.")
        for member in members:
            member.protected = wanted["ProtectedFromScaleIn"]
        return self.done({})
