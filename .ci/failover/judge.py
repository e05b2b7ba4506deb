"""What the acknowledged rows of one run say."""
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from .client import SPAN
from .machine import Failed, wait_until


@dataclass(frozen=True)
class Row:
    client: str
    id: int
    sent: float
    acknowledged: float
    port: int
    timeline: int


class Writing:
    """The clients' process and the rows that it has noted."""

    _runs = 0

    def __init__(self, cluster):
        Writing._runs += 1
        self.first = Writing._runs * 10 * SPAN
        self.path = cluster.home / f"rows-{Writing._runs}"
        self.path.touch()
        ports = [str(node.postgres_port) for node in cluster.nodes]
        command = [sys.executable, "-m", "failover.client", str(self.path), str(self.first), *ports]
        # Not in the cluster's directory: what works there is the cluster's.
        self.process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE)

    def __enter__(self):
        wait_until("the first rows are acknowledged", 60, lambda: self.application_rows() > 50)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def rows(self):
        """Everything acknowledged so far; the last line may still be half written."""
        text = self.path.read_text()
        return [Row(*json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]

    def application_rows(self):
        if self.process.poll() is not None:
            raise Failed(f"the clients ended by themselves with status {self.process.returncode}")
        return sum(row.client == "application" for row in self.rows())

    def wait_for_more(self, limit):
        wanted = self.application_rows() + 20
        wait_until("the application's rows are acknowledged again", limit, lambda: self.application_rows() >= wanted)


def longest_gap(rows, begin, end):
    """The longest silence, in seconds, that the application saw between `begin` and `end`."""
    times = sorted(row.acknowledged for row in rows if row.client == "application")
    before = [at for at in times if at < begin]
    times = before[-1:] + [at for at in times if begin <= at <= end] + [end]
    return max(after - at for at, after in zip(times, times[1:]))


def acknowledged_twice_at_once(rows):
    """Rows that one server took after another had taken one on a later timeline, or on the same one: they cannot both be the primary."""
    overlapping, newest, holder = 0, 0, None
    # What was acknowledged before a row was sent came before it, whatever the clocks of the servers say.
    by_answer = sorted(rows, key=lambda row: row.acknowledged)
    position = 0
    for row in sorted(rows, key=lambda row: row.sent):
        while position < len(by_answer) and by_answer[position].acknowledged < row.sent:
            seen = by_answer[position]
            if seen.timeline > newest:
                newest, holder = seen.timeline, seen.port
            position += 1
        if row.timeline < newest or (row.timeline == newest and row.port != holder):
            overlapping += 1
    return overlapping


def lost_rows(rows, cluster, first):
    """How many acknowledged rows the healed cluster's leader does not have; it is an error when that cannot be found out."""
    leader = cluster.wait_healthy()
    last = first + 10 * SPAN
    try:
        present = {row[0] for row in leader.query("select id from bench where id > %s and id < %s", first, last)}
        acknowledged = {row.id for row in rows}
        lost = len(acknowledged - present)
        for node in cluster.nodes:
            if node is not leader:
                expect_the_same(node, leader, first, last)
    except psycopg2.Error as error:
        raise Failed(f"'{leader.name}' cannot be asked for its rows: {str(error).strip()}") from None
    return lost, leader


def expect_the_same(node, leader, first, last):
    """One history: a replica has exactly the leader's rows."""
    count = "select count(*), coalesce(sum(hashint8(id)::numeric), 0) from bench where id > %s and id < %s"
    wanted = leader.query(count, first, last)
    until = time.monotonic() + 60
    while node.query(count, first, last) != wanted:
        if time.monotonic() > until:
            raise Failed(f"'{node.name}' streams from '{leader.name}' and does not have the same rows")
        time.sleep(0.2)
