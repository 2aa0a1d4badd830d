"""Where weights come from: Hugging Face, or a bucket that replicas stream from or mount."""

from collections.abc import Iterable
from math import ceil

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import ClusterMode, WeightsSource
from rayline.facts.runtimes import MIN_RAY_VERSION_FOR_BUCKETS, RUNTIMES
from rayline.schema.check import Check, version
from rayline.service.arguments import ServiceArgs
from rayline.service.environment import for_downloads
from rayline.service.types import ServicePlan
from rayline.weights.arguments import BucketArgs
from rayline.weights.types import BucketPlan, Mirror, ServiceWeights

# Where a mounted model lies in the worker.
MOUNT = "/models"
# What Ray downloads from (ray/llm/_internal/common/utils/cloud_filesystem/pyarrow_filesystem.py).
_CLOUDS = ("gs://", "s3://", "abfss://", "azure://")


def plan_bucket(check: Check, asked: BucketArgs | None, cluster: ClusterPlan) -> BucketPlan | None:
    """Decide about the bucket of the platform; None where a stack names none."""
    if asked is None:
        return None
    if cluster.mode is not ClusterMode.CREATE:
        check.refuse(
            "weights",
            None,
            f"only with cluster.mode create, whose cluster has the driver and the identities that read a bucket; it is {cluster.mode.value}: leave it out",
        )
    return BucketPlan(asked.bucket, asked.create, asked.mirror, keep=cluster.args.deletion_protection)


def plan_service_weights(
    check: Check, path: str, service: ServiceArgs, cluster: ClusterPlan, bucket: BucketPlan | None
) -> ServiceWeights:
    """Decide where the replicas of a service read the model from."""
    asked, where = service.weights, f"{path}.weights"
    source = asked.source
    if asked.revision is not None and asked.location:
        check.refuse(
            f"{where}.revision", asked.revision, "is Hugging Face's, and weights.location takes its place: leave one out"
        )
    elif asked.revision is not None and cluster.mode is ClusterMode.LOCAL:
        check.refuse(f"{where}.revision", asked.revision, "this machine has one copy of each model: leave it out")
    if source is WeightsSource.HUB:
        return ServiceWeights(source, asked.location or service.model, revision=asked.revision)

    if cluster.mode is not ClusterMode.CREATE:
        check.refuse(
            f"{where}.source",
            source,
            f"only with cluster.mode create, and it is {cluster.mode.value}: hub, or weights.location with a folder of `pods.volumes`",
        )
    elif bucket is None and not check.told("weights"):
        check.refuse(f"{where}.source", source, "needs a bucket: `weights: {bucket: my-models}` beside `services`")
    if asked.location:
        check.refuse(
            f"{where}.location", asked.location, f"weights.source {source.value} decides where the model lies: leave one out"
        )
    runtime = RUNTIMES.get(service.pods.runtime)
    if runtime and version(runtime.ray_version) < version(MIN_RAY_VERSION_FOR_BUCKETS):
        check.refuse(
            f"{path}.pods.runtime",
            runtime.ray_version,
            f"weights.source {source.value} is known to work from Ray {MIN_RAY_VERSION_FOR_BUCKETS} on (ray #64978)",
        )
    if source is WeightsSource.GCS_STREAM:
        _check_stream(check, path, service)
    folder = f"{service.model}/{asked.revision or defaults.REVISION}"
    name = bucket.name if bucket else ""
    uri = f"gs://{name}/{folder}" if source is WeightsSource.GCS_STREAM else f"{MOUNT}/{service.model}"
    return ServiceWeights(source, uri, bucket=name, folder=folder)


def _check_stream(check: Check, path: str, service: ServiceArgs) -> None:
    if not service.pods.image:
        check.refuse(
            f"{path}.pods.image",
            None,
            "required with weights.source gcs-stream: ray-llm's image has no runai-model-streamer[gcs]; build one with "
            "images/streamer.Dockerfile, or take gcs-fuse, which needs nothing in the image",
        )
    if service.engine.pipeline_parallel_size > 1:
        check.refuse(
            f"{path}.engine.pipeline_parallel_size",
            service.engine.pipeline_parallel_size,
            "with weights.source gcs-stream vLLM has the model's configuration on one machine of a replica only: gcs-fuse, or 1",
        )
    load_format = service.engine.kwargs.get("load_format")
    if load_format is not None:
        check.refuse(
            f"{path}.engine.kwargs.load_format", load_format, "weights.source gcs-stream is a load format: leave one out"
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
    """Names each weights.location in a bucket that has to grant rights: Ray reads one under //anonymous@ without any."""
    if cluster.mode is ClusterMode.LOCAL:
        return []
    found = []
    for service in services:
        uri = service.weights.uri
        if service.weights.source is WeightsSource.HUB and uri.startswith(_CLOUDS) and "//anonymous@" not in uri:
            found.append(
                f"{service.name}: weights.location {uri}: the kit grants the workers no rights on this bucket; "
                'docs/operations.md, "Where weights come from", says what they need'
            )
    return found


def on_disk_gib(source: WeightsSource, weights_gib: float) -> int:
    """What a worker's disk holds of the weights: the download or the mount's cache; a stream leaves nothing there."""
    return 0 if source is WeightsSource.GCS_STREAM else ceil(weights_gib)


def bucket_warnings(bucket: BucketPlan | None, services: Iterable[ServicePlan]) -> list[str]:
    """Warn of a bucket that no service reads, and of one that is deleted with the stack."""
    warnings = []
    if bucket and not any(service.weights.bucket for service in services):
        warnings.append(
            f"weights: no service reads the bucket {bucket.name}; `weights.source` gcs-fuse or gcs-stream in a service does"
        )
    if bucket and bucket.create and not bucket.keep:
        warnings.append(
            f"weights: the bucket {bucket.name} and everything in it go with the stack, because cluster.deletion_protection is false"
        )
    return warnings
