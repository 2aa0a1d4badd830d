"""Pure: what keeps a platform and its neighbours apart, as Kubernetes objects. No Pulumi, no I/O.

docs/security.md has the same as a table of ports for readers; a test compares the two.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from rayline.facts.accelerators import GPU_RESOURCE
from rayline.facts.choices import ClusterMode, OperatorSource, PodSecurity
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

# Every namespace carries its name as this label, and nobody can change it.
NAMESPACE_NAME = "kubernetes.io/metadata.name"
# The label that the chart gives the operator's pods.
OPERATOR_POD = {"app.kubernetes.io/name": "kuberay-operator"}
DNS_PORT, HTTPS_PORT = 53, 443
# Where API servers listen behind the Service `kubernetes`, beside 443: kubeadm, kind and k3s; minikube. A policy sees the
# port after the Service's translation.
API_SERVER_PORTS = (6443, 8443)
# GKE's metadata server (cloud.google.com/kubernetes-engine/docs/how-to/network-policy): Dataplane V2, and other networks.
METADATA_SERVER = {"169.254.169.254/32": (80, 8080), "169.254.169.252/32": (987, 988)}
# Above 0 nobody's ordinary pod pushes ours out. Below -10 GKE's autoscaler makes no node for a pod (cluster-autoscaler,
# expendable-pods-priority-cutoff), so a batch pod is only just below the ordinary ones.
PRIORITIES = {Role.HEAD: 100_000, Role.WORKER: 10_000, Role.BATCH: -5}


# The label that the Gateway API asks implementations to put on the pods of a Gateway (GEP-1762).
GATEWAY_PODS = {"matchExpressions": [{"key": "gateway.networking.k8s.io/gateway-name", "operator": "Exists"}]}


def pod_security_labels(standard: PodSecurity) -> dict[str, str]:
    """Labels of a namespace that make the API server refuse pods which ask for more than the standard."""
    return {f"pod-security.kubernetes.io/{mode}": standard.value for mode in ("enforce", "warn", "audit")}


def isolation(plan: Plan) -> list[dict[str, Any]]:
    """Every object beside the namespace itself, in the platform's namespace or cluster-wide; empty on this machine."""
    if plan.isolation is None:
        return []
    found = [*priority_classes(plan.namespace), resource_quota(plan, plan.isolation)]
    for service in plan.services:
        found += service_accounts(service, plan.namespace) + disruption_budgets(service, plan.namespace)
    if plan.isolation.network_policies:
        found += network_policies(plan, plan.isolation)
    if plan.isolation.managed_prometheus:
        found.append(pod_monitoring(plan.namespace))
    return found


# --- network


