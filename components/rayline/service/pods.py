"""Make the pods of a service: what the head and the workers have in common."""

from typing import Any

from rayline.facts.labels import (
    AGENT_PORT,
    AUTOSCALER_METRICS_PORT,
    DASHBOARD_METRICS_PORT,
    ENGINE_VARIABLE,
    HF_TOKEN_KEY,
    NON_ROOT,
    RAY_GROUP,
    RAY_METRICS_PORT,
    SERVICE_LABEL,
    Role,
    priority_class,
    service_account,
)
from rayline.facts.serve_flags import HAPROXY_METRICS_PORT, SERVE_FLAGS
from rayline.hugging_face.manifests import token_environment, token_mount, token_volume
from rayline.hugging_face.types import HuggingFacePlan
from rayline.models import manifests as weights
from rayline.service.api_key import gate_environment
from rayline.service.drain import drain_times
from rayline.service.serve_config import engine_digest, kv_cache_variable
from rayline.service.types import ServicePlan


def environment(service: ServicePlan, hugging_face: HuggingFacePlan) -> list[dict[str, Any]]:
    """Return the variables of every Ray container: Serve reads them on the head and on every worker."""
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in service.env.items()]
    variables += [{"name": name, "value": value} for name, value in kv_cache_variable(service).items()]
    variables += weights.environment(service)
    # pods that read a bucket have no use for the token
    if service.downloads:
        if hugging_face.secret:
            variables += token_environment()
        if hugging_face.secret_name:
            variables.append(from_secret("HF_TOKEN", hugging_face.secret_name, HF_TOKEN_KEY))
    if service.asked.disaggregation:
        # so that KubeRay makes a new RayCluster: replicas of two versions would take each other's KV cache for their own
        variables.append({"name": ENGINE_VARIABLE, "value": engine_digest(service)})
    if service.has_code:
        variables += gate_environment(keys=service.asked.api.key, at_proxy=service.scales_to_zero)
    return variables


def from_secret(variable: str, secret: str, key: str) -> dict[str, Any]:
    """Return a variable whose value is in a Secret."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def code_kinds(service: ServicePlan) -> dict[str, bool]:
    """Return which code of the kit the pods of a service mount, as api_key.py names it."""
    at_proxy = service.scales_to_zero and service.asked.api.key
    return {
        "adapters": service.has_adapters,
        "at_proxy": at_proxy,
        "scaling": service.scales_by_latency,
        "sides": service.has_sides,
    }


def metrics_ports(service: ServicePlan, role: Role) -> dict[str, int]:
    """Return the ports of a head or a worker that Prometheus may read, by the name of the container port."""
    ports = {"metrics": RAY_METRICS_PORT}
    if role is Role.HEAD:
        ports |= {"as-metrics": AUTOSCALER_METRICS_PORT, "dash-metrics": DASHBOARD_METRICS_PORT}
    if service.on("ha_proxy"):
        ports["haproxy-metrics"] = int(service.env.get(HAPROXY_METRICS_PORT, SERVE_FLAGS[HAPROXY_METRICS_PORT].default))
    return ports


def container_ports(ports: dict[str, int]) -> list[dict[str, Any]]:
    """Return ports as a container declares them."""
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def cpu_quantity(count: float) -> str:
    """Return CPUs as Kubernetes writes them back: whole, or in thousandths."""
    return str(int(count)) if count == int(count) else f"{round(count * 1000)}m"


def alive(*, delay: int, failures: int) -> dict[str, Any]:
    """Return KubeRay's check of a Ray node, with 10 s to answer on a busy machine; `failures` of 5 s each until it counts."""
    return {
        "httpGet": {"path": "/api/healthz", "port": AGENT_PORT},
        "initialDelaySeconds": delay,
        "periodSeconds": 5,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }


def pod_labels(service: ServicePlan) -> dict[str, str]:
    """Return the labels of a service's pods."""
    return service.asked.pods.labels | {SERVICE_LABEL: service.name}


def pod_spec(
    service: ServicePlan,
    namespace: str,
    role: Role,
    container: dict[str, Any],
    volumes: list[dict[str, Any]],
    mounts: list[dict[str, Any]],
    hugging_face: HuggingFacePlan,
) -> dict[str, Any]:
    """Return the spec of a head's or worker's pod with one Ray container."""
    if hugging_face.secret and service.downloads:
        volumes, mounts = [*volumes, token_volume()], [*mounts, token_mount()]
    return {
        # no empty lists: the operator writes lists back without them and would own them from then on
        "containers": [container | ({"volumeMounts": mounts} if mounts else {})],
        "priorityClassName": priority_class(namespace, role),
        "serviceAccountName": service_account(service.name, role),
        "automountServiceAccountToken": False,
        # else every Service of the namespace becomes seven variables in every process
        "enableServiceLinks": False,
        # Ray drains on SIGTERM; the kubelet waits a little longer. No preStop: `ray stop` would cut the streams before that.
        "terminationGracePeriodSeconds": drain_times(service.asked.rollout.longest_stream_seconds).pod,
        "securityContext": NON_ROOT | {"fsGroup": RAY_GROUP},
        **({"volumes": volumes} if volumes else {}),
    }


def declared_volumes(service: ServicePlan) -> list[dict[str, Any]]:
    """Return the volumes of a stack."""
    return [
        {"name": volume.name}
        | (
            {"hostPath": {"path": volume.host_path}}
            if volume.host_path
            else {"persistentVolumeClaim": {"claimName": volume.claim}}
        )
        for volume in service.asked.pods.volumes
    ]


def declared_mounts(service: ServicePlan) -> list[dict[str, Any]]:
    """Return the mounts of a stack's volumes."""
    # `readOnly: false` is left out: the operator writes lists back without zero values and would own them from then on
    return [
        {"name": volume.name, "mountPath": volume.mount_path} | ({"readOnly": True} if volume.read_only else {})
        for volume in service.asked.pods.volumes
    ]
