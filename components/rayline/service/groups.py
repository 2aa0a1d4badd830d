"""Make the head group and the worker group of a service."""

from typing import Any

from rayline.facts import defaults
from rayline.facts.accelerators import ACCELERATORS, GPU_RESOURCE
from rayline.facts.capacities import CAPACITIES
from rayline.facts.choices import Accelerator, Capacity
from rayline.facts.labels import (
    AGENT_PORT,
    COMPUTE_CLASS_LABEL,
    DASHBOARD_PORT,
    NETWORK_CLAIM,
    NODE_TYPE_LABEL,
    POOL_LABEL,
    RESTRICTED,
    SERVE_PORT,
    SERVICE_LABEL,
    STORE_CA_KEY,
    STORE_FOLDER,
    Role,
)
from rayline.head.types import HeadPlan
from rayline.hugging_face.types import HuggingFacePlan
from rayline.models import manifests as weights
from rayline.pools.types import NodePool
from rayline.service.api_key import gate_mounts, gate_volumes
from rayline.service.pods import (
    alive,
    container_ports,
    cpu_quantity,
    declared_mounts,
    declared_volumes,
    environment,
    metrics_ports,
    pod_labels,
    pod_spec,
)
from rayline.service.types import ServicePlan

# The token that a kubelet mounts into all containers by itself. As a volume, one container can have it alone.
TOKEN = {
    "name": "autoscaler-token",
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
                }
            },
        ]
    },
}


