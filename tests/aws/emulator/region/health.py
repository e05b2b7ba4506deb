"""Whether targets are well: asked of them, as often and as hard as their target group says."""
import asyncio
import ssl
import time

from moto.elbv2.exceptions import TargetGroupNotFoundError
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus

from .mends.balancers import target_groups

REASONS = {"initial": ("Elb.InitialHealthChecking", "Initial health checks in progress"), "unhealthy": ("Target.FailedHealthChecks", "Health checks failed"),
           "unused": ("Target.NotInUse", "Target group is not configured to receive traffic from the load balancer"),
           "draining": ("Target.DeregistrationInProgress", "Target deregistration is in progress"), "healthy": (None, None)}


class Target:
    """One instance in one target group."""

    def __init__(self, now):
        self.state, self.good, self.bad, self.next, self.task = "initial", 0, 0, now, None
        # Connections through load balancers, as what closes them.
        self.connections = set()

    def tell(self, is_well, group):
        """One answer: the first good one is enough for a new target, later it takes as many as the group says."""
        self.good, self.bad = (self.good + 1, 0) if is_well else (0, self.bad + 1)
        if is_well and (self.state == "initial" or self.good >= int(group.healthy_threshold_count)):
            self.state = "healthy"
        elif not is_well and self.bad >= int(group.unhealthy_threshold_count) and self.state != "unhealthy":
            self.state = "unhealthy"
            if group.attributes.get("target_health_state.unhealthy.connection_termination.enabled", "true") == "true":
                self.drop_connections()

    def drop_connections(self):
        for close in list(self.connections):
            close()


class Health:
    """Runs in the data plane's loop. `targets` are by (ARN of the target group, instance)."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.targets, self.drains = {}, {}
        health = self

        def describe_target_health(backend, target_group_arn, targets):
            group = backend.target_groups.get(target_group_arn)
            if group is None:
                raise TargetGroupNotFoundError()
            return [health.status(group, one["Id"]) for one in targets or [{"Id": name} for name in [*group.targets, *health.draining(target_group_arn)]]]

        ELBv2Backend.describe_target_health = describe_target_health

    # ---- telling; call with the cloud's lock held

    def draining(self, arn):
        group = self.cloud.elb.target_groups.get(arn)
        return [name for (of, name), until in self.drains.items() if of == arn and until > time.time() and name not in group.targets]

    def state(self, arn, instance_id):
        """As DescribeTargetHealth says it; None of a target group that is gone."""
        group = self.cloud.elb.target_groups.get(arn)
        return self.status(group, instance_id).status if group else None

    def status(self, group, instance_id):
        if instance_id not in group.targets:
            state = "draining" if instance_id in self.draining(group.arn) else "unused"
        elif not self._is_used(group.arn):
            state = "unused"
        else:
            known = self.targets.get((group.arn, instance_id))
            state = known.state if known else "initial"
        reason = REASONS[state] if state != "unused" or instance_id in group.targets else ("Target.NotRegistered", "Target is not registered to the target group")
        port = group.targets.get(instance_id, {}).get("Port", group.port)
        return FakeHealthStatus(instance_id, port, str(port if group.health_check_port == "traffic-port" else group.health_check_port), state, *reason)

    def _is_used(self, arn):
        return any(arn in target_groups(action.data) for balancer in self.cloud.elb.load_balancers.values() for listener in balancer.listeners.values()
                   for action in listener.default_actions)

    # ---- asking

    async def work(self, on_change):
        while True:
            now = time.time()
            with self.cloud.lock:
                due = self._due(now)
            for group, target, address, port in due:
                target.task = asyncio.ensure_future(self._ask(group, target, address, port, on_change))
            await asyncio.sleep(0.2)

    def _due(self, now):
        """Those to be asked now; and the list of targets is as the target groups have it."""
        due, wanted = [], {}
        for group in self.cloud.elb.target_groups.values():
            for name, words in group.targets.items():
                wanted[group.arn, name] = (group, words)
        for key in self.targets.keys() - wanted.keys():
            self._drain(key, self.targets.pop(key), now)
        for key, (group, words) in wanted.items():
            target = self.targets.setdefault(key, Target(now))
            self.drains.pop(key, None)
            instance = self.cloud.ec2.get_instance_by_id(key[1])
            if now >= target.next and (target.task is None or target.task.done()) and instance and self._is_used(group.arn):
                target.next = now + float(group.health_check_interval_seconds)
                due.append((group, target, instance.private_ip, int(words["Port"])))
        return due

    def _drain(self, key, target, now):
        group = self.cloud.elb.target_groups.get(key[0])
        delay = float(group.attributes.get("deregistration_delay.timeout_seconds", 300)) if group else 0
        self.drains[key] = now + delay
        if group is None or group.attributes.get("deregistration_delay.connection_termination.enabled") == "true":
            asyncio.get_running_loop().call_later(delay, target.drop_connections)

    async def _ask(self, group, target, address, port, on_change):
        if group.health_check_port not in (None, "traffic-port"):
            port = int(group.health_check_port)
        before = target.state
        try:
            is_well = await asyncio.wait_for(probe(group, address, port), float(group.health_check_timeout_seconds))
        except (OSError, asyncio.TimeoutError, ValueError, IndexError):
            is_well = False
        target.tell(is_well, group)
        if target.state != before:
            on_change()


async def probe(group, address, port):
    protocol = group.health_check_protocol
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(address, port, ssl=trusting if protocol == "HTTPS" else None)
    try:
        if protocol not in ("HTTP", "HTTPS"):
            return True
        writer.write(f"GET {group.health_check_path or '/'} HTTP/1.1\r\nHost: {address}:{port}\r\nUser-Agent: ELB-HealthChecker/2.0\r\nConnection: close\r\n\r\n".encode())
        status = int((await reader.readline()).split()[1])
        return matches(status, group.matcher["HttpCode"])
    finally:
        writer.close()


def matches(status, codes):
    """`codes` is like '200-399' or '200,204'."""
    for part in codes.split(","):
        first, _, last = part.partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False
