"""Which of Ray's log files belong to which part of a service, the same on this machine and in a pod."""

from collections.abc import Mapping

LOG_COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "ray": ("raylet.*", "gcs_server.*", "ray_process_exit.log", "monitor.*"),
    "dashboard": ("dashboard.*", "dashboard_ServeHead.*", "dashboard_agent.*"),
    "controller": ("serve/controller_*.log",),
    "replica": ("serve/replica_*.log", "worker-*"),
    "haproxy": ("serve/proxy_*.log",),
}
"""Component -> file patterns in Ray's log folder."""
