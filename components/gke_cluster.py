"""A GKE Standard cluster with one CPU pool for heads and operators, and a least-privilege account for its nodes."""

import json
from typing import TypedDict

import pulumi
import pulumi_gcp as gcp

from .facts.choices import ReleaseChannel
from .facts.google import CLOUD_PLATFORM, NODE_ROLES, PODS_RANGE, SERVICES_RANGE
from .ray_service_manifest import POOL_LABEL


class GkeClusterArgs(TypedDict):
    """A GKE cluster."""

    project: str
    """Google Cloud project."""
    location: str
    """A region for a regional cluster, a zone for a zonal one."""
    network_id: pulumi.Input[str]
    """Id of the VPC."""
    subnetwork_id: pulumi.Input[str]
    """Id of the subnet with the ranges pods and services."""
    release_channel: ReleaseChannel
    """GKE's release channel."""
    private_nodes: bool
    """Nodes without public addresses."""
    deletion_protection: bool
    """Google refuses to delete the cluster."""
    gateway_api: bool
    """GKE's Gateway controller and the kinds that it reads."""
    ray_addon: bool
    """GKE's own Ray operator."""
    system_machine_type: str
    """Machine type of the CPU pool."""
    system_min_nodes: int
    """Fewest nodes of the CPU pool, in all zones together."""
    system_max_nodes: int
    """Most nodes of the CPU pool, in all zones together."""


class GkeCluster(pulumi.ComponentResource):
    """Cluster, node account and CPU pool. GPU pools are components of their own."""

    cluster_name: pulumi.Output[str]
    """Name of the cluster."""
    node_service_account: pulumi.Output[str]
    """E-mail of the account that nodes run as."""
    kubeconfig: pulumi.Output[str]
    """Kubeconfig (JSON) for the cluster's DNS endpoint; holds no credentials, gke-gcloud-auth-plugin brings them."""

    def __init__(self, name: str, args: GkeClusterArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:GkeCluster", name, dict(args), opts)
        here = pulumi.ResourceOptions(parent=self)
        account = gcp.serviceaccount.Account(
            f"{name}-nodes",
            project=args["project"],
            # Google allows 6 to 30 characters here
            account_id=f"{name[:24].rstrip('-')}-nodes",
            display_name="GKE nodes of the inference platform",
            opts=here,
        )
        grants = [
            gcp.projects.IAMMember(
                f"{name}-nodes-{role.removeprefix('roles/')}",
                project=args["project"],
                role=role,
                member=account.email.apply(lambda email: f"serviceAccount:{email}"),
                opts=here,
            )
            for role in NODE_ROLES
        ]
        cluster = gcp.container.Cluster(
            f"{name}-cluster",
            **_cluster_arguments(args, account.email),
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=args["deletion_protection"],
                # the temporary default pool is gone after creation; what is left of it must not replace the cluster
                ignore_changes=["nodeConfig", "nodePools", "initialNodeCount", "minMasterVersion"],
                custom_timeouts=pulumi.CustomTimeouts(create="60m", update="60m", delete="60m"),
            ),
        )
        self.system_pool = gcp.container.NodePool(
            f"{name}-system",
            project=args["project"],
            location=args["location"],
            cluster=cluster.name,
            autoscaling=gcp.container.NodePoolAutoscalingArgs(
                total_min_node_count=args["system_min_nodes"],
                total_max_node_count=args["system_max_nodes"],
                location_policy="BALANCED",
            ),
            management=gcp.container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            node_config=gcp.container.NodePoolNodeConfigArgs(
                machine_type=args["system_machine_type"],
                boot_disk=gcp.container.NodePoolNodeConfigBootDiskArgs(disk_type="pd-balanced", size_gb=100),
                service_account=account.email,
                oauth_scopes=[CLOUD_PLATFORM],
                labels={POOL_LABEL: "system"},
                gcfs_config=gcp.container.NodePoolNodeConfigGcfsConfigArgs(enabled=True),
                shielded_instance_config=gcp.container.NodePoolNodeConfigShieldedInstanceConfigArgs(
                    enable_secure_boot=True, enable_integrity_monitoring=True
                ),
                workload_metadata_config=gcp.container.NodePoolNodeConfigWorkloadMetadataConfigArgs(
                    mode="GKE_METADATA"
                ),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=grants,
                ignore_changes=["initialNodeCount", "nodeConfig.resourceLabels"],
                custom_timeouts=pulumi.CustomTimeouts(create="45m", update="60m", delete="45m"),
            ),
        )
        self.cluster_name = cluster.name
        self.node_service_account = account.email
        self.kubeconfig = pulumi.Output.all(cluster.name, cluster.control_plane_endpoints_config).apply(
            lambda known: kubeconfig(known[0], _dns_endpoint(known[1]))
        )
        self.register_outputs(
            {
                "cluster_name": self.cluster_name,
                "node_service_account": self.node_service_account,
                "kubeconfig": self.kubeconfig,
            }
        )