def head_group(
    service: ServicePlan, namespace: str, hugging_face: HuggingFacePlan, head: HeadPlan, *, pooled: bool
) -> dict[str, Any]:
    """Return the head group. `pooled`: the kit makes the CPU pool that the head runs on."""
    variables = environment(service, hugging_face)
    # Only the autoscaler's container mounts the token: code that runs through the dashboard, in the other one, cannot read it.
    volumes, mounts = [TOKEN, *declared_volumes(service)], declared_mounts(service)
    if head.ca_secret:
        # on the head alone, where the GCS runs; the Job that clears its Redis is made of this container too
        variables.append({"name": "RAY_REDIS_CA_CERT", "value": f"{STORE_FOLDER}/{STORE_CA_KEY}"})
        items = [{"key": STORE_CA_KEY, "path": STORE_CA_KEY}]
        volumes.append({"name": "head-store", "secret": {"secretName": head.ca_secret, "items": items}})
        mounts.append({"name": "head-store", "mountPath": STORE_FOLDER, "readOnly": True})
    memory = f"{service.head_memory_gib}Gi"
    # The head holds no replica, so it has no gate but that of Ray's proxy, which holds requests while no replica runs.
    if service.asked.api.key and service.scales_to_zero:
        volumes += gate_volumes(service.name, adapters=service.has_adapters, at_proxy=True)
        mounts += gate_mounts()
    container = {
        "name": "ray-head",
        "image": service.image,
        "env": variables,
        # all of them or none: a head that declares only some loses the dashboard's Service port
        "ports": container_ports(
            {"gcs-server": 6379, "dashboard": DASHBOARD_PORT, "client": 10001, "serve": SERVE_PORT}
            | metrics_ports(service, Role.HEAD)
        ),
        "resources": {
            "requests": {
                "cpu": cpu_quantity(service.head_cpus),
                "memory": memory,
                "ephemeral-storage": f"{defaults.HEAD_DISK_GIB}Gi",
            },
            "limits": {"memory": memory, "ephemeral-storage": f"{defaults.HEAD_DISK_LIMIT_GIB}Gi"},
        },
        "readinessProbe": alive(delay=10, failures=12),
        "livenessProbe": alive(delay=30, failures=120),
        "securityContext": RESTRICTED,
    }
    spec = pod_spec(service, namespace, Role.HEAD, container, volumes, mounts, hugging_face)
    if pooled:
        spec["nodeSelector"] = {POOL_LABEL: "system"}
    return {
        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
        "template": {
            "metadata": {
                "labels": pod_labels(service),
                # the head is the only one of its kind: the cluster autoscaler leaves it where it is
                "annotations": service.asked.pods.annotations | {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
            },
            "spec": spec,
        },
    }


# KubeRay's own probe with longer limits: its one failure of 2 s flaps on a busy node. It needs bash and wget, as KubeRay's does.
_READINESS = {
    "exec": {
        "command": [
            "bash",
            "-c",
            f"wget --tries 1 -T 4 -q -O- http://localhost:{AGENT_PORT}/api/local_raylet_healthz | grep success"
            f" && wget --tries 1 -T 4 -q -O- http://localhost:{SERVE_PORT}/-/healthz | grep success",
        ]
    },
    "initialDelaySeconds": 10,
    "periodSeconds": 5,
    "timeoutSeconds": 10,
    "failureThreshold": 3,
}


def worker_group(service: ServicePlan, namespace: str, hugging_face: HuggingFacePlan, pool: NodePool | None) -> dict[str, Any]:
    """Return the worker group. `pool` is its node pool where the kit makes one."""
    group, on_cpu = service.workers, service.accelerator is Accelerator.CPU
    spec = _worker_pod(service, namespace, hugging_face)
    if selector := _node_selector(service, pool):
        spec["nodeSelector"] = selector
    if tolerations := _tolerations(service):
        spec["tolerations"] = tolerations
    if pool is not None and pool.capacity is Capacity.LADDER:
        spec["tolerations"].append(
            {"key": COMPUTE_CLASS_LABEL, "operator": "Equal", "value": pool.name, "effect": "NoSchedule"}
        )
    if pool is not None and pool.rdma:
        spec["resourceClaims"] = [{"name": NETWORK_CLAIM, "resourceClaimTemplateName": NETWORK_CLAIM}]
        spec["containers"][0]["resources"]["claims"] = [{"name": NETWORK_CLAIM}]
    metadata: dict[str, Any] = {"labels": pod_labels(service)}
    if annotations := service.asked.pods.annotations | weights.annotations(service):
        metadata["annotations"] = annotations
    result: dict[str, Any] = {
        "groupName": "workers",
        "replicas": group.first_workers,
        "minReplicas": 0,
        "maxReplicas": group.max_workers,
        # the operator writes these two empty maps back; without them it becomes the owner of this atomic list and the next
        # server-side apply that changes the list is a conflict
        "scaleStrategy": {},
        "rayStartParams": {"num-cpus": str(group.ray_cpus)} if on_cpu else {},
        "template": {"metadata": metadata, "spec": spec},
    }
    if not on_cpu:
        # Ray Serve LLM requests this resource; a group without a live pod is infeasible unless it declares the resource
        result["resources"] = {f"accelerator_type:{ACCELERATORS[service.accelerator].ray_type}": "1"}
    return result


def _worker_pod(service: ServicePlan, namespace: str, hugging_face: HuggingFacePlan) -> dict[str, Any]:
    group = service.workers
    limits = {"memory": f"{group.memory_gib}Gi", "ephemeral-storage": f"{group.ephemeral_gib}Gi"}
    if service.accelerator is not Accelerator.CPU:
        limits[GPU_RESOURCE] = str(group.gpus)
    container = {
        "name": "ray-worker",
        "image": service.image,
        "env": environment(service, hugging_face),
        "ports": container_ports({"serve": SERVE_PORT} | metrics_ports(service, Role.WORKER)),
        "resources": {"requests": {"cpu": cpu_quantity(group.cpus)} | limits, "limits": limits},
        "readinessProbe": _READINESS,
        "livenessProbe": alive(delay=30, failures=120),
        "securityContext": RESTRICTED,
    }
    volumes = [*declared_volumes(service), *weights.volumes(service)]
    mounts = [*declared_mounts(service), *weights.mounts(service)]
    if service.asked.api.key:
        volumes += gate_volumes(
            service.name, adapters=service.has_adapters, at_proxy=service.scales_to_zero, sides=service.has_sides
        )
        mounts += gate_mounts()
    spec = pod_spec(service, namespace, Role.WORKER, container, volumes, mounts, hugging_face)
    return spec | {"topologySpreadConstraints": _spread(service)}


def _spread(service: ServicePlan) -> list[dict[str, Any]]:
    """Spread workers over zones and nodes. The rule is soft: a reservation has one zone, and a GPU is where it is.

    Workers that share a replica are not spread over zones: every token would cross between them.
    """
    keys = ["kubernetes.io/hostname"]
    if service.workers.replicas_per_worker >= 1:
        keys.insert(0, "topology.kubernetes.io/zone")
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {SERVICE_LABEL: service.name, NODE_TYPE_LABEL: Role.WORKER.value}},
            # the two clusters of an upgrade each by itself
            "matchLabelKeys": ["ray.io/cluster"],
        }
        for key in keys
    ]


def _tolerations(service: ServicePlan) -> list[dict[str, Any]]:
    on_gpu = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
    declared = [
        {"key": taint.key, "operator": "Exists"}
        | ({"operator": "Equal", "value": taint.value} if taint.value is not None else {})
        | ({"effect": taint.effect.value} if taint.effect else {})
        for taint in service.asked.nodes.tolerations
    ]
    return ([] if service.accelerator is Accelerator.CPU else on_gpu) + declared


def _node_selector(service: ServicePlan, pool: NodePool | None) -> dict[str, str]:
    if pool is not None and pool.capacity is Capacity.LADDER:
        # the ComputeClass decides the rest; a further selector could require a node that none of its rungs has
        return {COMPUTE_CLASS_LABEL: pool.name}
    if service.asked.nodes.selector or service.accelerator is Accelerator.CPU:
        return dict(service.asked.nodes.selector)
    selector = {"cloud.google.com/gke-accelerator": ACCELERATORS[service.accelerator].gke_type}
    if pool is not None:
        selector[POOL_LABEL] = pool.name
        if label := CAPACITIES[pool.capacity].node_label:
            selector[label] = "true"
    return selector
