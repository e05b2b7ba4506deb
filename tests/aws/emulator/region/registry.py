"""The image registry behind ECR: OCI's distribution API, on loopback, where the engine pushes to and pulls from without TLS."""
import base64
import hashlib
import json
import re
import secrets
import threading
import time
import uuid
from datetime import datetime, timezone
from http.server import ThreadingHTTPServer

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.ecr.models import Repository
from moto.ecr.responses import ECRResponse

from .unix_http import Handler, Tells

TOKEN_SECONDS = 12 * 3600
DIGEST = r"sha256:[0-9a-f]{64}"
MANIFESTS = ("application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
             "application/vnd.oci.image.index.v1+json")


class Wrong(Exception):
    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code = status, code


class Registry:
    """What repositories there are is ECR's to say; what is pushed into them is told to it."""

    def __init__(self, cloud, directory, port):
        self.cloud, self.directory, self.port = cloud, directory, port
        self.address = f"127.0.0.1:{port}"
        self._tokens, self._tags, self._types, self._blobs = {}, {}, {}, {}

    def mend_ecr(self):
        """ECR gives out our address and passwords."""
        registry, make = self, Repository.__init__

        def __init__(repository, *args, **kwargs):
            make(repository, *args, **kwargs)
            repository.uri = f"{registry.address}/{repository.uri.partition(chr(47))[2]}"

        def get_authorization_token(response):
            password = secrets.token_urlsafe(24)
            registry._tokens[password] = until = time.time() + TOKEN_SECONDS
            token = base64.b64encode(f"AWS:{password}".encode()).decode()
            given = {"authorizationToken": token, "expiresAt": datetime.fromtimestamp(until, timezone.utc), "proxyEndpoint": f"http://{registry.address}"}
            return ActionResult({"authorizationData": [given]})

        Repository.__init__ = __init__
        ECRResponse.get_authorization_token = get_authorization_token

    def start(self):
        (self.directory / "blobs").mkdir(parents=True)
        registry = self

        class Requests(Handler):
            def do_GET(self):
                try:
                    registry.serve(self)
                except Wrong as wrong:
                    self.close_connection = True
                    more = {"WWW-Authenticate": 'Basic realm="ECR"'} if wrong.status == 401 else {}
                    self.answer(wrong.status, json.dumps({"errors": [{"code": wrong.code, "message": str(wrong)}]}), **{"Content-Type": "application/json", **more})

            do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = do_GET

        class Server(Tells, ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Requests)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="registry", daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    # ---- one request

    def serve(self, request):
        path, _, query = request.path.partition("?")
        self._check_password(request)
        if path in ("/v2", "/v2/"):
            return request.answer(200, "{}", **{"Content-Type": "application/json", "Docker-Distribution-Api-Version": "registry/2.0"})
        found = re.fullmatch(r"/v2/(.+)/(blobs/uploads|blobs|manifests|tags)/?([^/]*)", path)
        if not found:
            raise Wrong(404, "UNSUPPORTED", f"the emulated registry does not know {path}")
        name, kind, last = found.groups()
        with self.cloud.lock:
            if name not in self.cloud.backend("ecr").repositories:
                raise Wrong(404, "NAME_UNKNOWN", f"The repository with name '{name}' does not exist in the registry")
        method = "GET" if request.command == "HEAD" else request.command
        handler = {("GET", "blobs"): self._blob, ("POST", "blobs/uploads"): self._begin, ("PATCH", "blobs/uploads"): self._go_on, ("PUT", "blobs/uploads"): self._finish,
                   ("GET", "manifests"): self._manifest, ("PUT", "manifests"): self._push, ("GET", "tags"): self._list}.get((method, kind))
        if handler is None:
            raise Wrong(405, "UNSUPPORTED", f"the emulated registry does not do {request.command} with {kind}")
        handler(request, name, last, query)

    def _check_password(self, request):
        kind, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if kind == "Basic":
            user, _, password = base64.b64decode(encoded).decode(errors="replace").partition(":")
            if user == "AWS" and self._tokens.get(password, 0) > time.time():
                return
        raise Wrong(401, "UNAUTHORIZED", "no basic auth credentials, or their token has expired")

    # ---- blobs

    def _path(self, digest):
        return self.directory / "blobs" / digest.removeprefix("sha256:")

    def _has(self, name, digest):
        return digest in self._blobs.get(name, ()) and self._path(digest).exists()

    def _blob(self, request, name, digest, _):
        if not self._has(name, digest):
            raise Wrong(404, "BLOB_UNKNOWN", f"{digest} is not in '{name}'")
        path = self._path(digest)
        request.send_response(200)
        for header, value in (("Content-Length", path.stat().st_size), ("Docker-Content-Digest", digest), ("Content-Type", "application/octet-stream")):
            request.send_header(header, str(value))
        request.end_headers()
        if request.command == "GET":
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    request.wfile.write(piece)

    def _begin(self, request, name, _, query):
        request.body()
        made = re.search(f"mount=({DIGEST})".replace(":", "(?::|%3A)"), query)
        if made and self._path(digest := made[1].replace("%3A", ":")).exists():
            self._blobs.setdefault(name, set()).add(digest)
            return request.answer(201, b"", Location=f"/v2/{name}/blobs/{digest}", **{"Docker-Content-Digest": digest})
        upload = uuid.uuid4().hex
        (self.directory / upload).touch()
        self._accepted(request, name, upload)

    def _accepted(self, request, name, upload):
        size = (self.directory / upload).stat().st_size
        request.answer(202, b"", Location=f"/v2/{name}/blobs/uploads/{upload}", Range=f"0-{max(size - 1, 0)}", **{"Docker-Upload-UUID": upload})

    def _append(self, request, upload):
        if not re.fullmatch(r"[0-9a-f]{32}", upload) or not (self.directory / upload).exists():
            raise Wrong(404, "BLOB_UPLOAD_UNKNOWN", f"there is no upload {upload}")
        with (self.directory / upload).open("ab") as file:
            for piece in request.pieces():
                file.write(piece)

    def _go_on(self, request, name, upload, _):
        self._append(request, upload)
        self._accepted(request, name, upload)

    def _finish(self, request, name, upload, query):
        self._append(request, upload)
        wanted = re.search(r"digest=(sha256(?::|%3A)[0-9a-f]{64})", query)
        with (self.directory / upload).open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        if not wanted or wanted[1].replace("%3A", ":") != digest:
            (self.directory / upload).unlink()
            raise Wrong(400, "DIGEST_INVALID", f"what was uploaded is {digest}")
        (self.directory / upload).rename(self._path(digest))
        self._blobs.setdefault(name, set()).add(digest)
        request.answer(201, b"", Location=f"/v2/{name}/blobs/{digest}", **{"Docker-Content-Digest": digest})

    # ---- manifests

    def _manifest(self, request, name, reference, _):
        digest = reference if re.fullmatch(DIGEST, reference) else self._tags.get((name, reference))
        if digest is None or (name, digest) not in self._types:
            raise Wrong(404, "MANIFEST_UNKNOWN", f"Requested image not found: '{name}:{reference}'")
        request.answer(200, self._path(digest).read_bytes(), **{"Content-Type": self._types[name, digest], "Docker-Content-Digest": digest})

    def _push(self, request, name, reference, _):
        content = request.body()
        kind, digest = request.headers.get("Content-Type", ""), "sha256:" + hashlib.sha256(content).hexdigest()
        if kind not in MANIFESTS:
            raise Wrong(400, "MANIFEST_INVALID", f"the emulated registry does not take '{kind}'")
        words = json.loads(content)
        parts = [words.get("config"), *words.get("layers", [])] if "layers" in words else []
        if missing := [part["digest"] for part in parts if part and not self._has(name, part["digest"])]:
            raise Wrong(400, "MANIFEST_BLOB_UNKNOWN", f"{missing[0]} was not pushed")
        tag = None if re.fullmatch(DIGEST, reference) else reference
        if tag is None and reference != digest:
            raise Wrong(400, "DIGEST_INVALID", f"the manifest is {digest}")
        self._tell_ecr(name, content.decode(), tag, kind, digest)
        self._path(digest).write_bytes(content)
        self._types[name, digest] = kind
        if tag:
            self._tags[name, tag] = digest
        request.answer(201, b"", Location=f"/v2/{name}/manifests/{digest}", **{"Docker-Content-Digest": digest})

    def _tell_ecr(self, name, manifest, tag, kind, digest):
        if tag and self._tags.get((name, tag)) == digest:
            return
        with self.cloud.lock:
            try:
                self.cloud.backend("ecr").put_image(name, manifest, tag, kind, digest)
            except ServiceException as error:
                raise Wrong(400, "TAG_INVALID", str(error)) from None

    def _list(self, request, name, *_):
        request.answer(200, json.dumps({"name": name, "tags": sorted(tag for of, tag in self._tags if of == name)}), **{"Content-Type": "application/json"})

