"""How long each stage waits when a pod or a whole RayCluster goes, all derived from the longest stream."""

from dataclasses import dataclass

# Between HAProxy's own end and Ray's, between Ray's and the kubelet's SIGKILL: time for what runs after each.
MARGIN_SECONDS = 30


@dataclass(frozen=True)
class DrainTimes:
    """Seconds, in the order in which the stages run out. A later one that is shorter would cut the streams of all before it."""

    stream: int
    """The longest answer that a change may still finish."""
    replica: int
    """Serve's graceful_shutdown_timeout_s: a replica that is replaced finishes its answers."""
    haproxy: int
    """HAProxy's hard-stop-after: an old HAProxy process lives on for its streams after every change of replicas (ray 66056)."""
    gateway: int
    """Connection draining of a load balancer in front, after it has taken a pod out. Google ends at an hour."""
    ray: int
    """RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S: `ray start --block` drains its node after SIGTERM."""
    pod: int
    """terminationGracePeriodSeconds: the kubelet's SIGKILL comes after Ray's drain."""
    cluster: int
    """rayClusterDeletionDelaySeconds: the old RayCluster outlives the switch to the new one (kuberay 4126)."""


def drain_times(longest_stream_seconds: int) -> DrainTimes:
    """Every time of the chain for the longest stream. The one place: no stage computes its own."""
    longest = longest_stream_seconds
    ray = longest + MARGIN_SECONDS
    pod = ray + MARGIN_SECONDS
    return DrainTimes(stream=longest, replica=longest, haproxy=longest, gateway=longest, ray=ray, pod=pod, cluster=pod)
