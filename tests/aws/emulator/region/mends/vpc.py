"""The default VPC is the run's network, with a subnet in each zone."""
from moto.ec2.models import EC2Backend


def apply(cloud, cidr):
    def create_default_vpc(backend):
        # Only the region at hand has machines; others keep a range that nothing here uses.
        vpc = backend.create_vpc(cidr_block=cidr if backend.region_name == cloud.region else "172.31.0.0/16", is_default=True)
        for zone in backend.describe_availability_zones():
            backend.create_default_subnet(zone.name)
        return vpc

    EC2Backend.create_default_vpc = create_default_vpc
