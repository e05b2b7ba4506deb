"""EBS volumes: directories of one volume of the engine, which all machines of the run share. A machine has devices for those attached to it."""
from . import docker, labels

# The number of the address that the keeper has among those of load balancers: the first.
KEEPER = 1


class Volumes:
    def __init__(self, cloud, run, network):
        self.cloud, self.run, self.network = cloud, run, network
        self.name = f"region-{run}-disks"
        self._made = set()

    def start(self, image):
        """The keeper is a container that holds the disks, and through which they are removed: this process need not be root for it."""
        docker.create_volume(self.name, labels.of(self.run, "disks"))
        name = f"region-{self.run}-keeper"
        self.keeper = docker.create(name, {"Image": image, "Cmd": ["sleep", "infinity"], "Labels": labels.of(self.run, "keeper"), "StopSignal": "SIGKILL",
                                           "NetworkingConfig": self.network.at(self.network.balancer_address(KEEPER)),
                                           "HostConfig": {"NetworkMode": self.network.name, "Binds": [f"{self.name}:/disks"]}})
        docker.start(self.keeper)

    def of(self, instance):
        """(volume, device) of all that are attached, the root volume first. Call with the cloud's lock held."""
        found = [(block.volume_id, device) for device, block in instance.get_block_device_mapping]
        roots = [pair for pair in found if pair[1] in (instance.root_device_name, "/dev/sda1", "/dev/xvda")]
        if not roots:
            instance.add_block_device(8, instance.root_device_name or "/dev/xvda", None, False, True, None, "gp3")
            return self.of(instance)
        return roots[:1] + [pair for pair in found if pair != roots[0]]

    def begin(self, devices):
        self._made.update(volume for volume, _ in devices)

    def task(self, instance, machine):
        """What has to be done so that the machine has a device for each attached volume, and no other; None where that is so."""
        wanted = dict(self.of(instance)[1:])
        if wanted.keys() == machine.attached:
            return None
        return self._attach_and_detach

    def _attach_and_detach(self, instance, machine):
        with self.cloud.lock:
            wanted = dict(self.of(instance)[1:])
        for volume in machine.attached - wanted.keys():
            docker.run_inside(machine.container, "/usr/lib/region/detach", volume)
        for volume in wanted.keys() - machine.attached:
            docker.run_inside(machine.container, "/usr/lib/region/attach", volume, wanted[volume])
        self._made.update(wanted)
        machine.attached = set(wanted)

    def forget_deleted(self, machines):
        """Removes what is on volumes that EC2 no longer has, once no machine uses them."""
        used = {volume for machine in list(machines) for volume in (*machine.attached, machine.root)}
        with self.cloud.lock:
            gone = [volume for volume in self._made if volume not in self.cloud.ec2.volumes and volume not in used]
        if gone:
            docker.run_inside(self.keeper, "rm", "-rf", *(f"/disks/{volume}" for volume in gone))
            self._made.difference_update(gone)
