"""GKE Standard cluster with one CPU pool for heads and operators, and a least-privilege account for its nodes."""

from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.cluster.manifests import kubeconfig
from rayline.cluster.nodes import node_settings
from rayline.facts.accelerators import SYSTEM_BOOT_DISKS
from rayline.facts.choices import ExclusionScope, ReleaseChannel
from rayline.facts.google import CLOUD_PLATFORM, NODE_ROLES
from rayline.facts.names import GKE, SERVICE_ACCOUNT, fitted


class GkeMaintenanceExclusionArgs(TypedDict):
    """A time without upgrades."""

    name: str
    """Name of the exclusion."""
    start: str
    """Start, RFC 3339 in UTC."""
    end: NotRequired[str | None]
    """End; without it the end of support of the cluster's version."""
    scope: ExclusionScope
    """Excluded upgrades."""


class GkeClusterArgs(TypedDict):
    """A GKE cluster."""

    project: str
    """Google Cloud project."""
    location: str
    """A region for a regional cluster, a zone for a zonal one."""
    network_id: pulumi.Input[str]
    """Id of the VPC."""
    subnetwork_id: pulumi.Input[str]
    """Id of the subnet."""
    pods_range: str
    """Name of the subnet's secondary range for pods."""
    services_range: str
    """Name of the subnet's secondary range for Kubernetes Services."""
    zones: list[str]
    """Zones of the nodes; empty: Google picks."""
    release_channel: ReleaseChannel
    """GKE's release channel."""
    maintenance_start: str
    """Start of the first maintenance window, RFC 3339 in UTC."""
    maintenance_end: str
    """End of the first maintenance window."""
    maintenance_recurrence: str
    """Recurrence of the window: an RRULE of RFC 5545."""
    maintenance_exclusions: list[GkeMaintenanceExclusionArgs]
    """Times without upgrades."""
    dns_endpoint: bool
    """Reach the control plane under its DNS name from everywhere, with permissions from IAM."""
    authorized_networks: dict[str, str]
    """Names by CIDR of the networks that may reach the control plane's IP endpoint; without any there is none."""
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
    """Logs of pods go to Cloud Logging."""
    image_streaming: bool
    """Nodes start containers before their image is complete."""
    cost_allocation: bool
    """The bill is split by namespace and label."""
    labels: dict[str, str]
    """Labels of the cluster and its Google resources."""
    system_machine_type: str
    """Machine type of the CPU pool."""
    system_min_nodes: int
    """Fewest nodes of the CPU pool, in all zones together."""
    system_max_nodes: int
    """Most nodes of the CPU pool, in all zones together."""
    system_disk_gib: NotRequired[int]
    """Boot disk of each node of the CPU pool, GiB. Default 100."""


