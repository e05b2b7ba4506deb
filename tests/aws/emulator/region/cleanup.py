"""Removes all that a run made, by its label: also where the process that made it was killed."""
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import docker, labels
from .host import directory_of

# How many containers are removed at a time.
HANDS = 4


def clean(run, keep_directory=False):
    """Nothing of the run is left. Says how many objects were removed. The directory has the run's lock: who holds that keeps it."""
    label, removed = f"{labels.RUN}={run}", 0
    # What may still be starting appears while we remove: so again, until there is none.
    for _ in range(10):
        found = docker.containers(label)
        if not found:
            break
        with ThreadPoolExecutor(HANDS) as hands:
            removed += len(list(hands.map(docker.remove, [container["Id"] for container in found])))
    for network in docker.networks(label):
        docker.ask("DELETE", f"/networks/{network['Id']}", doing=f"remove network '{network['Name']}'", accept=(404,))
        removed += 1
    for volume in docker.volumes(label):
        docker.remove_volume(volume["Name"])
        removed += 1
    directory = directory_of(run)
    if (directory / "registry-address").exists():
        forget_images((directory / "registry-address").read_text())
    end_children(directory)
    remove_sockets(directory / "seaweed")
    for entry in directory.iterdir() if keep_directory else ():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if not keep_directory:
        shutil.rmtree(directory, ignore_errors=True)
    return removed


def forget_images(address):
    """What the engine pulled from, or tagged for, the run's registry: those names, and what has no other."""
    for image in docker.ask("GET", "/images/json"):
        for reference in [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]:
            if reference.startswith(f"{address}/"):
                docker.ask("DELETE", f"/images/{reference}", doing=f"forget image '{reference}'", accept=(404, 409))


def end_children(directory):
    """Kills what still works in the run's directory: the S3 server, where we were killed before it."""
    for _ in range(50):
        found = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid != os.getpid() and works_in(pid, directory)]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.1)


def works_in(pid, directory):
    try:
        at = os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")
    except OSError:
        return False
    return at == str(directory) or at.startswith(f"{directory}/")


def remove_sockets(directory):
    """SeaweedFS names some by its ports, and takes no other place for them than /tmp. It must have ended."""
    ports = directory / "ports"
    for port in ports.read_text().split() if ports.exists() else ():
        for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
            left.unlink(missing_ok=True)
