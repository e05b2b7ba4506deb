"""Auto Scaling by the clock: what takes minutes or hours is seen here in no time, without machines."""
import base64
import json
import unittest

import botocore.exceptions

from region.autoscaling import api
from region.autoscaling.engine import Engine
from region.cloud import Cloud
from region.mends import instances, templates

GROUP = "orders"
LAUNCH, TERMINATE = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"


class Clock:
    now = 1_800_000_000.0

    def __call__(self):
        return Clock.now


CLOUD = Cloud("eu-central-1")
instances.apply(CLOUD, lambda: None)
templates.apply()
ENGINE = Engine(CLOUD, detect=1, clock=Clock())
api.install(ENGINE)


class ByTheClock(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scaling, cls.ec2 = CLOUD.client("autoscaling"), CLOUD.client("ec2")
        image = cls.ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
        data = {"ImageId": image, "InstanceType": "m5.large", "UserData": base64.b64encode(b"#!/bin/true").decode()}
        cls.template = cls.ec2.create_launch_template(LaunchTemplateName="orders", LaunchTemplateData=data)["LaunchTemplate"]["LaunchTemplateId"]
        cls.ec2.create_launch_template_version(LaunchTemplateId=cls.template, SourceVersion="1", LaunchTemplateData={"InstanceType": "m5.xlarge"})
        cls.subnets = ",".join(subnet["SubnetId"] for subnet in cls.ec2.describe_subnets()["Subnets"])

    def setUp(self):
        ENGINE.groups.clear()
        self.is_dark = False

    def group(self, size, hooks=(), **more):
        self.scaling.create_auto_scaling_group(AutoScalingGroupName=GROUP, MinSize=more.pop("low", 0), MaxSize=6, DesiredCapacity=size, VPCZoneIdentifier=self.subnets,
                                               LaunchTemplate={"LaunchTemplateId": self.template, "Version": "1"}, LifecycleHookSpecificationList=list(hooks), **more)
        self.go(1)

    def go(self, seconds):
        """Time passes, with all that it brings; machines come up and go down at once."""
        until = Clock.now + seconds
        while Clock.now < until:
            for instance in CLOUD.ec2.all_instances():
                if instance.state == "pending" and not self.is_dark:
                    instances.enter(instance, instances.RUNNING)
                elif instance.state == "shutting-down":
                    instances.enter(instance, instances.TERMINATED)
            ENGINE.tick()
            Clock.now += 0.25 if seconds <= 60 else 5

    def members(self, state=None):
        return [member.id for member in ENGINE.groups[GROUP].members if state is None or member.state == state]

    def hook(self, transition, **more):
        return {"LifecycleHookName": "hook", "LifecycleTransition": transition, "HeartbeatTimeout": 60, **more}

    def complete(self, name, result):
        self.scaling.complete_lifecycle_action(AutoScalingGroupName=GROUP, LifecycleHookName="hook", InstanceId=name, LifecycleActionResult=result)

    def refresh(self, **preferences):
        desired = preferences.pop("desired", {"LaunchTemplate": {"LaunchTemplateId": self.template, "Version": "2"}})
        self.scaling.start_instance_refresh(AutoScalingGroupName=GROUP, DesiredConfiguration=desired, Preferences={"InstanceWarmup": 0} | preferences)

    def refreshed(self):
        return self.scaling.describe_instance_refreshes(AutoScalingGroupName=GROUP)["InstanceRefreshes"][0]

    def activities(self):
        return self.scaling.describe_scaling_activities(AutoScalingGroupName=GROUP)["Activities"]

    # ---- hooks

    def test_a_launch_that_nobody_completes_is_abandoned_and_tried_again(self):
        self.group(1, [self.hook(LAUNCH)])
        first = self.members("Pending:Wait")
        self.go(50)
        self.assertEqual(self.members(), first)
        self.scaling.record_lifecycle_action_heartbeat(AutoScalingGroupName=GROUP, LifecycleHookName="hook", InstanceId=first[0])
        self.go(50)
        self.assertEqual(self.members(), first)
        self.go(20)
        second = self.members("Pending:Wait")
        self.assertEqual(len(second), 1)
        self.assertNotEqual(second, first)
        self.assertIn("was abandoned", next(one["StatusMessage"] for one in self.activities() if one["StatusCode"] == "Cancelled"))

    def test_heartbeats_do_not_help_for_ever(self):
        self.group(1, [self.hook(LAUNCH, HeartbeatTimeout=30)])
        first = self.members()
        for _ in range(160):
            self.go(20)
            if self.members() != first:
                break
            self.scaling.record_lifecycle_action_heartbeat(AutoScalingGroupName=GROUP, LifecycleHookName="hook", InstanceId=first[0])
        self.assertNotEqual(self.members(), first)

    def test_an_end_that_nobody_completes_goes_on_by_itself(self):
        self.group(2, [self.hook(TERMINATE, DefaultResult="CONTINUE")])
        self.scaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
        self.go(30)
        self.assertEqual(len(self.members("Terminating:Wait")), 1)
        self.go(40)
        self.assertEqual([len(self.members()), len(self.members("InService"))], [1, 1])

    def test_a_deleted_hook_waits_for_nobody(self):
        self.group(1, [self.hook(TERMINATE)])
        self.scaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=0)
        self.go(2)
        self.assertEqual(len(self.members("Terminating:Wait")), 1)
        self.scaling.delete_lifecycle_hook(AutoScalingGroupName=GROUP, LifecycleHookName="hook")
        self.go(2)
        self.assertEqual(self.members(), [])

    def test_completing_what_does_not_wait_is_an_error(self):
        self.group(1, [self.hook(LAUNCH)])
        name = self.members("Pending:Wait")[0]
        self.complete(name, "CONTINUE")
        self.go(1)
        self.assertEqual(self.members("InService"), [name])
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "No active Lifecycle Action found"):
            self.complete(name, "CONTINUE")

    # ---- capacity

    def test_limits_hold(self):
        self.group(2, low=2)
        for wish in (1, 7):
            with self.assertRaisesRegex(botocore.exceptions.ClientError, "ValidationError"):
                self.scaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=wish)
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "equals minSize"):
            self.scaling.terminate_instance_in_auto_scaling_group(InstanceId=self.members()[0], ShouldDecrementDesiredCapacity=True)
        self.scaling.update_auto_scaling_group(AutoScalingGroupName=GROUP, MinSize=3)
        self.go(2)
        self.assertEqual(len(self.members("InService")), 3)

    def test_terminating_one_decrements_only_when_asked_to(self):
        self.group(3)
        first, second = self.members()[:2]
        self.scaling.terminate_instance_in_auto_scaling_group(InstanceId=first, ShouldDecrementDesiredCapacity=False)
        self.go(3)
        self.assertEqual((len(self.members("InService")), first in self.members()), (3, False))
        self.scaling.terminate_instance_in_auto_scaling_group(InstanceId=second, ShouldDecrementDesiredCapacity=True)
        self.go(3)
        self.assertEqual((len(self.members("InService")), second in self.members()), (2, False))

    def test_zones_are_kept_even(self):
        self.group(6)
        zones = lambda: sorted([member.zone for member in ENGINE.groups[GROUP].members].count(zone) for zone in {member.zone for member in ENGINE.groups[GROUP].members})  # noqa: E731
        self.assertEqual(zones(), [2, 2, 2])
        self.scaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=3)
        self.go(3)
        self.assertEqual(zones(), [1, 1, 1])

    def test_the_protected_are_never_scaled_in(self):
        self.group(3, NewInstancesProtectedFromScaleIn=True)
        self.scaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=1)
        self.go(60)
        self.assertEqual(len(self.members("InService")), 3)
        self.scaling.set_instance_protection(AutoScalingGroupName=GROUP, InstanceIds=self.members()[:1], ProtectedFromScaleIn=False)
        self.go(3)
        self.assertEqual(len(self.members("InService")), 2)

    def test_a_suspended_launch_waits(self):
        self.group(1)
        self.scaling.suspend_processes(AutoScalingGroupName=GROUP, ScalingProcesses=["Launch"])
        self.scaling.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=2)
        self.go(5)
        self.assertEqual(len(self.members()), 1)
        self.assertEqual(self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"][0]["SuspendedProcesses"][0]["ProcessName"], "Launch")
        self.scaling.resume_processes(AutoScalingGroupName=GROUP)
        self.go(5)
        self.assertEqual(len(self.members()), 2)

    def test_with_a_maintenance_policy_the_next_serves_before_the_sick_one_goes(self):
        self.group(2, InstanceMaintenancePolicy={"MinHealthyPercentage": 100, "MaxHealthyPercentage": 150})
        sick = self.members()[0]
        self.is_dark = True
        self.scaling.set_instance_health(InstanceId=sick, HealthStatus="Unhealthy")
        self.go(10)
        self.assertEqual((self.members("InService").count(sick), len(self.members("Pending"))), (1, 1))
        self.is_dark = False
        self.go(5)
        self.assertEqual((len(self.members("InService")), sick in self.members()), (2, False))

    def test_a_group_with_members_is_deleted_by_force_only(self):
        self.group(2, [self.hook(TERMINATE)])
        with self.assertRaises(self.scaling.exceptions.ResourceInUseFault):
            self.scaling.delete_auto_scaling_group(AutoScalingGroupName=GROUP)
        self.scaling.delete_auto_scaling_group(AutoScalingGroupName=GROUP, ForceDelete=True)
        self.assertEqual(self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"][0]["Status"], "Delete in progress")
        self.go(3)
        self.assertEqual(ENGINE.groups, {})

    def test_spot_is_what_the_policy_says(self):
        self.scaling.create_auto_scaling_group(AutoScalingGroupName=GROUP, MinSize=4, MaxSize=4, VPCZoneIdentifier=self.subnets, MixedInstancesPolicy={
            "LaunchTemplate": {"LaunchTemplateSpecification": {"LaunchTemplateId": self.template}, "Overrides": [{"InstanceType": "r5.large"}, {"InstanceType": "r5a.large"}]},
            "InstancesDistribution": {"OnDemandBaseCapacity": 1, "OnDemandPercentageAboveBaseCapacity": 0}})
        self.go(2)
        found = [CLOUD.ec2.get_instance_by_id(name) for name in self.members()]
        self.assertEqual([(one.lifecycle, one.instance_type) for one in found], [(None, "r5.large")] + [("spot", "r5.large")] * 3)

    # ---- refreshes

    def test_a_refresh_waits_for_the_protected_and_fails_after_an_hour(self):
        self.group(3)
        leader = self.members()[0]
        self.scaling.set_instance_protection(AutoScalingGroupName=GROUP, InstanceIds=[leader], ProtectedFromScaleIn=True)
        self.refresh()
        self.go(600)
        self.assertEqual((self.refreshed()["Status"], self.refreshed()["InstancesToUpdate"], leader in self.members("InService")), ("InProgress", 1, True))
        self.go(3500)
        self.assertEqual(self.refreshed()["Status"], "Failed")
        self.assertEqual(self.scaling.describe_auto_scaling_groups()["AutoScalingGroups"][0]["LaunchTemplate"]["Version"], "1")

    def test_a_refresh_passes_the_protected_over_or_replaces_them_as_told(self):
        self.group(2, NewInstancesProtectedFromScaleIn=True)
        before = self.members()
        self.refresh(ScaleInProtectedInstances="Ignore")
        self.go(10)
        self.assertEqual((self.refreshed()["Status"], self.members()), ("Successful", before))
        self.refresh(ScaleInProtectedInstances="Refresh")
        self.go(30)
        self.assertEqual((self.refreshed()["Status"], set(self.members()) & set(before)), ("Successful", set()))

    def test_a_refresh_may_launch_before_it_terminates(self):
        self.group(2)
        before = self.members()
        self.is_dark = True
        self.refresh(MinHealthyPercentage=100, MaxHealthyPercentage=150)
        self.go(20)
        self.assertEqual((self.members("InService"), len(self.members("Pending"))), (before, 1))
        self.is_dark = False
        self.go(20)
        self.assertEqual((self.refreshed()["Status"], len(self.members("InService")), set(self.members()) & set(before)), ("Successful", 2, set()))
        self.assertEqual({member.type for member in ENGINE.groups[GROUP].members}, {"m5.xlarge"})

    def test_a_refresh_stops_at_checkpoints(self):
        self.group(4)
        self.refresh(CheckpointPercentages=[50, 100], CheckpointDelay=300, MinHealthyPercentage=75)
        self.go(200)
        self.assertEqual((self.refreshed()["Status"], self.refreshed()["PercentageComplete"]), ("InProgress", 50))
        self.go(300)
        self.assertEqual(self.refreshed()["Status"], "Successful")

    def test_a_refresh_is_cancelled_or_rolled_back(self):
        self.group(3)
        self.refresh(InstanceWarmup=120)
        self.go(10)
        self.scaling.cancel_instance_refresh(AutoScalingGroupName=GROUP)
        self.go(300)
        self.assertEqual(self.refreshed()["Status"], "Cancelled")
        self.assertEqual(sorted(member.template["Version"] for member in ENGINE.groups[GROUP].members), ["1", "1", "2"])
        self.refresh(InstanceWarmup=120, SkipMatching=True)
        self.go(10)
        self.scaling.rollback_instance_refresh(AutoScalingGroupName=GROUP)
        self.go(900)
        self.assertEqual(self.refreshed()["Status"], "RollbackSuccessful")
        self.assertEqual({member.template["Version"] for member in ENGINE.groups[GROUP].members}, {"1"})

    def test_what_a_refresh_does_not_know_is_refused(self):
        self.group(1)
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "BakeTime"):
            self.refresh(BakeTime=5)
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "Latest"):
            self.refresh(AutoRollback=True, desired={"LaunchTemplate": {"LaunchTemplateId": self.template, "Version": "$Latest"}})

    # ---- and what moto is mended of

    def test_a_version_is_its_source_and_what_is_changed(self):
        made = self.ec2.describe_launch_template_versions(LaunchTemplateId=self.template, Versions=["2"])["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        self.assertEqual((made["InstanceType"], base64.b64decode(made["UserData"])), ("m5.xlarge", b"#!/bin/true"))

    def test_tags_are_listed_and_changed(self):
        self.group(1, Tags=[{"Key": "team", "Value": "db", "PropagateAtLaunch": True}])
        self.scaling.create_or_update_tags(Tags=[{"ResourceId": GROUP, "ResourceType": "auto-scaling-group", "Key": "env", "Value": "test", "PropagateAtLaunch": False}])
        self.assertEqual([tag["Key"] for tag in self.scaling.describe_tags(Filters=[{"Name": "auto-scaling-group", "Values": [GROUP]}])["Tags"]], ["env", "team"])
        self.assertEqual(len(self.scaling.describe_auto_scaling_groups(Filters=[{"Name": "tag:team", "Values": ["db"]}])["AutoScalingGroups"]), 1)
        self.assertEqual(len(self.scaling.describe_auto_scaling_groups(Filters=[{"Name": "tag:team", "Values": ["web"]}])["AutoScalingGroups"]), 0)
        self.assertIn("aws:autoscaling:groupName", json.dumps(CLOUD.ec2.get_instance_by_id(self.members()[0]).get_tags()))


if __name__ == "__main__":
    unittest.main()
