"""Make the parts of a worker pod, and the vLLM arguments, for the service's weights source. No Pulumi, no I/O.

hub: a cache on the node's ephemeral storage (its local SSDs, where the machine has them), one for all replicas of a worker.
gcs-stream: vLLM's Run:ai streamer, from the bucket into the GPU; nothing on disk.
gcs-fuse: the model's folder of the bucket, mounted read-only by GKE's driver, whose cache is on the ephemeral storage too.
"""

from collections.abc import Iterable
from typing import Any

from rayline.facts.choices import WeightsSource
from rayline.facts.google import FUSE_ANNOTATION, FUSE_DRIVER
from rayline.facts.labels import Role, service_account
from rayline.service.types import ServicePlan, every_model

# Under /tmp, where every container may write: the head has the variable without the volume.
HUB_CACHE = "/tmp/huggingface"
HUB_CACHE_VOLUME, BUCKET_VOLUME = "hub-cache", "weights"

# GoogleCloudPlatform/accelerated-platforms, inference-ref-arch online-inference-gpu/vllm at 9320f3b: nothing expires because a
# folder of a revision never changes, whole files are fetched in parallel, and ranges that are read fetch their file.
FUSE_OPTIONS = (
    "implicit-dirs",
    "file-cache:max-size-mb:-1",
    "file-cache:cache-file-for-range-read:true",
    "file-cache:enable-parallel-downloads:true",
    "file-system:kernel-list-cache-ttl-secs:-1",
    "metadata-cache:ttl-secs:-1",
    "metadata-cache:negative-ttl-secs:0",
    "metadata-cache:stat-cache-max-size-mb:-1",
    "metadata-cache:type-cache-max-size-mb:-1",
)
# Load formats of the streamer (vllm/model_executor/model_loader/__init__.py).
STREAMED = ("runai_streamer", "runai_streamer_sharded")
# "0" takes the sidecar's limits away, as there: 256 MiB and 250m would throttle the loading of every model.
FUSE_LIMITS = ("cpu-limit", "memory-limit", "ephemeral-storage-limit")


OBJECT_VIEWER = "roles/storage.objectViewer"


def engine_kwargs(service: ServicePlan) -> dict[str, Any]:
    """Return the vLLM arguments for the service's weights source."""
    source = service.weights.source
    if source is WeightsSource.GCS_FUSE:
        # read ahead in large pieces; memory-mapped, the default, every page is a round trip to the mount (vllm config/load.py)
        return {"safetensors_load_strategy": "prefetch"}
    if source is WeightsSource.GCS_STREAM:
        # bytes of host memory that each GPU's reader may fill. The streamer's default of 40 GB is more than an L4 worker has.
        extra: dict[str, Any] = {"memory_limit": service.workers.memory_gib * 2**30 // service.workers.gpus // 4}
        if service.asked.engine.tensor_parallel_size > 1:
            # each GPU reads its part and hands it to the others (docs.vllm.ai, Run:ai Model Streamer)
            extra["distributed"] = True
        return {"load_format": "runai_streamer", "model_loader_extra_config": extra}
    return {"revision": service.weights.revision} if service.weights.revision else {}


def environment(service: ServicePlan) -> list[dict[str, Any]]:
    """Return the variables of every Ray container."""
    return [{"name": "HF_HOME", "value": HUB_CACHE}] if _has_hub_cache(service) else []


def _has_hub_cache(service: ServicePlan) -> bool:
    return any(model.has_hub_cache for model in service.models)


def _mounted(service: ServicePlan) -> dict[str, ServicePlan]:
    """Return the models whose folder in the bucket is mounted, by the name of the volume."""
    mounted: dict[str, ServicePlan] = {}
    for model in service.models:
        known = (other.weights.folder for other in mounted.values())
        if model.weights.source is WeightsSource.GCS_FUSE and model.weights.folder not in known:
            mounted[BUCKET_VOLUME if model is service else f"{BUCKET_VOLUME}-{model.application}"] = model
    return mounted


def annotations(service: ServicePlan) -> dict[str, str]:
    """Return the annotations of a worker pod."""
    if not _mounted(service):
        return {}
    return {FUSE_ANNOTATION: "true"} | {f"gke-gcsfuse/{limit}": "0" for limit in FUSE_LIMITS}


def volumes(service: ServicePlan) -> list[dict[str, Any]]:
    """Return the volumes of a worker pod."""
    size = f"{service.workers.ephemeral_gib}Gi"
    cache = [{"name": HUB_CACHE_VOLUME, "emptyDir": {"sizeLimit": size}}] if _has_hub_cache(service) else []
    return cache + [
        {
            "name": name,
            "csi": {
                "driver": FUSE_DRIVER,
                "readOnly": True,
                "volumeAttributes": {
                    "bucketName": model.weights.bucket,
                    "mountOptions": ",".join((*FUSE_OPTIONS, f"only-dir:{model.weights.folder}")),
                    # the check requires a right beyond reading objects, at every start of a pod
                    "skipCSIBucketAccessCheck": "true",
                },
            },
        }
        for name, model in _mounted(service).items()
    ]


def mounts(service: ServicePlan) -> list[dict[str, Any]]:
    """Return the volume mounts of a Ray worker."""
    cache = [{"name": HUB_CACHE_VOLUME, "mountPath": HUB_CACHE}] if _has_hub_cache(service) else []
    mounted = _mounted(service).items()
    return cache + [{"name": name, "mountPath": model.weights.uri, "readOnly": True} for name, model in mounted]


def bucket_grants(services: Iterable[ServicePlan]) -> dict[str, dict[str, list[str]]]:
    """Return the roles of each worker's ServiceAccount by bucket; only services that read a bucket have any."""
    grants: dict[str, dict[str, list[str]]] = {}
    for service in every_model(services):
        account = service_account(service.name, Role.WORKER)
        if bucket := service.weights.read_bucket:
            roles = grants.setdefault(bucket, {}).get(account, [])
            grants[bucket][account] = list(dict.fromkeys([*roles, *_bucket_roles(service)]))
        if bucket := service.weights.adapters_bucket:
            # an adapter has a folder of its own; where the model lies in the same bucket, its roles include this one
            grants.setdefault(bucket, {}).setdefault(account, [OBJECT_VIEWER])
    return grants


def _bucket_roles(service: ServicePlan) -> list[str]:
    # the streamer's Python part gets the bucket before its objects (runai-model-streamer-gcs 0.17.1, files.py), and so does
    # Arrow, with which Ray downloads, where the model has no folder of its own (arrow/filesystem/gcsfs.cc, GetFileInfo)
    bare = service.weights.uri.rstrip("/") == f"gs://{service.weights.read_bucket}"
    streams = service.weights.source is WeightsSource.GCS_STREAM or service.engine_kwargs.get("load_format") in STREAMED
    return [OBJECT_VIEWER, *(["roles/storage.bucketViewer"] if bare or streams else [])]
