"""The tools, each with the same store, codec and share of the machine: what to run for archiving, a backup and a restore."""
from pathlib import Path

from .store import BUCKET, KEY, SECRET

CODEC_LEVEL = 1


class Subject:
    """One tool. `threads` is what it may use at once for a backup or a restore, `lanes` for WAL."""

    # The only measurements that say something of it; all of them, unless it says which.
    only = None

    def __init__(self, directory, store, profile, threads, lanes, prefix):
        self.directory, self.store, self.profile = Path(directory) / f"{prefix}-{self.name}", store, profile
        self.threads, self.lanes, self.prefix = threads, lanes, prefix
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o777)

    def port(self):
        return self.store.ports[self.profile]

    def kept(self, what):
        """What the names of its objects begin with: its "wal", or its "backup"s."""
        return f"{self.prefix}-{self.name}/{self.folders[what]}/"

    def resident(self, _data):
        """A command that runs as long as the server does, if the tool has one."""
        return ""

    def complete(self, _to):
        """What a restored directory needs before it can be started, if the tool leaves that to its user."""


class Spilo(Subject):
    name = "spilo"
    binary = None
    folders = {"wal": "bench/wal", "backup": "bench/backup"}

    def place(self):
        return ["--store", f"s3://{BUCKET}/{self.prefix}-{self.name}", "--store-endpoint", self.store.endpoint(self.profile), "--store-region", "us-east-1",
                "--store-credentials", str(self.store.directory / "credentials")]

    def cluster(self):
        return [*self.place(), "--cluster", "bench"]

    def prepare(self, _postgres, _bin_dir):
        return [[self.binary, "wal", "init", *self.place()]]

    def push(self, _data):
        return f"{self.binary} wal push %p %f"

    def resident(self, data):
        return " ".join([str(self.binary), "wal", "serve", *self.cluster(), "--data-dir", str(data)])

    def fetch(self, _data):
        return f"{self.binary} wal fetch %f %p"

    def archive_command(self, _data):
        return " ".join([str(self.binary), "wal", "push", *self.cluster(), "%p", "%f"])

    def backup(self, postgres, full):
        return [self.binary, "backup", "take", *self.cluster(), "--data-dir", postgres.data, "--host", postgres.directory, "--port", postgres.port,
                "--user", "postgres", "--threads", self.threads, *(["--full"] if full else [])]

    def restore(self, to, bin_dir):
        return [self.binary, "backup", "restore", to, *self.cluster(), "--threads", self.threads]


class SpiloSameLevel(Spilo):
    """Its WAL service packs every segment as pgBackRest is told to here, however many wait: what a GB of WAL costs at one level."""

    name, only = "spilo-same-level", ("push",)

    def resident(self, data):
        return f"{super().resident(data)} --level {CODEC_LEVEL}"


class PgBackRest(Subject):
    name = "pgbackrest"
    folders = {"wal": "archive", "backup": "backup"}
    compress = ("zst", CODEC_LEVEL)

    def configuration(self, data, postgres=None):
        where = self.directory / "pgbackrest.conf"
        lines = ["[global]", "repo1-type=s3", f"repo1-s3-bucket={BUCKET}", "repo1-s3-endpoint=127.0.0.1", f"repo1-storage-port={self.port()}",
                 "repo1-storage-host=127.0.0.1", "repo1-storage-verify-tls=n", "repo1-s3-uri-style=path", f"repo1-s3-key={KEY}", f"repo1-s3-key-secret={SECRET}",
                 "repo1-s3-region=us-east-1", f"repo1-path=/{self.prefix}-{self.name}", f"log-path={self.directory}", f"lock-path={self.directory}/lock",
                 f"spool-path={self.directory}/spool", "log-level-file=off", "log-level-console=warn", "repo1-retention-full=99", "start-fast=y",
                 *([f"compress-type={self.compress[0]}", f"compress-level={self.compress[1]}"] if self.compress else []),
                 f"process-max={self.threads}", "archive-async=y", "archive-timeout=600", "archive-get-queue-max=256MiB", "[global:archive-push]", f"process-max={self.lanes}",
                 "[global:archive-get]", f"process-max={self.lanes}",
                 "[main]", f"pg1-path={data}"]
        if postgres:
            lines += [f"pg1-port={postgres.port}", f"pg1-socket-path={postgres.directory}", "pg1-user=postgres"]
        for folder in ("lock", "spool"):
            (self.directory / folder).mkdir(exist_ok=True)
            (self.directory / folder).chmod(0o777)
        where.write_text("\n".join(lines) + "\n")
        where.chmod(0o644)
        return f"--config={where}"

    def prepare(self, postgres, _bin_dir):
        online = [] if (postgres.data / "postmaster.pid").exists() else ["--no-online"]
        return [["pgbackrest", self.configuration(postgres.data, postgres), "--stanza=main", *online, "stanza-create"]]

    def push(self, data):
        return f"pgbackrest {self.configuration(data)} --stanza=main archive-push %p"

    def archive_command(self, data):
        return f"pgbackrest --config={self.directory / 'pgbackrest.conf'} --stanza=main --no-archive-async archive-push %p"

    def fetch(self, data):
        return f"pgbackrest {self.configuration(data)} --stanza=main archive-get %f %p"

    def backup(self, postgres, full):
        return ["pgbackrest", self.configuration(postgres.data, postgres), "--stanza=main", f"--type={'full' if full else 'incr'}", "backup"]

    def restore(self, to, _bin_dir):
        return ["pgbackrest", f"--config={self.directory / 'pgbackrest.conf'}", "--stanza=main", f"--pg1-path={to}", "restore"]


class PgBackRestDefault(PgBackRest):
    """With its own defaults: gzip 6, one process."""

    name, compress = "pgbackrest-default", None

    def __init__(self, directory, store, profile, _threads, _lanes, prefix):
        super().__init__(directory, store, profile, 1, 1, prefix)


class Barman(Subject):
    name = "barman"
    folders = {"wal": "main/wals", "backup": "main/base"}

    def tool(self, name):
        return str(self.store.venv / "bin" / name)

    def place(self):
        return ["--endpoint-url", self.store.endpoint(self.profile), "--cloud-provider", "aws-s3"]

    def url(self):
        return f"s3://{BUCKET}/{self.prefix}-barman"

    def prepare(self, _postgres, _bin_dir):
        return []

    def push(self, _data):
        return " ".join([self.tool("barman-cloud-wal-archive"), *self.place(), "--gzip", self.url(), "main", "%p"])

    def fetch(self, _data):
        return " ".join([self.tool("barman-cloud-wal-restore"), *self.place(), self.url(), "main", "%f", "%p"])

    def archive_command(self, data):
        return self.push(data)

    def backup(self, postgres, _full):
        return [self.tool("barman-cloud-backup"), *self.place(), "-J", self.threads, "--immediate-checkpoint", "--gzip", "-h", postgres.directory, "-p", postgres.port, "-U", "postgres", self.url(), "main"]

    def restore(self, to, _bin_dir):
        to.rmdir()
        return [self.tool("barman-cloud-restore"), *self.place(), self.url(), "main", "latest", to]

    def complete(self, to):
        (to / "recovery.signal").touch()
        (to / "postgresql.auto.conf").write_text(f"restore_command = '{self.fetch(to)}'\n")


SUBJECTS = {subject.name: subject for subject in (Spilo, SpiloSameLevel, PgBackRest, PgBackRestDefault, Barman)}
