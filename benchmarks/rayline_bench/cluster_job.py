"""Pure: the Job that measures a service from inside its cluster, and the rules that let it through. No cluster, no I/O.

One arm: the service as it runs. Other arms differ in the environment of Ray's pods, so each would be another RayCluster with
GPUs of its own. What only a machine tells, CPU by process, is not in it either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rayline.facts.choices import ClusterMode
from rayline.facts.labels import (
    BENCH_LABEL,
    HF_TOKEN_KEY,
    MANAGED_BY,
    NODE_TYPE_LABEL,
    NON_ROOT,
    POOL_LABEL,
    RESTRICTED,
    SERVE_PORT,
    SERVICE_LABEL,
    Role,
    priority_class,
    serve_service_name,
)
from rayline.hugging_face.manifests import token_environment, token_mount, token_volume
from rayline.platform.types import Plan
from rayline.service.api_key import API_KEY_KEY, api_key_secret
from rayline.service.manifest import declared_mounts, declared_volumes, from_secret
from rayline.service.types import ServicePlan

COMPONENT = {"app.kubernetes.io/component": "bench"}
FOLDER = "/etc/rayline/bench"
CONTAINER = "load"
HERE = Path(__file__).parent
SCRIPT, PLAN_FILE = "in_job.py", "plan.json"
# One core is the event loop, which has to be free for every token at its time; the other makes prompts and reads the tokenizer.
CPUS, MEMORY, SCRATCH = "2", "4Gi", "4Gi"
CPUS_ELSEWHERE = "500m"
"""Asked for in a cluster that the kit did not make: a small one has no more left beside the service. There is no limit."""
MINUTES_TO_START, MINUTES_PER_POINT = 30, 15
"""A node, the image of some 10 GB and the tokenizer; and one point at the worst."""
KEPT_SECONDS = 3600
"""How long a finished Job stays for somebody to read its log, should nobody have removed it."""


class NotMeasurable(Exception):
    """The service cannot be measured from a Job; the message says why."""


def run_name(service: str, points: Sequence[Mapping[str, Any]]) -> str:
    """The same for the same points, so that a run that is begun twice is found."""
    digest = hashlib.sha256(json.dumps(points, sort_keys=True).encode()).hexdigest()[:8]
    return f"{service[:40]}-bench-{digest}"


def tokenizer(service: ServicePlan) -> str:
    """What vLLM's bench counts tokens with: the model's own, by its name on Hugging Face or its folder.

    A bucket's folder is not mounted into the Job; a folder of a volume, or of the image, is there as in Ray's pods.
    """
    is_folder = service.weights.uri.startswith("/") and not service.weights.bucket
    return service.weights.uri if is_folder else service.model_id


def endpoint(service: ServicePlan) -> str:
    """Where the Job finds the service. Raises NotMeasurable."""
    if service.parked:
        raise NotMeasurable(f"service {service.name} is parked: nothing of it runs")
    if service.incremental:
        raise NotMeasurable(
            f"service {service.name} has upgrade: incremental, so KubeRay's own Gateway and not {serve_service_name(service.name)} "
            "leads to it: measure it with `vllm bench serve` at that Gateway's address"
        )
    return f"http://{serve_service_name(service.name)}:{SERVE_PORT}"


def manifests(plan: Plan, service: ServicePlan, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Everything to apply: the script and its plan, the rules of the network, the Job. `points`: see in_job.py."""
    name = run_name(service.name, points)
    found = [config_map(name, plan.namespace, points)]
    if plan.isolation is not None and plan.isolation.network_policies:
        found += network_policies(name, plan.namespace, service)
    return [*found, job(name, plan, service, points)]


def labels(name: str) -> dict[str, str]:
    return MANAGED_BY | COMPONENT | {BENCH_LABEL: name}


