"""What a GPU node pool consists of."""

from dataclasses import dataclass

from rayline.facts.accelerators import MachineType
from rayline.facts.choices import Accelerator, Capacity


@dataclass(frozen=True)
class NodePool:
    """One GPU node pool. Counts are nodes in all zones together."""

    name: str
    accelerator: Accelerator
    machine: MachineType
    capacity: Capacity
    zones: tuple[str, ...]
    nodes: int
    """Nodes that the services need when nothing is being replaced and nothing drives autoscaling up; none for parked ones."""
    max_nodes: int
    """Nodes that GKE may have: for every service's most replicas, and for the second cluster that a change builds."""
    boot_disk_gib: int
    hourly_usd: float | None
    min_gke_version: str
    """The oldest GKE version that has the card and everything else that the pool asks for."""
    drain_seconds: int
    """Longest that a pod here may take to end."""
    order: tuple[Capacity, ...] = ()
    """A ladder's rungs, the first to try first. A ladder is a ComputeClass; GKE makes its pools."""
    reservation: str | None = None
    max_run_hours: int | None = None
    """Life of a flex-start machine."""
    secondary_boot_disk: str | None = None
    rdma: bool = False
    """Network cards between machines, for replicas that span them."""


@dataclass(frozen=True)
class PoolKey:
    """What two services have to agree on to share nodes. `ways` are the rungs of a ladder, else the one capacity."""

    machine: MachineType
    capacity: Capacity
    ways: tuple[Capacity, ...]
    zones: tuple[str, ...]
    reservation: str | None = None
    max_run_hours: int | None = None
    secondary_boot_disk: str | None = None
    rdma: bool = False
