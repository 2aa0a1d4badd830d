"""How many replicas and workers a service has, and what a change of its RayCluster needs beside them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import Capacity, ClusterMode, OperatorSource, UpgradeStrategy
from rayline.kuberay.types import KuberayPlan
from rayline.schema.check import Check, at_least_one, version
from rayline.service.types import Autoscaling, EngineLimits, IncrementalUpgrade, MemoryFit, ServicePlan

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
    incremental: IncrementalUpgrade | None
    parked: bool


def plan_scale(check: Check, path: str, given: Mapping[str, Any], cluster: ClusterPlan, kuberay: KuberayPlan) -> Scale:
    """Counts, upgrade strategy and parking of one service; what only the engine's limits decide comes later."""
    upgrade, incremental = _upgrade(check, path, given, cluster, kuberay)
    parked = bool(given.get("park", False))
    if parked and cluster.mode is ClusterMode.LOCAL:
        check.refuse(f"{path}.park", parked, "this machine has no GPU to give back: `rayline down` ends the service")
    elif parked:
        _needs_suspend_and_incremental(check, f"{path}.park", parked, kuberay)
    if parked and incremental:
        check.refuse(
            f"{path}.park",
            parked,
            "a parked service loses the Gateway of upgrade incremental, and its address with it: upgrade new-cluster or none",
        )
    asked = given.get("autoscaling")
    if asked is None:
        replicas = at_least_one(check, path, given, "replicas", defaults.REPLICAS)
        return Scale(replicas, replicas, upgrade, incremental, parked)
    if given.get("replicas") is not None:
        check.refuse(
            f"{path}.replicas",
            given["replicas"],
            "with autoscaling the count follows the load: leave it out, or leave autoscaling out",
        )
    least, most = asked.get("min_replicas", defaults.REPLICAS), asked.get("max_replicas")
    if least < 1:
        check.refuse(
            f"{path}.autoscaling.min_replicas",
            least,
            "at least 1: Ray Serve does not come back from none (ray#59076), and loading a model takes minutes; `park: true` frees the GPUs",
        )
        least = 1
    if most is None:
        check.refuse(
            f"{path}.autoscaling.max_replicas", None, "required: the node pool and its quota are planned for it"
        )
        most = least
    elif most < least:
        check.refuse(f"{path}.autoscaling.max_replicas", most, f"at least min_replicas, which is {least}")
        most = least
    return Scale(least, most, upgrade, incremental, parked)


def plan_autoscaling(
    check: Check, path: str, given: Mapping[str, Any], scale: Scale, limits: EngineLimits, fit: MemoryFit
) -> Autoscaling | None:
    """The autoscaling of a service whose engine limits are decided; None where the count is fixed."""
    asked = given.get("autoscaling")
    if asked is None:
        return None
    target = asked.get("target_ongoing_requests")
    if target is not None and target <= 0:
        check.refuse(f"{path}.autoscaling.target_ongoing_requests", target, "more than 0")
        target = None
    for key in ("upscale_delay_seconds", "downscale_delay_seconds"):
        if asked.get(key, 0) < 0:
            check.refuse(f"{path}.autoscaling.{key}", asked[key], "at least 0 seconds")
    return Autoscaling(
        min_replicas=scale.replicas,
        max_replicas=scale.most_replicas,
        target_ongoing_requests=float(target or default_target(limits, fit)),
        upscale_delay_seconds=asked.get("upscale_delay_seconds", defaults.UPSCALE_DELAY_SECONDS),
        downscale_delay_seconds=asked.get("downscale_delay_seconds", defaults.DOWNSCALE_DELAY_SECONDS),
    )


