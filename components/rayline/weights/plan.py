"""Where weights come from: Hugging Face, or a bucket that replicas stream from or mount."""

import re
from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import ClusterMode, WeightsSource
from rayline.facts.runtimes import DEFAULT_RUNTIME, MIN_RAY_VERSION_FOR_BUCKETS, RUNTIMES
from rayline.schema.check import Check, version
from rayline.service.environment import for_downloads
from rayline.service.types import ServicePlan
from rayline.weights.types import BucketPlan, Mirror, ServiceWeights

# Where a mounted model lies in the worker.
MOUNT = "/models"
# https://cloud.google.com/storage/docs/buckets#naming, without the names that hold a dot: those are domains to be verified.
BUCKET_NAME = re.compile(r"[a-z0-9][-_a-z0-9]{1,61}[a-z0-9]")
# A commit, a tag or a branch; it becomes one folder of the bucket and part of a name in Kubernetes.
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

# What Ray downloads from (ray/llm/_internal/common/utils/cloud_filesystem/pyarrow_filesystem.py).
_CLOUDS = ("gs://", "s3://", "abfss://", "azure://")


def plan_bucket(check: Check, given: Mapping[str, Any] | None, cluster: ClusterPlan) -> BucketPlan | None:
    if not given:
        return None
    name = given.get("bucket") or ""
    if cluster.mode is not ClusterMode.CREATE:
        check.refuse(
            "weights",
            None,
            f"only with cluster.mode create, whose cluster has the driver and the identities that read a bucket; it is {cluster.mode.value}: leave it out",
        )
    elif not BUCKET_NAME.fullmatch(name) or name.startswith("goog"):
        check.refuse(
            "weights.bucket",
            name,
            "the name alone, without gs:// or a folder: 3 to 63 lower-case letters, digits, dashes and underscores, not beginning with goog",
        )
    return BucketPlan(
        name=name,
        create=given.get("create", True),
        mirror=given.get("mirror", True),
        keep=cluster.deletion_protection,
    )


def plan_service_weights(
    check: Check,
    path: str,
    given: Mapping[str, Any],
    model_id: str,
    cluster: ClusterPlan,
    bucket: BucketPlan | None,
) -> ServiceWeights:
    source = WeightsSource(given.get("weights") or defaults.WEIGHTS)
    model_source, revision = given.get("model_source"), given.get("revision")
    if revision is not None and model_source:
        check.refuse(f"{path}.revision", revision, "is Hugging Face's, and model_source takes its place: leave one out")
    elif revision is not None and cluster.mode is ClusterMode.LOCAL:
        check.refuse(f"{path}.revision", revision, "this machine has one copy of each model: leave it out")
    elif revision is not None and not REVISION.fullmatch(revision):
        check.refuse(
            f"{path}.revision",
            revision,
            "a commit, tag or branch: letters, digits, dots, dashes, underscores; at most 63",
        )
    if source is WeightsSource.HUB:
        return ServiceWeights(source, model_source or model_id, revision=revision)

    if cluster.mode is not ClusterMode.CREATE:
        check.refuse(
            f"{path}.weights",
            source,
            f"only with cluster.mode create, and it is {cluster.mode.value}: hub, or model_source with a folder of `volumes`",
        )
    elif bucket is None:
        check.refuse(f"{path}.weights", source, "needs a bucket: `weights: {bucket: my-models}` beside `services`")
    if model_source:
        check.refuse(
            f"{path}.model_source", model_source, f"weights {source.value} decides where the model lies: leave one out"
        )
    runtime = RUNTIMES.get(given.get("runtime") or DEFAULT_RUNTIME)
    if runtime and version(runtime.ray_version) < version(MIN_RAY_VERSION_FOR_BUCKETS):
        check.refuse(
            f"{path}.runtime",
            runtime.ray_version,
            f"weights {source.value} is known to work from Ray {MIN_RAY_VERSION_FOR_BUCKETS} on (ray #64978)",
        )
    if source is WeightsSource.GCS_STREAM:
        _check_stream(check, path, given)
    folder = f"{model_id}/{revision or defaults.REVISION}"
    name = bucket.name if bucket else ""
    uri = f"gs://{name}/{folder}" if source is WeightsSource.GCS_STREAM else f"{MOUNT}/{model_id}"
    return ServiceWeights(source, uri, bucket=name, folder=folder)


def _check_stream(check: Check, path: str, given: Mapping[str, Any]) -> None:
    if not given.get("image"):
        check.refuse(
            f"{path}.image",
            None,
            "required with weights gcs-stream: ray-llm's image has no runai-model-streamer[gcs]; build one with "
            "images/streamer.Dockerfile, or take weights gcs-fuse, which needs nothing in the image",
        )
    if (given.get("pipeline_parallel_size") or 1) > 1:
        check.refuse(
            f"{path}.pipeline_parallel_size",
            given["pipeline_parallel_size"],
            "with weights gcs-stream vLLM has the model's configuration on one machine of a replica only: weights gcs-fuse, or 1",
        )
    load_format = (given.get("engine_kwargs") or {}).get("load_format")
    if load_format is not None:
        check.refuse(
            f"{path}.engine_kwargs.load_format", load_format, "weights gcs-stream is a load format: leave one out"
        )


def plan_mirrors(bucket: BucketPlan | None, services: Iterable[ServicePlan]) -> tuple[Mirror, ...]:
    """What has to be in the bucket before the services start: each model and revision once."""
    if bucket is None or not bucket.mirror:
        return ()
    found: dict[str, Mirror] = {}
    for service in services:
        folder = service.weights.folder
        if folder:
            found.setdefault(
                folder,
                Mirror(
                    model_id=service.model_id,
                    revision=folder.rpartition("/")[2],
                    folder=folder,
                    image=service.image,
                    weights_gib=service.model.parameters * service.model.weight_bytes / 2**30,
                    env=for_downloads(service.env),
                ),
            )
    return tuple(found.values())


def source_warnings(cluster: ClusterPlan, services: Iterable[ServicePlan]) -> list[str]:
    """Names each model_source in a bucket that has to grant rights: Ray reads one under //anonymous@ without any."""
    if cluster.mode is ClusterMode.LOCAL:
        return []
    found = []
    for service in services:
        uri = service.weights.uri
        if service.weights.source is WeightsSource.HUB and uri.startswith(_CLOUDS) and "//anonymous@" not in uri:
            found.append(
                f"{service.name}: model_source {uri}: the kit grants the workers no rights on this bucket; "
                'docs/operations.md, "Where weights come from", says what they need'
            )
    return found


def on_disk_gib(source: WeightsSource, weights_gib: float) -> int:
    """What a worker's disk holds of the weights: the download or the mount's cache; a stream leaves nothing there."""
    return 0 if source is WeightsSource.GCS_STREAM else ceil(weights_gib)
