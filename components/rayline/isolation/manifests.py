"""Kubernetes objects that isolate a platform from its neighbours. No Pulumi, no I/O.

docs/security.md has the ports as a table; a test compares the two.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from rayline.facts.accelerators import GPU_RESOURCE
from rayline.facts.choices import OperatorSource, PodSecurity
from rayline.facts.labels import (
    DASHBOARD_PORT,
    MANAGED_BY,
    NODE_TYPE_LABEL,
    SERVE_PORT,
    SERVICE_LABEL,
    Role,
    priority_class,
    service_account,
)
from rayline.isolation.types import IsolationPlan
from rayline.platform.types import Plan
from rayline.service.pods import metrics_ports
from rayline.service.types import ServicePlan

# Every namespace has its name as this label, which cannot be changed.
NAMESPACE_NAME = "kubernetes.io/metadata.name"
# The label that the chart gives the operator's pods.
OPERATOR_POD = {"app.kubernetes.io/name": "kuberay-operator"}
DNS_PORT, HTTPS_PORT = 53, 443
# Where API servers listen behind the Service `kubernetes`, beside 443: kubeadm, kind and k3s; minikube. A policy sees the
# port after the Service's translation.
API_SERVER_PORTS = (6443, 8443)
# GKE's metadata server (cloud.google.com/kubernetes-engine/docs/how-to/network-policy): Dataplane V2, and other networks.
METADATA_SERVER = {"169.254.169.254/32": (80, 8080), "169.254.169.252/32": (987, 988)}
# Above 0 no ordinary pod pushes ours out. Below -10 GKE's autoscaler makes no node for a pod (cluster-autoscaler,
# expendable-pods-priority-cutoff), so a batch pod is only just below the ordinary ones.
PRIORITIES = {Role.HEAD: 100_000, Role.WORKER: 10_000, Role.BATCH: -5}
# Label of the pods of a Gateway (Gateway API, GEP-1762).
GATEWAY_PODS = {"matchExpressions": [{"key": "gateway.networking.k8s.io/gateway-name", "operator": "Exists"}]}


def pod_security_labels(standard: PodSecurity) -> dict[str, str]:
    """Return the labels with which a namespace refuses pods beyond the standard."""
    return {f"pod-security.kubernetes.io/{mode}": standard.value for mode in ("enforce", "warn", "audit")}


def isolation(plan: Plan) -> list[dict[str, Any]]:
    """Return every object of the isolation, in the platform's namespace or cluster-wide; none on this machine."""
    if plan.isolation is None:
        return []
    objects = [*priority_classes(plan.namespace), resource_quota(plan, plan.isolation)]
    for service in plan.services:
        objects += service_accounts(service, plan.namespace) + disruption_budgets(service, plan.namespace)
    if plan.isolation.args.network_policies:
        objects += network_policies(plan, plan.isolation)
    if plan.isolation.managed_prometheus:
        objects.append(pod_monitoring(plan.namespace))
    return objects


# --- network


def network_policies(plan: Plan, isolation: IsolationPlan) -> list[dict[str, Any]]:
    """Return policies that close the namespace, and others that allow what the services need; none of them forbids."""
    namespace = plan.namespace
    policies = [
        _policy("default-deny", namespace, {}, ingress=[], egress=[]),
        # the hub, buckets and Google's APIs by name; the kubelet pulls images outside any policy
        _policy("internet-egress", namespace, {}, egress=_outside(isolation)),
    ]
    clients = _namespaces(isolation.args.allow_from_namespaces)
    # Google's load balancer and its health checks send from these addresses
    clients += [{"ipBlock": {"cidr": cidr}} for cidr in plan.endpoint.source_ranges]
    if _has_own_gateways(plan):
        # KubeRay creates a Gateway for each such service; its pods, where its class runs them here, are the class's own matter
        policies.append(_policy("gateways", namespace, GATEWAY_PODS, ingress=[{}], egress=[{}]))
        clients.append({"podSelector": GATEWAY_PODS})
    for service in plan.services:
        policies += _service_policies(plan, isolation, service, clients)
    return policies


