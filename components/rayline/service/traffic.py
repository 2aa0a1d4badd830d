"""Decide how requests reach the replicas of a service, and how many; refuse what cannot work."""

from typing import Any

from rayline.facts.choices import Routing
from rayline.facts.labels import SESSION_ROUTER
from rayline.facts.runtimes import MIN_RAY_VERSION_FOR_TRAFFIC
from rayline.service.arguments import TrafficArgs
from rayline.service.request import ServiceRequest


def check_traffic(request: ServiceRequest) -> None:
    """Refuse routing and limits that the service's other settings exclude."""
    traffic, scaling = request.arguments.traffic, request.arguments.autoscaling
    set_keys = [key for key in TrafficArgs.model_fields if traffic.said(key)]
    if set_keys and not request.arguments.switches.direct_streaming:
        why = "routing and limits are of the direct path: turn switches.direct_streaming on, or leave it out"
        request.refuse_if_said("traffic", set_keys, why)
    if request.has_older_ray(MIN_RAY_VERSION_FOR_TRAFFIC):
        why = f"needs Ray {MIN_RAY_VERSION_FOR_TRAFFIC}, and pods.runtime is {request.arguments.pods.runtime}: leave it out"
        request.refuse_if_said("traffic", set_keys, why)
    if traffic.max_in_progress is None:
        why = "without traffic.max_in_progress no request waits in front of a replica: set it, or leave this out"
        request.refuse_if_said("traffic", ("max_queued", "retry_after_seconds"), why)
    elif scaling and traffic.max_in_progress <= (target := scaling.target_ongoing_requests or 1):
        # what waits in front of a replica does not count as in progress, so the mean never exceeds the limit
        why = f"more than autoscaling.target_ongoing_requests, which is {target:g}: no replica would be added"
        request.refuse("traffic.max_in_progress", why)


def traffic_settings(traffic: TrafficArgs) -> dict[str, Any]:
    """Return the settings of the model's deployment. Serve changes the limits without a new replica."""
    settings: dict[str, Any] = {}
    if traffic.routing is Routing.SESSIONS:
        settings["request_router_config"] = {"request_router_class": SESSION_ROUTER}
    if traffic.max_in_progress is not None:
        settings |= {
            "max_ongoing_requests": traffic.max_in_progress,
            "max_queued_requests": traffic.max_in_progress if traffic.max_queued is None else traffic.max_queued,
            "backpressure_config": {"status_code": 429, "retry_after_s": traffic.retry_after_seconds},
        }
    return settings
