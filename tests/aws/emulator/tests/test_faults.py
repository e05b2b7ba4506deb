"""What is to go wrong does, and every request is on record."""
import json
import subprocess
import sys
import time
import unittest
import uuid
from pathlib import Path

import botocore.exceptions

from .support import HERE, SERVE, Case, Region, docker, template_data, wait


class Faults(Case):
    def fault(self, **words):
        number = self.region.control("/faults", words)["number"]
        self.addCleanup(self.region.control, f"/faults/{number}", method="DELETE")

    def code(self, action, **words):
        try:
            action(**words)
            return None
        except botocore.exceptions.ClientError as error:
            return error.response["Error"]["Code"]
        except botocore.exceptions.BotoCoreError as error:
            return type(error).__name__

    def make_group(self):
        return self.code(self.ec2.create_security_group, GroupName=self.name, Description="x", VpcId=self.vpc)

    def groups(self):
        return [one["GroupName"] for one in self.ec2.describe_security_groups()["SecurityGroups"]]

    def test_the_nth_request_fails_as_told(self):
        self.fault(service="ec2", action="CreateSecurityGroup", kind="error", code="InternalError", status=500, skip=1)
        self.assertIsNone(self.make_group())
        self.name += "b"
        self.assertEqual(self.make_group(), "InternalError")
        self.assertIsNone(self.make_group())

    def test_throttling_is_said_as_each_service_says_it(self):
        s3 = self.region.client("s3")
        for service, action, expected in (("ec2", self.ec2.describe_vpcs, "RequestLimitExceeded"), ("autoscaling", self.scaling.describe_auto_scaling_groups, "Throttling"),
                                          ("secretsmanager", self.region.client("secretsmanager").list_secrets, "ThrottlingException"), ("s3", s3.list_buckets, "SlowDown"),
                                          ("route53", self.region.client("route53").list_hosted_zones, "Throttling"), ("iam", self.iam.list_roles, "Throttling")):
            self.fault(service=service, kind="throttle")
            self.assertEqual(self.code(action), expected)
            self.assertIsNone(self.code(action))

    def test_a_connection_breaks_before_or_after_the_work_is_done(self):
        self.fault(service="ec2", action="CreateSecurityGroup", kind="reset")
        self.assertEqual(self.make_group(), "ConnectionClosedError")
        self.assertNotIn(self.name, self.groups())
        self.fault(service="ec2", action="CreateSecurityGroup", kind="reset-after")
        self.assertEqual(self.make_group(), "ConnectionClosedError")
        self.assertIn(self.name, self.groups())
        s3 = self.region.client("s3")
        self.fault(service="s3", action="PutObject", kind="reset-after")
        s3.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        self.assertIn(self.code(s3.put_object, Bucket=self.name, Key="a", Body=b"a"), ("ConnectionClosedError", "EndpointConnectionError"))
        self.assertEqual(s3.get_object(Bucket=self.name, Key="a")["Body"].read(), b"a")

    def test_reading_can_be_spared(self):
        self.fault(kind="error", code="InternalError", changes_only=True)
        self.assertIsNone(self.code(self.ec2.describe_vpcs))
        self.assertEqual(self.make_group(), "InternalError")

    def test_a_client_token_makes_nothing_twice(self):
        wish = {"LaunchTemplateName": self.name, "ClientToken": self.name, "LaunchTemplateData": template_data(self.image, SERVE)}
        first = self.ec2.create_launch_template(**wish)["LaunchTemplate"]["LaunchTemplateId"]
        self.assertEqual(self.ec2.create_launch_template(**wish)["LaunchTemplate"]["LaunchTemplateId"], first)
        self.assertEqual(self.code(self.ec2.create_launch_template, **wish | {"VersionDescription": "another"}), "IdempotentParameterMismatch")
        self.assertEqual(self.code(self.ec2.create_launch_template, **wish | {"ClientToken": "another"}), "InvalidLaunchTemplateName.AlreadyExistsException")

    def test_every_request_is_recorded_with_what_the_model_says_against_it(self):
        before = len(self.region.control("/requests"))
        self.code(self.scaling.put_lifecycle_hook, AutoScalingGroupName="nobody's", LifecycleHookName="x", LifecycleTransition="autoscaling:NOT_A_TRANSITION")
        self.code(self.elb.create_target_group, Name="a" * 33, Protocol="TPC", Port=1, VpcId=self.vpc)
        self.ec2.describe_vpcs()
        found = self.region.control(f"/requests?since={before}")
        self.assertEqual([(one["service"], one["action"]) for one in found], [("autoscaling", "PutLifecycleHook"), ("elbv2", "CreateTargetGroup"), ("ec2", "DescribeVpcs")])
        self.assertEqual(found[0]["caller"], "arn:aws:iam::123456789012:root")
        self.assertEqual(found[1]["problems"], ["'Protocol' is 'TPC', and may be one of: HTTP, HTTPS, TCP, TLS, UDP, TCP_UDP, GENEVE, QUIC, TCP_QUIC"])
        self.assertEqual((found[2]["problems"], found[2]["status"]), ([], 200))
        lines = Path(self.region.description["requests"]).read_text().splitlines()
        self.assertEqual(json.loads(lines[before])["parameters"]["LifecycleTransition"], "autoscaling:NOT_A_TRANSITION")

    def test_an_action_that_nobody_knows_is_refused_loudly(self):
        self.assertEqual(self.code(self.scaling.put_warm_pool, AutoScalingGroupName="x"), "ValidationError")
        self.assertEqual(self.code(self.scaling.batch_put_scheduled_update_group_action, AutoScalingGroupName="x", ScheduledUpdateGroupActions=[{"ScheduledActionName": "a"}]), "ValidationError")

    def test_a_frozen_machine_stands_still_and_goes_on(self):
        self.group(1, self.template("#!/bin/bash\nwhile sleep 0.1; do date +%s.%N >/srv/beat; done &\n"))
        one = self.in_service(1)[0]
        beat = lambda: docker("exec", f"region-{self.region.run}-keeper", "sh", "-c", "cat /disks/*/root/srv/beat")  # noqa: E731
        wait("it beats", 10, beat)
        self.region.control(f"/machines/{one}/freeze", {})
        time.sleep(0.3)
        first = beat()
        time.sleep(0.5)
        self.assertEqual(beat(), first)
        self.region.control(f"/machines/{one}/thaw", {})
        wait("it beats again", 5, lambda: beat() != first)

    def test_a_killed_machine_is_gone_at_once(self):
        self.group(1, self.template(SERVE))
        one = self.in_service(1)[0]
        self.region.control(f"/machines/{one}/kill", {})
        wait("another one serves", 30, lambda: (ids := self.members("InService")) and one not in ids)