class GkeCluster(pulumi.ComponentResource):
    """Cluster, node account and CPU pool. GPU pools are components of their own."""

    cluster_name: pulumi.Output[str]
    """Name of the cluster."""
    cluster_id: pulumi.Output[str]
    """Google's id of the cluster; it changes with a replacement only."""
    node_service_account: pulumi.Output[str]
    """E-mail of the account that nodes run as."""
    kubeconfig: pulumi.Output[str]
    """Kubeconfig (JSON) for the DNS endpoint, or for the IP endpoint where that is the only one. It holds no credentials:
    gke-gcloud-auth-plugin brings them."""

    def __init__(self, name: str, args: GkeClusterArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:GkeCluster", name, dict(args), opts)
        self._name, self._args = name, args
        account = gcp.serviceaccount.Account(
            f"{name}-nodes",
            project=args["project"],
            account_id=fitted(name, SERVICE_ACCOUNT, tail="nodes"),
            display_name="GKE nodes of the inference platform",
            opts=pulumi.ResourceOptions(parent=self),
        )
        cluster = self._cluster(account.email)
        self.system_pool = self._system_pool(cluster, account.email, self._grants(account.email))
        self.cluster_name = cluster.name
        self.cluster_id = cluster.id
        self.node_service_account = account.email
        self.kubeconfig = _kubeconfig(cluster, dns=args["dns_endpoint"])
        outputs = ("cluster_name", "cluster_id", "node_service_account", "kubeconfig")
        self.register_outputs({output: getattr(self, output) for output in outputs})

    def _grants(self, account: pulumi.Output[str]) -> list[pulumi.Resource]:
        return [
            gcp.projects.IAMMember(
                f"{self._name}-nodes-{role.removeprefix('roles/')}",
                project=self._args["project"],
                role=role,
                member=account.apply(lambda email: f"serviceAccount:{email}"),
                opts=pulumi.ResourceOptions(parent=self),
            )
            for role in NODE_ROLES
        ]

    def _cluster(self, account: pulumi.Output[str]) -> "gcp.container.Cluster":
        args = self._args
        return gcp.container.Cluster(
            fitted(self._name, GKE, tail="cluster"),
            project=args["project"],
            location=args["location"],
            node_locations=args["zones"] or None,
            # another program's SDK sends the text
            release_channel={"channel": ReleaseChannel(args["release_channel"]).value.upper()},
            workload_identity_config={"workload_pool": f"{args['project']}.svc.id.goog"},
            maintenance_policy=_maintenance(args),
            addons_config=_addons(args),
            gateway_api_config={"channel": "CHANNEL_STANDARD"},
            secret_manager_config={"enabled": True} if args["secret_manager"] else None,
            node_pool_defaults={"node_config_defaults": {"gcfs_config": {"enabled": args["image_streaming"]}}},
            enable_shielded_nodes=True,
            cost_management_config={"enabled": args["cost_allocation"]},
            resource_labels=args["labels"] or None,
            cluster_autoscaling={"autoscaling_profile": "OPTIMIZE_UTILIZATION"},
            deletion_protection=args["deletion_protection"],
            **_default_pool(account),
            **_network(args),
            **_observability(args),
            opts=pulumi.ResourceOptions(
                parent=self,
                protect=args["deletion_protection"],
                # the temporary default pool is gone after creation; what is left of it must not replace the cluster
                ignore_changes=["nodeConfig", "nodePools", "initialNodeCount", "minMasterVersion"],
                custom_timeouts=pulumi.CustomTimeouts(create="60m", update="60m", delete="60m"),
            ),
        )

    def _system_pool(
        self, cluster: "gcp.container.Cluster", account: pulumi.Output[str], grants: list[pulumi.Resource]
    ) -> "gcp.container.NodePool":
        args = self._args
        return gcp.container.NodePool(
            fitted(self._name, GKE, tail="system"),
            project=args["project"],
            location=args["location"],
            cluster=cluster.name,
            autoscaling={
                "total_min_node_count": args["system_min_nodes"],
                "total_max_node_count": args["system_max_nodes"],
                "location_policy": "BALANCED",
            },
            management={"auto_repair": True, "auto_upgrade": True},
            # a new node first, then the old one goes: a head waits for no machine
            upgrade_settings={"strategy": "SURGE", "max_surge": 1, "max_unavailable": 0},
            network_config={"enable_private_nodes": args["private_nodes"]},
            node_config=node_settings(
                pool="system",
                machine_type=args["system_machine_type"],
                disk_type=SYSTEM_BOOT_DISKS.get(args["system_machine_type"], "pd-balanced"),
                disk_gib=args.get("system_disk_gib", 100),
                account=account,
                image_streaming=args["image_streaming"],
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=grants,
                ignore_changes=["initialNodeCount", "nodeConfig.resourceLabels"],
                custom_timeouts=pulumi.CustomTimeouts(create="45m", update="60m", delete="45m"),
            ),
        )


def _default_pool(account: pulumi.Output[str]) -> dict[str, Any]:
    """Return what creates Google's default pool and removes it at once, with the kit's account while it exists."""
    return {
        # these two belong together
        "remove_default_node_pool": True,
        "initial_node_count": 1,
        "node_config": {
            "service_account": account,
            "oauth_scopes": [CLOUD_PLATFORM],
            "shielded_instance_config": {"enable_secure_boot": True},
        },
    }


def _network(args: GkeClusterArgs) -> dict[str, Any]:
    """Return the cluster's network, and the ways to its control plane: DNS name, IP address for some networks, or both."""
    by_address = bool(args["authorized_networks"])
    authorized = [{"cidr_block": cidr, "display_name": name} for cidr, name in args["authorized_networks"].items()]
    return {
        "network": args["network_id"],
        "subnetwork": args["subnetwork_id"],
        "networking_mode": "VPC_NATIVE",
        # Dataplane V2 can be chosen at creation only; NetworkPolicies and multi-node GPU networking need it
        "datapath_provider": "ADVANCED_DATAPATH",
        "ip_allocation_policy": {
            "cluster_secondary_range_name": args["pods_range"],
            "services_secondary_range_name": args["services_range"],
        },
        "private_cluster_config": {
            "enable_private_nodes": args["private_nodes"],
            "enable_private_endpoint": False if by_address else None,
        },
        "control_plane_endpoints_config": {
            # guarded by IAM, with a public certificate, reachable whether or not the nodes are private
            "dns_endpoint_config": {"allow_external_traffic": args["dns_endpoint"]},
            "ip_endpoints_config": {"enabled": by_address},
        },
        # with Google's public addresses allowed, every machine of every Google customer could try
        "master_authorized_networks_config": {"cidr_blocks": authorized, "gcp_public_cidrs_access_enabled": False}
        if by_address
        else None,
    }


def _observability(args: GkeClusterArgs) -> dict[str, Any]:
    prometheus: dict[str, Any] = {"enabled": args["managed_prometheus"]}
    if args["managed_prometheus"]:
        # PodMonitorings list what is scraped; GKE's own guesses would scrape the same pods again
        prometheus["auto_monitoring_config"] = {"scope": "NONE"}
    return {
        "monitoring_config": {"enable_components": args["metrics"], "managed_prometheus": prometheus},
        "logging_config": {"enable_components": ["SYSTEM_COMPONENTS", *(["WORKLOADS"] if args["workload_logs"] else [])]},
    }


def _maintenance(args: GkeClusterArgs) -> "gcp.container.ClusterMaintenancePolicyArgsDict":
    return {
        "recurring_window": {
            "start_time": args["maintenance_start"],
            "end_time": args["maintenance_end"],
            "recurrence": args["maintenance_recurrence"],
        },
        "maintenance_exclusions": [
            {
                "exclusion_name": exclusion["name"],
                "start_time": exclusion["start"],
                "end_time": exclusion.get("end"),
                "exclusion_options": {
                    "scope": ExclusionScope(exclusion["scope"]).name,  # another program's SDK sends the text
                    "end_time_behavior": None if exclusion.get("end") else "UNTIL_END_OF_SUPPORT",
                },
            }
            for exclusion in args["maintenance_exclusions"]
        ],
    }


def _addons(args: GkeClusterArgs) -> "gcp.container.ClusterAddonsConfigArgsDict":
    ray: gcp.container.ClusterAddonsConfigRayOperatorConfigArgsDict = {
        "enabled": True,
        "ray_cluster_logging_config": {"enabled": True},
        "ray_cluster_monitoring_config": {"enabled": True},
    }
    return {
        # gateways need it
        "http_load_balancing": {"disabled": False},
        "gcs_fuse_csi_driver_config": {"enabled": True} if args["gcs_fuse"] else None,
        "ray_operator_configs": [ray] if args["ray_addon"] else None,
    }


def _kubeconfig(cluster: "gcp.container.Cluster", *, dns: bool) -> pulumi.Output[str]:
    """Return a kubeconfig; unknown values of a preview are empty in it."""
    if dns:
        endpoint = cluster.control_plane_endpoints_config.apply(
            lambda known: _field(_field(known, "dns_endpoint_config"), "endpoint") or ""
        )
        return pulumi.Output.all(cluster.name, endpoint).apply(lambda known: kubeconfig(*known))
    # the certificate is signed by the cluster's own authority, which no machine trusts by itself
    authority = cluster.master_auth.apply(lambda known: _field(known, "cluster_ca_certificate") or "")
    return pulumi.Output.all(cluster.name, cluster.endpoint, authority).apply(lambda known: kubeconfig(*known))


def _field(known: Any, name: str) -> Any:
    """Return a field of a resource's output; a preview has dicts, and None for unknown values."""
    return known.get(name) if isinstance(known, dict) else getattr(known, name, None)
