"""What the plan of a cluster consists of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rayline.facts.accelerators import MachineType
from rayline.facts.choices import ClusterMode, ExclusionScope, ReleaseChannel


@dataclass(frozen=True)
class SystemPool:
    """The CPU node pool of heads and operators."""

    machine: MachineType
    min_nodes: int
    max_nodes: int
    hourly_usd: float | None


@dataclass(frozen=True)
class MaintenanceExclusion:
    """A time without upgrades; without `end` it lasts until the end of support of the cluster's version."""

    name: str
    start: str
    end: str | None
    scope: ExclusionScope


@dataclass(frozen=True)
class Maintenance:
    """The first window, how it comes back, and the times when it does not count. Times are UTC, as Google writes them."""

    start: str
    end: str
    recurrence: str
    exclusions: tuple[MaintenanceExclusion, ...] = ()


@dataclass(frozen=True)
class ClusterPlan:
    """Where the services run."""

    mode: ClusterMode
    project: str | None = None
    region: str | None = None
    location: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    release_channel: ReleaseChannel = ReleaseChannel.REGULAR
    private_nodes: bool = True
    deletion_protection: bool = True
    nodes_cidr: str = ""
    pods_cidr: str = ""
    services_cidr: str = ""
    system_pool: SystemPool | None = None
    zones: tuple[str, ...] = ()
    """Zones of the nodes; empty means that Google picks."""
    dns_endpoint: bool = True
    authorized_networks: tuple[tuple[str, str], ...] = ()
    """(CIDR, name) of each; empty means no IP endpoint."""
    maintenance: Maintenance | None = None
    metrics: tuple[str, ...] = ()
    managed_prometheus: bool = True
    workload_logs: bool = True
    image_streaming: bool = True
    cost_allocation: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    apis: tuple[str, ...] = ()
    """Google APIs to turn on; empty where somebody else does."""
    secret_manager: bool = False
    """The add-on that mounts secrets of Secret Manager."""
    gcs_fuse: bool = False
    """The driver that mounts buckets."""
