"""Launches an instance as a launch template says."""
import base64

from .group import Activity, Member

# What RunInstances takes as the template has it.
TAKEN = ("ImageId", "InstanceType", "KeyName", "Monitoring", "IamInstanceProfile", "MetadataOptions", "BlockDeviceMappings", "SecurityGroupIds", "SecurityGroups", "EbsOptimized",
         "InstanceMarketOptions", "DisableApiTermination", "InstanceInitiatedShutdownBehavior")
# Tags of other kinds belong to the template itself.
TAGGED = ("instance", "volume", "network-interface", "spot-instances-request")


def resolve(cloud, specification):
    """The template's data and its exact version: {LaunchTemplateId, LaunchTemplateName, Version}."""
    names = {key: specification[key] for key in ("LaunchTemplateId", "LaunchTemplateName") if specification.get(key)}
    found = cloud.client("ec2").describe_launch_template_versions(**names, Versions=[specification.get("Version") or "$Default"])["LaunchTemplateVersions"][0]
    exact = {"LaunchTemplateId": found["LaunchTemplateId"], "LaunchTemplateName": found["LaunchTemplateName"], "Version": str(found["VersionNumber"])}
    return found["LaunchTemplateData"], exact


def launch(cloud, group, specification, override, subnet, cause, now):
    """An instance that is pending, as a member of the group; raises what EC2 says where it is refused."""
    data, exact = resolve(cloud, specification)
    wanted = {key: data[key] for key in TAKEN if key in data} | {key: override[key] for key in ("InstanceType", "ImageId") if override.get(key)}
    if "UserData" in data:
        wanted["UserData"] = base64.b64decode(data["UserData"])
    interfaces = [dict(one, SubnetId=subnet.id) for one in data.get("NetworkInterfaces", [])]
    wanted |= {"NetworkInterfaces": interfaces} if interfaces else {"SubnetId": subnet.id}
    tags = [{"ResourceType": one["ResourceType"], "Tags": one["Tags"]} for one in data.get("TagSpecifications", []) if one["ResourceType"] in TAGGED and one["Tags"]]
    wanted |= {"TagSpecifications": tags} if tags else {}
    made = cloud.client("ec2").run_instances(MinCount=1, MaxCount=1, **wanted)["Instances"][0]
    instance = cloud.ec2.get_instance_by_id(made["InstanceId"])
    instance.add_tags({key: value for key, (value, propagate) in group.tags.items() if propagate})
    # Those that only AWS itself may set.
    instance.add_tags({"aws:autoscaling:groupName": group.name, "aws:ec2launchtemplate:id": exact["LaunchTemplateId"], "aws:ec2launchtemplate:version": exact["Version"]})
    if is_spot(group):
        instance.lifecycle = "spot"
    activity = group.note(f"Launching a new EC2 instance: {instance.id}", cause, now)
    zone_id = next(zone.zone_id for zone in cloud.ec2.describe_availability_zones() if zone.name == subnet.availability_zone)
    return Member(instance.id, subnet.availability_zone, zone_id, instance.instance_type, instance.image_id, exact, now, activity, bool(group["NewInstancesProtectedFromScaleIn"]))


def is_spot(group):
    """By the distribution of a mixed instances policy: the base on demand, of the rest a share."""
    distribution = (group["MixedInstancesPolicy"] or {}).get("InstancesDistribution") or {}
    base, share = distribution.get("OnDemandBaseCapacity", 0), distribution.get("OnDemandPercentageAboveBaseCapacity", 100)
    above = len(group.active) - base
    return above >= 0 and (above + 1) * share // 100 == above * share // 100


def failed(group, reason, cause, now):
    """A launch that EC2 refused, as the group's history tells of it."""
    group.activities.insert(0, Activity(group.name, "Launching a new EC2 instance.  Status Reason: " + reason, f"At {cause}", now))
    group.activities[0].finish("Failed", now, reason)
