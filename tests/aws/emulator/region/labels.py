"""By what everything that a run makes in the Docker engine is known."""
RUN = "io.emulated-region.run"
INSTANCE = "io.emulated-region.instance"
ROLE = "io.emulated-region.role"
IMAGE = "io.emulated-region.image"


def of(run, role, instance=None):
    """The labels of an object of the run: `role` says what it is there for, `instance` whose it is."""
    labels = {RUN: run, ROLE: role}
    return labels | {INSTANCE: instance} if instance else labels
