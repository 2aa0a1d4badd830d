"""Types of the plan of a cluster."""

from dataclasses import dataclass

from rayline.cluster.arguments import ClusterArgs
from rayline.facts.accelerators import MachineType
from rayline.facts.choices import ClusterMode


@dataclass(frozen=True)
class SystemPool:
    """CPU node pool of the Ray heads and operators."""

    machine: MachineType
    min_nodes: int
    max_nodes: int
    hourly_usd: float | None


@dataclass(frozen=True)
class ClusterPlan:
    """Cluster of the services: `args` is what the stack says, with defaults; the other fields are decided."""

    args: ClusterArgs
    project: str | None = None
    region: str | None = None
    location: str | None = None
    system_pool: SystemPool | None = None
    """None where the stack creates no cluster."""
    zones: tuple[str, ...] = ()
    """Zones of the nodes; Google picks them when empty."""
    metrics: tuple[str, ...] = ()
    apis: tuple[str, ...] = ()
    """Google APIs to turn on; empty with cluster.enable_apis false."""
    secret_manager: bool = False
    """Whether the add-on that mounts secrets of Secret Manager is on."""
    gcs_fuse: bool = False
    """Whether the driver that mounts buckets is on."""

    @property
    def network_project(self) -> str | None:
        """Return the project of a network that exists; None where the kit makes the network."""
        existing = self.args.network.existing
        return existing.project if existing else None

    @property
    def mode(self) -> ClusterMode:
        """Return whether the cluster is created, exists, or is this machine."""
        return self.args.mode

    @property
    def on_google(self) -> bool:
        """Return whether it is a GKE cluster, created or existing, so that Google's resources can lie around it."""
        return self.mode is ClusterMode.CREATE or (self.mode is ClusterMode.EXISTING and self.args.gke)
