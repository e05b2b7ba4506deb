"""S3's door: who comes in is known here too; objects go to SeaweedFS, and what only concerns buckets, and SeaweedFS doesn't know, to moto."""
import http.client
import io
import json
import re
import socket
import threading
import time
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from werkzeug.test import EnvironBuilder

from . import callers
from .calls import identify
from .faults import THROTTLING
from .front import code_of
from .unix_http import Handler, Tells

# Sub-resources of buckets that moto keeps.
BY_MOTO = {"encryption", "publicAccessBlock", "policy", "policyStatus", "lifecycle", "ownershipControls", "cors", "logging", "notification", "accelerate", "replication", "requestPayment",
           "website", "inventory", "metrics", "analytics", "intelligent-tiering", "tagging", "object-lock"}
NAME = re.compile(r"(?!xn--|sthree-)(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# How an object was to be encrypted, kept as metadata of it: SeaweedFS has no keys of KMS.
SSE, SSE_HEADERS = "x-amz-meta-emulated-sse", ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-bucket-key-enabled")
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "authorization", "x-amz-security-token", "x-amz-date", "expect"}
PIECE = 262144


class Answered(Exception):
    """What the door says by itself."""

    def __init__(self, code, message, status):
        super().__init__(message)
        self.code, self.status = code, status


class Door:
    def __init__(self, cloud, seaweed, recorder, faults, front):
        self.cloud, self.seaweed, self.recorder, self.faults, self.front = cloud, seaweed, recorder, faults, front
        self._servers = []

    def listen(self, address, port):
        door = self

        class Requests(Handler):
            disable_nagle_algorithm = True

            def do_GET(self):
                door.serve(self)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        class Server(Tells, ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 128

        server = Server((address, port), Requests)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name=f"S3 at {address}", daemon=True).start()
        self._servers.append(server)

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    # ---- one request

    def serve(self, request):
        began = time.monotonic()
        call, fault, status, code = identify(self._environ(request)), None, 0, None
        body = Body(request)
        try:
            callers.authenticate(self.cloud, call, request.command, request.path, dict(request.headers.items()), b"", self.front.enforce)
            fault = self.faults.take(call)
            if fault and fault.kind == "delay":
                time.sleep(fault.seconds)
            if fault and fault.kind == "reset":
                return reset(request)
            if fault and fault.kind in ("error", "throttle"):
                code, status = (fault.code, fault.status) if fault.kind == "error" else THROTTLING["s3"]
                raise Answered(code, fault.message, status)
            status, code = self._route(request, call, body, lost=fault is not None and fault.kind == "reset-after")
        except callers.Denied as denied:
            status, code = self._say(request, call, Answered(denied.code, str(denied), denied.status), body)
        except Answered as answered:
            status, code = self._say(request, call, answered, body)
        except (OSError, http.client.HTTPException):
            # One side has gone: so does the other.
            request.close_connection = True
            code = "broken"
        finally:
            self.recorder.write(call, status, code, began, fault and fault.kind)

    @staticmethod
    def _environ(request):
        url = urlsplit(request.path)
        environ = EnvironBuilder(method=request.command, base_url="http://127.0.0.1/", path=unquote(url.path), query_string=url.query).get_environ()
        environ["RAW_URI"] = request.path
        return environ | {"HTTP_" + name.upper().replace("-", "_"): value for name, value in request.headers.items() if name.lower() not in ("host", "content-length", "content-type")}

    @staticmethod
    def _say(request, call, answered, body):
        body.skip()
        _, headers, content = call.error(answered.code, str(answered), answered.status)
        request.answer(answered.status, content, **{"Content-Type": headers.get("Content-Type", "application/xml"), "x-amz-request-id": "EMULATED"})
        return answered.status, answered.code

    def _route(self, request, call, body, lost):
        url = urlsplit(request.path)
        query = parse_qs(url.query, keep_blank_values=True)
        bucket, _, key = url.path.lstrip("/").partition("/")
        if "X-Amz-Signature" in query:
            raise Answered("NotImplemented", "the emulated region does not know presigned requests", 501)
        if request.headers.get("x-amz-content-sha256", "").startswith("STREAMING-AWS4"):
            raise Answered("NotImplemented", "the emulated region does not know bodies whose pieces are signed", 501)
        if request.headers.get("x-amz-server-side-encryption-customer-algorithm"):
            raise Answered("NotImplemented", "the emulated region does not know keys of customers", 501)
        plain = not query.keys() - {"x-id"}
        if not bucket or not key and (plain and request.command in ("PUT", "DELETE", "HEAD") or "location" in query or query.keys() & BY_MOTO):
            return self._bucket(request, bucket, plain, body, lost)
        with self.cloud.lock:
            if bucket not in self.cloud.backend("s3", "aws").buckets:
                raise Answered("NoSuchBucket", "The specified bucket does not exist", 404)
        return self._object(request, bucket, key, body, lost)

    # ---- buckets

    def _bucket(self, request, bucket, plain, body, lost):
        making, removing = plain and bucket and request.command == "PUT", plain and bucket and request.command == "DELETE"
        if making and not NAME.fullmatch(bucket):
            raise Answered("InvalidBucketName", "The specified bucket is not valid.", 400)
        if removing and self._has_objects(bucket):
            raise Answered("BucketNotEmpty", "The bucket you tried to delete is not empty", 409)
        status, headers, content = self._ask_moto(request, body.read())
        if status < 300 and (making or removing):
            locked = {"x-amz-bucket-object-lock-enabled": "true"} if request.headers.get("x-amz-bucket-object-lock-enabled") == "true" else {}
            there, _, said = self.seaweed.ask(request.command, f"/{bucket}", **locked)
            if there >= 300 and there != 409:
                raise Answered("InternalError", f"SeaweedFS: {said.decode(errors='replace')}", 500)
        if lost:
            reset(request)
        else:
            kept = {name: value for name, value in headers.items() if name.lower() not in ("content-length", "status")}
            request.answer(status, content, **kept)
        return status, code_of(content) if status >= 400 else None

    def _has_objects(self, bucket):
        status, _, content = self.seaweed.ask("GET", f"/{bucket}?versions=&max-keys=1")
        return status == 200 and (b"<Version>" in content or b"<DeleteMarker>" in content)

    def _ask_moto(self, request, body):
        found = {}
        environ = self._environ(request) | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": request.headers.get("Content-Type", "")}

        def start_response(status, headers, *_):
            found.update(status=int(status.split()[0]), headers=dict(headers))
            return lambda _: None
        content = b"".join(self.cloud(environ, start_response))
        return found["status"], found["headers"], content

    # ---- objects

    def _object(self, request, bucket, key, body, lost):
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        if key and (request.command == "PUT" and "uploadId=" not in request.path or request.command == "POST" and request.path.endswith("?uploads")):
            self._remember_encryption(bucket, headers)
        connection = self.seaweed.connection()
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.seaweed.sign(request.command, request.path, headers).items():
                connection.putheader(name, value)
            connection.endheaders()
            for piece in body.pieces():
                connection.send(piece)
            answer = connection.getresponse()
            if answer.status == 412 and request.command == "PUT" and request.headers.get("If-Match") and self.seaweed.ask("HEAD", urlsplit(request.path).path)[0] == 404:
                answer.read()
                raise Answered("NoSuchKey", "The specified key does not exist.", 404)
            if lost:
                answer.read()
                reset(request)
                return answer.status, None
            return self._hand_back(request, answer, bool(key))
        finally:
            connection.close()

    def _remember_encryption(self, bucket, headers):
        asked = {name.lower(): headers.pop(name) for name in list(headers) if name.lower().startswith("x-amz-server-side-encryption")}
        if not asked:
            with self.cloud.lock:
                asked = default_encryption(self.cloud.backend("s3", "aws").buckets[bucket])
        if asked and asked.get(SSE_HEADERS[0]) != "AES256":
            headers[SSE] = json.dumps({name: value for name, value in asked.items() if name in SSE_HEADERS})

    def _hand_back(self, request, answer, is_object):
        encryption = {SSE_HEADERS[0]: "AES256"} if is_object and answer.status < 300 and request.command != "DELETE" else {}
        length, code = answer.getheader("Content-Length"), None
        content = answer.read() if answer.status >= 400 or length is None else None
        if content:
            code = code_of(content)
        request.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() == SSE:
                encryption = json.loads(value)
            elif name.lower() == "content-encoding":
                if value := ",".join(part.strip() for part in value.split(",") if part.strip() != "aws-chunked"):
                    request.send_header(name, value)
            elif name.lower() not in HOP | {"content-length", *SSE_HEADERS}:
                request.send_header(name, value)
        for name, value in encryption.items():
            request.send_header(name, value)
        if answer.status not in (204, 304):
            request.send_header("Content-Length", length if content is None else str(len(content)))
        request.end_headers()
        if request.command != "HEAD":
            if content is not None:
                request.wfile.write(content)
            while content is None and (piece := answer.read(PIECE)):
                request.wfile.write(piece)
        return answer.status, code


