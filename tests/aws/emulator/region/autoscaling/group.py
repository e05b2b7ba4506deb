"""What an Auto Scaling group is: its settings, members, hooks and activities. No decisions are made here."""
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone

PENDING, PENDING_WAIT, PENDING_PROCEED, IN_SERVICE = "Pending", "Pending:Wait", "Pending:Proceed", "InService"
TERMINATING, TERMINATING_WAIT, TERMINATING_PROCEED = "Terminating", "Terminating:Wait", "Terminating:Proceed"
LAUNCHING, ENDING = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"

PROCESSES = ["Launch", "Terminate", "AddToLoadBalancer", "AlarmNotification", "AZRebalance", "HealthCheck", "InstanceRefresh", "ReplaceUnhealthy", "ScheduledActions"]


def at(moment):
    return datetime.fromtimestamp(moment, timezone.utc)


@dataclass
class Hook:
    """A point of an instance's life at which somebody is waited for. Times in seconds."""
    name: str
    transition: str
    heartbeat: int = 3600
    default: str = "ABANDON"
    metadata: str | None = None
    target: str | None = None
    role: str | None = None

    @property
    def longest(self):
        """However many heartbeats there are."""
        return min(48 * 3600, 100 * self.heartbeat)

    def describe(self, group):
        found = {"LifecycleHookName": self.name, "AutoScalingGroupName": group, "LifecycleTransition": self.transition, "HeartbeatTimeout": self.heartbeat,
                 "GlobalTimeout": self.longest, "DefaultResult": self.default, "NotificationMetadata": self.metadata, "NotificationTargetARN": self.target, "RoleARN": self.role}
        return {key: value for key, value in found.items() if value is not None}


@dataclass
class Wait:
    """One hook at work on one member; `result` is None until somebody, or time, says."""
    hook: Hook
    began: float
    deadline: float
    token: str = field(default_factory=lambda: str(uuid.uuid4()))
    result: str | None = None

    def beat(self, now):
        self.deadline = min(now + self.hook.heartbeat, self.began + self.hook.longest)


@dataclass
class Activity:
    """One entry of the group's history."""
    group: str
    description: str
    cause: str
    start: float
    status: str = "InProgress"
    message: str | None = None
    end: float | None = None
    progress: int = 0
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def finish(self, status, now, message=None):
        if self.end is None:
            self.status, self.end, self.progress, self.message = status, now, 100, message

    def describe(self):
        found = {"ActivityId": self.id, "AutoScalingGroupName": self.group, "Description": self.description, "Cause": self.cause[:1023], "StartTime": at(self.start),
                 "StatusCode": self.status, "StatusMessage": self.message and self.message[:255], "Progress": self.progress, "EndTime": at(self.end) if self.end else None, "Details": "{}"}
        return {key: value for key, value in found.items() if value is not None}


@dataclass
class Member:
    """An instance of the group."""
    id: str
    zone: str
    zone_id: str
    type: str
    image: str
    template: dict  # LaunchTemplateId, LaunchTemplateName, Version
    launched: float
    activity: Activity
    protected: bool
    state: str = PENDING
    health: str = "Healthy"
    in_service_since: float | None = None
    waits: list = field(default_factory=list)
    # Since when EC2 does not call it running; why it is unhealthy; whether its end spares the hooks.
    seen_dead: float | None = None
    complaint: str | None = None
    without_hooks: bool = False

    @property
    def is_active(self):
        """Whether it counts towards the desired capacity."""
        return not self.state.startswith("Terminating")

    def matches(self, template, override):
        """Whether it was launched by this version of this template, with this override."""
        is_same = all(self.template[key] == template[key] for key in ("LaunchTemplateId", "Version"))
        return is_same and override.get("InstanceType", self.type) == self.type

    def describe(self):
        return {"InstanceId": self.id, "AvailabilityZone": self.zone, "AvailabilityZoneId": self.zone_id, "LifecycleState": self.state, "HealthStatus": self.health,
                "ProtectedFromScaleIn": self.protected, "InstanceType": self.type, "ImageId": self.image, "LaunchTemplate": self.template}


class Group:
    """`settings` are CreateAutoScalingGroup's, by their names there, with AWS's defaults."""

    def __init__(self, settings, arn, now):
        self.settings = {"DefaultCooldown": 300, "HealthCheckType": "EC2", "HealthCheckGracePeriod": 0, "TerminationPolicies": ["Default"],
                         "NewInstancesProtectedFromScaleIn": False, "CapacityRebalance": False, "DeletionProtection": "none"} | settings
        self.name, self.arn, self.created = settings["AutoScalingGroupName"], arn, now
        self.tags, self.hooks, self.suspended = {}, {}, {}
        self.target_groups = []
        self.members, self.activities, self.refreshes, self.policies = [], [], [], {}
        self.deleting, self.forced, self.retry_at, self.scaled_at = False, False, 0.0, 0.0

    def __getitem__(self, name):
        return self.settings.get(name)

    @property
    def desired(self):
        return self.settings["DesiredCapacity"]

    @property
    def subnets(self):
        return [word.strip() for word in (self["VPCZoneIdentifier"] or "").split(",") if word.strip()]

    @property
    def active(self):
        return [member for member in self.members if member.is_active]

    @property
    def refresh(self):
        """The instance refresh at work, if any."""
        return next((refresh for refresh in self.refreshes if refresh.is_at_work), None)

    def member(self, instance_id):
        return next((member for member in self.members if member.id == instance_id), None)

    def may(self, process):
        return process not in self.suspended

    def note(self, description, cause, now, **more):
        self.activities.insert(0, Activity(self.name, description, f"At {at(now):%Y-%m-%dT%H:%M:%SZ} {cause}", now, **more))
        return self.activities[0]

    def template_specification(self):
        """The launch template's specification, and the first override of a mixed instances policy."""
        if policy := self["MixedInstancesPolicy"]:
            overrides = policy["LaunchTemplate"].get("Overrides") or [{}]
            return overrides[0].get("LaunchTemplateSpecification") or policy["LaunchTemplate"]["LaunchTemplateSpecification"], overrides[0]
        return self["LaunchTemplate"], {}

    def describe_tags(self):
        return [{"ResourceId": self.name, "ResourceType": "auto-scaling-group", "Key": key, "Value": value, "PropagateAtLaunch": propagate}
                for key, (value, propagate) in sorted(self.tags.items())]

    def describe(self, zones):
        found = {key: value for key, value in self.settings.items() if value is not None and key not in ("Tags", "LifecycleHookSpecificationList", "AvailabilityZones", "TrafficSources")}
        found |= {"AutoScalingGroupARN": self.arn, "CreatedTime": at(self.created), "AvailabilityZones": zones, "LoadBalancerNames": [], "TargetGroupARNs": self.target_groups,
                  "Instances": [member.describe() for member in self.members], "SuspendedProcesses": [{"ProcessName": name, "SuspensionReason": why} for name, why in sorted(self.suspended.items())],
                  "EnabledMetrics": [], "Tags": self.describe_tags(), "TrafficSources": [{"Identifier": arn, "Type": "elbv2"} for arn in self.target_groups],
                  "ServiceLinkedRoleARN": f"arn:aws:iam::{self.arn.split(':')[4]}:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"}
        if self.deleting:
            found["Status"] = "Delete in progress"
        return found
