"""What the tests have in common: a region that runs, clients of it, and waiting that ends."""
import atexit
import json
import os
import subprocess
import sys
import time
import unittest
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import boto3
from botocore.config import Config

HERE = Path(__file__).resolve().parent.parent
LAUNCH, TERMINATE = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"
TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}

# User data: a web server that says its version, at 8080.
SERVE = """#!/bin/bash
set -e
cat >/usr/local/bin/page <<'END'
#!/bin/sh
printf 'HTTP/1.0 200 OK\\r\\n\\r\\nVERSION %s\\n' "$(hostname)"
END
chmod +x /usr/local/bin/page
socat TCP-LISTEN:8080,fork,reuseaddr EXEC:/usr/local/bin/page </dev/null >/dev/null 2>&1 &
"""


def wait(what, limit, ready, pause=0.1):
    """The first true answer of `ready` within so many seconds."""
    until = time.monotonic() + limit
    while True:
        if answer := ready():
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"waited {limit} s until {what}")
        time.sleep(pause)


def docker(*words):
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=60).stdout


def fetch(url, limit=2):
    """What is there, or None while nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=limit) as answer:
            return answer.read().decode()
    except OSError:
        return None


class Region:
    """A region in a process of its own."""

    def __init__(self, *words, run=None):
        self.run = run or f"test-{uuid.uuid4().hex[:6]}"
        self.process = subprocess.Popen([sys.executable, "-m", "region", "--run", self.run, "--while-stdin", *words], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the region ended with {self.process.wait(10)} before it was ready")
        self.description = json.loads(line)

    def client(self, service, key=None):
        words = self.description["environment"]
        key = key or (words["AWS_ACCESS_KEY_ID"], words["AWS_SECRET_ACCESS_KEY"])
        endpoint = words.get(f"AWS_ENDPOINT_URL_{service.upper()}", words["AWS_ENDPOINT_URL"])
        return boto3.client(service, region_name=self.description["region"], endpoint_url=endpoint, aws_access_key_id=key[0], aws_secret_access_key=key[1],
                            aws_session_token=key[2] if len(key) > 2 else None, config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}))

    def control(self, path, body=None, method=None):
        """A request to the region's own control address."""
        request = urllib.request.Request(self.description["control"] + path, None if body is None else json.dumps(body).encode(), method=method or ("GET" if body is None else "POST"))
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def end(self):
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.stdin.close()
            self.process.stdout.close()


class Case(unittest.TestCase):
    """Tests that share a region, all of them: whoever changes more than is theirs undoes it."""
    words = ("--iam-lag", "1")
    shared = None

    @classmethod
    def setUpClass(cls):
        if Case.shared is None:
            Case.shared = Region(*Case.words)
            atexit.register(Case.shared.end)
        cls.region = Case.shared
        cls.ec2, cls.scaling, cls.elb, cls.iam = (cls.region.client(name) for name in ("ec2", "autoscaling", "elbv2", "iam"))
        cls.image = cls.region.client("ssm").get_parameter(Name="/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")["Parameter"]["Value"]
        cls.vpc = cls.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        cls.subnets = [subnet["SubnetId"] for subnet in cls.ec2.describe_subnets()["Subnets"]]

    def setUp(self):
        self.name = f"g-{uuid.uuid4().hex[:6]}"

    # ---- building

    def role(self, *actions, name=None):
        """An instance profile of this name, whose role may do what is listed."""
        name = name or self.name
        self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(TRUST))
        self.iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}))
        self.iam.create_instance_profile(InstanceProfileName=name)
        self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return name

    def template(self, user_data, **more):
        return self.ec2.create_launch_template(LaunchTemplateName=self.name, LaunchTemplateData=template_data(self.image, user_data, **more))["LaunchTemplate"]["LaunchTemplateId"]

    def group(self, size, template, low=0, high=6, version="1", **more):
        self.scaling.create_auto_scaling_group(AutoScalingGroupName=self.name, MinSize=low, MaxSize=high, DesiredCapacity=size, VPCZoneIdentifier=",".join(self.subnets),
                                               LaunchTemplate={"LaunchTemplateId": template, "Version": version}, **more)
        self.addCleanup(self.drop)

    def drop(self):
        if self.described():
            self.scaling.delete_auto_scaling_group(AutoScalingGroupName=self.name, ForceDelete=True)
            wait("the group is gone", 30, lambda: not self.described())

    # ---- looking

    def described(self):
        found = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"]
        return found[0] if found else None

    def members(self, *states):
        return [one["InstanceId"] for one in self.described()["Instances"] if not states or one["LifecycleState"] in states]

    def in_service(self, count, limit=30):
        """Exactly so many, and nobody else: their ids."""
        return wait(f"{count} instances serve", limit, lambda: len(ids := self.members("InService")) == count and len(self.members()) == count and (ids or True))

    def addresses(self, ids=None):
        found = self.ec2.describe_instances(InstanceIds=ids or self.members())["Reservations"]
        return [instance["PrivateIpAddress"] for reservation in found for instance in reservation["Instances"]]

    def container(self, instance_id):
        return f"region-{self.region.run}-{instance_id}"

    def console(self, instance_id):
        return docker("logs", self.container(instance_id))

    def state(self, instance_id):
        return self.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]["State"]["Name"]


def template_data(image, user_data, **more):
    import base64
    return {"ImageId": image, "InstanceType": "m5.large", "UserData": base64.b64encode(user_data.encode()).decode(), "MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"}} | more


def signed(service, action, **parameters):
    """A shell command that calls an action with the instance's own role, as user data may: $1, $2, $3 are key, secret and token."""
    words = " ".join(f"--data-urlencode {name}={value}" for name, value in {"Action": action, "Version": "2011-01-01"}.items() | parameters.items())
    return f'curl -sS --fail-with-body --aws-sigv4 "aws:amz:$AWS_REGION:{service}" --user "$1:$2" -H "x-amz-security-token: $3" {words} "$AWS_ENDPOINT_URL/"'


os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
