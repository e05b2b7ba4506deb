"""The metadata service: each machine its own, with tokens only."""
import json
import time
import unittest

from .support import SERVE, Case, docker, wait

PLACE = "http://169.254.169.254/latest"


class Metadata(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.name = "metadata"
        role = cls().role("s3:ListAllMyBuckets", name="metadata")
        # EC2 does not know it at once.
        time.sleep(1.2)
        made = cls.ec2.run_instances(ImageId=cls.image, InstanceType="m5.large", MinCount=2, MaxCount=2, UserData=SERVE, IamInstanceProfile={"Name": role}, SubnetId=cls.subnets[1],
                                     MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
                                     TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "spilo:cluster", "Value": "orders"}]}])
        cls.instances = [one["InstanceId"] for one in made["Instances"]]
        cls.addClassCleanup(cls.ec2.terminate_instances, InstanceIds=cls.instances)
        cls.ec2.get_waiter("instance_running").wait(InstanceIds=cls.instances, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    def setUp(self):
        pass

    def curl(self, *words, instance=None):
        return docker("exec", self.container(instance or self.instances[0]), "curl", "-sS", "-m", "5", *words)

    def token(self, instance=None, seconds=60):
        return self.curl("-X", "PUT", "-H", f"x-aws-ec2-metadata-token-ttl-seconds: {seconds}", f"{PLACE}/api/token", instance=instance)

    def get(self, path, instance=None):
        return self.curl("-H", f"X-aws-ec2-metadata-token: {self.token(instance)}", f"{PLACE}/{path}", instance=instance)

    def status(self, *words):
        return self.curl("-o", "/dev/null", "-w", "%{http_code}", *words)

    def test_without_a_token_nothing_is_told(self):
        self.assertEqual(self.status(f"{PLACE}/meta-data/instance-id"), "401")
        self.assertEqual(self.status("-H", "X-aws-ec2-metadata-token: made-up", f"{PLACE}/meta-data/instance-id"), "401")
        # Of another machine it is worth nothing.
        self.assertEqual(self.status("-H", f"X-aws-ec2-metadata-token: {self.token(self.instances[1])}", f"{PLACE}/meta-data/instance-id"), "401")

    def test_a_token_says_how_long_it_lives(self):
        words = ("-X", "PUT", f"{PLACE}/api/token")
        self.assertIn("x-aws-ec2-metadata-token-ttl-seconds: 7", self.curl("-i", "-H", "x-aws-ec2-metadata-token-ttl-seconds: 7", *words))
        self.assertEqual(self.status(*words), "400")
        self.assertEqual(self.status("-H", "x-aws-ec2-metadata-token-ttl-seconds: 21601", *words), "400")
        self.assertEqual(self.status("-H", "x-aws-ec2-metadata-token-ttl-seconds: 7", "-H", "X-Forwarded-For: 10.0.0.1", *words), "403")

    def test_it_says_who_and_where_the_machine_is(self):
        for one in self.instances:
            found = self.ec2.describe_instances(InstanceIds=[one])["Reservations"][0]["Instances"][0]
            self.assertEqual(self.get("meta-data/instance-id", one), one)
            self.assertEqual(self.get("meta-data/local-ipv4", one), found["PrivateIpAddress"])
            self.assertEqual(self.get("meta-data/placement/availability-zone", one), found["Placement"]["AvailabilityZone"])
        self.assertEqual(self.get("meta-data/placement/region"), "eu-central-1")
        self.assertEqual(self.get("meta-data/tags/instance/spilo:cluster"), "orders")
        self.assertEqual(json.loads(self.get("dynamic/instance-identity/document"))["instanceId"], self.instances[0])
        self.assertTrue(self.get("user-data").startswith("#!/bin/bash"))
        self.assertEqual(self.get("meta-data/network/interfaces/macs/" + self.get("meta-data/mac") + "/subnet-id"), self.subnets[1])
        # No group's: it says nothing of a lifecycle, and nothing of spot.
        self.assertIn("not found", self.get("meta-data/autoscaling/target-lifecycle-state"))
        self.assertIn("not found", self.get("meta-data/spot/instance-action"))

    def test_a_spot_notice_is_told(self):
        self.region.control(f"/machines/{self.instances[1]}/spot-notice", {"seconds": 120})
        self.assertEqual(json.loads(self.get("meta-data/spot/instance-action", self.instances[1]))["action"], "terminate")

    def test_the_role_s_credentials_are_good_and_stay_the_same(self):
        found = json.loads(self.get("meta-data/iam/security-credentials/metadata"))
        self.assertEqual(found, json.loads(self.get("meta-data/iam/security-credentials/metadata")))
        self.assertEqual(self.get("meta-data/iam/security-credentials/"), "metadata")
        key = (found["AccessKeyId"], found["SecretAccessKey"], found["Token"])
        self.assertIn(":assumed-role/metadata/" + self.instances[0], self.region.client("sts", key).get_caller_identity()["Arn"])
        self.region.client("s3", key).list_buckets()

    def test_a_cut_machine_keeps_its_metadata_and_loses_the_rest(self):
        one, address = self.instances[0], self.addresses(self.instances[:1])[0]
        self.region.control(f"/machines/{one}/cut", {})
        self.assertEqual(self.get("meta-data/instance-id"), one)
        self.assertEqual(self.curl("-o", "/dev/null", "-w", "%{http_code}", self.region.description["gateway_endpoint"]), "000")
        self.region.control(f"/machines/{one}/mend", {})
        self.assertEqual(self.addresses(self.instances[:1]), [address])
        wait("it reaches the region again", 10, lambda: self.curl("-o", "/dev/null", "-w", "%{http_code}", self.region.description["gateway_endpoint"]) not in ("", "000"))


if __name__ == "__main__":
    unittest.main()
