"""Network load balancers forward to whoever is well."""
import time
import unittest

import botocore.exceptions

from .support import SERVE, Case, docker, fetch, wait


class Balancing(Case):
    def balancer(self, health_port=8080):
        group = self.elb.create_target_group(Name=self.name, Protocol="TCP", Port=8080, VpcId=self.vpc, HealthCheckProtocol="HTTP", HealthCheckPath="/", HealthCheckPort=str(health_port),
                                             HealthCheckIntervalSeconds=5, HealthCheckTimeoutSeconds=2, HealthyThresholdCount=2, UnhealthyThresholdCount=2)["TargetGroups"][0]["TargetGroupArn"]
        self.elb.modify_target_group_attributes(TargetGroupArn=group, Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "2"}])
        wish = {"Name": self.name, "Type": "network", "Scheme": "internal", "Subnets": self.subnets}
        made = self.elb.create_load_balancer(**wish)["LoadBalancers"][0]
        # Whoever asks again gets the same one; whoever wants another of the name does not.
        self.assertEqual(self.elb.create_load_balancer(**wish)["LoadBalancers"][0]["LoadBalancerArn"], made["LoadBalancerArn"])
        with self.assertRaises(self.elb.exceptions.DuplicateLoadBalancerNameException):
            self.elb.create_load_balancer(**wish | {"Subnets": self.subnets[:1]})
        self.assertIn(":loadbalancer/net/", made["LoadBalancerArn"])
        listener = {"LoadBalancerArn": made["LoadBalancerArn"], "Protocol": "TCP", "Port": 80, "DefaultActions": [{"Type": "forward", "TargetGroupArn": group}]}
        self.elb.create_listener(**listener)
        other = self.elb.create_target_group(Name=f"{self.name}-x", Protocol="TCP", Port=1, VpcId=self.vpc)["TargetGroups"][0]["TargetGroupArn"]
        with self.assertRaises(self.elb.exceptions.DuplicateListenerException):
            self.elb.create_listener(**listener | {"DefaultActions": [{"Type": "forward", "TargetGroupArn": other}]})
        self.elb.get_waiter("load_balancer_available").wait(LoadBalancerArns=[made["LoadBalancerArn"]], WaiterConfig={"Delay": 1, "MaxAttempts": 20})
        self.addCleanup(self.elb.delete_load_balancer, LoadBalancerArn=made["LoadBalancerArn"])
        return group, made

    def health(self, group):
        return {one["Target"]["Id"]: one["TargetHealth"]["State"] for one in self.elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]}

    def answers(self, address, count=12):
        return {fetch(f"http://{address}/") for _ in range(count)}

    def test_it_forwards_to_healthy_targets_and_to_all_where_none_is(self):
        group, made = self.balancer()
        self.group(2, self.template(SERVE), TargetGroupARNs=[group])
        ids = self.in_service(2)
        wait("both are healthy", 30, lambda: list(self.health(group).values()) == ["healthy", "healthy"])
        self.assertEqual(len(self.answers(made["DNSName"])), 2)
        # Instances reach it too.
        inside = docker("exec", self.container(ids[0]), "curl", "-sS", "-m", "5", f"http://{made['DNSName']}/")
        self.assertIn("VERSION", inside)
        docker("exec", self.container(ids[0]), "pkill", "socat.*8080", "-f")
        wait("one is unhealthy", 40, lambda: self.health(group) == {ids[0]: "unhealthy", ids[1]: "healthy"})
        self.assertEqual(len(found := self.answers(made["DNSName"])), 1, found)
        docker("exec", self.container(ids[1]), "pkill", "socat.*8080", "-f")
        wait("both are unhealthy", 40, lambda: set(self.health(group).values()) == {"unhealthy"})
        docker("exec", "-d", self.container(ids[0]), "socat", "TCP-LISTEN:8080,fork,reuseaddr", "EXEC:/usr/local/bin/page")
        # It fails open: whoever is there is tried, well or not.
        self.assertIn("VERSION", wait("it is reached", 5, lambda: fetch(f"http://{made['DNSName']}/")))

    def test_a_target_that_fails_its_checks_is_replaced_in_a_group_of_that_kind(self):
        group, made = self.balancer()
        self.group(1, self.template(SERVE), TargetGroupARNs=[group], HealthCheckType="ELB", HealthCheckGracePeriod=5)
        sick = self.in_service(1)[0]
        wait("it is healthy", 30, lambda: self.health(group).get(sick) == "healthy")
        docker("exec", self.container(sick), "pkill", "socat.*8080", "-f")
        began = time.monotonic()
        fresh = wait("another one is healthy", 60, lambda: [one for one, state in self.health(group).items() if one != sick and state == "healthy"])
        print(f"a target that fails is replaced after {time.monotonic() - began:.1f} s")
        self.assertIn("VERSION", fetch(f"http://{made['DNSName']}/"))
        self.assertEqual(self.members("InService"), fresh)

    def test_a_security_group_in_use_stays(self):
        group = self.ec2.create_security_group(GroupName=self.name, Description="x", VpcId=self.vpc)["GroupId"]
        self.group(1, self.template(SERVE, SecurityGroupIds=[group]))
        self.in_service(1)
        with self.assertRaisesRegex(botocore.exceptions.ClientError, "DependencyViolation"):
            self.ec2.delete_security_group(GroupId=group)
        self.drop()
        wait("it can be deleted", 20, lambda: self.ec2.delete_security_group(GroupId=group))


if __name__ == "__main__":
    unittest.main()