def _outside(isolation: IsolationPlan) -> list[dict[str, Any]]:
    # a proxy or a collector of traces listens on a port of its own, which the stack names
    ports = dict.fromkeys((HTTPS_PORT, *isolation.outbound_ports))
    rules = [_rule("to", (), [("UDP", DNS_PORT), ("TCP", DNS_PORT)]), _rule("to", (), _tcp(*ports))]
    if isolation.metadata_server:
        rules += [_rule("to", [{"ipBlock": {"cidr": cidr}}], _tcp(*ports)) for cidr, ports in METADATA_SERVER.items()]
    return rules


def _service_policies(
    plan: Plan, isolation: IsolationPlan, service: ServicePlan, clients: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    namespace, same = plan.namespace, [{"podSelector": _pods(service)}]
    operator: dict[str, Any] = _namespaces([isolation.operator_namespace])[0]
    if plan.kuberay.source is OperatorSource.HELM:
        operator["podSelector"] = {"matchLabels": OPERATOR_POD}
    from_clients = [_rule("from", clients, _tcp(SERVE_PORT))] if clients else []
    # the operator configures Serve and probes the head's proxy
    to_head = [_rule("from", [operator], _tcp(DASHBOARD_PORT, SERVE_PORT)), *_metrics(service, Role.HEAD, isolation)]
    # the head holds requests while there is no worker
    to_head += from_clients if service.scales_to_zero else []
    to_workers = from_clients + _metrics(service, Role.WORKER, isolation)
    policies = [
        # GCS, object store, replicas and HAProxies use ports that Ray picks; old and new cluster of a rollout too
        _policy(f"{service.name}-ray", namespace, _pods(service), ingress=[_rule("from", same)], egress=[_rule("to", same)]),
        _policy(f"{service.name}-head", namespace, _pods(service, Role.HEAD), ingress=to_head),
    ]
    api_server = () if plan.cluster.on_google else API_SERVER_PORTS
    from_head = [*api_server, *([plan.head.port] if plan.head.port else [])]
    if from_head:
        # the autoscaler calls the API server, the GCS its Redis; the Job that clears that Redis is neither head nor worker
        not_workers = {"key": NODE_TYPE_LABEL, "operator": "NotIn", "values": [Role.WORKER.value]}
        selected = _pods(service) | {"matchExpressions": [not_workers]}
        policies.append(_policy(f"{service.name}-head-egress", namespace, selected, egress=[_rule("to", (), _tcp(*from_head))]))
    if to_workers:
        policies.append(_policy(f"{service.name}-worker", namespace, _pods(service, Role.WORKER), ingress=to_workers))
    return policies


def _pods(service: ServicePlan, role: Role | None = None) -> dict[str, Any]:
    """Return a selector of a service's Ray pods, of all roles or one, in any RayCluster."""
    return {"matchLabels": {SERVICE_LABEL: service.name} | ({NODE_TYPE_LABEL: role.value} if role else {})}


def _has_own_gateways(plan: Plan) -> bool:
    """Return whether KubeRay creates Gateways, which it does for incremental rollouts."""
    return any(service.incremental for service in plan.services)


def _metrics(service: ServicePlan, role: Role, isolation: IsolationPlan) -> list[dict[str, Any]]:
    collectors = _namespaces(isolation.metrics_namespaces)
    return [_rule("from", collectors, _tcp(*metrics_ports(service, role).values()))] if collectors else []


def _tcp(*ports: int) -> list[tuple[str, int]]:
    return [("TCP", port) for port in ports]


def _policy(name: str, namespace: str, selected: dict[str, Any], **directions: list[dict]) -> dict[str, Any]:
    """Return a policy for the selected pods; an empty selector is all pods. An empty direction is closed, a missing one untouched."""
    spec: dict[str, Any] = {"podSelector": selected, "policyTypes": [direction.capitalize() for direction in directions]}
    spec |= {direction: rules for direction, rules in directions.items() if rules}
    return _object("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec=spec)


def _rule(side: str, peers: Sequence[dict], ports: Iterable[tuple[str, int]] = ()) -> dict[str, Any]:
    """Return a rule. Without peers it is for all: an address range would leave out the cluster's own on some networks."""
    allowed = [{"protocol": protocol, "port": port} for protocol, port in ports]
    return ({side: list(peers)} if peers else {}) | ({"ports": allowed} if allowed else {})


def _namespaces(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}}} for name in names]


