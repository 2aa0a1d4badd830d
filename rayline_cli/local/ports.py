"""The ports of a Ray node: their numbers in a pod, and free ones on this machine. Pure: no socket is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rayline_cli.local.failures import TranslationError

LOOPBACK = "127.0.0.1"
REPLICA_PORTS = 1000
"""Number of ports that Serve may give to replicas, counted from the port "replicas"."""
TRANSFER_PORTS = 100
"""Number of ports for the engines of one side, prefill or decode: one for each replica, by its rank."""


@dataclass(frozen=True)
class Port:
    """A port that has a fixed number in a pod."""

    name: str
    number: int
    flag: str = ""
    """The flag of `ray start` that sets it."""
    env: str = ""
    """The environment variable that sets it."""
    width: int = 1
    """Number of consecutive ports."""


PORTS: tuple[Port, ...] = (
    Port("serve", 8000),  # http_options.port
    Port("dashboard", 8265, flag="dashboard-port"),
    Port("gcs", 6379, flag="port"),
    Port("agent", 52365, flag="dashboard-agent-listen-port"),
    # Any free ports in a pod. The raylet waits 15 s for an agent to write its port, unless `ray start` sets it.
    Port("agent-grpc", 52366, flag="dashboard-agent-grpc-port"),
    Port("runtime-env-agent", 52367, flag="runtime-env-agent-port"),
    Port("metrics", 8080, flag="metrics-export-port"),  # KubeRay's default, not Ray's
    Port("haproxy-metrics", 9101, env="RAY_SERVE_HAPROXY_METRICS_PORT"),
    Port("haproxy-stats", 8404, env="RAY_SERVE_HAPROXY_STATS_PORT"),
    Port("fallback", 8500, env="RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"),
    Port("dashboard-metrics", 44227, env="DASHBOARD_METRIC_PORT"),
    Port("prefill", 20000, width=TRANSFER_PORTS),  # of the LLMConfig's experimental_configs
    Port("decode", 22000, width=TRANSFER_PORTS),
    Port("replicas", 30000, env="RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", width=REPLICA_PORTS),
)


def choose_ports(declared: Mapping[str, int], is_taken: Callable[[int], bool]) -> dict[str, int]:
    """Return a free port for each of `declared`: the declared one, or the next free one in steps of 100.

    Steps of 100 keep the last two digits, so that 8365 is still recognised as the dashboard. A range (the replicas')
    moves by its own width.
    """
    chosen: dict[str, int] = {}
    used: set[int] = set()
    for port in PORTS:
        first, step = declared[port.name], max(100, port.width)
        for start in range(first, 65536 - port.width, step):
            numbers = range(start, start + port.width)
            if not any(number in used or is_taken(number) for number in numbers):
                break
        else:
            raise TranslationError(
                f"no free port for {port.name}: {first} and every {step}th above it are taken. Fix: end what listens there"
            )
        chosen[port.name] = start
        used.update(numbers)
    return chosen


def address(port: int) -> str:
    """Return the address of a port of this machine."""
    return f"http://{LOOPBACK}:{port}"
