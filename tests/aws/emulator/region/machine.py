"""A container that stands for an instance, and what belongs to it."""
import threading

from . import docker, labels


class Machine:
    def __init__(self, instance, directory):
        self.id, self.directory = instance.id, directory
        self.address = instance.private_ip
        self.container, self.services = None, []
        self.root, self.attached = None, set()
        # Containers that ran on it when it last went down in good order.
        self.running = set()
        self.busy, self.is_up, self.is_gone = False, False, False
        self.is_cut, self.is_frozen = False, False
        # Set by its first process, when it has disks and metadata.
        self.booted = threading.Event()
        # Set from outside: what the metadata service says to spot instances.
        self.spot_notice = None

    @property
    def is_alive(self):
        """Whether it may still get containers. While it boots, user data may start some."""
        return not self.is_gone

    @property
    def siblings(self):
        """Containers that were started on this machine."""
        return [found for found in docker.containers(f"{labels.INSTANCE}={self.id}") if found["Labels"].get(labels.ROLE) == "sibling"]