def _cluster_arguments(args: GkeClusterArgs, account: pulumi.Input[str]) -> dict:
    container = gcp.container
    return {
        "project": args["project"],
        "location": args["location"],
        "network": args["network_id"],
        "subnetwork": args["subnetwork_id"],
        "networking_mode": "VPC_NATIVE",
        # Dataplane V2 can be chosen at creation only; NetworkPolicies and multi-node GPU networking need it
        "datapath_provider": "ADVANCED_DATAPATH",
        "ip_allocation_policy": container.ClusterIpAllocationPolicyArgs(
            cluster_secondary_range_name=PODS_RANGE, services_secondary_range_name=SERVICES_RANGE
        ),
        # these two belong together: the default pool is made and removed at once, with our account while it lives
        "remove_default_node_pool": True,
        "initial_node_count": 1,
        "node_config": container.ClusterNodeConfigArgs(
            service_account=account,
            oauth_scopes=[CLOUD_PLATFORM],
            shielded_instance_config=container.ClusterNodeConfigShieldedInstanceConfigArgs(enable_secure_boot=True),
        ),
        "release_channel": container.ClusterReleaseChannelArgs(  # another program's SDK sends the text
            channel=ReleaseChannel(args["release_channel"]).value.upper()
        ),
        "workload_identity_config": container.ClusterWorkloadIdentityConfigArgs(
            workload_pool=f"{args['project']}.svc.id.goog"
        ),
        "private_cluster_config": container.ClusterPrivateClusterConfigArgs(
            enable_private_nodes=args["private_nodes"], enable_private_endpoint=False
        ),
        # guarded by IAM, with a public certificate, reachable whether or not the nodes are private
        "control_plane_endpoints_config": container.ClusterControlPlaneEndpointsConfigArgs(
            dns_endpoint_config=container.ClusterControlPlaneEndpointsConfigDnsEndpointConfigArgs(
                allow_external_traffic=True
            )
        ),
        # without one the cluster keeps what it has; the addon http_load_balancing, which it needs, is on by default
        "gateway_api_config": container.ClusterGatewayApiConfigArgs(channel="CHANNEL_STANDARD")
        if args["gateway_api"]
        else None,
        # an empty block is refused by the provider
        "addons_config": _ray_addon() if args["ray_addon"] else None,
        "cluster_autoscaling": container.ClusterClusterAutoscalingArgs(autoscaling_profile="OPTIMIZE_UTILIZATION"),
        "deletion_protection": args["deletion_protection"],
    }


def _ray_addon() -> "gcp.container.ClusterAddonsConfigArgs":
    container = gcp.container
    return container.ClusterAddonsConfigArgs(
        ray_operator_configs=[
            container.ClusterAddonsConfigRayOperatorConfigArgs(
                enabled=True,
                ray_cluster_logging_config=container.ClusterAddonsConfigRayOperatorConfigRayClusterLoggingConfigArgs(
                    enabled=True
                ),
                ray_cluster_monitoring_config=container.ClusterAddonsConfigRayOperatorConfigRayClusterMonitoringConfigArgs(
                    enabled=True
                ),
            )
        ]
    )


def _dns_endpoint(endpoints) -> str:
    """The DNS name of the control plane; empty while a preview does not know it."""
    config = (
        endpoints.get("dns_endpoint_config")
        if isinstance(endpoints, dict)
        else getattr(endpoints, "dns_endpoint_config", None)
    )
    endpoint = config.get("endpoint") if isinstance(config, dict) else getattr(config, "endpoint", None)
    return endpoint or ""


def kubeconfig(cluster: str, endpoint: str) -> str:
    """A kubeconfig for `endpoint` that asks gke-gcloud-auth-plugin for credentials."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster,
            "clusters": [{"name": cluster, "cluster": {"server": f"https://{endpoint}"}}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
            "users": [
                {
                    "name": cluster,
                    "user": {
                        "exec": {
                            "apiVersion": "client.authentication.k8s.io/v1beta1",
                            "command": "gke-gcloud-auth-plugin",
                            "provideClusterInfo": True,
                            "interactiveMode": "Never",
                        }
                    },
                }
            ],
        }
    )
