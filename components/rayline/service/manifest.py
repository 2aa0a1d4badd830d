"""Make the RayService of a ServicePlan. No Pulumi, no I/O.

docs/upstream-differences.md lists every difference from the upstream high-throughput samples with its reason, and a test keeps that list
complete.
"""

from typing import Any

import yaml

from rayline.facts import defaults
from rayline.facts.choices import HeadStore, Task, UpgradeStrategy
from rayline.facts.labels import MANAGED_BY, RESTRICTED, SERVICE_LABEL, STORE_PASSWORD_KEY, ray_token_secret, task_annotation
from rayline.head.types import HeadPlan
from rayline.hugging_face.types import HuggingFacePlan
from rayline.pools.types import NodePool
from rayline.service.drain import drain_times
from rayline.service.groups import TOKEN, head_group, worker_group
from rayline.service.pods import cpu_quantity, declared_mounts
from rayline.service.serve_config import serve_config
from rayline.service.types import ServicePlan


def ray_service(
    service: ServicePlan,
    *,
    namespace: str,
    hugging_face: HuggingFacePlan,
    pool: NodePool | None,
    head: HeadPlan,
    store_address: Any,
) -> dict[str, Any]:
    """Return the RayService of one service. `pool` is its node pool where the kit makes one, else None.

    `store_address` is the address of the heads' Redis, a text or an Output. It counts only with a head.store.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": service.name,
            "namespace": namespace,
            "labels": {SERVICE_LABEL: service.name} | MANAGED_BY,
            "annotations": {
                "ray.io/initializing-timeout": f"{service.start_timeout_seconds}s",
                **{task_annotation(m.application): m.task.value for m in service.models if m.task is not Task.GENERATE},
            },
        },
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve_config(service), sort_keys=False, width=1000),
            # KubeRay deletes the RayCluster and the Services and keeps the rest; an absent key means false
            **({"suspend": True} if service.parked else {}),
            "upgradeStrategy": _upgrade_strategy(service),
            # the old cluster outlives the longest stream (kuberay #4126)
            "rayClusterDeletionDelaySeconds": drain_times(service.asked.rollout.longest_stream_seconds).cluster,
            # the head holds no replica and stays out of the data path, unless there may be no worker that holds requests
            "excludeHeadPodFromServeSvc": not service.scales_to_zero,
            "rayClusterConfig": {
                "rayVersion": service.runtime.ray_version,
                "authOptions": {
                    "mode": "token",
                    "secretName": ray_token_secret(service.name, service.asked.rollout.ray_token_generation),
                },
                # KubeRay ignores edits of worker counts on a live RayService (kuberay #4568): Serve's replicas drive the
                # count and the autoscaler follows, from 0 up to what the pool and the quota allow.
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": _autoscaler(service),
                **_fault_tolerance(head, store_address),
                "headGroupSpec": head_group(service, namespace, hugging_face, head, pooled=pool is not None),
                "workerGroupSpecs": [worker_group(service, namespace, hugging_face, pool)],
            },
        },
    }


_UPGRADE = {
    UpgradeStrategy.NEW_CLUSTER: "NewCluster",
    UpgradeStrategy.INCREMENTAL: "NewClusterWithIncrementalUpgrade",
    UpgradeStrategy.NONE: "None",
}


# In steps of a tenth a minute all traffic has moved in ten.
STEP_SIZE_PERCENT = 10


def _upgrade_strategy(service: ServicePlan) -> dict[str, Any]:
    strategy: dict[str, Any] = {"type": _UPGRADE[service.upgrade]}
    if service.incremental:
        strategy["clusterUpgradeOptions"] = {
            "maxSurgePercent": service.incremental.max_surge_percent,
            "stepSizePercent": service.incremental.step_size_percent
            or min(STEP_SIZE_PERCENT, service.incremental.max_surge_percent),
            "intervalSeconds": service.incremental.interval_seconds,
            "gatewayClassName": service.incremental.gateway_class,
        }
    return strategy


def _autoscaler(service: ServicePlan) -> dict[str, Any]:
    memory = f"{defaults.AUTOSCALER_MEMORY_GIB}Gi"
    timeout = str(service.start_timeout_seconds)
    return {
        "version": "v2",
        "idleTimeoutSeconds": defaults.IDLE_TIMEOUT_SECONDS,
        "upscalingMode": "Default",
        "resources": {
            "requests": {"cpu": cpu_quantity(service.autoscaler_cpus), "memory": memory},
            "limits": {"memory": memory},
        },
        # without them the autoscaler kills pods that wait for a GPU node or pull the image (kuberay #4226)
        "env": [
            {"name": "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S", "value": timeout},
            {"name": "RAY_AUTOSCALER_RECONCILE_REQUEST_STATUS_TIMEOUT_S", "value": timeout},
            {"name": "RAY_AUTOSCALER_RECONCILE_RAY_INSTALL_STATUS_TIMEOUT_S", "value": timeout},
        ],
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": TOKEN["name"], "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
            *declared_mounts(service),
        ],
    }


def _fault_tolerance(head: HeadPlan, address: Any) -> dict[str, Any]:
    """Return the GCS's Redis. Without externalStorageNamespace, so that each RayCluster of an upgrade has its own (kuberay #1286)."""
    if head.args.store is HeadStore.NONE:
        return {}
    password = {"name": head.password_secret, "key": STORE_PASSWORD_KEY}
    return {"gcsFaultToleranceOptions": {"redisAddress": address, "redisPassword": {"valueFrom": {"secretKeyRef": password}}}}
