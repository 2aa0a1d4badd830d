"""Plan how many replicas and workers a service has, and what a change of its RayCluster needs beside them."""

from math import ceil, floor

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import Accelerator, Capacity, ClusterMode, OperatorSource, UpgradeStrategy
from rayline.facts.runtimes import MIN_RAY_VERSION_FOR_PROMETHEUS, MIN_RAY_VERSION_FOR_SURGE
from rayline.kuberay.types import KuberayPlan
from rayline.schema.check import version
from rayline.service.arguments import AutoscalingArgs, ServiceArgs
from rayline.service.disaggregation import disaggregation_warnings
from rayline.service.request import ServiceRequest
from rayline.service.types import EngineLimits, MemoryFit, Scale, ServicePlan
from rayline.service.workload import workload_warnings
from rayline.service.zero import check_zero, zero_warnings

# `suspend` of a RayService and the incremental upgrade came with this version of KubeRay.
SUSPEND_AND_INCREMENTAL = (1, 7)
# A prompt and its answer for the sizing of concurrency: this share of the longest context.
TYPICAL_SHARE_OF_CONTEXT = 8


def plan_scale(request: ServiceRequest) -> Scale:
    """Decide the counts and the upgrade strategy of a service, as far as the engine's limits do not matter."""
    service = request.arguments
    upgrade = _upgrade(request)
    if service.park and request.on_this_machine:
        request.refuse("park", "this machine has no GPU to give back: `rayline down` ends the service")
    elif service.park:
        _refuse_older_kuberay(request, "park")
    if service.park and upgrade is UpgradeStrategy.INCREMENTAL:
        request.refuse(
            "park",
            "a parked service loses the Gateway of rollout.strategy incremental, and its address with it: new-cluster or none",
        )
    check_zero(request, upgrade)
    sides = service.disaggregation
    least = most = sides.prefill + sides.decode if sides else service.replicas
    if scaling := service.autoscaling:
        if service.said("replicas"):
            request.refuse("replicas", "with autoscaling the count follows the load: leave it out, or leave autoscaling out")
        _check_latency(request, scaling)
        if scaling.max_replicas < scaling.min_replicas:
            request.refuse("autoscaling.max_replicas", f"at least min_replicas, which is {scaling.min_replicas}")
        least, most = scaling.min_replicas, max(scaling.min_replicas, scaling.max_replicas)
    return Scale(least, most, upgrade, _spare_replicas(request, upgrade, most))


def _check_latency(request: ServiceRequest, scaling: AutoscalingArgs) -> None:
    """Refuse a bound for the time to first token that nothing measures."""
    bound, prometheus = scaling.time_to_first_token_ms, scaling.prometheus
    if bound is None and prometheus is not None:
        request.refuse("autoscaling.prometheus", "only with autoscaling.time_to_first_token_ms: set that too, or leave it out")
    if bound is None:
        return
    if prometheus is None:
        why = "needs autoscaling.prometheus: the address of a Prometheus that has the metrics of the service"
        request.refuse("autoscaling.time_to_first_token_ms", why)
    if request.has_older_ray(MIN_RAY_VERSION_FOR_PROMETHEUS):
        why = f"needs Ray {MIN_RAY_VERSION_FOR_PROMETHEUS}, and pods.runtime is {request.arguments.pods.runtime}: leave it out"
        request.refuse("autoscaling.time_to_first_token_ms", why)
    if not request.arguments.engine.log_engine_metrics:
        why = "with autoscaling.time_to_first_token_ms Prometheus reads vLLM's metrics of Ray's port: true, or leave it out"
        request.refuse("engine.log_engine_metrics", why)


def _spare_replicas(request: ServiceRequest, upgrade: UpgradeStrategy, most: int) -> int:
    """Return the replicas that start beside the running ones in a change in place."""
    spare = request.arguments.rollout.spare_replicas
    if request.has_older_ray(MIN_RAY_VERSION_FOR_SURGE):
        if spare:
            why = f"needs Ray {MIN_RAY_VERSION_FOR_SURGE}, and pods.runtime is {request.arguments.pods.runtime}: leave it out"
            request.refuse("rollout.spare_replicas", why)
        return 0
    if spare is not None:
        if spare > most:
            request.refuse("rollout.spare_replicas", f"Serve starts no more than the service has, which is {most}")
    else:
        none = upgrade is UpgradeStrategy.NONE or request.on_this_machine or request.arguments.disaggregation
        spare = 0 if none else defaults.SPARE_REPLICAS
    # Serve takes whole percent: one of 200 replicas is two
    return ceil(surge_percent(spare, most) * most / 100)


