"""The API of Auto Scaling: checks what is asked for, changes groups, tells of them. Doing is the engine's."""
import moto.autoscaling.urls

from .actions.groups import Groups
from .actions.hooks import Hooks
from .actions.instances import Instances
from .actions.processes import Processes
from .actions.refreshes import Refreshes
from .actions.request import Request
from .actions.targets import Targets


class AutoScaling(Groups, Instances, Hooks, Processes, Targets, Refreshes):
    """One method an action."""


def install(engine):
    """From here on requests to Auto Scaling come to `engine`; before moto's server has taken its own in."""
    Request.engine = engine
    moto.autoscaling.urls.url_paths = {"{0}/$": AutoScaling.dispatch}
