"""The machine image: what an instance boots. A small Debian with what user data of a Docker host expects, kept in the engine as a cache."""
import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import docker, labels
from .host import Refused

RELEASE = "trixie"
PACKAGES = ["ca-certificates", "curl", "docker-cli", "iproute2", "procps", "socat"]
LEFT_OUT = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*"]

NAME = "emulated-region-machine:" + hashlib.sha256(" ".join([RELEASE, *PACKAGES]).encode()).hexdigest()[:12]


def ensure():
    """The image is in the engine; making it takes a minute or two, once."""
    if docker.has_image(NAME):
        return NAME
    print(f"making the machine image '{NAME}' from Debian's packages", file=sys.stderr, flush=True)
    if shutil.which("mmdebstrap"):
        import_packages()
    else:
        build_from_registry()
    return NAME


def import_packages():
    with tempfile.TemporaryDirectory(prefix="region-image-") as directory:
        archive = Path(directory) / "image.tar"
        run("mmdebstrap", "--variant=minbase", "--format=tar", '--aptopt=Acquire::Languages "none"', *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
            f"--include={','.join(PACKAGES)}", RELEASE, str(archive))
        run("docker", "import", "--change", f"LABEL {labels.IMAGE}=true", str(archive), NAME)


def build_from_registry():
    install = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(PACKAGES)} && rm -rf /var/lib/apt/lists/*"
    recipe = f"FROM debian:{RELEASE}-slim\nRUN {install}\nLABEL {labels.IMAGE}=true\n"
    run("docker", "build", "-t", NAME, "-", given=recipe)


def run(*command, given=""):
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise Refused(f"the machine image cannot be made: '{command[0]}' ended with {done.returncode}: {done.stderr.strip()[-800:]}")
