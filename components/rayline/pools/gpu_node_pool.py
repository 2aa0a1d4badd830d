"""A pool of GPU nodes: one machine type, one capacity, one taint.

Return types that name pulumi_gcp stand in quotes: that module loads several megabytes, which stacks without a Google cluster
need not wait for.
"""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.cluster.nodes import node_settings
from rayline.facts.accelerators import ACCELERATORS, GPU_RESOURCE
from rayline.facts.capacities import FLEX_START_MAX_HOURS
from rayline.facts.choices import Accelerator, Capacity
from rayline.facts.labels import POOL_LABEL
from rayline.facts.names import GKE, fitted

# GKE's managed DRANET runs on nodes with this label and gives their RDMA network cards to pods that claim them.
DRANET_LABEL = "cloud.google.com/gke-networking-dra-driver"


class GpuNodePoolArgs(TypedDict):
    """A GPU node pool of a GKE cluster."""

    project: str
    """Google Cloud project."""
    location: str
    """Location of the cluster."""
    cluster: pulumi.Input[str]
    """Name of the cluster."""
    service_account: pulumi.Input[str]
    """E-mail of the account that the nodes run as."""
    pool: str
    """Value of the label rayline/pool on every node."""
    accelerator: Accelerator
    """The card."""
    machine_type: str
    """Machine type."""
    gpus_per_node: int
    """Cards of one machine."""
    capacity: Capacity
    """How Google provides the nodes."""
    reservation: NotRequired[str | None]
    """The reservation, with capacity reservation: NAME, NAME/reservationBlocks/BLOCK, projects/PROJECT/reservations/NAME."""
    max_run_hours: NotRequired[int | None]
    """Life of a machine, with capacity flex-start, 1 to 168 hours. Default 168."""
    zones: NotRequired[list[str]]
    """Zones of the nodes; one with a reservation and with rdma."""
    secondary_boot_disk: NotRequired[str | None]
    """Disk image with container images in it: projects/PROJECT/global/images/IMAGE. A change replaces the pool."""
    image_streaming: NotRequired[bool]
    """Start containers before their image is whole. Default true; a secondary boot disk needs it."""
    rdma: NotRequired[bool | None]
    """Networks between the GPUs of several machines, made by GKE; pods claim the cards. A3 Ultra and A4 only. Default false."""
    drain_seconds: NotRequired[int]
    """Longest time that a pod may take to end when its node goes. Default: GKE's."""
    max_nodes: int
    """Most nodes, in all zones together. The fewest are none."""
    boot_disk_gib: int
    """Boot disk of each node, GiB: images and weights."""
    private_nodes: bool
    """Nodes without public addresses."""
    deletion_protection: bool
    """Refuse a change that would replace or remove the pool: its machines may not come back."""


