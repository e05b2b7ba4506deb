"""Images are pushed to ECR's registry and pulled from it by digest, on instances too."""
import base64
import re
import subprocess
import unittest

import botocore.exceptions

from .support import Case, docker, wait
from .test_scaling import COMPLETE

# Logs into ECR by the role's credentials, and starts the node's container, as a node's user data would.
NODE = COMPLETE + r"""
ask_ecr() {
    curl -sS --fail-with-body --aws-sigv4 "aws:amz:$AWS_REGION:ecr" --user "$1:$2" -H "x-amz-security-token: $3" -H 'content-type: application/x-amz-json-1.1' \
        -H 'x-amz-target: AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken' -d '{}' "$AWS_ENDPOINT_URL/"
}
token=$(ask_ecr "$@" | sed 's/.*"authorizationToken": *"\([^"]*\)".*/\1/' | base64 -d)
docker login --username AWS --password-stdin IMAGE <<<"${token#AWS:}"
docker pull IMAGE
mkdir -p /var/lib/node && echo born >/var/lib/node/state
docker run -di --name node --restart unless-stopped --network host -v /var/lib/node:/var/lib/node:ro IMAGE /usr/bin/sh -c 'read state </var/lib/node/state; echo "it is $state"; exec /usr/bin/cat'
echo node is up
"""


class Images(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ecr = cls.region.client("ecr")
        cls.local = f"{cls.region.run}:small"
        machine = docker("inspect", "-f", "{{.Config.Image}}", f"region-{cls.region.run}-keeper").strip()
        # A shell and cat, with what they need.
        content = subprocess.run(["docker", "run", "--rm", machine, "sh", "-c", 'tar -ch $(ldd /usr/bin/cat | grep -o "/[^ ]*") /usr/bin/sh /usr/bin/cat 2>/dev/null'], capture_output=True, timeout=60).stdout
        subprocess.run(["docker", "import", "-", cls.local], input=content, check=True, capture_output=True, timeout=60)
        cls.addClassCleanup(docker, "rmi", "-f", cls.local)

    def push(self):
        """A repository with the small image in it; its address and the image's digest."""
        address = self.ecr.create_repository(repositoryName=f"spilo/{self.name}")["repository"]["repositoryUri"]
        given = self.ecr.get_authorization_token()["authorizationData"][0]
        self.assertTrue(given["proxyEndpoint"].endswith(self.region.description["registry"]))
        password = base64.b64decode(given["authorizationToken"]).decode().removeprefix("AWS:")
        subprocess.run(["docker", "login", "--username", "AWS", "--password-stdin", address.partition("/")[0]], input=password.encode(), check=True, capture_output=True, timeout=60)
        self.addCleanup(docker, "logout", address.partition("/")[0])
        docker("tag", self.local, f"{address}:one")
        pushed = subprocess.run(["docker", "push", f"{address}:one"], capture_output=True, text=True, timeout=120)
        self.assertEqual(pushed.returncode, 0, pushed.stderr)
        return address, re.search(r"digest: (sha256:\w+)", pushed.stdout)[1]

    def test_an_image_is_pushed_and_pulled_by_digest(self):
        address, digest = self.push()
        images = self.ecr.describe_images(repositoryName=f"spilo/{self.name}")["imageDetails"]
        self.assertEqual([(one["imageDigest"], one["imageTags"]) for one in images], [(digest, ["one"])])
        docker("rmi", f"{address}:one")
        self.assertIn(digest, docker("pull", f"{address}@{digest}"))
        refused = subprocess.run(["docker", "pull", f"{address.partition('/')[0]}/not/there:one"], capture_output=True, text=True, timeout=60)
        self.assertNotEqual(refused.returncode, 0)

    def test_nobody_gets_in_without_a_token(self):
        address, digest = self.push()
        docker("logout", address.partition("/")[0])
        refused = subprocess.run(["docker", "pull", f"{address}@{digest}"], capture_output=True, text=True, timeout=60)
        self.assertIn("no basic auth credentials", refused.stderr)

    def test_an_instance_pulls_its_image_by_its_role_and_runs_it(self):
        address, digest = self.push()
        role = self.role("ecr:GetAuthorizationToken", "ecr:BatchGetImage")
        self.group(1, self.template(NODE.replace("IMAGE", f"{address}@{digest}"), IamInstanceProfile={"Name": role}))
        one = self.in_service(1)[0]
        wait("its container runs", 30, lambda: "node is up" in self.console(one))
        inside = ["exec", self.container(one), "docker"]
        self.assertIn("it is born", wait("it says so", 10, lambda: docker(*inside, "logs", "node")), self.console(one))
        self.assertIn("unless-stopped", docker(*inside, "inspect", "node"))
        self.assertEqual(docker(*inside, "ps", "--format", "{{.Names}}"), "node\n")
        self.assertEqual(docker(*inside, "exec", "node", "/usr/bin/cat", "/var/lib/node/state"), "born\n")
        for words in (["run", "--privileged"], ["run", "-p", "80:80"], ["run", "--network", "bridge"], ["network", "ls"], ["volume", "ls"], ["rmi"]):
            refused = subprocess.run(["docker", *inside, *words, f"{address}@{digest}"] if words[0] in ("run", "rmi") else ["docker", *inside, *words], capture_output=True, text=True, timeout=60)
            self.assertIn("the Docker engine of the emulated region does not do this", refused.stderr, words)
        # It is gone with its machine, and with nothing else.
        siblings = docker("ps", "-q", "--filter", f"name={one}")
        self.assertEqual(len(siblings.split()), 2)
        docker("kill", self.container(one))
        wait("another one serves", 30, lambda: (ids := self.members("InService")) and one not in ids)
        self.assertEqual(docker("ps", "-aq", "--filter", f"name={one}"), "")

    def test_a_repository_that_does_not_exist_is_told_of(self):
        with self.assertRaises(self.ecr.exceptions.RepositoryNotFoundException):
            self.ecr.describe_images(repositoryName="not/there")
        with self.assertRaises(botocore.exceptions.ClientError):
            self.ecr.describe_repositories(repositoryNames=["not/there"])


if __name__ == "__main__":
    unittest.main()
