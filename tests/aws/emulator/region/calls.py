"""What a request asks for: service, action and parameters, by the service models that botocore ships."""
import re
from dataclasses import dataclass, field

from moto.core.exceptions import ServiceException
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model
from werkzeug.exceptions import HTTPException

# Where the name that a request is signed for is not the model's.
NAMES = {"elasticloadbalancing": "elbv2", "monitoring": "cloudwatch", "tagging": "resourcegroupstaggingapi"}
READS = ("Describe", "Get", "List", "Head", "Lookup", "Search", "BatchGet", "BatchCheck")


class Said(ServiceException):
    """Of this module: moto would look for the model of a service by the module's name."""


@dataclass
class Call:
    """One request to AWS. `action` is '?' where the model knows no such thing."""
    service: str
    action: str = "?"
    parameters: dict = field(default_factory=dict)
    key: str | None = None
    caller: str | None = None
    protocol: str = "query"
    operation: object = None

    @property
    def is_read(self):
        return self.action.startswith(READS)

    def error(self, code, message, status=400):
        """The answer that says so in the service's own way: (status, headers, body)."""
        if self.operation is None:
            return status, {"Content-Type": "text/plain"}, f"{code}: {message}\n"
        made = get_serializer_class(self.service, self.protocol)(self.operation).serialize(Said(code, message))
        return status, dict(made["headers"]), made["body"]


def scope_of(authorization):
    """(key, region, service) that a request is signed for; None where it isn't."""
    found = re.search(r"Credential=([^/,\s]+)/\d+/([^/]+)/([^/]+)/aws4_request", authorization or "")
    return found and found.groups()


def identify(environ):
    """The call that a request is. Its body must be readable again after."""
    request = Request(environ)
    key, _, service = scope_of(request.headers.get("Authorization")) or (None, None, "sts")
    service = NAMES.get(service, service)
    call = Call(service, key=key)
    try:
        model = get_service_model(service)
        call.protocol = determine_request_protocol(model, request.content_type)
        call.operation, places = get_service_router(service).match(request)
    except (HTTPException, NotImplementedError, ImportError, KeyError, ValueError) as error:
        call.action = request.values.get("Action") or request.headers.get("X-Amz-Target", "?").rpartition(".")[2]
        call.parameters = {"unknown": str(error)}
        return call
    call.action = call.operation.name
    if service != "s3":
        parser = PROTOCOL_PARSERS[call.protocol](call.operation)
        call.parameters = parser.parse({"method": request.method, "values": request.values, "headers": request.headers, "body": request.get_data(), "url_path": request.path,
                                        "url_params": places}) or {}
    else:
        # Bodies of objects are not to be read for this.
        call.parameters = {**{name: value for name, value in places.items()}, **request.args.to_dict()}
    return call
