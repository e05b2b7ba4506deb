"""What Auto Scaling answers where it does not do what it is asked for."""
from moto.core.exceptions import ServiceException


class Invalid(ServiceException):
    code = "ValidationError"


class AlreadyExists(ServiceException):
    code = "AlreadyExists"


class ResourceInUse(ServiceException):
    code = "ResourceInUse"


class ScalingInProgress(ServiceException):
    code = "ScalingActivityInProgress"


class RefreshInProgress(ServiceException):
    code = "InstanceRefreshInProgress"


class NoRefresh(ServiceException):
    code = "ActiveInstanceRefreshNotFound"
