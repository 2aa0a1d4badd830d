"""A pool of GPU nodes: one machine type, one way of getting it, one taint.

Return types that name pulumi_gcp stand in quotes: touching that module loads several megabytes, which stacks without a
Google cluster need not wait for.
"""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.facts.accelerators import ACCELERATORS, GPU_RESOURCE
from rayline.facts.capacities import FLEX_START_MAX_HOURS
from rayline.facts.choices import Accelerator, Capacity
from rayline.facts.google import CLOUD_PLATFORM
from rayline.facts.labels import POOL_LABEL
from rayline.facts.names import GKE, fitted

# GKE's managed DRANET runs on nodes with it and hands their RDMA network cards to pods that claim them.
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
    """How Google hands out the nodes."""
    reservation: NotRequired[str]
    """The reservation, with capacity reservation: NAME, NAME/reservationBlocks/BLOCK, projects/PROJECT/reservations/NAME."""
    max_run_hours: NotRequired[int]
    """Life of a machine, with capacity flex-start, 1 to 168 hours. Default 168."""
    zones: NotRequired[list[str]]
    """Zones of the nodes; one with a reservation and with rdma."""
    secondary_boot_disk: NotRequired[str]
    """Disk image with container images in it: projects/PROJECT/global/images/IMAGE. A change replaces the pool."""
    image_streaming: NotRequired[bool]
    """Start containers before their image is whole. Default true; a secondary boot disk needs it."""
    rdma: NotRequired[bool]
    """Networks between the GPUs of several machines, made by GKE; pods claim the cards. A3 Ultra and A4 only. Default false."""
    drain_seconds: NotRequired[int]
    """How long a pod may take to end when its node goes. Default: GKE's."""
    max_nodes: int
    """Most nodes, in all zones together. The fewest are none: pods bring nodes."""
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
            autoscaling=gcp.container.NodePoolAutoscalingArgs(
                total_min_node_count=0,
                total_max_node_count=args["max_nodes"],
                location_policy="ANY",  # "prioritize unused reservations, reduce Spot preemption"
            ),
            # GKE refuses flex-start with auto-repair: a repaired machine would have to be asked for anew
            management=gcp.container.NodePoolManagementArgs(auto_repair=capacity is not Capacity.FLEX_START, auto_upgrade=True),
            # the default surge of one asks for a GPU node that is not to be had
            upgrade_settings=gcp.container.NodePoolUpgradeSettingsArgs(strategy="SURGE", max_surge=0, max_unavailable=1),
            network_config=gcp.container.NodePoolNetworkConfigArgs(
                enable_private_nodes=args["private_nodes"], accelerator_network_profile="auto" if args.get("rdma") else None
            ),
            # a pool that goes waits for its pods' budgets and streams as an upgrade does
            node_drain_configs=[
                gcp.container.NodePoolNodeDrainConfigArgs(
                    respect_pdb_during_node_pool_deletion=True,
                    grace_termination_duration=f"{drain_seconds}s" if drain_seconds else None,
                )
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


def _node_config(args: GpuNodePoolArgs, capacity: Capacity) -> "gcp.container.NodePoolNodeConfigArgs":
    spec = ACCELERATORS[args["accelerator"]]
    local_ssds = spec.local_ssds.get(args["machine_type"])
    container = gcp.container
    return container.NodePoolNodeConfigArgs(
        machine_type=args["machine_type"],
        boot_disk=container.NodePoolNodeConfigBootDiskArgs(disk_type=spec.boot_disk_type, size_gb=args["boot_disk_gib"]),
        ephemeral_storage_local_ssd_config=container.NodePoolNodeConfigEphemeralStorageLocalSsdConfigArgs(
            local_ssd_count=local_ssds
        )
        if local_ssds
        else None,
        # stated although the machine type implies it: else there is no place for the driver
        guest_accelerators=[
            container.NodePoolNodeConfigGuestAcceleratorArgs(
                type=spec.gke_type,
                count=args["gpus_per_node"],
                gpu_driver_installation_config=container.NodePoolNodeConfigGuestAcceleratorGpuDriverInstallationConfigArgs(
                    gpu_driver_version=spec.driver_version
                ),
            )
        ],
        # GKE adds this taint only in some cases (terraform-google-kubernetes-engine #703); stating it keeps every pool alike
        taints=[container.NodePoolNodeConfigTaintArgs(key=GPU_RESOURCE, value="present", effect="NO_SCHEDULE")],
        labels={POOL_LABEL: args["pool"]} | ({DRANET_LABEL: "true"} if args.get("rdma") else {}),
        spot=True if capacity is Capacity.SPOT else None,
        flex_start=True if capacity is Capacity.FLEX_START else None,
        max_run_duration=f"{args.get('max_run_hours', FLEX_START_MAX_HOURS) * 3600}s"
        if capacity is Capacity.FLEX_START
        else None,
        reservation_affinity=_reservation(args, capacity),
        secondary_boot_disks=[container.NodePoolNodeConfigSecondaryBootDiskArgs(disk_image=image, mode="CONTAINER_IMAGE_CACHE")]
        if (image := args.get("secondary_boot_disk"))
        else None,
        service_account=args["service_account"],
        oauth_scopes=[CLOUD_PLATFORM],
        gvnic=container.NodePoolNodeConfigGvnicArgs(enabled=True),
        gcfs_config=container.NodePoolNodeConfigGcfsConfigArgs(enabled=args.get("image_streaming", True)),
        shielded_instance_config=container.NodePoolNodeConfigShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_integrity_monitoring=True
        ),
        workload_metadata_config=container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
    )


def _reservation(args: GpuNodePoolArgs, capacity: Capacity) -> "gcp.container.NodePoolNodeConfigReservationAffinityArgs":
    if capacity is Capacity.ANY_RESERVATION:
        return gcp.container.NodePoolNodeConfigReservationAffinityArgs(consume_reservation_type="ANY_RESERVATION")
    if capacity is Capacity.RESERVATION:
        return gcp.container.NodePoolNodeConfigReservationAffinityArgs(
            consume_reservation_type="SPECIFIC_RESERVATION",
            key="compute.googleapis.com/reservation-name",
            values=[args.get("reservation", "")],
        )
    # a pool without a reservation must not eat somebody else's
    return gcp.container.NodePoolNodeConfigReservationAffinityArgs(consume_reservation_type="NO_RESERVATION")
