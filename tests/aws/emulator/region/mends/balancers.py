"""Load balancers, listeners and target groups that are asked for again are the same ones; network load balancers have their own names and defaults."""
import moto.elbv2.models as models
from moto.elbv2.exceptions import DuplicateListenerError, DuplicateLoadBalancerName, DuplicateTargetGroupName, ELBClientError
from moto.elbv2.models import ELBv2Backend, FakeLoadBalancer


def apply(address_for, changed):
    """`address_for` gives a new load balancer its address; `changed` is called when there is something to do for the data plane."""
    make_arn = models.make_arn_for_load_balancer
    original = {name: getattr(ELBv2Backend, name) for name in ("create_load_balancer", "create_listener", "create_target_group", "delete_load_balancer", "delete_listener")}

    def make_arn_for_load_balancer(**words):
        return make_arn(**words).replace(":loadbalancer/app/", ":loadbalancer/net/")

    def create_load_balancer(self, name, security_groups, subnet_ids, subnet_mappings=None, scheme="internet-facing", loadbalancer_type=None, **more):
        if loadbalancer_type != "network":
            raise ELBClientError("ValidationError", f"the emulated region has load balancers of type 'network' only, not '{loadbalancer_type or 'application'}'")
        if len(name) > 32:
            raise ELBClientError("ValidationError", f"The load balancer name '{name}' cannot be longer than '32' characters")
        wanted = sorted(subnet_ids or [one["SubnetId"] for one in subnet_mappings or []])
        for known in self.load_balancers.values():
            if known.name == name:
                if (known.scheme, sorted(subnet.id for subnet in known.subnets), sorted(known.security_groups or [])) != (scheme, wanted, sorted(security_groups or [])):
                    raise DuplicateLoadBalancerName()
                return known
        made = original["create_load_balancer"](self, name, security_groups, subnet_ids, subnet_mappings, scheme, loadbalancer_type, **more)
        made.dns_name = made.address = address_for()
        changed()
        return made

    def create_listener(self, load_balancer_arn, protocol, port, ssl_policy, certificate, actions, *args, **more):
        balancer = self.load_balancers.get(load_balancer_arn)
        if balancer and protocol != "TCP":
            raise ELBClientError("UnsupportedProtocol", f"the emulated region forwards TCP only, not '{protocol}'")
        for listener in balancer.listeners.values() if balancer else ():
            if str(listener.port) == str(port):
                if [target_groups(action.data) for action in listener.default_actions] != [target_groups(action) for action in actions]:
                    raise DuplicateListenerError()
                return listener
        made = original["create_listener"](self, load_balancer_arn, protocol, port, ssl_policy, certificate, actions, *args, **more)
        changed()
        return made

    def create_target_group(self, name, **wanted):
        for known in self.target_groups.values():
            if known.name == name:
                if (known.protocol, str(known.port), known.vpc_id) == (wanted.get("protocol"), str(wanted.get("port")), wanted.get("vpc_id")):
                    return known
                raise DuplicateTargetGroupName()
        made = original["create_target_group"](self, name, **wanted)
        if made.protocol == "TCP" and made.health_check_protocol in ("HTTP", "HTTPS"):
            made.matcher = wanted.get("matcher") or {"HttpCode": "200-399"}
            made.health_check_path = made.health_check_path or "/"
        return made

    def delete_load_balancer(self, arn):
        balancer = self.load_balancers.get(arn)
        if balancer and balancer.attrs.get("deletion_protection.enabled") == "true":
            raise ELBClientError("OperationNotPermitted", f"Load balancer '{arn}' cannot be deleted because deletion protection is enabled")
        original["delete_load_balancer"](self, arn)
        changed()

    def delete_listener(self, listener_arn):
        made = original["delete_listener"](self, listener_arn)
        changed()
        return made

    models.make_arn_for_load_balancer = make_arn_for_load_balancer
    # The data plane says when one is active.
    FakeLoadBalancer.activate = lambda self: None
    for method in (create_load_balancer, create_listener, create_target_group, delete_load_balancer, delete_listener):
        setattr(ELBv2Backend, method.__name__, method)


def target_groups(action):
    """The target groups that an action forwards to."""
    if "TargetGroupArn" in action:
        return [action["TargetGroupArn"]]
    return [one["TargetGroupArn"] for one in (action.get("ForwardConfig") or {}).get("TargetGroups", [])]
