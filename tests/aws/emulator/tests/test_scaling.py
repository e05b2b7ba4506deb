"""Groups: their instances are born, replaced and ended as Auto Scaling does it."""
import time
import unittest

import botocore.exceptions

from .support import LAUNCH, SERVE, TERMINATE, Case, docker, fetch, signed, template_data, wait

# Completes the launch hook by the role's credentials, once the web server answers.
COMPLETE = SERVE + """
ask() { curl -sS -H "X-aws-ec2-metadata-token: $TOKEN" "http://169.254.169.254/latest/meta-data/$1"; }
TOKEN=$(curl -sS -X PUT -H 'x-aws-ec2-metadata-token-ttl-seconds: 300' http://169.254.169.254/latest/api/token)
until curl -sf -o /dev/null "http://$(ask local-ipv4):8080/"; do sleep 0.1; done
answer=$(ask "iam/security-credentials/$(ask iam/security-credentials/)")
field() { sed -n "s/.*\\"$1\\": \\"\\([^\\"]*\\)\\".*/\\1/p" <<<"$answer"; }
set -- "$(field AccessKeyId)" "$(field SecretAccessKey)" "$(field Token)"
ID=$(ask instance-id)
"""


class Scaling(Case):
    def test_three_instances_boot_over_the_zones_and_serve(self):
        began = time.monotonic()
        self.group(3, self.template(SERVE), Tags=[{"Key": "team", "Value": "db", "PropagateAtLaunch": True}, {"Key": "kept", "Value": "here", "PropagateAtLaunch": False}])
        ids = self.in_service(3)
        for address in self.addresses(ids):
            self.assertIn("VERSION", wait("the web server answers", 15, lambda: fetch(f"http://{address}:8080/")))
        print(f"three instances serve {time.monotonic() - began:.1f} s after the group was made")
        self.assertEqual(len({one["AvailabilityZone"] for one in self.described()["Instances"]}), 3)
        tags = {tag["Key"]: tag["Value"] for tag in self.ec2.describe_instances(InstanceIds=ids[:1])["Reservations"][0]["Instances"][0]["Tags"]}
        self.assertEqual((tags["team"], tags["aws:autoscaling:groupName"], "kept" in tags), ("db", self.name, False))
        with self.assertRaises(self.scaling.exceptions.AlreadyExistsFault):
            self.group(1, self.described()["LaunchTemplate"]["LaunchTemplateId"])
        with self.assertRaises(self.scaling.exceptions.ResourceInUseFault):
            self.scaling.delete_auto_scaling_group(AutoScalingGroupName=self.name)
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "above max value 6"):
            self.scaling.set_desired_capacity(AutoScalingGroupName=self.name, DesiredCapacity=7)
        activities = self.scaling.describe_scaling_activities(AutoScalingGroupName=self.name)["Activities"]
        self.assertEqual([activity["StatusCode"] for activity in activities], ["Successful"] * 3)

    def test_a_killed_machine_is_terminated_and_replaced(self):
        self.group(2, self.template(SERVE))
        victim, other = self.in_service(2)
        began = time.monotonic()
        docker("kill", self.container(victim))
        wait("another one serves", 30, lambda: len(ids := self.members("InService")) == 2 and victim not in ids)
        print(f"a lost instance is replaced after {time.monotonic() - began:.1f} s")
        self.assertIn(other, self.members())
        self.assertEqual(self.state(victim), "terminated")
        self.assertEqual(docker("ps", "-aq", "--filter", f"name={victim}"), "")

    def test_the_whole_group_may_be_lost_at_once(self):
        self.group(3, self.template(SERVE))
        lost = self.in_service(3)
        docker("kill", *(self.container(one) for one in lost))
        wait("three others serve", 40, lambda: len(ids := self.members("InService")) == 3 and not set(ids) & set(lost))

    def test_scaling_in_waits_for_whoever_completes_the_terminate_hook(self):
        self.group(3, self.template(SERVE), LifecycleHookSpecificationList=[{"LifecycleHookName": "leave", "LifecycleTransition": TERMINATE, "HeartbeatTimeout": 30, "DefaultResult": "CONTINUE"}])
        first = self.in_service(3)
        self.scaling.set_desired_capacity(AutoScalingGroupName=self.name, DesiredCapacity=5)
        self.in_service(5)
        self.scaling.set_instance_protection(AutoScalingGroupName=self.name, InstanceIds=first[:1], ProtectedFromScaleIn=True)
        self.scaling.set_desired_capacity(AutoScalingGroupName=self.name, DesiredCapacity=3)
        leaving = wait("two wait to end", 10, lambda: len(ids := self.members("Terminating:Wait")) == 2 and ids)
        self.assertNotIn(first[0], leaving)
        self.assertEqual([self.state(one) for one in leaving], ["running", "running"])
        target = docker("exec", self.container(leaving[0]), "bash", "-c", "curl -sS -H \"X-aws-ec2-metadata-token: $(curl -sS -X PUT -H 'x-aws-ec2-metadata-token-ttl-seconds: 60' "
                        "http://169.254.169.254/latest/api/token)\" http://169.254.169.254/latest/meta-data/autoscaling/target-lifecycle-state")
        self.assertEqual(target, "Terminated")
        for one in leaving:
            self.scaling.record_lifecycle_action_heartbeat(AutoScalingGroupName=self.name, LifecycleHookName="leave", InstanceId=one)
            self.scaling.complete_lifecycle_action(AutoScalingGroupName=self.name, LifecycleHookName="leave", InstanceId=one, LifecycleActionResult="CONTINUE")
        self.in_service(3)

    def test_an_instance_completes_its_launch_hook_by_its_role(self):
        role = self.role("autoscaling:CompleteLifecycleAction")
        complete = signed("autoscaling", "CompleteLifecycleAction", AutoScalingGroupName=self.name, LifecycleHookName="ready", InstanceId='"$ID"', LifecycleActionResult="CONTINUE")
        self.group(1, self.template(COMPLETE + "sleep 1\n" + complete + "\n", IamInstanceProfile={"Name": role}),
                   LifecycleHookSpecificationList=[{"LifecycleHookName": "ready", "LifecycleTransition": LAUNCH, "HeartbeatTimeout": 60, "DefaultResult": "ABANDON"}])
        waiting = wait("it waits", 20, lambda: self.members("Pending:Wait"))
        self.assertEqual(self.in_service(1), waiting, self.console(waiting[0]))

    def test_an_abandoned_launch_is_replaced(self):
        self.group(1, self.template(SERVE), LifecycleHookSpecificationList=[{"LifecycleHookName": "ready", "LifecycleTransition": LAUNCH, "HeartbeatTimeout": 30}])
        first = wait("it waits", 20, lambda: self.members("Pending:Wait"))[0]
        self.scaling.complete_lifecycle_action(AutoScalingGroupName=self.name, LifecycleHookName="ready", InstanceId=first, LifecycleActionResult="ABANDON")
        second = wait("another one waits", 20, lambda: [one for one in self.members("Pending:Wait") if one != first])[0]
        self.scaling.complete_lifecycle_action(AutoScalingGroupName=self.name, LifecycleHookName="ready", InstanceId=second, LifecycleActionResult="CONTINUE")
        self.assertEqual(self.in_service(1), [second])

    def test_whoever_reports_itself_unhealthy_is_replaced_unless_that_is_suspended(self):
        self.group(1, self.template(SERVE))
        sick = self.in_service(1)[0]
        self.scaling.suspend_processes(AutoScalingGroupName=self.name, ScalingProcesses=["ReplaceUnhealthy"])
        self.scaling.set_instance_health(InstanceId=sick, HealthStatus="Unhealthy")
        time.sleep(1)
        self.assertEqual(self.members("InService"), [sick])
        self.scaling.resume_processes(AutoScalingGroupName=self.name, ScalingProcesses=["ReplaceUnhealthy"])
        wait("another one serves", 20, lambda: (ids := self.members("InService")) and sick not in ids)

    def test_a_refresh_brings_every_instance_to_the_new_version_one_at_a_time(self):
        template = self.template(SERVE.replace("VERSION", "one"))
        self.group(3, template)
        first = self.in_service(3)
        data = template_data(self.image, SERVE.replace("VERSION", "two"))
        self.ec2.create_launch_template_version(LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"UserData": data["UserData"]})
        began = time.monotonic()
        refresh = self.scaling.start_instance_refresh(AutoScalingGroupName=self.name, DesiredConfiguration={"LaunchTemplate": {"LaunchTemplateId": template, "Version": "2"}},
                                                      Preferences={"MinHealthyPercentage": 66, "InstanceWarmup": 0, "SkipMatching": True})["InstanceRefreshId"]
        with self.assertRaises(self.scaling.exceptions.InstanceRefreshInProgressFault):
            self.scaling.start_instance_refresh(AutoScalingGroupName=self.name)
        fewest = 3

        def is_over():
            nonlocal fewest
            fewest = min(fewest, len(self.members("InService")))
            found = self.scaling.describe_instance_refreshes(AutoScalingGroupName=self.name, InstanceRefreshIds=[refresh])["InstanceRefreshes"][0]
            return found["Status"] not in ("Pending", "InProgress") and found
        found = wait("the refresh is over", 60, is_over)
        print(f"three instances are refreshed after {time.monotonic() - began:.1f} s")
        self.assertEqual((found["Status"], found["PercentageComplete"], fewest), ("Successful", 100, 2))
        ids = self.in_service(3)
        self.assertFalse(set(ids) & set(first))
        self.assertEqual(self.described()["LaunchTemplate"]["Version"], "2")
        for address in self.addresses(ids):
            self.assertIn("two", wait("the web server answers", 15, lambda: fetch(f"http://{address}:8080/")))
        self.assertEqual(self.described()["Instances"][0]["InstanceType"], "m5.large")
        # Nothing to do: what matches is skipped.
        self.scaling.start_instance_refresh(AutoScalingGroupName=self.name, Preferences={"SkipMatching": True})
        wait("the second one is over", 10, lambda: self.scaling.describe_instance_refreshes(AutoScalingGroupName=self.name)["InstanceRefreshes"][0]["Status"] == "Successful")
        self.assertEqual(sorted(self.members()), sorted(ids))

    def test_a_launch_that_ec2_refuses_is_told_of_and_tried_again(self):
        template = self.template(SERVE, IamInstanceProfile={"Name": "is-not-there"})
        self.group(1, template)
        failed = wait("it is told of", 10, lambda: self.scaling.describe_scaling_activities(AutoScalingGroupName=self.name)["Activities"])[0]
        self.assertEqual(failed["StatusCode"], "Failed")
        self.assertIn("Value (is-not-there) for parameter iamInstanceProfile.name is invalid", failed["StatusMessage"])
        # EC2 learns of it a second later.
        self.role("ec2:Describe*", name="is-not-there")
        self.in_service(1)


if __name__ == "__main__":
    unittest.main()
