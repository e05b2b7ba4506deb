"""The tools, each with the same store, codec and share of the machine: what to run for archiving, a backup and a restore."""
import shutil
from pathlib import Path

from .store import BUCKET, KEY, SECRET

CODEC_LEVEL = 1


class Subject:
    """One tool. `threads` is what it may use at once for a backup or a restore, `lanes` for WAL."""

    def __init__(self, directory, store, profile, threads, lanes, prefix):
        self.directory, self.store, self.profile = Path(directory) / self.name, store, profile
        self.threads, self.lanes, self.prefix = threads, lanes, prefix
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o777)

    def port(self):
        return self.store.ports[self.profile]

    def resident(self, _data):
        return ""


class Spilo(Subject):
    name = "spilo"
    binary = None

    def place(self):
        return ["--store", f"s3://{BUCKET}/{self.prefix}-spilo", "--store-endpoint", self.store.endpoint(self.profile), "--store-region", "us-east-1",
                "--store-credentials", str(self.store.directory / "credentials"), "--cluster", "bench"]

    def prepare(self, _postgres, _bin_dir):
        return [[self.binary, "wal", "init", *self.place()]]

    def push(self, _data):
        return f"{self.binary} wal push %p %f"

    def resident(self, data):
        return " ".join([str(self.binary), "wal", "serve", *self.place(), "--data-dir", str(data)])

    def archive_command(self, _data):
        return " ".join([str(self.binary), "wal", "push", *self.place(), "%p", "%f"])

    def backup(self, postgres, full):
        return [self.binary, "backup", "take", *self.place(), "--data-dir", postgres.data, "--host", postgres.directory, "--port", postgres.port,
                "--user", "postgres", "--threads", self.threads, *(["--full"] if full else [])]

    def restore(self, to, bin_dir):
        return [self.binary, "backup", "restore", *self.place(), "--data-dir", to, "--threads", self.threads]


class PgBackRest(Subject):
    name = "pgbackrest"
    compress = ("zst", CODEC_LEVEL)

    def configuration(self, data, postgres=None):
        where = self.directory / "pgbackrest.conf"
        lines = ["[global]", "repo1-type=s3", f"repo1-s3-bucket={BUCKET}", "repo1-s3-endpoint=127.0.0.1", f"repo1-storage-port={self.port()}",
                 "repo1-storage-host=127.0.0.1", "repo1-storage-verify-tls=n", "repo1-s3-uri-style=path", f"repo1-s3-key={KEY}", f"repo1-s3-key-secret={SECRET}",
                 "repo1-s3-region=us-east-1", f"repo1-path=/{self.prefix}-{self.name}", f"log-path={self.directory}", f"lock-path={self.directory}/lock",
                 f"spool-path={self.directory}/spool", "log-level-file=off", "log-level-console=warn", "repo1-retention-full=99", "start-fast=y",
                 *([f"compress-type={self.compress[0]}", f"compress-level={self.compress[1]}"] if self.compress else []),
                 f"process-max={self.threads}", "archive-async=y", "archive-timeout=600", "[global:archive-push]", f"process-max={self.lanes}",
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

    def archive_command(self, data):
        return self.push(data)

    def backup(self, postgres, _full):
        return [self.tool("barman-cloud-backup"), *self.place(), "-J", self.threads, "--immediate-checkpoint", "--gzip", "-h", postgres.directory, "-p", postgres.port, "-U", "postgres", self.url(), "main"]

    def restore(self, to, _bin_dir):
        shutil.rmtree(to, ignore_errors=True)
        return [self.tool("barman-cloud-restore"), *self.place(), self.url(), "main", "latest", to]


SUBJECTS = {subject.name: subject for subject in (Spilo, PgBackRest, PgBackRestDefault, Barman)}