def default_target(limits: EngineLimits, fit: MemoryFit) -> int:
    """Requests a replica should have at a time: a share of what it works on at once.

    It works on `max_num_seqs` at most, and on no more typical requests than the KV cache holds; the others wait inside vLLM.
    A target at that number would add a replica only when requests wait already, and a replica takes minutes to load.
    """
    typical = max(1, limits.max_model_len // TYPICAL_SHARE_OF_CONTEXT)
    at_once = min(limits.max_num_seqs, int(fit.sequences(typical)))
    return max(1, floor(at_once * defaults.TARGET_SHARE_OF_CONCURRENCY))


def _upgrade(
    check: Check, path: str, given: Mapping[str, Any], cluster: ClusterPlan, kuberay: KuberayPlan
) -> tuple[UpgradeStrategy, IncrementalUpgrade | None]:
    reserved = UpgradeStrategy.NONE if given.get("reservation") else defaults.UPGRADE
    strategy = UpgradeStrategy(given.get("upgrade", reserved))
    asked = given.get("incremental_upgrade")
    if strategy is not UpgradeStrategy.INCREMENTAL:
        if asked is not None:
            check.refuse(
                f"{path}.incremental_upgrade", None, f"only with upgrade incremental, and it is {strategy.value}"
            )
        return strategy, None
    if cluster.mode is ClusterMode.LOCAL:
        check.refuse(f"{path}.upgrade", strategy, "this machine has no second cluster: new-cluster or none")
    else:
        _needs_suspend_and_incremental(check, f"{path}.upgrade", strategy, kuberay)
    asked = asked or {}
    where = f"{path}.incremental_upgrade"
    surge = asked.get("max_surge_percent", defaults.MAX_SURGE_PERCENT)
    step = asked.get("step_size_percent", min(defaults.STEP_SIZE_PERCENT, surge))
    interval = asked.get("interval_seconds", defaults.UPGRADE_INTERVAL_SECONDS)
    gateway = asked.get("gateway_class")
    if not 1 <= surge <= 100:
        check.refuse(f"{where}.max_surge_percent", surge, "1 to 100")
    if not 1 <= step <= 100:
        check.refuse(f"{where}.step_size_percent", step, "1 to 100")
    elif step > surge:
        check.refuse(f"{where}.step_size_percent", step, f"at most max_surge_percent, which is {surge}")
    if interval < 1:
        check.refuse(f"{where}.interval_seconds", interval, "at least 1")
    if not gateway:
        check.refuse(
            f"{where}.gateway_class",
            gateway,
            "required: the class of the Gateway that KubeRay makes, for example istio; `kubectl get gatewayclass` lists yours",
        )
    elif gateway.startswith("gke-l7-"):
        check.refuse(
            f"{where}.gateway_class",
            gateway,
            "GKE's classes probe GET / unless a HealthCheckPolicy names the Service, and here that is a new one with every "
            "cluster: another controller's class, for example istio",
        )
    return strategy, IncrementalUpgrade(surge, step, interval, gateway or "")


def _needs_suspend_and_incremental(check: Check, path: str, value: Any, kuberay: KuberayPlan) -> None:
    wanted = ".".join(str(part) for part in SUSPEND_AND_INCREMENTAL)
    if kuberay.source is OperatorSource.GKE_ADDON:
        check.refuse(
            path, value, f"needs KubeRay {wanted}, and Google decides the add-on's version: kuberay.source helm"
        )
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
    if scale.incremental:
        most = min(most, floor(most * scale.incremental.max_surge_percent / 100) + 1)
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
    return (
        defaults.QUEUED_START_TIMEOUT_SECONDS if Capacity.FLEX_START in ways else defaults.INITIALIZING_TIMEOUT_SECONDS
    )


def scale_warnings(service: ServicePlan, cluster: ClusterPlan, kuberay: KuberayPlan) -> list[str]:
    """What a reader of the plan should know about how this service grows and changes."""
    found = []
    if service.upgrade is UpgradeStrategy.NONE:
        found.append(
            f"{service.name}: upgrade none: a change of image, switches or resources takes effect only when the RayCluster is deleted"
        )
    elif cluster.mode is ClusterMode.EXISTING and service.workers.gpus:
        at_once = (service.workers.most_workers + service.workers.surge_workers) * service.workers.gpus
        found.append(
            f"{service.name}: upgrade {service.upgrade.value}: a change of image, switches or resources needs {at_once} free "
            f"GPUs at once ({service.workers.surge_workers * service.workers.gpus} for the second cluster); see to the "
            "cluster's own pools and quota"
        )
    if service.incremental:
        found.append(
            f"{service.name}: upgrade incremental: clients have to use the Gateway {service.name}-gateway that KubeRay makes "
            "(plain HTTP, port 80); the Service has no endpoints while an upgrade goes on (kuberay #5148)"
        )
    if (service.incremental or service.parked) and kuberay.source is OperatorSource.PREINSTALLED:
        what = "park" if service.parked else "upgrade incremental"
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
