"""A GKE Standard cluster with one CPU pool for heads and operators, and a least-privilege account for its nodes."""

import json
from typing import NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.facts.choices import ExclusionScope, ReleaseChannel
from rayline.facts.google import CLOUD_PLATFORM, NODE_ROLES, PODS_RANGE, SERVICES_RANGE
from rayline.facts.labels import POOL_LABEL
from rayline.facts.names import GKE, SERVICE_ACCOUNT, fitted


class GkeMaintenanceExclusionArgs(TypedDict):
    """A time without upgrades."""

    name: str
    """Name of the exclusion."""
    start: str
    """First moment, RFC 3339 in UTC."""
    end: NotRequired[str]
    """Last moment; without it the end of support of the cluster's version."""
    scope: ExclusionScope
    """What GKE leaves undone."""


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
    zones: list[str]
    """Zones of the nodes; empty: Google picks."""
    release_channel: ReleaseChannel
    """GKE's release channel."""
    maintenance_start: str
    """Beginning of the first maintenance window, RFC 3339 in UTC."""
    maintenance_end: str
    """End of the first maintenance window."""
    maintenance_recurrence: str
    """When the window comes back: an RRULE of RFC 5545."""
    maintenance_exclusions: list[GkeMaintenanceExclusionArgs]
    """Times without upgrades."""
    dns_endpoint: bool
    """The control plane's DNS name answers from everywhere; IAM decides who may."""
    authorized_networks: dict[str, str]
    """Names by CIDR of the addresses that may reach the control plane's IP endpoint; empty: there is none."""
    private_nodes: bool
    """Nodes without public addresses."""
    deletion_protection: bool
    """Google refuses to delete the cluster."""
    ray_addon: bool
    """GKE's own Ray operator."""
    secret_manager: bool
    """The add-on that mounts secrets of Secret Manager."""
    gcs_fuse: bool
    """The driver that mounts buckets."""
    metrics: list[str]
    """Components whose metrics GKE collects, as its API names them."""
    managed_prometheus: bool
    """Managed Service for Prometheus."""
    workload_logs: bool
    """What pods write goes to Cloud Logging."""
    image_streaming: bool
    """Nodes start containers before their image is whole."""
    cost_allocation: bool
    """The bill is split by namespace and label."""
    labels: dict[str, str]
    """Labels of the cluster and of what Google makes for it."""
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
    cluster_id: pulumi.Output[str]
    """Google's id of the cluster; another one after a replacement alone."""
    node_service_account: pulumi.Output[str]
    """E-mail of the account that nodes run as."""
    kubeconfig: pulumi.Output[str]
    """Kubeconfig (JSON) for the DNS endpoint, or for the IP endpoint where that is the only one. It holds no credentials:
    gke-gcloud-auth-plugin brings them."""

    def __init__(self, name: str, args: GkeClusterArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:GkeCluster", name, dict(args), opts)
        here = pulumi.ResourceOptions(parent=self)
        account = gcp.serviceaccount.Account(
            f"{name}-nodes",
            project=args["project"],
            account_id=fitted(name, SERVICE_ACCOUNT, tail="nodes"),
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
            fitted(name, GKE, tail="cluster"),
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
            fitted(name, GKE, tail="system"),
            project=args["project"],
            location=args["location"],
            cluster=cluster.name,
            autoscaling=gcp.container.NodePoolAutoscalingArgs(
                total_min_node_count=args["system_min_nodes"],
                total_max_node_count=args["system_max_nodes"],
                location_policy="BALANCED",
            ),
            management=gcp.container.NodePoolManagementArgs(auto_repair=True, auto_upgrade=True),
            # a new node first, then the old one goes: a head waits for no machine
            upgrade_settings=gcp.container.NodePoolUpgradeSettingsArgs(strategy="SURGE", max_surge=1, max_unavailable=0),
            network_config=gcp.container.NodePoolNetworkConfigArgs(enable_private_nodes=args["private_nodes"]),
            node_config=gcp.container.NodePoolNodeConfigArgs(
                machine_type=args["system_machine_type"],
                boot_disk=gcp.container.NodePoolNodeConfigBootDiskArgs(disk_type="pd-balanced", size_gb=100),
                service_account=account.email,
                oauth_scopes=[CLOUD_PLATFORM],
                labels={POOL_LABEL: "system"},
                gcfs_config=gcp.container.NodePoolNodeConfigGcfsConfigArgs(enabled=args["image_streaming"]),
                shielded_instance_config=gcp.container.NodePoolNodeConfigShieldedInstanceConfigArgs(
                    enable_secure_boot=True, enable_integrity_monitoring=True
                ),
                workload_metadata_config=gcp.container.NodePoolNodeConfigWorkloadMetadataConfigArgs(mode="GKE_METADATA"),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=grants,
                ignore_changes=["initialNodeCount", "nodeConfig.resourceLabels"],
                custom_timeouts=pulumi.CustomTimeouts(create="45m", update="60m", delete="45m"),
            ),
        )
        self.cluster_name = cluster.name
        self.cluster_id = cluster.id
        self.node_service_account = account.email
        if args["dns_endpoint"]:
            reached = pulumi.Output.all(cluster.name, cluster.control_plane_endpoints_config).apply(
                lambda known: kubeconfig(known[0], _dns_endpoint(known[1]))
            )
        else:
            # a certificate of the cluster's own authority, which nobody else knows
            reached = pulumi.Output.all(cluster.name, cluster.endpoint, cluster.master_auth.apply(_ca_certificate)).apply(
                lambda known: kubeconfig(*known)
            )
        self.kubeconfig = reached
        self.register_outputs(
            {
                "cluster_name": self.cluster_name,
                "cluster_id": self.cluster_id,
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
        "workload_identity_config": container.ClusterWorkloadIdentityConfigArgs(workload_pool=f"{args['project']}.svc.id.goog"),
        "node_locations": args["zones"] or None,
        **_control_plane(args),
        "maintenance_policy": _maintenance(args),
        "addons_config": _addons(args),
        "gateway_api_config": container.ClusterGatewayApiConfigArgs(channel="CHANNEL_STANDARD"),
        "secret_manager_config": container.ClusterSecretManagerConfigArgs(enabled=True) if args["secret_manager"] else None,
        "monitoring_config": container.ClusterMonitoringConfigArgs(
            enable_components=args["metrics"],
            managed_prometheus=container.ClusterMonitoringConfigManagedPrometheusArgs(
                enabled=args["managed_prometheus"],
                # PodMonitorings say what is scraped; GKE's own guesses would scrape the same pods again
                auto_monitoring_config=container.ClusterMonitoringConfigManagedPrometheusAutoMonitoringConfigArgs(scope="NONE")
                if args["managed_prometheus"]
                else None,
            ),
        ),
        "logging_config": container.ClusterLoggingConfigArgs(
            enable_components=["SYSTEM_COMPONENTS", *(["WORKLOADS"] if args["workload_logs"] else [])]
        ),
        "node_pool_defaults": container.ClusterNodePoolDefaultsArgs(
            node_config_defaults=container.ClusterNodePoolDefaultsNodeConfigDefaultsArgs(
                gcfs_config=container.ClusterNodePoolDefaultsNodeConfigDefaultsGcfsConfigArgs(enabled=args["image_streaming"])
            )
        ),
        "enable_shielded_nodes": True,
        "cost_management_config": container.ClusterCostManagementConfigArgs(enabled=args["cost_allocation"]),
        "resource_labels": args["labels"] or None,
        "cluster_autoscaling": container.ClusterClusterAutoscalingArgs(autoscaling_profile="OPTIMIZE_UTILIZATION"),
        "deletion_protection": args["deletion_protection"],
    }


def _control_plane(args: GkeClusterArgs) -> dict:
    """The ways to the control plane: its DNS name, its address for some networks, or both; the plan refused neither."""
    container, by_address = gcp.container, bool(args["authorized_networks"])
    return {
        "private_cluster_config": container.ClusterPrivateClusterConfigArgs(
            enable_private_nodes=args["private_nodes"], enable_private_endpoint=False if by_address else None
        ),
        "control_plane_endpoints_config": container.ClusterControlPlaneEndpointsConfigArgs(
            # guarded by IAM, with a public certificate, reachable whether or not the nodes are private
            dns_endpoint_config=container.ClusterControlPlaneEndpointsConfigDnsEndpointConfigArgs(
                allow_external_traffic=args["dns_endpoint"]
            ),
            ip_endpoints_config=container.ClusterControlPlaneEndpointsConfigIpEndpointsConfigArgs(enabled=by_address),
        ),
        "master_authorized_networks_config": container.ClusterMasterAuthorizedNetworksConfigArgs(
            cidr_blocks=[
                container.ClusterMasterAuthorizedNetworksConfigCidrBlockArgs(cidr_block=cidr, display_name=name)
                for cidr, name in args["authorized_networks"].items()
            ],
            # else every machine of every Google customer could try
            gcp_public_cidrs_access_enabled=False,
        )
        if by_address
        else None,
    }


def _maintenance(args: GkeClusterArgs) -> "gcp.container.ClusterMaintenancePolicyArgs":
    container = gcp.container
    return container.ClusterMaintenancePolicyArgs(
        recurring_window=container.ClusterMaintenancePolicyRecurringWindowArgs(
            start_time=args["maintenance_start"], end_time=args["maintenance_end"], recurrence=args["maintenance_recurrence"]
        ),
        maintenance_exclusions=[
            container.ClusterMaintenancePolicyMaintenanceExclusionArgs(
                exclusion_name=exclusion["name"],
                start_time=exclusion["start"],
                end_time=exclusion.get("end"),
                exclusion_options=container.ClusterMaintenancePolicyMaintenanceExclusionExclusionOptionsArgs(
                    scope=ExclusionScope(exclusion["scope"]).name,  # another program's SDK sends the text
                    end_time_behavior=None if exclusion.get("end") else "UNTIL_END_OF_SUPPORT",
                ),
            )
            for exclusion in args["maintenance_exclusions"]
        ],
    )


def _addons(args: GkeClusterArgs) -> "gcp.container.ClusterAddonsConfigArgs":
    container = gcp.container
    return container.ClusterAddonsConfigArgs(
        # gateways need it
        http_load_balancing=container.ClusterAddonsConfigHttpLoadBalancingArgs(disabled=False),
        gcs_fuse_csi_driver_config=container.ClusterAddonsConfigGcsFuseCsiDriverConfigArgs(enabled=True)
        if args["gcs_fuse"]
        else None,
        ray_operator_configs=_ray_addon() if args["ray_addon"] else None,
    )


def _ray_addon() -> "list[gcp.container.ClusterAddonsConfigRayOperatorConfigArgs]":
    container = gcp.container
    return [
        container.ClusterAddonsConfigRayOperatorConfigArgs(
            enabled=True,
            ray_cluster_logging_config=container.ClusterAddonsConfigRayOperatorConfigRayClusterLoggingConfigArgs(enabled=True),
            ray_cluster_monitoring_config=container.ClusterAddonsConfigRayOperatorConfigRayClusterMonitoringConfigArgs(
                enabled=True
            ),
        )
    ]


def _ca_certificate(master_auth) -> str:
    """The authority of the IP endpoint's certificate, base64; empty while a preview does not know it."""
    known = (
        master_auth.get("cluster_ca_certificate")
        if isinstance(master_auth, dict)
        else getattr(master_auth, "cluster_ca_certificate", None)
    )
    return known or ""


def _dns_endpoint(endpoints) -> str:
    """The DNS name of the control plane; empty while a preview does not know it."""
    config = (
        endpoints.get("dns_endpoint_config") if isinstance(endpoints, dict) else getattr(endpoints, "dns_endpoint_config", None)
    )
    endpoint = config.get("endpoint") if isinstance(config, dict) else getattr(config, "endpoint", None)
    return endpoint or ""


def kubeconfig(cluster: str, endpoint: str, ca_certificate: str | None = None) -> str:
    """A kubeconfig for `endpoint` that asks gke-gcloud-auth-plugin for credentials: those that Pulumi's provider takes too.

    `ca_certificate` (base64) belongs to the IP endpoint; the DNS endpoint's certificate is a public one.
    """
    server: dict = {"server": f"https://{endpoint}"}
    if ca_certificate is not None:
        server["certificate-authority-data"] = ca_certificate
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster,
            "clusters": [{"name": cluster, "cluster": server}],
            "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
            "users": [
                {
                    "name": cluster,
                    "user": {
                        "exec": {
                            "apiVersion": "client.authentication.k8s.io/v1beta1",
                            "command": "gke-gcloud-auth-plugin",
                            # else it asks gcloud, which may be logged in as somebody else, or not at all
                            "args": ["--use_application_default_credentials"],
                            "provideClusterInfo": True,
                            "interactiveMode": "Never",
                        }
                    },
                }
            ],
        }
    )
