"""What goes wrong, and for how long it is left so."""
import signal
import threading
import time
from dataclasses import dataclass

from .machine import Failed, kill_at_once, send

# What only an agent has that is made of two processes.
GUARDED = {"guard-kill", "agent-and-guard-kill", "agent-and-guard-stop"}

# How much a crashed primary has to replay, in MB, where a fault is about that.
BACKLOG = 300

TITLES = {
    "postgres-kill": "kill -9 of PostgreSQL on the primary",
    "postgres-kill-backlog": "the same with {backlog} MB of WAL since the last checkpoint",
    "switchover": "switchover",
    "host-death": "death of the primary's host (agent, guard, PostgreSQL)",
    "agent-kill": "kill -9 of the agent",
    "guard-kill": "kill -9 of the guard",
    "agent-and-guard-kill": "kill -9 of agent and guard",
    "agent-stop": "SIGSTOP of the agent",
    "agent-and-guard-stop": "SIGSTOP of agent and guard",
    "dcs-stop": "whole DCS stopped for {outage:.0f} s",
    "dcs-kill": "whole DCS dead for {outage:.0f} s",
    "boot": "start from nothing, all streaming",
    "idle": "agent's memory and CPU, idle",
}


@dataclass
class Struck:
    """What a fault leaves to wait for."""

    # The fault is left alone for so long, in seconds.
    watch: float
    # It is over when another server takes rows; then `watch` is only the longest time to wait.
    until_moved: bool = False
    # It is not over before the application's rows are acknowledged again, for at most so long, in seconds.
    until_writes: float = 0
    # Set by a request that a fault consists of.
    error: list = None


def prepare(fault, leader):
    """What has to be so before the clients begin."""
    if fault != "postgres-kill-backlog":
        return
    leader.query("drop table if exists backlog")
    leader.query("create table backlog as select g as id, 0 as n, repeat('x', 90) as filling from generate_series(1, 100000) g")
    leader.query("checkpoint")
    begin = leader.query("select pg_current_wal_lsn()::text")[0][0]
    while leader.query("select pg_current_wal_lsn() - %s::pg_lsn < %s", begin, BACKLOG << 20)[0][0]:
        leader.query("update backlog set n = n + 1")


def strike(fault, cluster, leader, outage):
    """Does it to the leader."""
    ttl, loop_wait = cluster.subject.timings["ttl"], cluster.subject.timings["loop_wait"]
    # Patroni raises a ttl below its least one.
    lease = max(ttl, 20) if cluster.subject.agent == "patroni" else ttl
    agent = leader.agent_pids()
    if fault in GUARDED | {"agent-kill", "agent-stop"} and not agent:
        raise Failed(f"'{leader.name}' has no agent")
    guard, worker = (agent[:1], agent[1:]) if cluster.subject.agent == "spilo" else ([], agent)
    if fault.startswith("postgres-kill"):
        kill_at_once(leader.server_pids())
        return Struck(watch=8, until_writes=2 * lease + 40)
    if fault == "switchover":
        return ask_for_switchover(cluster, leader)
    if fault == "host-death":
        kill_at_once(agent + leader.server_pids())
        return Struck(watch=2 * lease + 40, until_moved=True)
    if fault.startswith("dcs-"):
        cluster.etcd_process.send_signal(signal.SIGSTOP if fault == "dcs-stop" else signal.SIGKILL)
        return Struck(watch=outage)
    pids = {"agent": worker, "guard": guard, "agent-and-guard": agent}[fault.rsplit("-", 1)[0]]
    if fault.endswith("-stop"):
        send(pids, signal.SIGSTOP)
    else:
        kill_at_once(pids)
    return Struck(watch=lease + loop_wait + 10)


def ask_for_switchover(cluster, leader):
    candidate = next(node for node in cluster.nodes if node is not leader)
    error = []

    def ask():
        status, text = leader.ask("/switchover", {"leader": leader.name, "candidate": candidate.name}, limit=60)
        if status != 200:
            error.append(f"the switchover was answered with {status}: {text.strip()}")

    threading.Thread(target=ask, daemon=True).start()
    return Struck(watch=60, until_moved=True, error=error)


def wait_out(struck, cluster, writing, leader):
    """Until the dust has settled."""
    begin = time.monotonic()
    until = begin + struck.watch
    while time.monotonic() < until:
        time.sleep(0.1)
        cluster.reap()
        if struck.error:
            raise Failed(struck.error[0])
        if struck.until_moved and any(row.port != leader.postgres_port for row in writing.rows()[-200:]):
            time.sleep(3)
            return
    while struck.until_writes and not any(row.sent > begin and row.client == "application" for row in writing.rows()[-200:]):
        if time.monotonic() > begin + struck.until_writes:
            raise Failed(f"within {struck.until_writes:.0f} s no row was acknowledged again")
        time.sleep(0.1)
    if struck.until_moved:
        raise Failed(f"within {struck.watch:.0f} s no other server than '{leader.name}' acknowledged a row")