def network_policies(plan: Plan, isolation: IsolationPlan) -> list[dict[str, Any]]:
    """Nothing in or out, and then what the services need. Policies add up: each allows, none forbids."""
    namespace = plan.namespace
    # a proxy or a collector of traces listens on a port of its own, which the stack names
    ports = dict.fromkeys((HTTPS_PORT, *isolation.outbound_ports))
    outside = [_rule("to", (), [("UDP", DNS_PORT), ("TCP", DNS_PORT)]), _rule("to", (), _tcp(*ports))]
    if isolation.metadata_server:
        for address, ports in METADATA_SERVER.items():
            outside.append(_rule("to", [{"ipBlock": {"cidr": address}}], _tcp(*ports)))
    found = [
        _policy("default-deny", namespace, {}, ingress=[], egress=[]),
        # the hub, buckets and Google's APIs by name; the kubelet pulls images outside of any policy
        _policy("internet-egress", namespace, {}, egress=outside),
    ]
    operator: dict[str, Any] = {"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: isolation.operator_namespace}}}
    if plan.kuberay.source is OperatorSource.HELM:
        operator["podSelector"] = {"matchLabels": OPERATOR_POD}
    api_server = () if plan.cluster.mode is ClusterMode.CREATE else API_SERVER_PORTS
    from_head = [*api_server, *([plan.head.port] if plan.head.port else [])]
    clients = _namespaces(isolation.allow_from_namespaces)
    # a load balancer of Google's sends from these addresses, its health checks too
    clients += [{"ipBlock": {"cidr": cidr}} for cidr in plan.endpoint.source_ranges]
    if _has_own_gateways(plan):
        # KubeRay makes a Gateway for each such service; where its class runs pods here, they are the class's own affair
        found.append(_policy("gateways", namespace, GATEWAY_PODS, ingress=[{}], egress=[{}]))
        clients.append({"podSelector": GATEWAY_PODS})
    collectors = _namespaces(isolation.allow_metrics_from_namespaces)
    for service in plan.services:
        same = [{"podSelector": _pods(service)}]
        # the operator configures Serve and asks the head's proxy
        to_head = [_rule("from", [operator], _tcp(DASHBOARD_PORT, SERVE_PORT))]
        to_head += _metrics(service, Role.HEAD, collectors)
        to_workers = [_rule("from", clients, _tcp(SERVE_PORT))] if clients else []
        to_workers += _metrics(service, Role.WORKER, collectors)
        found += [
            # GCS, object store, replicas and HAProxies talk on ports that Ray picks; old and new cluster of an upgrade too
            _policy(
                f"{service.name}-ray", namespace, _pods(service), ingress=[_rule("from", same)], egress=[_rule("to", same)]
            ),
            _policy(f"{service.name}-head", namespace, _pods(service, Role.HEAD), ingress=to_head),
        ]
        if from_head:
            # the autoscaler asks the API server, the GCS its Redis; the Job that clears that Redis is neither head nor worker
            not_workers = {"key": NODE_TYPE_LABEL, "operator": "NotIn", "values": [Role.WORKER.value]}
            found.append(
                _policy(
                    f"{service.name}-head-egress",
                    namespace,
                    _pods(service) | {"matchExpressions": [not_workers]},
                    egress=[_rule("to", (), _tcp(*from_head))],
                )
            )
        if to_workers:
            workers = _pods(service, Role.WORKER)
            found.append(_policy(f"{service.name}-worker", namespace, workers, ingress=to_workers))
    return found


def _pods(service: ServicePlan, role: Role | None = None) -> dict[str, Any]:
    """Selects a service's Ray pods, all or those of one role, in whatever RayCluster they are."""
    return {"matchLabels": {SERVICE_LABEL: service.name} | ({NODE_TYPE_LABEL: role.value} if role else {})}


def _has_own_gateways(plan: Plan) -> bool:
    """Whether KubeRay makes Gateways, which it does for upgrades in steps."""
    return any(service.incremental for service in plan.services)


def _metrics(service: ServicePlan, role: Role, collectors: list[dict]) -> list[dict[str, Any]]:
    return [_rule("from", collectors, _tcp(*metrics_ports(service, role).values()))] if collectors else []


def _tcp(*ports: int) -> list[tuple[str, int]]:
    return [("TCP", port) for port in ports]


def _policy(name: str, namespace: str, selected: dict[str, Any], **directions: list[dict]) -> dict[str, Any]:
    """A policy for the selected pods (all for none). A direction that is given empty is closed; one left out is not touched."""
    spec: dict[str, Any] = {"podSelector": selected, "policyTypes": [direction.capitalize() for direction in directions]}
    spec |= {direction: rules for direction, rules in directions.items() if rules}
    return _object("networking.k8s.io/v1", "NetworkPolicy", name, namespace, spec=spec)


def _rule(side: str, peers: Sequence[dict], ports: Iterable[tuple[str, int]] = ()) -> dict[str, Any]:
    """Peers and ports of one rule. No peer means anybody: an address range would leave out the cluster's own on some networks."""
    allowed = [{"protocol": protocol, "port": port} for protocol, port in ports]
    return ({side: list(peers)} if peers else {}) | ({"ports": allowed} if allowed else {})


def _namespaces(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"namespaceSelector": {"matchLabels": {NAMESPACE_NAME: name}}} for name in names]


# --- identities, room and order


def service_accounts(service: ServicePlan, namespace: str) -> list[dict[str, Any]]:
    """One for the head and one for the workers; neither brings its token into a pod by itself.

    The operator binds the autoscaler's Role to the head's (kuberay, controllers/ray/common/rbac.go).
    """
    return [
        _object(
            "v1",
            "ServiceAccount",
            service_account(service.name, role),
            namespace,
            labels={SERVICE_LABEL: service.name},
            automountServiceAccountToken=False,
        )
        for role in (Role.HEAD, Role.WORKER)
    ]


def priority_classes(namespace: str) -> list[dict[str, Any]]:
    """Heads before workers before batch jobs, in the queue and when a node runs out of memory.

    Cluster-wide objects, so they are named after the namespace. None evicts a running pod to make room: the new cluster of an
    upgrade must not push out the one that serves, and a head must not push out the operator beside it.
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
    """A bound on what a mistake can take. No Service may have a port on a node or a load balancer, and so show the dashboard."""
    hard = {"pods": str(isolation.quota.pods)}
    if not _has_own_gateways(plan):
        hard |= {"services.nodeports": "0", "services.loadbalancers": "0"}
    if isolation.quota.gpus:
        hard[f"requests.{GPU_RESOURCE}"] = str(isolation.quota.gpus)
    return _object("v1", "ResourceQuota", "platform", plan.namespace, spec={"hard": hard})


def disruption_budgets(service: ServicePlan, namespace: str) -> list[dict[str, Any]]:
    """The head stays, and of the workers one at a time may be moved.

    RayCluster has no scale subresource, so Kubernetes takes whole minAvailable only. One worker alone gets no budget: it would
    block every drain of its node until GKE's hour is over. A pod that is not ready holds nothing up.
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
    """Google's managed Prometheus reads every Ray pod. rayline_service stays through upgrades, ray_io_cluster does not."""
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