# --- accounts, quota and priorities


def service_accounts(service: ServicePlan, namespace: str) -> list[dict[str, Any]]:
    """Return the accounts of the head and of the workers. Pods get no token of them by default.

    The operator binds the autoscaler's Role to the head's (kuberay, controllers/ray/common/rbac.go).
    """
    labels = {SERVICE_LABEL: service.name}
    return [
        _object("v1", "ServiceAccount", name, namespace, labels=labels, automountServiceAccountToken=False)
        for name in (service_account(service.name, role) for role in (Role.HEAD, Role.WORKER))
    ]


def priority_classes(namespace: str) -> list[dict[str, Any]]:
    """Return priorities: heads before workers before batch jobs, in the queue and when a node runs out of memory.

    The objects are cluster-wide, so their names have the namespace. None evicts a running pod: the new cluster of a rollout must
    not push out the serving one, and a head must not push out the operator beside it.
    """
    return [
        _object(
            "scheduling.k8s.io/v1",
            "PriorityClass",
            priority_class(namespace, role),
            None,
            value=value,
            preemptionPolicy="Never",
            description=f"Ray {role.value} pods of the namespace {namespace}",
        )
        for role, value in PRIORITIES.items()
    ]


def resource_quota(plan: Plan, isolation: IsolationPlan) -> dict[str, Any]:
    """Return the quota of the namespace. It forbids Services with a node's port or a load balancer, which could show the dashboard."""
    hard = {"pods": str(isolation.quota.pods)}
    if not _has_own_gateways(plan):
        hard |= {"services.nodeports": "0", "services.loadbalancers": "0"}
    if isolation.quota.gpus:
        hard[f"requests.{GPU_RESOURCE}"] = str(isolation.quota.gpus)
    return _object("v1", "ResourceQuota", "platform", plan.namespace, spec={"hard": hard})


def disruption_budgets(service: ServicePlan, namespace: str) -> list[dict[str, Any]]:
    """Return budgets: the head stays, and one worker at a time may be moved.

    RayCluster has no scale subresource, so Kubernetes takes whole minAvailable only. A single worker gets no budget: it would
    block every drain of its node until GKE's hour is over. A pod that is not ready blocks nothing.
    """
    least = {Role.HEAD: 1, Role.WORKER: service.workers.workers - 1}
    return [
        _object(
            "policy/v1",
            "PodDisruptionBudget",
            f"{service.name}-{role.value}",
            namespace,
            spec={"minAvailable": count, "selector": _pods(service, role), "unhealthyPodEvictionPolicy": "AlwaysAllow"},
        )
        for role, count in least.items()
        if count > 0
    ]


# --- metrics


def pod_monitoring(namespace: str) -> dict[str, Any]:
    """Return the PodMonitoring of all Ray pods. Its label rayline_service stays through rollouts, ray_io_cluster does not."""
    labels = {SERVICE_LABEL: "rayline_service", "ray.io/cluster": "ray_io_cluster", NODE_TYPE_LABEL: "ray_io_node_type"}
    return _object(
        "monitoring.googleapis.com/v1",
        "PodMonitoring",
        "ray",
        namespace,
        spec={
            "selector": {"matchExpressions": [{"key": SERVICE_LABEL, "operator": "Exists"}]},
            "endpoints": [{"port": name, "interval": "30s"} for name in METRICS_PORT_NAMES],
            "targetLabels": {"fromPod": [{"from": label, "to": name} for label, name in labels.items()]},
        },
    )


METRICS_PORT_NAMES = ("metrics", "as-metrics", "dash-metrics", "haproxy-metrics")


def _object(
    api: str, kind: str, name: str, namespace: str | None, *, labels: dict[str, str] | None = None, **fields: Any
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name} | ({"namespace": namespace} if namespace else {})
    metadata["labels"] = MANAGED_BY | (labels or {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **fields}