class GpuNodePool(pulumi.ComponentResource):
    """One GPU node pool. Create it after a CPU pool: GKE behaves differently where every pool has GPUs."""

    pool_name: pulumi.Output[str]
    """Name of the node pool."""

    def __init__(self, name: str, args: GpuNodePoolArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:GpuNodePool", name, dict(args), opts)
        capacity = Capacity(args["capacity"])
        if capacity is Capacity.LADDER:
            raise ValueError("capacity ladder is a ComputeClass, not a node pool")
        if capacity is Capacity.RESERVATION and not (args.get("reservation") and len(args.get("zones") or ()) == 1):
            raise ValueError("capacity reservation needs the reservation and its one zone")
        drain_seconds = args.get("drain_seconds")
        end = f"-{args['pool']}"
        pool = gcp.container.NodePool(
            # the pool's own name, with which the platform's ends, stays whole
            fitted(name.removesuffix(end), GKE, tail=args["pool"] if name.endswith(end) else ""),
            project=args["project"],
            location=args["location"],
            cluster=args["cluster"],
            node_locations=args.get("zones") or None,
            autoscaling={
                "total_min_node_count": 0,
                "total_max_node_count": args["max_nodes"],
                "location_policy": "ANY",  # "prioritize unused reservations, reduce Spot preemption"
            },
            # GKE refuses flex-start with auto-repair: a repaired machine would have to be requested again
            management={"auto_repair": capacity is not Capacity.FLEX_START, "auto_upgrade": True},
            # the default surge of one needs a GPU node that is not to be had
            upgrade_settings={"strategy": "SURGE", "max_surge": 0, "max_unavailable": 1},
            network_config={
                "enable_private_nodes": args["private_nodes"],
                "accelerator_network_profile": "auto" if args.get("rdma") else None,
            },
            # the deletion of a pool waits for its pods' budgets and streams as an upgrade does
            node_drain_configs=[
                {
                    "respect_pdb_during_node_pool_deletion": True,
                    "grace_termination_duration": f"{drain_seconds}s" if drain_seconds else None,
                }
            ],
            node_config=_node_config(args, capacity),
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=args["deletion_protection"],
                # set by the autoscaler and by GKE; on these machines the local SSDs come with the machine type
                ignore_changes=["initialNodeCount", "nodeConfig.resourceLabels", "nodeConfig.ephemeralStorageLocalSsdConfig"],
                custom_timeouts=pulumi.CustomTimeouts(create="60m", update="60m", delete="60m"),
            ),
        )
        self.pool_name = pool.name
        self.register_outputs({"pool_name": self.pool_name})


def _node_config(args: GpuNodePoolArgs, capacity: Capacity) -> "gcp.container.NodePoolNodeConfigArgsDict":
    spec = ACCELERATORS[args["accelerator"]]
    settings = node_settings(
        pool=args["pool"],
        machine_type=args["machine_type"],
        disk_type=spec.boot_disk_type,
        disk_gib=args["boot_disk_gib"],
        account=args["service_account"],
        image_streaming=args.get("image_streaming", True),
    )
    if args.get("rdma"):
        settings["labels"] = {POOL_LABEL: args["pool"], DRANET_LABEL: "true"}
    if local_ssds := spec.local_ssds.get(args["machine_type"]):
        settings["ephemeral_storage_local_ssd_config"] = {"local_ssd_count": local_ssds}
    if image := args.get("secondary_boot_disk"):
        settings["secondary_boot_disks"] = [{"disk_image": image, "mode": "CONTAINER_IMAGE_CACHE"}]
    if capacity is Capacity.SPOT:
        settings["spot"] = True
    if capacity is Capacity.FLEX_START:
        settings["flex_start"] = True
        settings["max_run_duration"] = f"{(args.get('max_run_hours') or FLEX_START_MAX_HOURS) * 3600}s"
    # stated although the machine type implies it: else there is no place for the driver
    settings["guest_accelerators"] = [
        {
            "type": spec.gke_type,
            "count": args["gpus_per_node"],
            "gpu_driver_installation_config": {"gpu_driver_version": spec.driver_version},
        }
    ]
    # GKE adds this taint only in some cases (terraform-google-kubernetes-engine #703); stating it keeps every pool alike
    settings["taints"] = [{"key": GPU_RESOURCE, "value": "present", "effect": "NO_SCHEDULE"}]
    settings["gvnic"] = {"enabled": True}
    settings["reservation_affinity"] = _reservation(args, capacity)
    return settings


def _reservation(args: GpuNodePoolArgs, capacity: Capacity) -> "gcp.container.NodePoolNodeConfigReservationAffinityArgsDict":
    if capacity is Capacity.ANY_RESERVATION:
        return {"consume_reservation_type": "ANY_RESERVATION"}
    if capacity is not Capacity.RESERVATION:
        # a pool without a reservation must not use up another team's
        return {"consume_reservation_type": "NO_RESERVATION"}
    return {
        "consume_reservation_type": "SPECIFIC_RESERVATION",
        "key": "compute.googleapis.com/reservation-name",
        "values": [args.get("reservation") or ""],
    }
