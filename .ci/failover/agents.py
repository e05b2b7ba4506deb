"""The agents that are compared, and the settings they get."""
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .machine import Account, Failed

PATRONI = "4.1.5"
PACKAGES = [f"patroni[etcd3]=={PATRONI}", "psycopg2-binary"]

# Patroni's three timings, in seconds.
PROFILES = {
    "ours": {"ttl": 5, "loop_wait": 1, "retry_timeout": 2},
    "patroni": {"ttl": 30, "loop_wait": 10, "retry_timeout": 10},
    "fast": {"ttl": 20, "loop_wait": 2, "retry_timeout": 9},
}


@dataclass(frozen=True)
class Subject:
    """One column of the table: an agent with its settings."""

    agent: str
    profile: str
    sync: str

    @property
    def timings(self):
        return PROFILES[self.profile]

    @property
    def name(self):
        return f"{self.agent}, ttl {self.timings['ttl']}, sync {self.sync}"

    @staticmethod
    def parse(text, sync):
        """`agent:profile[:sync]`."""
        agent, profile, *rest = [*text.split(":"), ""][:3]
        mode = rest[0] if rest and rest[0] else sync
        if agent not in ("spilo", "patroni") or profile not in PROFILES or mode not in ("off", "on", "quorum"):
            raise Failed(f"'{text}' is no subject: AGENT:PROFILE[:SYNC] with agents spilo, patroni; profiles {', '.join(PROFILES)}; sync off, on, quorum")
        return Subject(agent, profile, mode)


def venv_dir():
    """Where Patroni is kept between runs: a place that the user 'postgres' can look into."""
    if os.geteuid() == 0:
        return Path("/var/cache/spilo-bench") / f"patroni-{PATRONI}"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spilo-bench" / f"patroni-{PATRONI}"


def ensure_venv():
    """Installs Patroni and psycopg2; returns the environment's Python, or None and the reason."""
    place = venv_dir()
    python, done = place / "bin/python3", place / "complete"
    if not done.exists():
        print(f"installing {' '.join(PACKAGES)} into '{place}'", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        # Debian's own Python, where it is: one below /root cannot be run by the user 'postgres'.
        base = next((p for p in ("/usr/bin/python3", sys.executable) if Path(p).exists()))
        for command in ([base, "-m", "venv", place], [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]):
            run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600)
            if run.returncode:
                return None, f"'{' '.join(map(str, command))}' failed: {last_line(run.stderr or run.stdout)}"
    try:
        run = subprocess.run([place / "bin/patroni", "--version"], capture_output=True, text=True, timeout=60, cwd="/", **Account().popen_arguments())
    except OSError as error:
        return None, f"'{place}/bin/patroni' cannot be run as the user who runs PostgreSQL: {error}"
    if run.returncode or PATRONI not in run.stdout:
        return None, f"'{place}/bin/patroni --version' says: {last_line(run.stderr or run.stdout)}"
    done.touch()
    return python, None


def last_line(text):
    return (text.strip().splitlines() or ["nothing"])[-1]


def command_of(agent, program, config):
    """The command line that keeps one node."""
    return [str(program), "agent", str(config)] if agent == "spilo" else [str(venv_dir() / "bin/patroni"), str(config)]
