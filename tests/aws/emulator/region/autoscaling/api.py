"""The API of Auto Scaling: checks what is asked for, changes groups, tells of them. Doing is the engine's."""
import uuid

import botocore.exceptions
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse, EmptyResult

from . import launch
from .checks import check_size, check_subnets, check_tags, hook_from, require_target_groups
from .errors import AlreadyExists, Invalid, NoRefresh, RefreshInProgress, ResourceInUse, ScalingInProgress
from .group import IN_SERVICE, PENDING_WAIT, PROCESSES, TERMINATING_WAIT, Group
from .refresh import Refresh, check

PAGE = 50
# Set by `install`.
ENGINE = None


def plain(value):
    """Moto's dictionaries as Python's own."""
    if hasattr(value, "original_dict"):
        value = value.original_dict()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


class AutoScaling(BaseResponse):
    """One method an action. Actions that are not here fail with a sentence, and so does every region but the one that has machines."""

    def __init__(self):
        super().__init__(service_name="autoscaling")
        self.automated_parameter_parsing = True

    # ---- what they have in common

    def call_action(self):
        if not hasattr(self, _method_name(self._get_action())):
            self.__dict__[_method_name(self._get_action())] = None
            return self.serialized(ActionResult(Invalid(f"the emulated region does not know autoscaling:{self._get_action()}")))
        return super().call_action()

    @property
    def wanted(self):
        return plain(self._get_params())

    @property
    def now(self):
        return ENGINE.clock()

    @property
    def groups(self):
        return ENGINE.groups if self.region == ENGINE.cloud.region else {}

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
        ENGINE.wake()
        return ActionResult(result) if result is not None else EmptyResult()

    # ---- groups

    def create_auto_scaling_group(self):
        wanted = self.wanted
        name = wanted["AutoScalingGroupName"]
        if self.region != ENGINE.cloud.region:
            raise Invalid(f"machines are in {ENGINE.cloud.region} only")
        if name in self.groups:
            raise AlreadyExists(f"AutoScalingGroup by this name already exists - A group with the name {name} already exists")
        wanted.setdefault("DesiredCapacity", wanted["MinSize"])
        group = Group(wanted, f"arn:aws:autoscaling:{self.region}:{self.current_account}:autoScalingGroup:{uuid.uuid4()}:autoScalingGroupName/{name}", self.now)
        self._check(group)
        check_tags(wanted.get("Tags", []))
        group.tags = {tag["Key"]: (tag.get("Value", ""), tag.get("PropagateAtLaunch", False)) for tag in wanted.get("Tags", [])}
        group.hooks = {one["LifecycleHookName"]: hook_from(one) for one in wanted.get("LifecycleHookSpecificationList", [])}
        group.target_groups = wanted.pop("TargetGroupARNs", []) + [one["Identifier"] for one in wanted.get("TrafficSources", [])]
        require_target_groups(ENGINE.cloud, group.target_groups)
        group.settings.pop("TargetGroupARNs", None)
        self.groups[name] = group
        return self.done()

    def _check(self, group):
        check_size(group.settings)
        check_subnets(ENGINE.cloud, group)
        if sum(1 for kind in ("LaunchTemplate", "MixedInstancesPolicy", "LaunchConfigurationName", "InstanceId") if group[kind]) != 1:
            raise Invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
        if group["LaunchConfigurationName"] or group["InstanceId"]:
            raise Invalid("the emulated region launches from launch templates only")
        try:
            launch.resolve(ENGINE.cloud, group.template_specification()[0])
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

    @staticmethod
    def _zones(group):
        return sorted({ENGINE.cloud.ec2.get_subnet(name).availability_zone for name in group.subnets})

    def set_desired_capacity(self):
        group, wanted = self.group(), self.wanted
        check_size(group.settings | {"DesiredCapacity": wanted["DesiredCapacity"]})
        if wanted.get("HonorCooldown") and self.now - group.scaled_at < group["DefaultCooldown"]:
            raise ScalingInProgress(f"Scaling activity in progress: the cooldown of AutoScalingGroup {group.name} is not over")
        group.settings["DesiredCapacity"], group.scaled_at = wanted["DesiredCapacity"], self.now
        return self.done()

    # ---- instances

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
        activity = ENGINE._begin_end(group, member, "an instance was taken out of service in response to a user request.", self.now) or member.activity
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

    # ---- lifecycle hooks

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

    # ---- processes, activities, tags

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

    # ---- target groups

    def attach_load_balancer_target_groups(self):
        return self._attach(self.wanted["TargetGroupARNs"])

    def attach_traffic_sources(self):
        return self._attach([one["Identifier"] for one in self.wanted["TrafficSources"]])

    def _attach(self, arns):
        group = self.group()
        require_target_groups(ENGINE.cloud, arns)
        for arn in arns:
            if arn not in group.target_groups:
                group.target_groups.append(arn)
                for member in group.active:
                    if member.state == IN_SERVICE and group.may("AddToLoadBalancer"):
                        ENGINE.register(arn, member.id)
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
                ENGINE.deregister(arn, member.id)
        return self.done({})

    def describe_load_balancer_target_groups(self):
        return ActionResult({"LoadBalancerTargetGroups": [{"LoadBalancerTargetGroupARN": arn, "State": "InService"} for arn in self.group().target_groups]})

    def describe_traffic_sources(self):
        return ActionResult({"TrafficSources": [{"TrafficSource": arn, "Identifier": arn, "Type": "elbv2", "State": "InService"} for arn in self.group().target_groups]})

    # ---- instance refresh

    def start_instance_refresh(self):
        group, wanted = self.group(), self.wanted
        if group.refresh:
            raise RefreshInProgress(f"An Instance Refresh is already in progress and blocks the execution of this Instance Refresh. Instance refresh ID: {group.refresh.id}")
        if complaint := check(ENGINE.cloud, wanted.get("Preferences", {}), wanted.get("DesiredConfiguration")):
            raise Invalid(complaint)
        group.refreshes.insert(0, Refresh(group, wanted.get("Preferences", {}), wanted.get("DesiredConfiguration"), ENGINE, self.now))
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

    # ---- scaling policies: kept, and followed by whoever reads them; there are no metrics here

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

    # ---- the account

    def describe_account_limits(self):
        return ActionResult({"MaxNumberOfAutoScalingGroups": 500, "MaxNumberOfLaunchConfigurations": 200, "NumberOfAutoScalingGroups": len(self.groups), "NumberOfLaunchConfigurations": 0})

    def describe_termination_policy_types(self):
        return ActionResult({"TerminationPolicyTypes": ["Default"]})


def _method_name(action):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in action).lstrip("_")


def install(engine):
    """From here on requests to Auto Scaling come to `engine`; before moto's server has taken its own in."""
    global ENGINE
    ENGINE = engine
    import moto.autoscaling.urls
    moto.autoscaling.urls.url_paths = {"{0}/$": AutoScaling.dispatch}
