"""Types of the plan of a platform's isolation."""

from dataclasses import dataclass

from rayline.isolation.arguments import IsolationArgs


@dataclass(frozen=True)
class Quota:
    """Most pods and GPUs of the namespace; no GPUs where no service runs on them."""

    pods: int
    gpus: int


@dataclass(frozen=True)
class IsolationPlan:
    """Isolation of the namespace: `args` is what the stack says, with defaults; the other fields are decided."""

    args: IsolationArgs
    metrics_namespaces: tuple[str, ...]
    """Namespaces whose pods may read metrics."""
    operator_namespace: str
    metadata_server: bool
    """Whether pods may reach GKE's metadata server, from which Workload Identity takes its tokens."""
    managed_prometheus: bool
    """Whether Google's managed Prometheus is there to read a PodMonitoring."""
    quota: Quota = Quota(pods=0, gpus=0)
    outbound_ports: tuple[int, ...] = ()
    """Ports outside the cluster in the services' variables and engine arguments."""
