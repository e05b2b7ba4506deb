"""A security group that something uses cannot be deleted."""
from moto.ec2.exceptions import DependencyViolationError
from moto.ec2.models.security_groups import SecurityGroupBackend


def apply(cloud):
    delete = SecurityGroupBackend._delete_security_group

    def _delete_security_group(self, vpc_id, group_id):
        if user := user_of(self, cloud, group_id):
            raise DependencyViolationError(f"resource {group_id} has a dependent object: {user}")
        return delete(self, vpc_id, group_id)

    SecurityGroupBackend._delete_security_group = _delete_security_group


def user_of(ec2, cloud, group_id):
    """What uses the group: a machine that is not gone yet, an interface, a load balancer, another group's rule; None where nothing does."""
    for instance in ec2.all_instances():
        if instance.state != "terminated" and any(group.id == group_id for group in instance.security_groups):
            return instance.id
    for interface in ec2.enis.values():
        if interface.instance is None and any(group.id == group_id for group in interface.group_set):
            return interface.id
    for balancer in cloud.elb.load_balancers.values():
        if group_id in (balancer.security_groups or []):
            return balancer.arn
    for groups in ec2.groups.values():
        for other in groups.values():
            rules = [*other.ingress_rules, *other.egress_rules] if other.id != group_id else []
            if any((rule.source_group or {}).get("GroupId") == group_id for rule in rules):
                return other.id
    return None