def surge_percent(spare_replicas: int, most_replicas: int) -> int:
    """Return Serve's max_surge_percent for so many spare replicas; Serve rounds up (_surge_replicas_to_start in deployment_state.py).

    With fewer replicas than `most_replicas` it allows as many or fewer, and at least one.
    """
    return min(100, max(1, 100 * spare_replicas // most_replicas)) if spare_replicas else 0


def spare_workers(scale: Scale, gpus_per_replica: int, gpus_per_worker: int) -> int:
    """Return the worker pods that the spare replicas need beside those of the others."""
    most = scale.most_replicas
    return workers_for(most + scale.spare_replicas, gpus_per_replica, gpus_per_worker) - workers_for(
        most, gpus_per_replica, gpus_per_worker
    )


def plan_autoscaling(service: ServiceArgs, limits: EngineLimits, fit: MemoryFit) -> AutoscalingArgs | None:
    """Return the autoscaling of a service with its target; None where the count is fixed."""
    scaling = service.autoscaling
    limit = service.traffic.max_in_progress
    target = scaling and float(scaling.target_ongoing_requests or default_target(limits, fit, limit))
    return scaling and scaling.model_copy(update={"target_ongoing_requests": target})


def default_target(limits: EngineLimits, fit: MemoryFit, max_in_progress: int | None = None) -> int:
    """Return the requests in progress that autoscaling keeps a replica near: a share of those that it works on at once.

    A replica works on `max_num_seqs` at most, and on no more typical requests than the KV cache holds; others wait inside vLLM.
    It gets no more than `max_in_progress`.
    With a target at that number a replica would be added when requests wait already, and it takes minutes to load.
    """
    typical = max(1, limits.max_model_len // TYPICAL_SHARE_OF_CONTEXT)
    at_once = min(limits.max_num_seqs, int(fit.sequences(typical)), max_in_progress or limits.max_num_seqs)
    return max(1, floor(at_once * defaults.TARGET_SHARE_OF_CONCURRENCY))


def _upgrade(request: ServiceRequest) -> UpgradeStrategy:
    rollout = request.arguments.rollout
    strategy = rollout.strategy or (UpgradeStrategy.NONE if request.arguments.nodes.reservation else defaults.UPGRADE)
    if strategy is UpgradeStrategy.INCREMENTAL:
        _check_incremental(request)
    else:
        keys = ("gateway_class", "max_surge_percent", "step_size_percent", "interval_seconds")
        why = f"only with rollout.strategy incremental, and it is {strategy.value}: leave it out"
        request.refuse_if_said("rollout", keys, why, value=None)
    return strategy


def _check_incremental(request: ServiceRequest) -> None:
    rollout = request.arguments.rollout
    if request.on_this_machine:
        request.refuse("rollout.strategy", "this machine has no second cluster: new-cluster or none")
    else:
        _refuse_older_kuberay(request, "rollout.strategy")
    if rollout.step_size_percent and rollout.step_size_percent > rollout.max_surge_percent:
        request.refuse("rollout.step_size_percent", f"at most max_surge_percent, which is {rollout.max_surge_percent}")
    if not rollout.gateway_class:
        request.refuse(
            "rollout.gateway_class",
            "required: the class of the Gateway that KubeRay makes, for example istio; `kubectl get gatewayclass` lists yours",
        )
    elif rollout.gateway_class.startswith("gke-l7-"):
        request.refuse(
            "rollout.gateway_class",
            "GKE's classes probe GET / unless a HealthCheckPolicy names the Service, and here that is a new one with every "
            "cluster: another controller's class, for example istio",
        )


def _refuse_older_kuberay(request: ServiceRequest, key: str) -> None:
    kuberay, needed = request.kuberay, ".".join(map(str, SUSPEND_AND_INCREMENTAL))
    if kuberay.source is OperatorSource.GKE_ADDON:
        request.refuse(key, f"needs KubeRay {needed}, and Google decides the add-on's version: kuberay.source helm")
    elif kuberay.source is OperatorSource.HELM and version(kuberay.version) < SUSPEND_AND_INCREMENTAL:
        request.refuse(key, f"needs KubeRay {needed}, and kuberay.version is {kuberay.version}")


def surge_workers(scale: Scale, max_surge_percent: int, gpus_per_replica: int, gpus_per_worker: int) -> int:
    """Return the worker pods of the second cluster that runs beside the first during a rollout.

    Serve rounds each cluster's share of the replicas half up (get_capacity_adjusted_num_replicas in
    ray/serve/_private/utils.py), so both together may have one replica more than the surge allows.
    """
    most = scale.most_replicas
    if scale.upgrade is UpgradeStrategy.NONE:
        return 0
    if scale.upgrade is UpgradeStrategy.INCREMENTAL:
        most = min(most, floor(most * max_surge_percent / 100) + 1)
    return workers_for(most, gpus_per_replica, gpus_per_worker)


def workers_for(replicas: int, gpus_per_replica: int, gpus_per_worker: int) -> int:
    """Return the worker pods that hold so many replicas; on the CPU (no GPUs) one each."""
    return ceil(replicas * gpus_per_replica / gpus_per_worker) if gpus_per_worker else replicas


def group_maximum(mode: ClusterMode, most_workers: int) -> int:
    """Return `maxReplicas` of a worker group.

    KubeRay never changes it on a live RayCluster (kuberay #4568), so a maximum near today's need would limit all later growth.
    Serve's replica count, the node pool's maximum and a namespace's quota bound a service instead, and can be changed in place.
    On this machine it sizes the one Ray node, so there it stays near the need.
    """
    return 2 * most_workers if mode is ClusterMode.LOCAL else max(defaults.MOST_WORKERS, 2 * most_workers)


def start_timeout(ways: tuple[Capacity, ...]) -> int:
    """Return the seconds that a start may take before KubeRay gives up and Ray's autoscaler requests the pod again."""
    return defaults.QUEUED_START_TIMEOUT_SECONDS if Capacity.FLEX_START in ways else defaults.INITIALIZING_TIMEOUT_SECONDS


def scale_warnings(service: ServicePlan, cluster: ClusterPlan, kuberay: KuberayPlan) -> list[str]:
    """Return the warnings about how a service grows and changes."""
    warnings, strategy = [], f"rollout.strategy {service.upgrade.value}"
    change = f"{strategy}: a change of image, switches or resources"
    workers = service.workers
    if service.upgrade is UpgradeStrategy.NONE:
        further = ", and a further model has neither key nor volumes in its pods until then" if service.beside else ""
        warnings.append(f"{change} takes effect only when the RayCluster is deleted{further}")
    elif cluster.mode is ClusterMode.EXISTING and workers.gpus:
        at_once = (workers.most_workers + workers.surge_workers) * workers.gpus
        warnings.append(
            f"{change} needs {at_once} free GPUs at once ({workers.surge_workers * workers.gpus} for the second cluster); see to the "
            "cluster's own pools and quota"
        )
    if cluster.mode is ClusterMode.EXISTING and workers.gpus and workers.spare_workers > workers.surge_workers:
        warnings.append(
            f"rollout.spare_replicas {service.spare_replicas}: a change of model or engine needs "
            f"{workers.spare_workers * workers.gpus} free GPUs beside those in use"
        )
    if cluster.mode is ClusterMode.EXISTING and not cluster.on_google and workers.gpus and not service.asked.nodes.selector:
        warnings.append(
            "nodes.selector: without it the workers run on nodes with GKE's label cloud.google.com/gke-accelerator alone. Another "
            "Kubernetes needs labels of its own, for example {nvidia.com/gpu.product: NVIDIA-L4}"
        )
    if service.incremental:
        warnings.append(
            f"{strategy}: clients have to use the Gateway {service.name}-gateway that KubeRay makes (plain HTTP, port 80); the "
            "Service has no endpoints while an upgrade runs (kuberay #5148)"
        )
    if (service.incremental or service.parked) and kuberay.source is OperatorSource.PREINSTALLED:
        what = "park" if service.parked else strategy
        warnings.append(f"{what} needs KubeRay 1.7 or newer, operator and CRDs; an older one ignores it in silence")
    return [f"{service.name}: {warning}" for warning in warnings] + [
        f"{model.label}: autoscaling.target_ongoing_requests {model.autoscaling.target_ongoing_requests:g} is more than the "
        f"{model.limits.max_num_seqs} requests that a replica works on at once: a replica is added only when others wait"
        for model in service.models
        if model.autoscaling and (model.autoscaling.target_ongoing_requests or 0) > model.limits.max_num_seqs
    ]


def service_warnings(service: ServicePlan, cluster: ClusterPlan, kuberay: KuberayPlan) -> list[str]:
    """Warn of what is allowed in a service and may surprise."""
    warnings = [f"{service.name}: {warning}" for warning in service.warnings]
    # those of shared keys are the same for every model
    own = ((model, warning) for model in service.beside for warning in model.warnings if warning not in service.warnings)
    warnings += [f"{model.label}: {warning}" for model, warning in own]
    of_the_kit = service.image == service.runtime.image and service.accelerator is not Accelerator.CPU
    if of_the_kit and not service.runtime.image_confirmed:
        warnings.append(
            f"{service.name}: image tag {service.image} is not verified: check it before the first `pulumi up`, or set pods.runtime"
        )
    warnings += [*scale_warnings(service, cluster, kuberay), *zero_warnings(service), *disaggregation_warnings(service)]
    warnings += workload_warnings(service)
    generation = service.asked.rollout.ray_token_generation
    if service.upgrade is UpgradeStrategy.NONE and generation > 1:
        warnings.append(
            f"{service.name}: rollout.ray_token_generation {generation} with strategy none: Ray keeps its old token until the "
            "RayCluster is deleted"
        )
    return warnings
