"""Decide what a service without replicas needs, and refuse what cannot hold a request until a replica runs."""

from rayline.facts import defaults
from rayline.facts.choices import Accelerator, Capacity, UpgradeStrategy, WeightsSource
from rayline.facts.runtimes import MIN_RAY_VERSION_FOR_ZERO
from rayline.facts.variables import PROXY_GATE_VARIABLE
from rayline.service.request import ServiceRequest
from rayline.service.types import ServicePlan

_KEY = "autoscaling.min_replicas"
# Time limits of HAProxy that a held request runs into. Ray has none for the server, and an hour for the client.
_TIME_LIMITS = ("RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S", "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S")


def check_zero(request: ServiceRequest, upgrade: UpgradeStrategy) -> None:
    """Refuse settings that exclude a service without replicas."""
    service, scaling = request.arguments, request.arguments.autoscaling
    if scaling is None:
        return
    if not scaling.to_zero:
        why = f"only with min_replicas 0, and it is {scaling.min_replicas}: leave it out"
        request.refuse_if_said("autoscaling", ("downscale_to_zero_delay_seconds",), why)
        return
    if request.has_older_ray(MIN_RAY_VERSION_FOR_ZERO):
        why = f"0 needs Ray {MIN_RAY_VERSION_FOR_ZERO}, and pods.runtime is {service.pods.runtime}: at least 1"
        request.refuse(_KEY, f"{why} (older ones do not come back from none, ray#59076)")
    if not service.switches.direct_streaming:
        why = "without switches.direct_streaming the replicas of OpenAiIngress keep a worker with its GPU: turn it on, or at least 1"
        request.refuse(_KEY, why)
    if upgrade is UpgradeStrategy.INCREMENTAL:
        request.refuse(_KEY, "rollout.strategy incremental moves traffic by running replicas: at least 1, new-cluster or none")
    if service.nodes.capacity is Capacity.FLEX_START:
        why = "nodes.capacity flex-start queues for a machine, for hours, and no request waits so long: at least 1, or another capacity"
        request.refuse(_KEY, why)
    if service.api.key and PROXY_GATE_VARIABLE in service.pods.env:
        why = "with autoscaling.min_replicas 0 and api.key the kit puts its gate there: leave it out"
        request.refuse(f"pods.env.{PROXY_GATE_VARIABLE}", why, service.pods.env[PROXY_GATE_VARIABLE])


def zero_warnings(service: ServicePlan) -> list[str]:
    """Warn of what makes a start of a service without replicas long or dear."""
    if not service.scales_to_zero:
        return []
    warnings = []
    if not service.asked.api.key:
        warnings.append("api.key false: every request without a key starts a replica, a scanner's too")
    if service.weights.source is WeightsSource.HUB and service.accelerator is not Accelerator.CPU:
        warnings.append(
            f"weights.source hub: each start on a new node downloads {service.model.weights_bytes / 2**30:.1f} GiB while requests "
            "wait; weights in a bucket start sooner"
        )
    warnings += [
        f"pods.env.{name} {limit}: a request that waits longer for the model is cut"
        for name in _TIME_LIMITS
        if (limit := service.asked.pods.env.get(name)) and limit.isdigit() and 0 < int(limit) < defaults.WAKE_SECONDS
    ]
    return [f"{service.name}: {_KEY} 0 with {warning}" for warning in warnings]


def longest_wait_seconds(service: ServicePlan) -> int:
    """Return how long a request may wait for a replica before its answer begins."""
    return defaults.WAKE_SECONDS if service.scales_to_zero else 0
