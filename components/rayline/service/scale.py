"""How many replicas and workers a service has, and what a change of its RayCluster needs beside them."""

from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import Accelerator, Capacity, ClusterMode, OperatorSource, UpgradeStrategy
from rayline.kuberay.types import KuberayPlan
from rayline.schema.check import Check, version
from rayline.service.arguments import RolloutArgs, ServiceArgs
from rayline.service.types import Autoscaling, EngineLimits, MemoryFit, ServicePlan

# `suspend` of a RayService and the incremental upgrade are KubeRay's since this version.
SUSPEND_AND_INCREMENTAL = (1, 7)
# A prompt and its answer for the sizing of concurrency: this share of the longest context.
TYPICAL_SHARE_OF_CONTEXT = 8


@dataclass(frozen=True)
class Scale:
    """What a stack file asks for: `replicas` to begin with and never fewer, `most_replicas` under load."""

    replicas: int
    most_replicas: int
    upgrade: UpgradeStrategy
    max_surge_percent: int = 100
    """With upgrade incremental: capacity that may run beside the full one."""


def plan_scale(check: Check, path: str, asked: ServiceArgs, cluster: ClusterPlan, kuberay: KuberayPlan) -> Scale:
    """Decide counts and upgrade strategy of one service; what only the engine's limits decide comes later."""
    upgrade = _upgrade(check, path, asked, cluster, kuberay)
    if asked.park and cluster.mode is ClusterMode.LOCAL:
        check.refuse(f"{path}.park", True, "this machine has no GPU to give back: `rayline down` ends the service")
    elif asked.park:
        _needs_suspend_and_incremental(check, f"{path}.park", True, kuberay)
    if asked.park and upgrade is UpgradeStrategy.INCREMENTAL:
        check.refuse(
            f"{path}.park",
            True,
            "a parked service loses the Gateway of rollout.strategy incremental, and its address with it: new-cluster or none",
        )
    scaling = asked.autoscaling
    if scaling is None:
        return Scale(asked.replicas, asked.replicas, upgrade, asked.rollout.max_surge_percent)
    if asked.said("replicas"):
        check.refuse(
            f"{path}.replicas",
            asked.replicas,
            "with autoscaling the count follows the load: leave it out, or leave autoscaling out",
        )
    if scaling.max_replicas < scaling.min_replicas:
        check.refuse(
            f"{path}.autoscaling.max_replicas", scaling.max_replicas, f"at least min_replicas, which is {scaling.min_replicas}"
        )
    most = max(scaling.min_replicas, scaling.max_replicas)
    return Scale(scaling.min_replicas, most, upgrade, asked.rollout.max_surge_percent)


def plan_autoscaling(asked: ServiceArgs, limits: EngineLimits, fit: MemoryFit) -> Autoscaling | None:
    """Return the autoscaling of a service whose engine limits are decided; None where the count is fixed."""
    scaling = asked.autoscaling
    return scaling and Autoscaling(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        target_ongoing_requests=float(scaling.target_ongoing_requests or default_target(limits, fit)),
        upscale_delay_seconds=scaling.upscale_delay_seconds,
        downscale_delay_seconds=scaling.downscale_delay_seconds,
    )


