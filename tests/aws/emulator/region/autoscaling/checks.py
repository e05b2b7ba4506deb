"""What has to hold before a group is changed, in AWS's words where we know them."""
from moto.core.exceptions import ServiceException

from .errors import Invalid
from .group import ENDING, LAUNCHING, Hook


def check_size(settings):
    low, high, wanted = settings["MinSize"], settings["MaxSize"], settings["DesiredCapacity"]
    if low < 0 or low > high:
        raise Invalid(f"Max bound, {high}, must be greater than or equal to min bound, {low}")
    if wanted < low:
        raise Invalid(f"New SetDesiredCapacity value {wanted} is below min value {low} for the AutoScalingGroup.")
    if wanted > high:
        raise Invalid(f"New SetDesiredCapacity value {wanted} is above max value {high} for the AutoScalingGroup.")


def check_subnets(cloud, group):
    """There are some, they exist, and each has a zone of its own. Zones without subnets are those of the default VPC."""
    if not group.subnets:
        defaults = cloud.ec2.get_default_subnets()
        zones = group["AvailabilityZones"] or []
        if not zones or any(zone not in defaults for zone in zones):
            raise Invalid("At least one Availability Zone or VPC Subnet is required.")
        group.settings["VPCZoneIdentifier"] = ",".join(defaults[zone].id for zone in zones)
    for name in group.subnets:
        try:
            cloud.ec2.get_subnet(name)
        except ServiceException:
            raise Invalid(f"The subnet ID '{name}' does not exist") from None


def check_tags(tags):
    for tag in tags:
        if tag["Key"].lower().startswith("aws:"):
            raise Invalid(f"The tag key {tag['Key']} is reserved")
        if len(tag["Key"]) > 128 or len(tag.get("Value", "")) > 256:
            raise Invalid(f"The tag {tag['Key'][:128]} is too long: 128 characters for the key, 256 for the value")
    if len(tags) > 50:
        raise Invalid("A group can have 50 tags")


def require_target_groups(cloud, arns):
    for arn in arns:
        if arn not in cloud.elb.target_groups:
            raise Invalid(f"Provided Target Groups may not be valid. Please ensure they exist and try again. ({arn})")


def hook_from(wanted, old=None):
    """A hook as it is asked for; what is not given stays as it was."""
    transition = wanted.get("LifecycleTransition") or (old and old.transition)
    if transition not in (LAUNCHING, ENDING):
        raise Invalid("LifecycleTransition must be one of " + f"{LAUNCHING}, {ENDING}")
    hook = Hook(wanted["LifecycleHookName"], transition)
    if old:
        hook.heartbeat, hook.default, hook.metadata, hook.target, hook.role = old.heartbeat, old.default, old.metadata, old.target, old.role
    hook.heartbeat = wanted.get("HeartbeatTimeout") or hook.heartbeat
    hook.default = wanted.get("DefaultResult") or hook.default
    hook.metadata, hook.target, hook.role = (wanted.get(key) or kept for key, kept in
                                             (("NotificationMetadata", hook.metadata), ("NotificationTargetARN", hook.target), ("RoleARN", hook.role)))
    if not 30 <= hook.heartbeat <= 7200:
        raise Invalid("Heartbeat timeout must be between 30 and 7200 seconds")
    if hook.default not in ("CONTINUE", "ABANDON"):
        raise Invalid("DefaultResult must be CONTINUE or ABANDON")
    return hook
