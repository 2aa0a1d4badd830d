"""What reaches what, what pods may be, and how much there may be: judged on the objects that the program declares."""

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from rayline.facts.google import LOAD_BALANCER_RANGES
from rayline.service.drain import drain_times
from rayline_cli import render
from rayline_cli.offline import PROJECT_ROOT, Program
from rayline_cli.plan_view import program_view
from tests.conftest import recorded, stacks_of

ON_GOOGLE = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create}
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4, replicas: 3}
  other: {model: Qwen/Qwen3.5-4B, accelerator: l4}
"""
ANYWHERE = """
cluster: {mode: existing}
services:
  chat: {model: HuggingFaceTB/SmolLM2-135M-Instruct, accelerator: cpu, pods: {image: "cpu:1"}}
"""
IN_A_CLUSTER = stacks_of("create", "existing")


def objects(program: Program, kind: str) -> dict[str, dict[str, Any]]:
    """Name -> object, of one kind."""
    found = [r.inputs for r in program.resources if r.type.startswith("kubernetes:") and r.type.endswith(f":{kind}")]
    return {one["metadata"]["name"]: one for one in found}


# --- network policies, evaluated as Kubernetes does: a direction that some policy selects is closed but for what any allows


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod with its labels, or an address outside."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""


def ray(service: str, role: str, cluster: str = "blue") -> End:
    return End("rayline", {"rayline/service": service, "ray.io/node-type": role, "ray.io/cluster": cluster})


OPERATOR = End("kuberay-system", {"app.kubernetes.io/name": "kuberay-operator"})
INTERNET = End(address="93.184.216.34")
METADATA = End(address="169.254.169.254")


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    def holds(key: str, operator: str, values: list[str]) -> bool:
        return {"Exists": key in labels, "In": labels.get(key) in values, "NotIn": labels.get(key) not in values}[operator]

    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        holds(one["key"], one["operator"], one.get("values", [])) for one in selector.get("matchExpressions", [])
    )


def is_peer(peer: dict[str, Any], policy_namespace: str, end: End) -> bool:
    if "ipBlock" in peer:
        return bool(end.address) and ipaddress.ip_address(end.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    if end.address:
        return False
    spaces = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": policy_namespace}})
    return selects(spaces, {"kubernetes.io/metadata.name": end.namespace}) and selects(peer.get("podSelector", {}), end.labels)


def passes(program: Program, pod: End, direction: str, other: End, port: int, protocol: str) -> bool:
    side = {"Ingress": "from", "Egress": "to"}[direction]
    policies = [
        policy
        for policy in objects(program, "NetworkPolicy").values()
        if policy["metadata"]["namespace"] == pod.namespace
        and selects(policy["spec"]["podSelector"], pod.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    return not policies or any(
        (side not in rule or any(is_peer(peer, pod.namespace, other) for peer in rule[side]))
        and ("ports" not in rule or any((one["port"], one["protocol"]) == (port, protocol) for one in rule["ports"]))
        for policy in policies
        for rule in policy["spec"].get(direction.lower(), [])
    )


def reaches(program: Program, source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    return (bool(source.address) or passes(program, source, "Egress", target, port, protocol)) and (
        bool(target.address) or passes(program, target, "Ingress", source, port, protocol)
    )


@pytest.fixture
def google(record_file) -> Program:
    return record_file(ON_GOOGLE)


ANY_PORT = (22, 6379, 8000, 8080, 8265, 8404, 10001, 12345, 30000, 40000, 52365)


@pytest.mark.parametrize("port", ANY_PORT)
def test_ray_pods_of_one_service_reach_each_other_on_every_port(google, port):
    head, worker = ray("qwen", "head"), ray("qwen", "worker")
    assert reaches(google, head, worker, port)
    assert reaches(google, worker, head, port)
    # HAProxy of one node asks replicas of another, and an upgrade has two clusters of one service
    assert reaches(google, worker, ray("qwen", "worker", cluster="green"), port)


@pytest.mark.parametrize("port", ANY_PORT)
@pytest.mark.parametrize("role", ["head", "worker"])
def test_neither_another_service_nor_a_stranger_nor_the_internet_gets_in(google, role, port):
    for stranger in (
        ray("other", "worker"),
        ray("other", "head"),
        End("rayline", {"job": "mirror"}),
        End("default", {"app": "anything"}),
        INTERNET,
    ):
        assert not reaches(google, stranger, ray("qwen", role), port), stranger


def test_the_operator_reaches_the_head_for_serve_and_nothing_else(google):
    head = ray("qwen", "head")
    assert {port for port in ANY_PORT if reaches(google, OPERATOR, head, port)} == {8000, 8265}
    assert not any(reaches(google, OPERATOR, ray("qwen", "worker"), port) for port in ANY_PORT)
    # somebody else's pod in its namespace is no operator
    assert not reaches(google, End("kuberay-system", {"app": "shell"}), head, 8265)


@pytest.mark.parametrize(
    ("more", "namespace"),
    [
        ("kuberay: {source: preinstalled}\n", "kuberay-system"),
        ("kuberay: {source: preinstalled}\nisolation: {operator_namespace: operators}\n", "operators"),
        ("kuberay: {source: gke-addon}\n", "kube-system"),
    ],
)
def test_an_operator_of_somebody_else_comes_from_its_own_namespace(record_file, more, namespace):
    program = record_file(ON_GOOGLE + more)
    assert reaches(program, End(namespace, {"k8s-app": "theirs"}), ray("qwen", "head"), 8265)
    assert not reaches(program, End("default", {"k8s-app": "theirs"}), ray("qwen", "head"), 8265)


def test_clients_come_from_the_namespaces_that_are_named_and_reach_workers_on_8000_alone(record_file):
    program = record_file(ON_GOOGLE + "isolation: {allow_from_namespaces: [web, chat]}\n")
    for name in ("web", "chat"):
        client = End(name, {"app": "frontend"})
        assert {port for port in ANY_PORT if reaches(program, client, ray("qwen", "worker"), port)} == {8000}
        assert not any(reaches(program, client, ray("qwen", "head"), port) for port in ANY_PORT)
    assert not reaches(program, End("default", {"app": "frontend"}), ray("qwen", "worker"), 8000)


def test_load_balancers_reach_workers_on_8000_only_with_an_endpoint(google):
    inside = [str(ipaddress.ip_network(cidr)[5]) for cidr in LOAD_BALANCER_RANGES]
    behind = recorded("prod-l4")
    proxy = behind.plan.endpoint.args.proxy_cidr
    assert proxy is not None
    for address in (*inside, str(ipaddress.ip_network(proxy)[5])):
        balancer = End(address=address)
        assert {port for port in ANY_PORT if reaches(behind, balancer, ray("qwen", "worker"), port)} == {8000}
        assert not reaches(google, balancer, ray("qwen", "worker"), 8000)


def test_googles_collectors_read_metrics_and_nothing_else(google):
    for name in ("gmp-system", "gke-gmp-system"):
        collector = End(name, {"app.kubernetes.io/name": "collector"})
        ports = (*ANY_PORT, 9101, 44217, 44227)
        assert {p for p in ports if reaches(google, collector, ray("qwen", "head"), p)} == {8080, 9101, 44217, 44227}
        assert {p for p in ports if reaches(google, collector, ray("qwen", "worker"), p)} == {8080, 9101}


def test_a_prometheus_of_ones_own_is_named_and_takes_googles_place(record_file):
    program = record_file(ON_GOOGLE + "isolation: {allow_metrics_from_namespaces: [monitoring]}\n")
    assert reaches(program, End("monitoring"), ray("qwen", "head"), 8080)
    assert not reaches(program, End("gmp-system"), ray("qwen", "head"), 8080)
    assert not reaches(record_file(ANYWHERE), End("gmp-system"), ray("chat", "head"), 8080)


def test_pods_reach_names_https_and_googles_metadata_server_and_no_neighbour(google):
    dns = End("kube-system", {"k8s-app": "kube-dns"})
    for pod in (ray("qwen", "head"), ray("qwen", "worker"), End("rayline", {"job": "mirror"})):
        assert reaches(google, pod, dns, 53, "UDP")
        assert reaches(google, pod, dns, 53, "TCP")
        assert reaches(google, pod, INTERNET, 443)
        assert not reaches(google, pod, INTERNET, 80)
        assert reaches(google, pod, METADATA, 80)
        assert not reaches(google, pod, METADATA, 22)
        assert not reaches(google, pod, End("default", {"app": "database"}), 5432)


def test_outside_of_google_the_metadata_address_is_closed(record_file):
    assert not reaches(record_file(ANYWHERE), ray("chat", "worker"), METADATA, 80)


def test_the_autoscaler_reaches_an_api_server_wherever_it_listens_and_workers_do_not(record_file):
    program = record_file(ANYWHERE)
    server = End(address="10.0.0.10")
    assert [port for port in (443, 6443, 8443) if reaches(program, ray("chat", "head"), server, port)] == [443, 6443, 8443]
    assert not reaches(program, ray("chat", "worker"), server, 6443)


def test_without_policies_there_are_none(record_file):
    assert objects(record_file(ON_GOOGLE + "isolation: {network_policies: false}\n"), "NetworkPolicy") == {}


def test_every_stack_in_a_cluster_denies_all_that_is_not_allowed():
    for name in IN_A_CLUSTER:
        spec = objects(recorded(name), "NetworkPolicy")["default-deny"]["spec"]
        assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_pods_of_a_gateway_that_kuberay_makes_reach_the_workers(record_file):
    steps = ANYWHERE.replace(
        'pods: {image: "cpu:1"}', 'pods: {image: "cpu:1"}, rollout: {strategy: incremental, gateway_class: istio}'
    )
    gateway = End("rayline", {"gateway.networking.k8s.io/gateway-name": "chat-gateway"})
    program = record_file(steps)
    assert reaches(program, End("web"), gateway, 80)
    assert reaches(program, gateway, ray("chat", "worker"), 8000)
    assert not reaches(program, gateway, ray("chat", "head"), 8265)
    assert not reaches(record_file(ANYWHERE), End("web"), gateway, 80)
    # such a class may make a load balancer of its own
    assert "services.loadbalancers" not in objects(program, "ResourceQuota")["platform"]["spec"]["hard"]


def test_the_ports_in_the_documentation_are_the_ports_of_the_policies(google):
    page = (PROJECT_ROOT / "docs" / "security.md").read_text()
    told = {int(port) for row in re.findall(r"^\| (\d[\d, ]*) \|", page, re.M) for port in row.split(",")}
    # 53, 443 and the metadata server's ports are the way out; 6443 and 8443 that of clusters elsewhere
    policies = objects(google, "NetworkPolicy").values()
    allowed = {one["port"] for p in policies for rule in p["spec"].get("ingress", []) for one in rule.get("ports", [])}
    assert allowed <= told


# --- Pod Security


@pytest.mark.parametrize("name", IN_A_CLUSTER)
def test_both_namespaces_enforce_warn_and_audit_the_restricted_standard(name):
    spaces = objects(recorded(name), "Namespace")
    assert len(spaces) == 2
    for space in spaces.values():
        labels = {key: value for key, value in space["metadata"]["labels"].items() if "pod-security" in key}
        assert labels == {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}


def test_a_weaker_standard_is_for_the_services_namespace_alone(record_file):
    spaces = objects(record_file(ON_GOOGLE + "isolation: {pod_security: privileged}\n"), "Namespace")
    enforced = {name: space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] for name, space in spaces.items()}
    assert enforced == {"rayline": "privileged", "kuberay-system": "restricted"}


# --- accounts, priorities, quota, budgets


@pytest.mark.parametrize("name", IN_A_CLUSTER)
def test_pods_refer_to_accounts_and_priorities_that_exist(name):
    program = recorded(name)
    accounts, classes = objects(program, "ServiceAccount"), objects(program, "PriorityClass")
    for service in render.ray_services(program):
        cluster = service["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            assert accounts[pod["serviceAccountName"]]["automountServiceAccountToken"] is False
            assert classes[pod["priorityClassName"]]["preemptionPolicy"] == "Never"


def test_priorities_order_heads_workers_and_batch_jobs(google):
    values = {name.removeprefix("rayline-"): one["value"] for name, one in objects(google, "PriorityClass").items()}
    assert values["head"] > values["worker"] > 0 > values["batch"] > -10


def test_two_platforms_in_one_cluster_do_not_share_a_name_outside_of_their_namespaces(record_file):
    first, second = record_file(ANYWHERE), record_file(ANYWHERE + "namespace: second\n")
    assert not objects(first, "PriorityClass").keys() & objects(second, "PriorityClass").keys()


def hard(program: Program) -> dict[str, str]:
    return objects(program, "ResourceQuota")["platform"]["spec"]["hard"]


@pytest.mark.parametrize("name", IN_A_CLUSTER)
def test_the_quota_has_room_for_an_upgrade_and_for_draining_pods(name):
    program = recorded(name)
    needed = sum(2 + s.workers.most_workers + s.workers.surge_workers for s in program.plan.services)
    assert int(hard(program)["pods"]) >= 2 * needed
    gpus = sum((s.workers.most_workers + s.workers.surge_workers) * s.workers.gpus for s in program.plan.services)
    assert int(hard(program).get("requests.nvidia.com/gpu", 0)) >= gpus


def test_the_quota_ends_where_the_pools_end(google):
    nodes = sum(pool.max_nodes * pool.machine.gpus for pool in google.plan.pools)
    assert hard(google)["requests.nvidia.com/gpu"] == str(nodes)


def test_in_a_cluster_that_exists_the_quota_ends_with_what_the_services_use(record_file):
    program = record_file(ON_GOOGLE.replace("mode: create", "mode: existing").replace("gcp:project: my-project\n", ""))
    # three replicas and one, each twice during an upgrade
    assert hard(program)["requests.nvidia.com/gpu"] == "8"
    assert "requests.nvidia.com/gpu" not in hard(record_file(ANYWHERE))


@pytest.mark.parametrize("name", IN_A_CLUSTER)
def test_the_dashboard_cannot_be_exposed_by_a_node_port_or_a_load_balancer(name):
    quota = hard(recorded(name))
    assert (quota["services.nodeports"], quota["services.loadbalancers"]) == ("0", "0")


def test_a_budget_keeps_the_head_and_lets_one_worker_at_a_time_be_moved(google):
    budgets = {name: one["spec"] for name, one in objects(google, "PodDisruptionBudget").items()}
    # a single worker's budget would block every drain of its node
    assert {name: spec["minAvailable"] for name, spec in budgets.items()} == {"qwen-head": 1, "qwen-worker": 2, "other-head": 1}
    for spec in budgets.values():
        # RayCluster has no scale subresource, so that maxUnavailable never works
        assert "maxUnavailable" not in spec
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert selects(budgets["qwen-worker"]["selector"], ray("qwen", "worker", "green").labels)
    assert not selects(budgets["qwen-worker"]["selector"], ray("other", "worker").labels)


def test_a_budget_follows_the_replicas(record_file):
    more = record_file(ON_GOOGLE.replace("replicas: 3", "replicas: 7"))
    assert objects(more, "PodDisruptionBudget")["qwen-worker"]["spec"]["minAvailable"] == 6


# --- metrics


def test_prometheus_scrapes_every_metrics_port_with_labels_that_survive_upgrades(google):
    spec = objects(google, "PodMonitoring")["ray"]["spec"]
    assert selects(spec["selector"], ray("qwen", "worker").labels)
    named = set()
    for service in render.ray_services(google):
        cluster = service["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            named |= {p["name"] for p in group["template"]["spec"]["containers"][0]["ports"] if "metrics" in p["name"]}
    assert {endpoint["port"] for endpoint in spec["endpoints"]} == named
    assert {"from": "rayline/service", "to": "rayline_service"} in spec["targetLabels"]["fromPod"]


def test_without_managed_prometheus_nobody_collects(record_file):
    program = record_file(ON_GOOGLE.replace("{mode: create}", "{mode: create, monitoring: {managed_prometheus: false}}"))
    assert objects(program, "PodMonitoring") == {}
    assert not reaches(program, End("gmp-system"), ray("qwen", "head"), 8080)


def test_a_cluster_that_is_not_made_here_gets_no_object_of_googles_monitoring(record_file):
    assert objects(record_file(ANYWHERE), "PodMonitoring") == {}


# --- what a reader of the plan sees


@pytest.mark.parametrize(
    ("isolation", "told"),
    [
        ("{}", "restricted pods; network closed, namespaces that may call: none"),
        ("{allow_from_namespaces: [web, chat]}", "network closed, namespaces that may call: web, chat"),
        ("{network_policies: false, pod_security: baseline}", "baseline pods; network open: no policies"),
    ],
)
def test_the_plan_says_what_is_closed(record_file, isolation, told):
    console = Console(width=200)
    with console.capture() as shown:
        console.print(program_view(record_file(ANYWHERE + f"isolation: {isolation}\n")))
    assert told in shown.get()


# --- order


@pytest.mark.parametrize("name", IN_A_CLUSTER)
def test_a_service_comes_after_its_guards_and_goes_before_them(name):
    program = recorded(name)
    (guards,) = program.of_type(":Isolation")
    # whoever waits for a component waits for what is in it
    own = {resource.urn for resource in program.resources if resource.parent == guards.urn}
    assert len(own) > 5
    for service in program.of_type(":LlmService"):
        assert own <= set(service.dependencies)


def test_this_machine_has_no_guards_because_it_has_no_kubernetes():
    assert recorded("local").of_type(":Isolation") == []
    assert recorded("local").plan.isolation is None


def test_the_load_balancer_lets_streams_end_too():
    backend = objects(recorded("prod-l4"), "GCPBackendPolicy")["qwen-serve"]["spec"]["default"]
    assert backend["connectionDraining"]["drainingTimeoutSec"] == drain_times(300).gateway
