"""HTTP servers on sockets of the file system: one for each machine, so that who asks need not say who it is."""
import os
import socket
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer


class Tells:
    """Of servers: who breaks off in the middle of a request is nothing to tell of; our mistakes are."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):
            traceback.print_exc()


class Server(Tells, ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path, handler):
        super().__init__(str(path), handler)
        # Whoever is root there may use it, whatever the number of our user.
        os.chmod(path, 0o666)

    def start(self, name):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, name=name, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()



class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def address_string(self):
        return "unix"

    def answer(self, status, body=b"", **headers):
        body = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return b"".join(self.pieces())

    def pieces(self, size=1 << 18):
        """What comes with the request, as it comes."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while left := int(self.rfile.readline().split(b";")[0], 16):
                yield from self._exactly(left, size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            yield from self._exactly(int(self.headers.get("Content-Length") or 0), size)

    def _exactly(self, left, size):
        while left:
            piece = self.rfile.read(min(left, size))
            if not piece:
                raise ConnectionResetError("the body is not complete")
            left -= len(piece)
            yield piece


def connect(path):
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(str(path))
    return made
