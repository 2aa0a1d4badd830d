"""Plan where weights come from: Hugging Face, or a bucket that replicas download, stream from or mount."""

import re
from collections.abc import Iterable
from dataclasses import replace
from math import ceil

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import ClusterMode, WeightsSource
from rayline.facts.labels import Role, service_account
from rayline.facts.runtimes import MIN_RAY_VERSION_FOR_BUCKETS
from rayline.models.arguments import BucketArgs
from rayline.models.model import GIB
from rayline.models.types import BucketPlan, Mirror, ServiceWeights
from rayline.schema.check import Check
from rayline.service.environment import for_downloads
from rayline.service.request import ServiceRequest
from rayline.service.types import ServicePlan, every_model

# Folder of mounted models in a worker.
MOUNT = "/models"
# Addresses from which Ray downloads (ray/llm/_internal/common/utils/cloud_filesystem/pyarrow_filesystem.py).
CLOUDS = ("gs://", "s3://", "abfss://", "azure://")
# A bucket of any project, dots included (cloud.google.com/storage/docs/buckets#naming). Ray reads one under anonymous@ without rights.
_BUCKET = re.compile(r"gs://(anonymous@)?([a-z0-9][-_.a-z0-9]{1,220}[a-z0-9])(/.*)?")


def plan_bucket(check: Check, arguments: BucketArgs | None, cluster: ClusterPlan) -> BucketPlan | None:
    """Decide about the platform's bucket; None where the stack has none."""
    if arguments is None:
        return None
    if not cluster.on_google:
        gke = ", or cluster.gke true where it is a GKE cluster" if cluster.mode is ClusterMode.EXISTING else ""
        says = f"needs a GKE cluster (GCS FUSE driver, Workload Identity), and cluster.mode is {cluster.mode.value}"
        check.refuse("weights", None, f"{says}. Fix: remove `weights`{gke}")
    return BucketPlan(arguments.bucket, arguments.create, arguments.mirror, keep=cluster.args.deletion_protection)


def plan_service_weights(request: ServiceRequest, bucket: BucketPlan | None) -> ServiceWeights:
    """Decide where the replicas of a service read the model and its adapters from."""
    weights, adapters = _plan_model(request, bucket), request.arguments.adapters
    if adapters is None:
        return weights
    return replace(weights, adapters_bucket=_bucket_to_read(request, adapters.location, "adapters.location"))


def _plan_model(request: ServiceRequest, bucket: BucketPlan | None) -> ServiceWeights:
    service, mode = request.arguments, request.cluster.mode
    source, revision, location = service.weights.source, service.weights.revision, service.weights.location
    address = location or service.model
    if revision is not None and location:
        request.refuse("weights.revision", "is Hugging Face's, and weights.location takes its place: leave one out")
    elif revision is not None and address.startswith(("/", *CLOUDS)):
        request.refuse("weights.revision", "is Hugging Face's, and the model is an address: leave it out")
    elif revision is not None and request.on_this_machine:
        request.refuse("weights.revision", "this machine has one copy of each model: leave it out")
    if source is WeightsSource.HUB:
        key = "weights.location" if location else "model"
        return ServiceWeights(source, address, revision=revision, read_bucket=_bucket_to_read(request, address, key))

    if service.model.startswith(("/", *CLOUDS)):
        request.refuse(
            "model", f"it is an address, and weights.source {source.value} has a copy of a model at Hugging Face: hub"
        )
    if not request.cluster.on_google:
        request.refuse(
            "weights.source",
            f"only with a GKE cluster, and cluster.mode is {mode.value}: hub, or weights.location with a folder of `pods.volumes`",
        )
    elif bucket is None and not request.check.told("weights"):
        request.refuse("weights.source", "needs a bucket: `weights: {bucket: my-models}` beside `services`")
    if location:
        request.refuse("weights.location", f"weights.source {source.value} decides where the model lies: leave one out")
    if request.has_older_ray(MIN_RAY_VERSION_FOR_BUCKETS):
        why = f"weights.source {source.value} is known to work from Ray {MIN_RAY_VERSION_FOR_BUCKETS} on (ray #64978)"
        request.refuse("pods.runtime", why)
    if source is WeightsSource.GCS_STREAM:
        _check_stream(request)
    folder = f"{service.model}/{revision or defaults.REVISION}"
    name = bucket.name if bucket else ""
    uri = f"gs://{name}/{folder}" if source is WeightsSource.GCS_STREAM else f"{MOUNT}/{service.model}"
    return ServiceWeights(source, uri, bucket=name, folder=folder, read_bucket=name)


