"""A pool of GPU nodes: one machine type, one way of getting it, one taint.

Return types that name pulumi_gcp stand in quotes: touching that module loads several megabytes, which stacks without a
Google cluster need not wait for.
"""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from .facts.accelerators import ACCELERATORS, GPU_RESOURCE
from .facts.choices import Accelerator, Capacity
from .facts.google import CLOUD_PLATFORM
from .ray_service_manifest import POOL_LABEL


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
    """Name of the reservation, with capacity reservation."""
    zones: NotRequired[list[str]]
    """Zones of the nodes."""
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
        pool = gcp.container.NodePool(
            name,
            project=args["project"],
            location=args["location"],
            cluster=args["cluster"],
            node_locations=args.get("zones") or None,
            autoscaling=gcp.container.NodePoolAutoscalingArgs(
                total_min_node_count=0,
                total_max_node_count=args["max_nodes"],
                location_policy="ANY",  # "prioritize unused reservations, reduce Spot preemption"
            ),
            management=gcp.container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            # the default surge of one asks for a GPU node that is not to be had
            upgrade_settings=gcp.container.NodePoolUpgradeSettingsArgs(
                strategy="SURGE", max_surge=0, max_unavailable=1
            ),
            network_config=gcp.container.NodePoolNetworkConfigArgs(enable_private_nodes=args["private_nodes"]),
            node_config=_node_config(args),
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=args["deletion_protection"],
                # set by the autoscaler and by GKE; on these machines the local SSDs come with the machine type
                ignore_changes=[
                    "initialNodeCount",
                    "nodeConfig.resourceLabels",
                    "nodeConfig.ephemeralStorageLocalSsdConfig",
                ],
                custom_timeouts=pulumi.CustomTimeouts(create="60m", update="60m", delete="60m"),
            ),
        )
        self.pool_name = pool.name
        self.register_outputs({"pool_name": self.pool_name})


def _node_config(args: GpuNodePoolArgs) -> "gcp.container.NodePoolNodeConfigArgs":
    spec = ACCELERATORS[args["accelerator"]]
    local_ssds = spec.local_ssds.get(args["machine_type"])
    container = gcp.container
    return container.NodePoolNodeConfigArgs(
        machine_type=args["machine_type"],
        boot_disk=container.NodePoolNodeConfigBootDiskArgs(
            disk_type=spec.boot_disk_type, size_gb=args["boot_disk_gib"]
        ),
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
        labels={POOL_LABEL: args["pool"]},
        spot=True if Capacity(args["capacity"]) is Capacity.SPOT else None,
        reservation_affinity=_reservation(args),
        service_account=args["service_account"],
        oauth_scopes=[CLOUD_PLATFORM],
        gvnic=container.NodePoolNodeConfigGvnicArgs(enabled=True),
        gcfs_config=container.NodePoolNodeConfigGcfsConfigArgs(enabled=True),
        shielded_instance_config=container.NodePoolNodeConfigShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_integrity_monitoring=True
        ),
        workload_metadata_config=container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
    )


def _reservation(args: GpuNodePoolArgs) -> "gcp.container.NodePoolNodeConfigReservationAffinityArgs":
    # another program's SDK sends the text
    if Capacity(args["capacity"]) is Capacity.RESERVATION:
        return gcp.container.NodePoolNodeConfigReservationAffinityArgs(
            consume_reservation_type="SPECIFIC_RESERVATION",
            key="compute.googleapis.com/reservation-name",
            values=[args.get("reservation", "")],
        )
    # a pool without a reservation must not eat somebody else's
    return gcp.container.NodePoolNodeConfigReservationAffinityArgs(consume_reservation_type="NO_RESERVATION")
