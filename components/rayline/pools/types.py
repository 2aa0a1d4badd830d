"""Types of the plan of GPU node pools."""

from dataclasses import dataclass

from rayline.facts.accelerators import MachineType
from rayline.facts.choices import Accelerator, Capacity


@dataclass(frozen=True)
class PoolKey:
    """Settings that two services must share to share nodes. `ways` are a ladder's rungs in order, else the one capacity."""

    machine: MachineType
    capacity: Capacity
    ways: tuple[Capacity, ...]
    zones: tuple[str, ...]
    reservation: str | None = None
    max_run_hours: int | None = None
    """Life of a flex-start machine."""
    secondary_boot_disk: str | None = None
    rdma: bool = False
    """Whether nodes have network cards between machines, for replicas that span them."""


@dataclass(frozen=True, kw_only=True)
class NodePool(PoolKey):
    """One GPU node pool; a ladder is a ComputeClass, whose pools GKE creates. Counts are nodes in all zones together."""

    name: str
    accelerator: Accelerator
    nodes: int
    """Nodes that the services need without a rollout and without load; none for parked services."""
    most_nodes: int
    """Nodes under the highest load of every service, without a rollout."""
    max_nodes: int
    """Most nodes: for the most replicas of each service, and for the second cluster of a rollout."""
    boot_disk_gib: int
    hourly_usd: float | None
    min_gke_version: str
    """Oldest GKE version with the card and the other features of the pool."""
    drain_seconds: int
    """Longest time that a pod of the pool may take to end."""
