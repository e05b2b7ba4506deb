"""Where the next instance goes, and which one goes first. Pure."""
from collections import Counter

from .group import IN_SERVICE


def zone_to_launch_in(zones, members):
    """The zone with the fewest members; of equal ones the first."""
    load = Counter(member.zone for member in members)
    return min(zones, key=lambda zone: load[zone])


def victims(members, count, newest_version):
    """Which members scale-in ends: never a protected one; out of the fullest zone; what has not come up before what serves, what is unhealthy
    before what is well, what has an older template before the newest, the oldest first. Fewer than `count` where too many are protected."""
    chosen, remaining = [], list(members)
    for _ in range(count):
        load = Counter(member.zone for member in remaining)
        candidates = [member for member in remaining if not member.protected]
        if not candidates:
            break
        fullest = max(load[member.zone] for member in candidates)
        candidates = [member for member in candidates if load[member.zone] == fullest]
        victim = min(candidates, key=lambda member: (member.state == IN_SERVICE, member.health == "Healthy", member.template.get("Version") == newest_version, member.launched))
        chosen.append(victim)
        remaining.remove(victim)
    return chosen