class Leftovers(unittest.TestCase):
    """Nothing stays behind, however a region ends."""

    def left(self, run):
        label = f"label=io.emulated-region.run={run}"
        return docker("ps", "-aq", "--filter", label) + docker("volume", "ls", "-q", "--filter", label) + docker("network", "ls", "-q", "--filter", label)

    def populated(self):
        region = Region(run=f"left-{uuid.uuid4().hex[:6]}")
        self.addCleanup(region.end)
        image = region.client("ssm").get_parameter(Name="/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")["Parameter"]["Value"]
        ec2 = region.client("ec2")
        ec2.run_instances(ImageId=image, InstanceType="m5.large", MinCount=1, MaxCount=1)
        wait("it runs", 30, lambda: ec2.describe_instances()["Reservations"][0]["Instances"][0]["State"]["Name"] == "running")
        self.assertEqual(len(self.left(region.run).split()), 4)
        return region

    def test_told_to_end_it_leaves_nothing(self):
        region = self.populated()
        self.assertEqual(region.end(), 0)
        self.assertEqual(self.left(region.run), "")
        self.assertFalse(Path(region.description["requests"]).parent.exists())

    def test_it_ends_with_whoever_started_it(self):
        region = self.populated()
        region.process.stdin.close()
        self.assertEqual(region.process.wait(30), 0)
        self.assertEqual(self.left(region.run), "")

    def test_what_a_killed_one_left_is_removed_by_its_name(self):
        region = self.populated()
        clean = lambda: subprocess.run([sys.executable, "-m", "region", "--clean", region.run], cwd=HERE, capture_output=True, text=True, timeout=60)  # noqa: E731
        self.assertIn("is at work", clean().stderr)
        region.process.kill()
        region.process.wait(10)
        self.assertNotEqual(self.left(region.run), "")
        done = clean()
        self.assertEqual((done.returncode, self.left(region.run)), (0, ""), done.stderr)


if __name__ == "__main__":
    unittest.main()
