"""The VPC's network: a bridge of the run's own, in which every instance has the address that EC2 tells of it."""
import ipaddress
import zlib

from . import docker, labels
from .host import Refused

# Ranges that are tried, beginning with one that the run's name gives: two runs seldom ask for the same.
FIRST, COUNT = 100, 120


class Network:
    """`cidr` is the VPC's; the machine itself is `gateway` in it, reached by instances there. Load balancers live in the last block of it."""

    def __init__(self, run):
        self.name = f"region-{run}"
        self.run = run

    def create(self):
        begin = zlib.crc32(self.run.encode()) % COUNT
        for offset in range(COUNT):
            second = FIRST + (begin + offset) % COUNT
            if self._try(f"10.{second}.0.0/16", f"10.{second}.0.1"):
                return self
        raise Refused("the engine has a network in each of 10.100.0.0/16 to 10.219.0.0/16; hint: docker network prune")

    def _try(self, cidr, gateway):
        definition = {"Name": self.name, "Labels": labels.of(self.run, "network"), "CheckDuplicate": True,
                      "IPAM": {"Config": [{"Subnet": cidr, "Gateway": gateway}]}}
        try:
            self.id = docker.ask("POST", "/networks/create", definition, f"create network '{self.name}'")["Id"]
        except docker.EngineError as error:
            if "overlap" in error.message.lower():
                return False
            raise
        self.cidr, self.gateway = cidr, gateway
        # Subnets are the first blocks of 4096 addresses, one a zone: the last one is never a zone's.
        self._balancers = ipaddress.ip_network(cidr).broadcast_address - 4094
        return True

    def balancer_address(self, number):
        return str(self._balancers + number)

    def at(self, address):
        """For a container's definition: it is in the network, at this address."""
        return {"EndpointsConfig": {self.name: {"IPAMConfig": {"IPv4Address": address}}}}

    def cut(self, container):
        """As if the cable were pulled: established connections hear nothing any more either."""
        docker.ask("POST", f"/networks/{self.id}/disconnect", {"Container": container, "Force": True}, f"cut off '{container}'")

    def mend(self, container, address):
        docker.ask("POST", f"/networks/{self.id}/connect", {"Container": container, "EndpointConfig": {"IPAMConfig": {"IPv4Address": address}}},
                   f"connect '{container}' again")
