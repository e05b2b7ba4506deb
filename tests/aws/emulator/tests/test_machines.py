"""Machines: what runs on them, and their disks, in good days and bad."""
import time
import unittest

from .support import Case, docker, wait

# A container as a node's is: it may next to nothing, and says when it is told to end.
LOCKED = """#!/bin/bash
set -ex
mkdir -p /etc/node /var/lib/node && echo A=1 >/etc/node/env && chown 10432 /var/lib/node
docker run -d --name node --restart unless-stopped --network host --pid host --read-only --tmpfs /tmp:mode=1777 --tmpfs /run/node:mode=0700,uid=10432 --cap-drop ALL \\
    --security-opt no-new-privileges --shm-size 64m --user 10432:10432 --env-file /etc/node/env --ulimit nofile=1024:2048 --log-opt max-size=10m --stop-timeout 20 --label a=b \\
    -v /etc/node:/etc/node:ro -v /var/lib/node:/var/lib/node IMAGE \\
    bash -c 'trap "echo told to end >>/var/lib/node/log; exit" TERM; echo born as $(id -u) on $(hostname) with $A >>/var/lib/node/log; sleep 1000 & wait'
until grep -q born /var/lib/node/log; do sleep 0.1; done
echo node is up
"""
DISK = """#!/bin/bash
set -ex
disk=$(readlink -f /dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_*)
[ -b "$disk" ] && [ "$disk" = "$(readlink -f /dev/sdf)" ]
blkid "$disk" || mkfs.ext4 "$disk"
! mkfs.ext4 "$disk" || exit 1
mkdir -p /data && mount "$disk" /data
echo kept >>/data/file
docker run --rm --network host -v /data:/data IMAGE bash -c 'cat /data/file; echo from a container >>/data/file'
echo disk is up
"""


class Machines(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.machine_image = docker("inspect", "-f", "{{.Config.Image}}", f"region-{cls.region.run}-keeper").strip()

    def launch(self, user_data, **more):
        one = self.ec2.run_instances(ImageId=self.image, InstanceType="m5.large", MinCount=1, MaxCount=1, UserData=user_data.replace("IMAGE", self.machine_image), **more)["Instances"][0]
        self.addCleanup(self.ec2.terminate_instances, InstanceIds=[one["InstanceId"]])
        return one["InstanceId"]

    def printed(self, one):
        return self.region.control(f"/machines/{one}/console")

    def log(self, one):
        return docker("exec", self.container(one), "cat", "/var/lib/node/log")

    def reaches(self, one, state):
        wait(f"it is {state}", 30, lambda: self.state(one) == state)

    def test_a_container_may_be_locked_down_and_outlives_a_reboot_and_a_stop(self):
        one = self.launch(LOCKED)
        wait("its node is up", 30, lambda: "node is up" in self.printed(one))
        address = self.addresses([one])[0]
        self.assertEqual(self.log(one), f"born as 10432 on ip-{address.replace('.', '-')} with 1\n")
        self.ec2.reboot_instances(InstanceIds=[one])
        wait("it is born again", 30, lambda: self.log(one).count("born") == 2)
        self.assertEqual(self.log(one).count("told to end"), 1)
        self.ec2.stop_instances(InstanceIds=[one])
        self.reaches(one, "stopped")
        self.assertEqual(docker("ps", "-q", "--filter", f"name={one}"), "")
        self.ec2.start_instances(InstanceIds=[one])
        self.reaches(one, "running")
        wait("it is born once more", 30, lambda: self.log(one).count("born") == 3)
        self.assertEqual((self.log(one).count("told to end"), self.printed(one).count("running user data")), (2, 1))

    def test_whoever_is_terminated_goes_in_good_order_and_whoever_loses_power_does_not(self):
        kept = {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}, {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 10, "DeleteOnTermination": False}}]}
        onto_disk = LOCKED.replace("mkdir -p /etc/node", "mkfs.ext4 /dev/sdf; mkdir -p /var/lib/node; mount /dev/sdf /var/lib/node; mkdir -p /etc/node", 1)
        for end, told in ((lambda one: self.ec2.terminate_instances(InstanceIds=[one]), True), (lambda one: docker("kill", self.container(one)), False)):
            one = self.launch(onto_disk, **kept)
            wait("its node is up", 30, lambda: "node is up" in self.printed(one))
            volume = self.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [one]}, {"Name": "attachment.device", "Values": ["/dev/sdf"]}])["Volumes"][0]["VolumeId"]
            end(one)
            self.reaches(one, "terminated")
            left = docker("exec", f"region-{self.region.run}-keeper", "cat", f"/disks/{volume}/root/log")
            self.assertEqual("told to end" in left, told)
            self.assertIn("node is up", self.printed(one))
            self.ec2.delete_volume(VolumeId=volume)

    def test_a_volume_goes_from_machine_to_machine_and_then_for_good(self):
        volume = self.ec2.create_volume(AvailabilityZone="eu-central-1a", Size=10)["VolumeId"]
        attach = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}]
        late = DISK.replace("set -ex", "set -e\nuntil [ -e /dev/sdf ]; do sleep 0.1; done; set -x")
        for turn in (1, 2):
            one = self.launch(late, BlockDeviceMappings=attach, SubnetId=self.subnets[0])
            self.reaches(one, "running")
            self.ec2.attach_volume(VolumeId=volume, InstanceId=one, Device="/dev/sdf")
            wait("its disk is up", 30, lambda: "disk is up" in self.printed(one))
            self.assertEqual(docker("exec", self.container(one), "cat", "/data/file"), "kept\nfrom a container\n" * turn)
            self.ec2.detach_volume(VolumeId=volume, InstanceId=one)
            wait("it is gone from there", 10, lambda: docker("exec", self.container(one), "ls", "/data") == "")
        disks = lambda: docker("exec", f"region-{self.region.run}-keeper", "ls", "/disks").split()  # noqa: E731
        self.assertIn(volume, disks())
        self.ec2.delete_volume(VolumeId=volume)
        wait("it is gone for good", 10, lambda: volume not in disks())

    def test_user_data_that_is_no_script_is_told_of(self):
        one = self.launch("#cloud-config\npackages: [x]\n")
        wait("it is told of", 20, lambda: "ERROR: user data begins with neither" in self.printed(one))
        self.assertIn("ERROR", self.ec2.get_console_output(InstanceId=one)["Output"])

    def test_a_machine_that_powers_itself_off_is_terminated(self):
        one = self.launch("#!/bin/sh\npoweroff\n")
        began = time.monotonic()
        self.reaches(one, "terminated")
        self.assertLess(time.monotonic() - began, 30)


if __name__ == "__main__":
    unittest.main()
