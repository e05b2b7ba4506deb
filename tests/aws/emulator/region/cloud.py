"""AWS's control plane: moto in this process, mended where it is not like AWS, one request at a time."""
import io
import os
import threading

# Before moto is imported: it reads these once. What does not exist is refused, and policies that AWS has are there.
os.environ.update({"MOTO_ENABLE_AMI_VALIDATION": "true", "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true", "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"})

import botocore.awsrequest  # noqa: E402
import botocore.session  # noqa: E402
from moto.backends import get_backend  # noqa: E402
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: E402
from werkzeug.test import EnvironBuilder, run_wsgi_app  # noqa: E402

ACCOUNT = "123456789012"
# Of whoever made the account: everything is allowed to them.
ROOT_KEY, ROOT_SECRET = "AKIAEMULATEDROOT", "emulated-root-secret-of-no-value"


class Cloud:
    """What moto keeps is changed by one thread at a time, the holder of `lock`."""

    def __init__(self, region):
        self.region = region
        self.lock = threading.RLock()
        self.inside = threading.local()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._session = botocore.session.Session()
        self._clients = {}

    def __call__(self, environ, start_response):
        with self.lock:
            return [b"".join(self._app(environ, start_response))]

    def backend(self, service, region=None, account=ACCOUNT):
        """What moto keeps of a service; call with the lock held."""
        return get_backend(service)[account][region or self.region]

    @property
    def ec2(self):
        return self.backend("ec2")

    @property
    def elb(self):
        return self.backend("elbv2")

    def is_inside(self):
        """Whether the request at hand is one of the region's own parts: no policy applies to it."""
        return getattr(self.inside, "depth", 0) > 0

    def client(self, service, key=(ROOT_KEY, ROOT_SECRET)):
        """An SDK client whose requests are answered in the calling thread, unrecorded and unharmed: what AWS's services are to each other."""
        with self.lock:
            if service not in self._clients:
                made = self._session.create_client(service, region_name=self.region, aws_access_key_id=key[0], aws_secret_access_key=key[1])
                made.meta.events.register("before-send", self._answer)
                self._clients[service] = made
            return self._clients[service]

    def _answer(self, request, **_):
        with self.lock:
            self.inside.depth = getattr(self.inside, "depth", 0) + 1
            try:
                headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}
                builder = EnvironBuilder(method=request.method, path=request.url, headers=headers, data=request.body or b"")
                environ = builder.get_environ()
                environ["RAW_URI"] = request.url
                chunks, status, headers = run_wsgi_app(self._app, environ, buffered=True)
                body = b"".join(chunks)
            finally:
                self.inside.depth -= 1
        return botocore.awsrequest.AWSResponse(request.url, int(status.split()[0]), headers, Raw(body))


class Raw(io.BytesIO):
    def stream(self, *_, **__):
        yield self.read()
