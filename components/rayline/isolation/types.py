"""What keeps the platform and its neighbours apart."""

from dataclasses import dataclass

from rayline.facts.choices import PodSecurity


@dataclass(frozen=True)
class Quota:
    """The most that the namespace may hold."""

    pods: int
    gpus: int
    """0 where no service runs on GPUs."""


@dataclass(frozen=True)
class IsolationPlan:
    """What keeps the platform and its neighbours apart."""

    pod_security: PodSecurity
    network_policies: bool
    allow_from_namespaces: tuple[str, ...]
    """Namespaces whose pods may call the services."""
    allow_metrics_from_namespaces: tuple[str, ...]
    operator_namespace: str
    metadata_server: bool
    """Pods may ask GKE's metadata server, which is how Workload Identity hands out tokens."""
    managed_prometheus: bool
    """Google's managed Prometheus is there to read a PodMonitoring."""
    quota: Quota = Quota(pods=0, gpus=0)
    outbound_ports: tuple[int, ...] = ()
    """Ports outside that the services' variables and engine arguments name."""
