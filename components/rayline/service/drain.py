"""Derive from the longest stream how long each stage waits when a pod or a RayCluster is removed."""

from dataclasses import dataclass

# Between HAProxy's own end and Ray's, between Ray's and the kubelet's SIGKILL: time for what runs after each.
MARGIN_SECONDS = 30


@dataclass(frozen=True)
class DrainTimes:
    """Seconds, in the order in which the stages end. A shorter later stage would cut the streams of all before it."""

    stream: int
    """The longest answer that finishes during a rollout."""
    replica: int
    """Serve's graceful_shutdown_timeout_s: a replaced replica finishes its answers."""
    haproxy: int
    """HAProxy's hard-stop-after: an old HAProxy process lives on for its streams after every change of replicas (ray 66056)."""
    gateway: int
    """Connection draining of a load balancer in front, after it removed a pod. Google's limit is an hour."""
    ray: int
    """RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: `ray start --block` drains its node after SIGTERM."""
    pod: int
    """terminationGracePeriodSeconds: the kubelet's SIGKILL comes after Ray's drain."""
    cluster: int
    """rayClusterDeletionDelaySeconds: the old RayCluster outlives the switch to the new one (kuberay 4126)."""


def drain_times(longest_stream_seconds: int) -> DrainTimes:
    """Return the times of all stages for the longest stream. No stage computes its own."""
    longest = longest_stream_seconds
    ray = longest + MARGIN_SECONDS
    pod = ray + MARGIN_SECONDS
    return DrainTimes(stream=longest, replica=longest, haproxy=longest, gateway=longest, ray=ray, pod=pod, cluster=pod)
