"""Plan the further models of a service, and the workers of all its models together."""

from collections.abc import Sequence
from dataclasses import replace

from rayline.facts.choices import ClusterMode, UpgradeStrategy, WeightsSource
from rayline.facts.labels import APPLICATION
from rayline.facts.runtimes import MIN_RAY_VERSION_FOR_APPLICATIONS
from rayline.schema.check import Check, Problem
from rayline.service.arguments import ApiArgs, ApplicationApiArgs, ApplicationArgs, ServiceArgs
from rayline.service.request import ServiceRequest
from rayline.service.scale import group_maximum, workers_for
from rayline.service.types import Draft, ServicePlan

# Keys of the service that hold for all its models.
SHARED = ("accelerator", "park", "nodes", "workers", "pods", "rollout", "switches")
# The application of the service's own model, and first parts of paths that a model has without a prefix (vllm 0.29.0
# vllm/entrypoints).
TAKEN = (
    *(APPLICATION, "v1", "v2", "health", "load", "ping", "version", "metrics", "tokenize", "detokenize"),
    *("invocations", "inference", "docs", "redoc", "classify", "pooling", "score", "rerank", "cohere"),
    *("sleep", "pause", "resume"),
)


def check_applications(request: ServiceRequest) -> None:
    """Refuse further models where they cannot work."""
    service = request.arguments
    for name in service.applications:
        if name in TAKEN:
            why = f"/{name} is a path of the service's own model. Fix: another name, for example {name}-model"
            request.refuse(f"applications.{name}", why, None)
    if not service.applications:
        return
    if request.has_older_ray(MIN_RAY_VERSION_FOR_APPLICATIONS):
        why = f"applications are known to work from Ray {MIN_RAY_VERSION_FOR_APPLICATIONS} on. Fix: that, or a service for each model"
        request.refuse("pods.runtime", why)
    if not service.switches.direct_streaming:
        request.refuse(
            "switches.direct_streaming", "further models are served on the direct path: turn it on, or leave applications out"
        )
    if service.rollout.strategy is UpgradeStrategy.INCREMENTAL:
        why = "is planned for one model only. Fix: new-cluster or none, or a service of its own for each model"
        request.refuse("rollout.strategy", why)
    scaled = {"autoscaling": service.autoscaling} | {
        f"applications.{name}.autoscaling": application.autoscaling for name, application in service.applications.items()
    }
    for key, scaling in scaled.items():
        if scaling and scaling.to_zero:
            why = "with applications at least 1, as the head holds requests of one model only. Fix: 1, or a service of its own"
            request.refuse(f"{key}.min_replicas", why, 0)


def arguments_of(service: ServiceArgs, application: ApplicationArgs, machine: str | None) -> ServiceArgs:
    """Return the arguments of a further model as if it were a service: its own keys, and those that hold for all models.

    `machine` is the machine type of the service's own model.
    """
    own, api = {name: getattr(application, name) for name in ApplicationArgs.model_fields}, application.api
    shared = {name: getattr(service, name) for name in SHARED}
    if machine:
        shared["nodes"] = service.nodes.model_copy(update={"machine_type": machine})
    most = application.autoscaling.max_replicas if application.autoscaling else application.replicas
    if service.rollout.spare_replicas is not None:
        spare = min(most, service.rollout.spare_replicas)
        shared["rollout"] = service.rollout.model_copy(update={"spare_replicas": spare})
    own["api"] = ApiArgs.model_construct(
        api.model_fields_set | {"key"},
        key=service.api.key,
        served_model_name=api.served_model_name,
        key_generation=api.key_generation,
    )
    said = application.model_fields_set | (service.model_fields_set & set(SHARED))
    return ServiceArgs.model_construct(said, **own, **shared)


def blame(check: Check, own: Check, path: str, name: str) -> None:
    """Report the problems of a further model: those with its own keys as they are, those with shared keys once, at the service."""
    place, known = f"{path}.applications.{name}", {str(problem) for problem in check.problems}
    for problem in own.problems[len(check.problems) :]:
        key, _, rest = problem.path.removeprefix(f"{place}.").partition(".")
        shared = key not in ApplicationArgs.model_fields or (key == "api" and rest not in ApplicationApiArgs.model_fields)
        if shared and problem.path != place:
            problem = Problem(problem.path.replace(place, path, 1), problem.value, problem.message.replace(place, path))
        if str(problem) not in known:
            check.problems.append(problem)


def check_mounts(request: ServiceRequest, own: Draft | None, beside: Sequence[Draft]) -> None:
    """Refuse two revisions of a mounted model: both would lie in one folder of the pods."""
    first: dict[str, str] = {}
    for draft in [own, *beside] if own else []:
        weights = draft.plan.weights
        if weights.source is WeightsSource.GCS_FUSE and first.setdefault(weights.uri, weights.folder) != weights.folder:
            why = f"{first[weights.uri]} is mounted at {weights.uri} already. Fix: the same revision, or weights.source gcs-stream"
            request.refuse(f"applications.{draft.plan.application}.weights.revision", why, weights.folder.rpartition("/")[2])


def with_applications(draft: Draft, beside: Sequence[Draft], mode: ClusterMode) -> Draft:
    """Return the draft of a service with the plans of its further models, and with workers and price of all models."""
    plan = draft.plan
    models, own = (plan, *(further.plan for further in beside)), plan.workers
    running = _workers(models, [model.replicas for model in models])
    most = _workers(models, [model.most_replicas for model in models])
    in_place = _workers(models, [model.most_replicas + model.spare_replicas for model in models])
    workers = replace(
        own,
        workers=running,
        most_workers=most,
        surge_workers=most if own.surge_workers else 0,
        spare_workers=in_place - most,
        max_workers=group_maximum(mode, most),
        # each worker may get a replica of every model
        ephemeral_gib=sum(model.workers.ephemeral_gib for model in models),
        replicas_per_worker=min(model.workers.replicas_per_worker for model in models),
    )
    key = draft.pool_key
    if key and any(further.pool_key and further.pool_key.rdma for further in beside):
        key = replace(key, rdma=True)
    sizes = sorted({model.gpus_per_replica for model in models})
    if own.gpus > sizes[0] != sizes[-1]:
        counts = " and ".join(map(str, sizes))
        warning = (
            f"replicas with {counts} GPUs share workers with {own.gpus}: Serve may spread the small ones, so that no worker has {sizes[-1]} "
            "GPUs free. The plan counts workers for each size. Fix: the same number of GPUs, or a service for each model"
        )
        plan = replace(plan, warnings=(*plan.warnings, warning))
    usd = None if plan.hourly_usd is None else plan.hourly_usd * running / own.workers
    most_usd = None if plan.highest_hourly_usd is None else plan.highest_hourly_usd * most / own.most_workers
    return replace(
        draft, pool_key=key, plan=replace(plan, workers=workers, beside=models[1:], hourly_usd=usd, highest_hourly_usd=most_usd)
    )


def _workers(models: Sequence[ServicePlan], replicas: Sequence[int]) -> int:
    """Return the workers that hold so many replicas of each model. Models with the same number of GPUs share workers."""
    on_worker = models[0].workers.gpus
    sizes = {model.gpus_per_replica for model in models}
    if len(sizes) == 1:
        return workers_for(sum(replicas), sizes.pop(), on_worker)
    # beside smaller replicas a worker may have GPUs free that are too few for a larger one
    counts = zip(models, replicas, strict=True)
    return sum(workers_for(count, model.gpus_per_replica, on_worker) for model, count in counts)
