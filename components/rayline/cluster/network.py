"""VPC of a platform: a subnet with ranges for pods and Services, and Cloud NAT for nodes without public addresses."""

from typing import TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.facts.google import PODS_RANGE, SERVICES_RANGE


class PlatformNetworkArgs(TypedDict):
    """A VPC for one GKE cluster."""

    project: str
    """Google Cloud project."""
    region: str
    """Region of the subnet."""
    nodes_cidr: str
    """Primary range: nodes."""
    pods_cidr: str
    """Secondary range: pods."""
    services_cidr: str
    """Secondary range: Kubernetes Services."""


class PlatformNetwork(pulumi.ComponentResource):
    """VPC, subnet, router and NAT. GKE creates the firewall rules that it needs."""

    network_id: pulumi.Output[str]
    """Id of the VPC."""
    subnetwork_id: pulumi.Output[str]
    """Id of the subnet."""

    def __init__(self, name: str, args: PlatformNetworkArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:PlatformNetwork", name, dict(args), opts)
        own = pulumi.ResourceOptions(parent=self)
        project, region = args["project"], args["region"]
        network = gcp.compute.Network(
            f"{name}-vpc", project=project, auto_create_subnetworks=False, routing_mode="REGIONAL", opts=own
        )
        subnetwork = gcp.compute.Subnetwork(
            f"{name}-subnet",
            project=project,
            region=region,
            network=network.id,
            ip_cidr_range=args["nodes_cidr"],
            private_ip_google_access=True,
            secondary_ip_ranges=[
                {"range_name": PODS_RANGE, "ip_cidr_range": args["pods_cidr"]},
                {"range_name": SERVICES_RANGE, "ip_cidr_range": args["services_cidr"]},
            ],
            opts=own,
        )
        router = gcp.compute.Router(f"{name}-router", project=project, region=region, network=network.id, opts=own)
        # private nodes pull images and weights through it
        gcp.compute.RouterNat(
            f"{name}-nat",
            project=project,
            region=region,
            router=router.name,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="ALL_SUBNETWORKS_ALL_IP_RANGES",
            # exhausted ports look like a slow internet otherwise
            log_config={"enable": True, "filter": "ERRORS_ONLY"},
            opts=own,
        )
        self.network_id = network.id
        self.subnetwork_id = subnetwork.id
        self.register_outputs({"network_id": self.network_id, "subnetwork_id": self.subnetwork_id})
