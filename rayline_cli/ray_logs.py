"""Ray's log files by the component of a service, the same on this machine and in a pod."""

from collections.abc import Mapping

from rayline_cli.errors import UsageError

LOG_COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "ray": ("raylet.*", "gcs_server.*", "ray_process_exit.log", "monitor.*"),
    "dashboard": ("dashboard.*", "dashboard_ServeHead.*", "dashboard_agent.*"),
    "controller": ("serve/controller_*.log",),
    "replica": ("serve/replica_*.log", "worker-*"),
    "haproxy": ("serve/proxy_*.log",),
}
"""Component -> file patterns in Ray's log folder."""


def log_patterns(component: str | None, *others: str) -> tuple[str, ...]:
    """Return the patterns of a component's log files, or of all. Raises UsageError, whose list of components has `others` too."""
    if component is None:
        return sum(LOG_COMPONENTS.values(), ())
    if component not in LOG_COMPONENTS:
        raise UsageError(f"--component {component}: unknown. Fix: one of {', '.join([*LOG_COMPONENTS, *others])}")
    return LOG_COMPONENTS[component]
