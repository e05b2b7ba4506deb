"""One run of one fault, measured."""
import os
import time

from .faults import prepare, strike, wait_out
from .judge import Writing, acknowledged_twice_at_once, longest_gap, lost_rows
from .machine import Failed, cpu_seconds, memory, wait_until

# How long a cluster is left alone before it is struck, so that the last fault's traces are gone.
SETTLING = 3
# Its multiples, modulo 1, spread evenly.
GOLDEN = 0.6180339887
# How long an idle agent is watched, in seconds.
IDLE = 120


def measure_fault(fault, run, cluster, outage):
    """Strikes a healthy cluster under its clients, heals it, and judges what was acknowledged."""
    phase = run * GOLDEN % 1
    prepare(fault, cluster.wait_healthy())
    leader = cluster.wait_healthy()
    time.sleep(SETTLING)
    with Writing(cluster) as writing:
        # When the lease was renewed last decides how long it lasts: all over the loop however few the runs are, alike for every agent.
        time.sleep(1 + phase * cluster.subject.timings["loop_wait"])
        begin = time.monotonic()
        struck = strike(fault, cluster, leader, outage)
        wait_out(struck, cluster, writing, leader)
        settled = time.monotonic()
        seen = writing.rows()
        cluster.heal()
        cluster.wait_healthy()
        healed = time.monotonic()
        writing.wait_for_more(60)
        end = time.monotonic()
    rows = writing.rows()
    lost, final = lost_rows(rows, cluster, writing.first)
    old = [row.acknowledged for row in seen if row.port == leader.postgres_port]
    return {
        "gap_s": round(longest_gap(rows, begin, settled), 3),
        "gap_with_healing_s": round(longest_gap(rows, begin, end), 3),
        "healed_s": round(healed - settled, 1),
        "acknowledged": len(rows),
        "lost": lost,
        "at_once": acknowledged_twice_at_once(rows),
        "leader_changed": final is not leader or rows[-1].timeline != rows[0].timeline,
        "old_primary_last_row_s": round(max(old) - begin, 3) if old and max(old) > begin else 0.0,
        "first": leader.name,
        "final": final.name,
    }


def measure_boot(cluster):
    """From nothing to all streaming; the first row's table is made on the way."""
    begin = time.monotonic()
    for node in cluster.nodes:
        cluster.start(node)
    wait_until("somebody leads", 120, cluster.leader, pause=0.05)
    first = time.monotonic() - begin
    leader = wait_until("one leads and the other two stream", 240, cluster.healthy_leader, pause=0.05)
    all_streaming = time.monotonic() - begin
    leader.query("create table bench (id bigint primary key)")
    return {"gap_s": round(all_streaming, 2), "first_primary_s": round(first, 2)}


def measure_idle(cluster):
    """What the agents cost while nothing happens: the dearest of the three."""
    cluster.wait_healthy()
    time.sleep(SETTLING)
    pids = {node.name: node.agent_pids() for node in cluster.nodes}
    before = {name: cpu_seconds(all_of) for name, all_of in pids.items()}
    begin = time.monotonic()
    time.sleep(IDLE)
    took = time.monotonic() - begin
    try:
        share = max(100 * (cpu_seconds(all_of) - before[name]) / took for name, all_of in pids.items())
        sizes = [memory(all_of) for all_of in pids.values()]
        # The first of two is the guard.
        without_guard = max(memory(all_of[-1:])[0] for all_of in pids.values())
    except OSError as error:
        raise Failed(f"an agent ended while it was watched: {error}") from None
    known = [pss for _, pss in sizes if pss is not None]
    proportional = {"pss_mb": round(max(known), 1)} if known else {}
    apart = {"agent_rss_mb": round(without_guard, 1)} if cluster.subject.agent == "spilo" else {}
    return {"rss_mb": round(max(rss for rss, _ in sizes), 1), **apart, **proportional, "cpu_percent": round(share, 3)}


def conditions():
    """What else the machine did."""
    return {"load": round(os.getloadavg()[0], 1), "cores": os.cpu_count()}
