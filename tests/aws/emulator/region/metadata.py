"""The instance metadata service, version 2, of one machine: it asks through a socket of its own, so that it is known who asks."""
import json
import secrets
import time
from datetime import datetime, timedelta, timezone

from .cloud import ACCOUNT
from .unix_http import Handler, Server

TOKEN_HEADER, TTL_HEADER = "X-aws-ec2-metadata-token", "x-aws-ec2-metadata-token-ttl-seconds"
LONGEST_TTL = 21600
# Role credentials are given out for an hour, and others in their place so long before they end.
ROLE_SECONDS, RENEWED_BEFORE = 3600, 300


class Metadata:
    """One machine's answers. `hypervisor` knows what EC2 doesn't: what Auto Scaling wants of it, and whether its spot capacity is taken back."""

    def __init__(self, hypervisor, instance, machine):
        self.hypervisor, self.cloud, self.instance, self.machine = hypervisor, hypervisor.cloud, instance, machine
        self._tokens = {}
        self._role_credentials = None
        self.role_seconds = ROLE_SECONDS

    def start(self):
        owner = self

        class Requests(Handler):
            def do_GET(self):
                self.answer(*owner.get(self.path, self.headers.get(TOKEN_HEADER)))

            do_HEAD = do_GET

            def do_PUT(self):
                self.body()
                status, text, *lifetime = owner.put(self.path, self.headers)
                self.answer(status, text, **({TTL_HEADER: lifetime[0]} if lifetime else {}))

        path = self.machine.directory / "metadata.sock"
        path.unlink(missing_ok=True)
        self._server = Server(path, Requests)
        self._server.start(f"metadata of {self.instance.id}")

    def close(self):
        self._server.close()

    def put(self, path, headers):
        if path == "/region/up":
            # Of no concern to programs on the machine: its first process says so.
            self.machine.booted.set()
            return 200, ""
        if self._is_off():
            return 403, "the metadata service of this instance is off\n"
        if path != "/latest/api/token":
            return 404, "not found\n"
        # A proxy in between would have added it: then somebody else may be asking.
        if headers.get("X-Forwarded-For"):
            return 403, "forwarded requests get no token\n"
        lifetime = headers.get(TTL_HEADER, "")
        if not lifetime.isdigit() or not 1 <= int(lifetime) <= LONGEST_TTL:
            return 400, f"{TTL_HEADER} must be 1 to {LONGEST_TTL}\n"
        token = secrets.token_urlsafe(42)
        self._tokens[token] = time.monotonic() + int(lifetime)
        return 200, token, lifetime

    def get(self, path, token):
        if self._is_off():
            return 403, "the metadata service of this instance is off\n"
        if token is None and self.instance.metadata_options.http_tokens == "required":
            return 401, "a token is required\n"
        if token is not None and self._tokens.get(token, 0) < time.monotonic():
            return 401, "the token is not known or has ended\n"
        with self.cloud.lock:
            found = self._find(path.partition("?")[0])
        return (200, found) if found is not None else (404, "not found\n")

    def _is_off(self):
        return self.instance.metadata_options.http_endpoint != "enabled"

    def _find(self, path):
        words = [word for word in path.split("/") if word]
        if not words:
            return "latest\n"
        if words[0] != "latest" and not words[0][:4].isdigit():
            return None
        node = {"meta-data": self._meta_data, "user-data": self._user_data, "dynamic": {"instance-identity": {"document": self._document}}}
        for word in words[1:]:
            node = node() if callable(node) else node
            if not isinstance(node, dict) or word not in node:
                return None
            node = node[word]
        node = node() if callable(node) else node
        return "\n".join(f"{name}/" if self._is_directory(child) else name for name, child in node.items()) if isinstance(node, dict) else node

    @staticmethod
    def _is_directory(child):
        return isinstance(child, dict)

    def _meta_data(self):
        at, network = self.instance, self.instance.nics[0]
        zone = at.placement.zone
        entries = {
            "ami-id": at.image_id, "ami-launch-index": str(at.ami_launch_index), "hostname": at.private_dns_name, "instance-action": "none", "instance-id": at.id,
            "instance-life-cycle": at.lifecycle or "on-demand", "instance-type": at.instance_type, "local-hostname": at.private_dns_name, "local-ipv4": at.private_ip,
            "mac": network.mac_address, "reservation-id": next((r.id for r in self.cloud.ec2.reservations.values() if at in r.instances), ""),
            "security-groups": "\n".join(group.name for group in at.security_groups),
            "placement": {"availability-zone": zone, "availability-zone-id": self._zone_id(zone), "region": self.cloud.region},
            "network": {"interfaces": {"macs": {network.mac_address: {
                "device-number": "0", "interface-id": network.id, "local-ipv4s": at.private_ip, "mac": network.mac_address, "owner-id": ACCOUNT,
                "security-group-ids": "\n".join(group.id for group in at.security_groups), "subnet-id": at.subnet_id,
                "subnet-ipv4-cidr-block": network.subnet.cidr_block, "vpc-id": at.vpc_id, "vpc-ipv4-cidr-block": self.hypervisor.network.cidr}}}},
            "block-device-mapping": {"ami": "xvda", "root": at.root_device_name},
            "services": {"domain": "amazonaws.com", "partition": "aws"},
        }
        if target := self.hypervisor.lifecycle_target(at.id):
            entries["autoscaling"] = {"target-lifecycle-state": target}
        if at.metadata_options.instance_metadata_tags == "enabled":
            entries["tags"] = {"instance": {tag["key"]: tag["value"] for tag in at.get_tags()}}
        if notice := self.machine.spot_notice:
            entries["spot"] = {"instance-action": json.dumps(notice), "termination-time": notice["time"]}
            entries["instance-action"] = notice["action"]
        if at.iam_instance_profile or self._profile():
            entries["iam"] = {"info": self._iam_info, "security-credentials": self._roles}
        return entries

    def _zone_id(self, zone):
        return next((found.zone_id for found in self.cloud.ec2.describe_availability_zones() if found.name == zone), "")

    def _user_data(self):
        path = self.machine.directory / "user-data"
        return path.read_bytes() if path.exists() else None

    def _document(self):
        at = self.instance
        return json.dumps({"accountId": ACCOUNT, "architecture": at.architecture, "availabilityZone": at.placement.zone, "imageId": at.image_id, "instanceId": at.id,
                           "instanceType": at.instance_type, "pendingTime": at.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"), "privateIp": at.private_ip,
                           "region": self.cloud.region, "version": "2017-09-30"}, indent=1)

    def _profile(self):
        """The instance profile by EC2's association, which is where all ways of giving one end."""
        for association in self.cloud.ec2.iam_instance_profile_associations.values():
            if association.instance.id == self.instance.id:
                return association.iam_instance_profile
        return None

    def _iam_info(self):
        profile = self._profile()
        return profile and json.dumps({"Code": "Success", "LastUpdated": stamp(0), "InstanceProfileArn": profile.arn, "InstanceProfileId": profile.id})

    def _roles(self):
        profile = self._profile()
        return {role.name: lambda: self._credentials(role) for role in (profile.roles if profile else [])}

    def _credentials(self, role):
        """One set at a time; a new one when the old one is about to end, as SDKs expect."""
        kept = self._role_credentials
        if kept is None or kept["until"] - RENEWED_BEFORE < time.time() or kept["role"] != role.arn:
            lifetime = max(self.role_seconds, 900)
            made = self.cloud.client("sts").assume_role(RoleArn=role.arn, RoleSessionName=self.instance.id, DurationSeconds=lifetime)["Credentials"]
            kept = self._role_credentials = {"role": role.arn, "until": time.time() + self.role_seconds, "text": json.dumps(
                {"Code": "Success", "LastUpdated": stamp(0), "Type": "AWS-HMAC", "AccessKeyId": made["AccessKeyId"], "SecretAccessKey": made["SecretAccessKey"],
                 "Token": made["SessionToken"], "Expiration": stamp(self.role_seconds)})}
        return kept["text"]


def stamp(seconds_from_now):
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds_from_now)).strftime("%Y-%m-%dT%H:%M:%SZ")
