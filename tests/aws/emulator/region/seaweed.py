"""SeaweedFS: keeps the objects. Nobody but the door before it (`s3.py`) knows its key."""
import http.client
import json
import subprocess
import sys
from pathlib import Path

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .cleanup import remove_sockets
from .host import Refused, free_port, wait_until

KEY = Credentials("emulated", "emulated-store-secret-of-no-value")


class Seaweed:
    def __init__(self, directory):
        self.directory = directory

    def start(self):
        self.directory.mkdir()
        (self.directory / "data").mkdir()
        identity = {"name": "door", "credentials": [{"accessKey": KEY.access_key, "secretKey": KEY.secret_key}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.port = free_port()
        self._sockets = [free_port() for _ in range(4)]
        ports = [f"-{what}={free_port()}" for what in ("master.port", "volume.port", "filer.port")]
        ports += [f"-{what}.port.grpc={port}" for what, port in zip(("master", "volume", "filer", "s3"), self._sockets)]
        # Everything that it opens has a port or a name of this run; it dies with us, however we end.
        program = ["setpriv", "--pdeathsig", "KILL", str(Path(sys.executable).with_name("weed")), "server"]
        command = [*program, "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.port={self.port}",
                   "-s3.config=s3.json", "-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false",
                   "-master.volumeSizeLimitMB=1024", "-volume.max=100", "-master.telemetry=false", "-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", *ports]
        # For whoever cleans up after us.
        (self.directory / "ports").write_text(" ".join(map(str, self._sockets)))
        self._log = self.directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def wait(self):
        wait_until("the S3 server answers", 60, self._is_ready)

    def _is_ready(self):
        if self._process.poll() is not None:
            raise Refused(f"the S3 server ended with {self._process.returncode}: {self._log.read_text(errors='replace')[-600:]}")
        try:
            status, _, _ = self.ask("GET", "/")
            if status != 200:
                return False
            # Buckets can be made some time before anything can be written into one.
            self.ask("PUT", "/emulated-region-ready")
            if self.ask("PUT", "/emulated-region-ready/object", b"x")[0] != 200:
                return False
            self.ask("DELETE", "/emulated-region-ready/object")
            return self.ask("DELETE", "/emulated-region-ready")[0] < 300
        except (OSError, http.client.HTTPException):
            return False

    def close(self):
        self._process.kill()
        self._process.wait()
        remove_sockets(self.directory)

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def sign(self, method, path, headers):
        """The headers with a signature of ours. What is said of the body's checksum stays, and is checked there."""
        request = AWSRequest(method=method, url=f"http://127.0.0.1:{self.port}{path}", headers={"Host": f"127.0.0.1:{self.port}", **headers})
        auth = S3SigV4Auth(KEY, "s3", "us-east-1")
        said = next((value for name, value in headers.items() if name.lower() == "x-amz-content-sha256"), "UNSIGNED-PAYLOAD")
        auth.payload = lambda _: said
        auth.add_auth(request)
        return dict(request.headers.items())

    def ask(self, method, path, body=b"", **headers):
        """A small request and its whole answer: (status, headers, content)."""
        connection = self.connection()
        try:
            connection.request(method, path, body, self.sign(method, path, headers))
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()