def default_target(limits: EngineLimits, fit: MemoryFit) -> int:
    """Requests a replica should have at a time: a share of what it works on at once.

    It works on `max_num_seqs` at most, and on no more typical requests than the KV cache holds; the others wait inside vLLM.
    A target at that number would add a replica only when requests wait already, and a replica takes minutes to load.
    """
    typical = max(1, limits.max_model_len // TYPICAL_SHARE_OF_CONTEXT)
    at_once = min(limits.max_num_seqs, int(fit.sequences(typical)))
    return max(1, floor(at_once * defaults.TARGET_SHARE_OF_CONCURRENCY))


def _upgrade(check: Check, path: str, asked: ServiceArgs, cluster: ClusterPlan, kuberay: KuberayPlan) -> UpgradeStrategy:
    rollout, path = asked.rollout, f"{path}.rollout"
    strategy = rollout.strategy or (UpgradeStrategy.NONE if asked.nodes.reservation else defaults.UPGRADE)
    if strategy is UpgradeStrategy.INCREMENTAL:
        _check_incremental(check, path, rollout, cluster, kuberay)
        return strategy
    for key in ("gateway_class", "max_surge_percent", "step_size_percent", "interval_seconds"):
        if rollout.said(key):
            check.refuse(
                f"{path}.{key}", None, f"only with rollout.strategy incremental, and it is {strategy.value}: leave it out"
            )
    return strategy


def _check_incremental(check: Check, path: str, rollout: RolloutArgs, cluster: ClusterPlan, kuberay: KuberayPlan) -> None:
    if cluster.mode is ClusterMode.LOCAL:
        check.refuse(f"{path}.strategy", rollout.strategy, "this machine has no second cluster: new-cluster or none")
    else:
        _needs_suspend_and_incremental(check, f"{path}.strategy", rollout.strategy, kuberay)
    if rollout.step_size_percent and rollout.step_size_percent > rollout.max_surge_percent:
        check.refuse(
            f"{path}.step_size_percent",
            rollout.step_size_percent,
            f"at most max_surge_percent, which is {rollout.max_surge_percent}",
        )
    if not rollout.gateway_class:
        check.refuse(
            f"{path}.gateway_class",
            None,
            "required: the class of the Gateway that KubeRay makes, for example istio; `kubectl get gatewayclass` lists yours",
        )
    elif rollout.gateway_class.startswith("gke-l7-"):
        check.refuse(
            f"{path}.gateway_class",
            rollout.gateway_class,
            "GKE's classes probe GET / unless a HealthCheckPolicy names the Service, and here that is a new one with every "
            "cluster: another controller's class, for example istio",
        )


def _needs_suspend_and_incremental(check: Check, path: str, value: Any, kuberay: KuberayPlan) -> None:
    wanted = ".".join(str(part) for part in SUSPEND_AND_INCREMENTAL)
    if kuberay.source is OperatorSource.GKE_ADDON:
        check.refuse(path, value, f"needs KubeRay {wanted}, and Google decides the add-on's version: kuberay.source helm")
    elif kuberay.source is OperatorSource.HELM and version(kuberay.version) < SUSPEND_AND_INCREMENTAL:
        check.refuse(path, value, f"needs KubeRay {wanted}, and kuberay.version is {kuberay.version}")


def surge_workers(scale: Scale, gpus_per_replica: int, gpus_per_worker: int) -> int:
    """Worker pods that a second cluster has beside the first while a change of type new-cluster or incremental lasts.

    Serve rounds each cluster's share of the replicas half up (get_capacity_adjusted_num_replicas in
    ray/serve/_private/utils.py), so that both together may be one replica more than the surge says.
    """
    most = scale.most_replicas
    if scale.upgrade is UpgradeStrategy.NONE:
        return 0
    if scale.upgrade is UpgradeStrategy.INCREMENTAL:
        most = min(most, floor(most * scale.max_surge_percent / 100) + 1)
    return workers_for(most, gpus_per_replica, gpus_per_worker)


def workers_for(replicas: int, gpus_per_replica: int, gpus_per_worker: int) -> int:
    """Worker pods that hold so many replicas; on the CPU (no GPUs) one each."""
    return ceil(replicas * gpus_per_replica / gpus_per_worker) if gpus_per_worker else replicas


def group_maximum(mode: ClusterMode, most_workers: int) -> int:
    """`maxReplicas` of a worker group.

    KubeRay never changes it on a live RayCluster (kuberay #4568), so a maximum near today's need would be the wall of
    tomorrow's. What bounds a service is the count that Serve is told, the node pool's maximum and a namespace's quota, and
    those can be changed in place. On this machine the one Ray node is sized by it, so there it stays near the need.
    """
    return 2 * most_workers if mode is ClusterMode.LOCAL else max(defaults.MOST_WORKERS, 2 * most_workers)


def start_timeout(ways: tuple[Capacity, ...]) -> int:
    """Seconds that a start may take before KubeRay gives up and Ray's autoscaler asks for the pod again."""
    return defaults.QUEUED_START_TIMEOUT_SECONDS if Capacity.FLEX_START in ways else defaults.INITIALIZING_TIMEOUT_SECONDS


def scale_warnings(service: ServicePlan, cluster: ClusterPlan, kuberay: KuberayPlan) -> list[str]:
    """What a reader of the plan should know about how this service grows and changes."""
    found = []
    if service.upgrade is UpgradeStrategy.NONE:
        found.append(
            f"{service.name}: rollout.strategy none: a change of image, switches or resources takes effect only when the RayCluster is deleted"
        )
    elif cluster.mode is ClusterMode.EXISTING and service.workers.gpus:
        at_once = (service.workers.most_workers + service.workers.surge_workers) * service.workers.gpus
        found.append(
            f"{service.name}: rollout.strategy {service.upgrade.value}: a change of image, switches or resources needs {at_once} free "
            f"GPUs at once ({service.workers.surge_workers * service.workers.gpus} for the second cluster); see to the "
            "cluster's own pools and quota"
        )
    if service.incremental:
        found.append(
            f"{service.name}: rollout.strategy incremental: clients have to use the Gateway {service.name}-gateway that KubeRay makes "
            "(plain HTTP, port 80); the Service has no endpoints while an upgrade goes on (kuberay #5148)"
        )
    if (service.incremental or service.parked) and kuberay.source is OperatorSource.PREINSTALLED:
        what = "park" if service.parked else "rollout.strategy incremental"
        found.append(
            f"{service.name}: {what} needs KubeRay 1.7 or newer, operator and CRDs; an older one ignores it in silence"
        )
    scaling = service.autoscaling
    if scaling and scaling.target_ongoing_requests > service.limits.max_num_seqs:
        found.append(
            f"{service.name}: autoscaling.target_ongoing_requests {scaling.target_ongoing_requests:g} is more than the "
            f"{service.limits.max_num_seqs} requests that a replica works on at once: a replica is added only when others wait"
        )
    return found


def service_warnings(service: ServicePlan, cluster: ClusterPlan, kuberay: KuberayPlan) -> list[str]:
    """Warn of what is allowed in a service and may surprise."""
    warnings = [f"{service.name}: {warning}" for warning in service.warnings]
    of_the_kit = service.image == service.runtime.image and service.accelerator is not Accelerator.CPU
    if of_the_kit and not service.runtime.image_confirmed:
        warnings.append(
            f"{service.name}: image tag {service.image} is not verified: check it before the first `pulumi up`, or set pods.runtime"
        )
    warnings += scale_warnings(service, cluster, kuberay)
    generation = service.asked.rollout.ray_token_generation
    if service.upgrade is UpgradeStrategy.NONE and generation > 1:
        warnings.append(
            f"{service.name}: rollout.ray_token_generation {generation} with strategy none: Ray keeps its old token until the "
            "RayCluster is deleted"
        )
    return warnings