def config_map(name: str, namespace: str, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The script, the generators that it imports, and what they are to do."""
    generators = sorted({f"{point['generator']}.py" for point in points})
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(name)},
        "immutable": True,
        "data": {file: (HERE / file).read_text() for file in (SCRIPT, *generators)}
        | {PLAN_FILE: json.dumps(points, indent=1)},
    }


def network_policies(name: str, namespace: str, service: ServicePlan) -> list[dict[str, Any]]:
    """The way from the Job to the workers' endpoint and back; names and tokenizers come by the rules for every pod."""
    load = {"matchLabels": {BENCH_LABEL: name}}
    workers = {"matchLabels": {SERVICE_LABEL: service.name, NODE_TYPE_LABEL: Role.WORKER.value}}
    port = [{"protocol": "TCP", "port": SERVE_PORT}]
    return [
        _policy(name, namespace, "out", load, {"egress": [{"to": [{"podSelector": workers}], "ports": port}]}),
        _policy(name, namespace, "in", workers, {"ingress": [{"from": [{"podSelector": load}], "ports": port}]}),
    ]


def _policy(name: str, namespace: str, end: str, selected: dict[str, Any], direction: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{name}-{end}", "namespace": namespace, "labels": labels(name)},
        "spec": {
            "podSelector": selected,
            "policyTypes": [kind.capitalize() for kind in direction],
            **direction,
        },
    }


def job(name: str, plan: Plan, service: ServicePlan, points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One pod on a node without GPUs, as any restricted pod; it is not tried again, since half a run is in its log."""
    created = plan.cluster.mode is ClusterMode.CREATE
    environment: list[dict[str, Any]] = [
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        # the root of the file system is read-only
        *({"name": variable, "value": "/tmp"} for variable in ("HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT")),
        {"name": "HF_HOME", "value": "/tmp/huggingface"},
        {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "script", "mountPath": FOLDER, "readOnly": True},
        {"name": "scratch", "mountPath": "/tmp"},
        # the tokenizer may lie there, or what the image lacks
        *(mount | {"readOnly": True} for mount in declared_mounts(service)),
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "script", "configMap": {"name": name}},
        {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH}},
        *declared_volumes(service),
    ]
    if service.api_key:
        # the name that vLLM's bench reads
        environment.append(from_secret("OPENAI_API_KEY", api_key_secret(service.name), API_KEY_KEY))
    if plan.hugging_face.secret:
        environment += token_environment()
        mounts.append(token_mount())
        volumes.append(token_volume())
    elif plan.hugging_face.secret_name:
        environment.append(from_secret("HF_TOKEN", plan.hugging_face.secret_name, HF_TOKEN_KEY))
    container = {
        "name": CONTAINER,
        "image": service.image,
        "command": ["python", "-u", f"{FOLDER}/{SCRIPT}", f"{FOLDER}/{PLAN_FILE}"],
        "workingDir": "/tmp",
        "env": environment,
        "resources": {
            "requests": {"cpu": CPUS if created else CPUS_ELSEWHERE, "memory": MEMORY, "ephemeral-storage": SCRATCH},
            "limits": {"memory": MEMORY, "ephemeral-storage": SCRATCH},
        },
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "volumeMounts": mounts,
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": priority_class(plan.namespace, Role.BATCH),
        "affinity": _away_from_the_service(service, strictly=created),
        "securityContext": NON_ROOT | {"fsGroup": NON_ROOT["runAsGroup"]},
        "containers": [container],
        "volumes": volumes,
    }
    if created:
        pod["nodeSelector"] = {POOL_LABEL: "system"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": plan.namespace, "labels": labels(name)},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 60 * (MINUTES_TO_START + MINUTES_PER_POINT * len(points)),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels(name)}, "spec": pod},
        },
    }


def _away_from_the_service(service: ServicePlan, *, strictly: bool) -> dict[str, Any]:
    """Not on a node with a GPU, and not where a pod of the service is; in a cluster of one node the second is only a wish.

    There is no toleration either, so a GPU pool's taint keeps the Job out wherever Google or NVIDIA's operator sets it.
    """
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {SERVICE_LABEL: service.name}}}
    no_gpu = [
        {"key": key, "operator": "DoesNotExist"}
        for key in ("cloud.google.com/gke-accelerator", "nvidia.com/gpu.present")
    ]
    apart: dict[str, Any] = (
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        if strictly
        else {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    )
    required = {"nodeSelectorTerms": [{"matchExpressions": no_gpu}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}, "podAntiAffinity": apart}