def _bucket_to_read(request: ServiceRequest, address: str, key: str) -> str:
    """Return the bucket of a gs:// address whose readers need rights; empty for another address, and for public data."""
    if not address.startswith("gs://"):
        return ""
    parts = _BUCKET.fullmatch(address)
    if parts is None:
        request.refuse(
            key, "no bucket of Cloud Storage has this name. Fix: gs://BUCKET/FOLDER, or gs://anonymous@BUCKET/FOLDER"
        )
    return "" if parts is None or parts[1] else parts[2]


def _check_stream(request: ServiceRequest) -> None:
    service = request.arguments
    if not service.pods.image:
        request.refuse(
            "pods.image",
            "required with weights.source gcs-stream: ray-llm's image has no runai-model-streamer[gcs]; build one with "
            "images/streamer.Dockerfile, or take gcs-fuse, which needs nothing in the image",
        )
    if service.engine.pipeline_parallel_size > 1:
        request.refuse(
            "engine.pipeline_parallel_size",
            "with weights.source gcs-stream vLLM has the model's configuration on one machine of a replica only: gcs-fuse, or 1",
        )
    load_format = service.engine.kwargs.get("load_format")
    if load_format is not None:
        request.refuse("engine.kwargs.load_format", "weights.source gcs-stream is a load format: leave one out", load_format)


def plan_mirrors(bucket: BucketPlan | None, services: Iterable[ServicePlan]) -> tuple[Mirror, ...]:
    """Return the copies that the bucket needs before the services start: each model and revision once."""
    if bucket is None or not bucket.mirror:
        return ()
    first: dict[str, ServicePlan] = {}
    for service in every_model(services):
        if service.weights.folder:
            first.setdefault(service.weights.folder, service)
    return tuple(
        Mirror(
            model_id=service.model_id,
            revision=folder.rpartition("/")[2],
            folder=folder,
            image=service.image,
            weights_gib=service.model.weights_bytes / GIB,
            env=for_downloads(service.env),
        )
        for folder, service in first.items()
    )


def source_warnings(cluster: ClusterPlan, services: Iterable[ServicePlan]) -> list[str]:
    """Warn of each bucket whose owner has to grant rights. The kit does it for Cloud Storage in a GKE cluster."""
    if cluster.mode is ClusterMode.LOCAL:
        return []
    warnings = []
    for service in every_model(services):
        weights, adapters = service.weights, service.asked.adapters
        sources = [(weights.uri, weights.read_bucket)] if weights.source is WeightsSource.HUB else []
        sources += [(adapters.location, weights.adapters_bucket)] if adapters else []
        for uri, bucket in sources:
            granted = bucket and cluster.on_google
            if uri.startswith(CLOUDS) and "//anonymous@" not in uri and not granted:
                warnings.append(
                    f"{service.label}: {uri}: the kit grants the workers no rights on this bucket. Fix: let the ServiceAccount "
                    f"{service_account(service.name, Role.WORKER)} read it; "
                    'docs/operations.md, "Where weights come from", has the commands'
                )
    return warnings


def on_disk_gib(source: WeightsSource, weights_gib: float) -> int:
    """Return the GiB of weights on a worker's disk: the download or the mount's cache. A stream leaves nothing there."""
    return 0 if source is WeightsSource.GCS_STREAM else ceil(weights_gib)


def bucket_warnings(bucket: BucketPlan | None, services: Iterable[ServicePlan]) -> list[str]:
    """Warn of a bucket that no service reads, and of one that is deleted with the stack."""
    warnings = []
    if bucket and not any(bucket.name in model.weights.buckets for model in every_model(services)):
        warnings.append(
            f"weights: no service reads the bucket {bucket.name}; `weights.source` gcs-fuse or gcs-stream in a service does"
        )
    if bucket and bucket.create and not bucket.keep:
        warnings.append(
            f"weights: the bucket {bucket.name} and everything in it go with the stack, because cluster.deletion_protection is false"
        )
    return warnings