class Body:
    """What comes with a request, as it comes."""

    def __init__(self, request):
        self.request = request
        self.left = int(request.headers.get("Content-Length") or 0)

    def pieces(self):
        if "chunked" in self.request.headers.get("Transfer-Encoding", "").lower():
            # The length must be known before anything is passed on, as S3 itself wants it.
            raise Answered("MissingContentLength", "You must provide the Content-Length HTTP header.", 411)
        while self.left:
            piece = self.request.rfile.read(min(PIECE, self.left))
            if not piece:
                raise ConnectionResetError("the body is not complete")
            self.left -= len(piece)
            yield piece

    def read(self):
        return b"".join(self.pieces())

    def skip(self):
        """So that the next request on the connection can be read; a large one is not worth that."""
        if self.left > 1 << 20 or "chunked" in self.request.headers.get("Transfer-Encoding", "").lower():
            self.request.close_connection = True
        else:
            self.read()


def default_encryption(bucket):
    """Headers that the bucket's default stands for; none where it has none."""
    rules = (bucket.encryption or {}).get("Rule") if isinstance(bucket.encryption, dict) else None
    rule = (rules[0] if isinstance(rules, list) else rules) or {}
    default = rule.get("ApplyServerSideEncryptionByDefault") or {}
    found = {SSE_HEADERS[0]: default.get("SSEAlgorithm"), SSE_HEADERS[1]: default.get("KMSMasterKeyID"), SSE_HEADERS[2]: str(rule.get("BucketKeyEnabled", "")).lower() or None}
    return {name: value for name, value in found.items() if value} if default else {}


def reset(request):
    """The connection ends without an answer."""
    request.close_connection = True
    request.connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("made to break")
