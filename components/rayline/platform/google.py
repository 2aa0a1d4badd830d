"""What a platform has in Google Cloud: network, cluster, node pools, and the services around them.

This is the seam for another cloud: a class with `cluster` (kubeconfig and cluster_id), `pools`, and the methods below.
"""

import pulumi
import pulumi_kubernetes as kubernetes

from rayline.cluster.arguments import MaintenanceExclusionArgs
from rayline.cluster.gke_cluster import GkeCluster, GkeMaintenanceExclusionArgs
from rayline.cluster.network import PlatformNetwork
from rayline.cluster.project_apis import ProjectApis
from rayline.endpoint.gateway import EndpointGateway, EndpointGatewayArgs
from rayline.endpoint.manifests import gateway, gateway_extras
from rayline.facts.choices import Capacity, Exposure, OperatorSource, WeightsSource
from rayline.facts.labels import Role, service_account
from rayline.head.head_store import HeadStoreInstance
from rayline.hugging_face.manifests import secret_provider_class
from rayline.hugging_face.secret_manager_token import SecretManagerToken
from rayline.platform.types import Plan
from rayline.pools.compute_class import ComputeClass
from rayline.pools.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from rayline.pools.manifests import compute_class
from rayline.pools.types import NodePool
from rayline.weights.bucket import WeightsBucket
from rayline.weights.manifests import bucket_roles
from rayline.weights.mirror import WeightsMirror
from rayline.weights.mirror_manifests import ACCOUNT as MIRROR_ACCOUNT
from rayline.weights.mirror_manifests import BUCKET_ROLES as MIRROR_ROLES
from rayline.weights.mirror_manifests import mirror_jobs, mirror_prerequisites


class GoogleCloud:
    """Network, GKE cluster and GPU pools of a platform; its methods make what else a plan wants from Google."""

    def __init__(self, platform: pulumi.Resource, name: str, plan: Plan):
        # the plan refused a cluster without them
        assert plan.cluster.project and plan.cluster.region  # noqa: PT018
        self.project, self.region = plan.cluster.project, plan.cluster.region
        self._platform, self._name, self._plan = platform, name, plan
        first = self._apis()
        self.network = self._network(first)
        self.cluster = self._cluster(first)
        self.pools = self._pools()

    def _here(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self._platform, depends_on=list(after))

    def _apis(self) -> list[pulumi.Resource]:
        apis = list(self._plan.cluster.apis)
        return [ProjectApis(f"{self._name}-apis", {"project": self.project, "apis": apis}, opts=self._here())] if apis else []

    def _network(self, after: list[pulumi.Resource]) -> PlatformNetwork:
        network = self._plan.cluster.args.network
        return PlatformNetwork(
            self._name,
            {
                "project": self.project,
                "region": self.region,
                "nodes_cidr": network.nodes_cidr,
                "pods_cidr": network.pods_cidr,
                "services_cidr": network.services_cidr,
            },
            opts=self._here(*after),
        )

    def _cluster(self, after: list[pulumi.Resource]) -> GkeCluster:
        cluster, args = self._plan.cluster, self._plan.cluster.args
        assert cluster.location and cluster.system_pool  # noqa: PT018
        return GkeCluster(
            self._name,
            {
                "project": self.project,
                "location": cluster.location,
                "network_id": self.network.network_id,
                "subnetwork_id": self.network.subnetwork_id,
                "zones": list(cluster.zones),
                "release_channel": args.release_channel,
                "maintenance_start": args.maintenance.start,
                "maintenance_end": args.maintenance.end,
                "maintenance_recurrence": args.maintenance.recurrence,
                "maintenance_exclusions": [_exclusion(exclusion) for exclusion in args.maintenance.exclusions],
                "dns_endpoint": args.dns_endpoint,
                "authorized_networks": {network.cidr: network.name or network.cidr for network in args.authorized_networks},
                "private_nodes": args.private_nodes,
                "deletion_protection": args.deletion_protection,
                "ray_addon": self._plan.kuberay.source is OperatorSource.GKE_ADDON,
                "secret_manager": cluster.secret_manager,
                "gcs_fuse": cluster.gcs_fuse,
                "metrics": list(cluster.metrics),
                "managed_prometheus": args.monitoring.managed_prometheus,
                "workload_logs": args.monitoring.workload_logs,
                "image_streaming": args.image_streaming,
                "cost_allocation": args.cost_allocation,
                "labels": args.labels,
                "system_machine_type": cluster.system_pool.machine.name,
                "system_min_nodes": cluster.system_pool.min_nodes,
                "system_max_nodes": cluster.system_pool.max_nodes,
                "system_disk_gib": args.system_pool.disk_gib,
            },
            # the NAT has to be there before nodes without public addresses pull their images
            opts=self._here(*after, self.network),
        )

    def _pools(self) -> list[pulumi.Resource]:
        made: list[pulumi.Resource] = []
        for pool in self._plan.pools:
            if pool.capacity is Capacity.LADDER:
                continue  # GKE makes its pools
            # CPU pool first, then one after the other: GKE refuses two operations on pools at a time
            after = made[-1:] or [self.cluster]
            made.append(GpuNodePool(f"{self._name}-{pool.name}", self._pool(pool), opts=self._here(*after)))
        return made

    def _pool(self, pool: NodePool) -> GpuNodePoolArgs:
        cluster = self._plan.cluster
        arguments: GpuNodePoolArgs = {
            "project": self.project,
            "location": cluster.location or "",
            "cluster": self.cluster.cluster_name,
            "service_account": self.cluster.node_service_account,
            "pool": pool.name,
            "accelerator": pool.accelerator,
            "machine_type": pool.machine.name,
            "gpus_per_node": pool.machine.gpus,
            "capacity": pool.capacity,
            "zones": list(pool.zones),
            "max_nodes": pool.max_nodes,
            "boot_disk_gib": pool.boot_disk_gib,
            "drain_seconds": pool.drain_seconds,
            "image_streaming": cluster.args.image_streaming,
            "private_nodes": cluster.args.private_nodes,
            "deletion_protection": cluster.args.deletion_protection,
        }
        if pool.reservation:
            arguments["reservation"] = pool.reservation
        if pool.max_run_hours:
            arguments["max_run_hours"] = pool.max_run_hours
        if pool.secondary_boot_disk:
            arguments["secondary_boot_disk"] = pool.secondary_boot_disk
        if pool.rdma:
            arguments["rdma"] = True
        return arguments

    def ladders(self, provider: kubernetes.Provider) -> list[pulumi.Resource]:
        """Make the ComputeClass of each pool that GKE makes itself."""
        opts = pulumi.ResourceOptions(parent=self._platform, provider=provider, depends_on=[self.cluster])
        return [
            ComputeClass(
                f"{self._name}-{pool.name}",
                {
                    "manifest": compute_class(
                        pool,
                        service_account=self.cluster.node_service_account,
                        private_nodes=self._plan.cluster.args.private_nodes,
                        image_streaming=self._plan.cluster.args.image_streaming,
                    )
                },
                opts=opts,
            )
            for pool in self._plan.pools
            if pool.capacity is Capacity.LADDER
        ]

    def head_store(self, in_namespace: pulumi.ResourceOptions) -> HeadStoreInstance:
        """Make the Memorystore instance of the Ray heads."""
        return HeadStoreInstance(
            f"{self._name}-head-store",
            {
                "project": self.project,
                "region": self.region,
                "network_id": self.network.network_id,
                "memory_gib": self._plan.head.memorystore_gib,
                "deletion_protection": self._plan.cluster.args.deletion_protection,
                "labels": self._plan.cluster.args.labels,
                "namespace": self._plan.namespace,
                "secret_name": self._plan.head.password_secret or "",
            },
            opts=in_namespace,
        )

    def endpoint(self, in_namespace: pulumi.ResourceOptions) -> EndpointGateway | None:
        """Make the load balancer; None where the plan has no endpoint."""
        endpoint, namespace = self._plan.endpoint, self._plan.namespace
        if endpoint.exposure is Exposure.NONE:
            return None
        arguments: EndpointGatewayArgs = {
            "project": self.project,
            "region": self.region,
            "network_id": self.network.network_id,
            "subnetwork_id": self.network.subnetwork_id,
            "exposure": endpoint.exposure,
            "resource_name": endpoint.resource_name,
            "certificate_name": endpoint.certificate_name,
            "domain": endpoint.domain,
            "tls": endpoint.tls,
            "rate_limit_by": endpoint.rate_limit_by,
            "iap_members": list(endpoint.iap_members),
            "gateway": gateway(endpoint, namespace),
            "extras": gateway_extras(endpoint, namespace),
        }
        if endpoint.proxy_cidr:
            arguments["proxy_cidr"] = endpoint.proxy_cidr
        if endpoint.rate_limit_per_minute is not None:
            arguments["rate_limit_per_minute"] = endpoint.rate_limit_per_minute
        # another exposure makes everything anew, under other names, before the old goes
        return EndpointGateway(f"{self._name}-{endpoint.exposure.value}-endpoint", arguments, opts=in_namespace)

    def weights(self, provider: kubernetes.Provider, needed: list[pulumi.Resource]) -> list[pulumi.Resource]:
        """Make the bucket with weights and the Jobs that fill it; nothing where the plan has no bucket."""
        plan = self._plan
        if not plan.bucket:
            return []
        bucket = WeightsBucket(
            f"{self._name}-weights",
            {
                "project": self.project,
                "region": self.region,
                "bucket": plan.bucket.name,
                "create": plan.bucket.create,
                "keep": plan.bucket.keep,
                "cluster_project": self._project_with_a_cluster(),
                "namespace": plan.namespace,
                "grants": {
                    service_account(one.name, Role.WORKER): bucket_roles(one) for one in plan.services if one.weights.bucket
                }
                | ({MIRROR_ACCOUNT: MIRROR_ROLES} if plan.mirrors else {}),
            },
            opts=self._here(self.cluster),
        )
        if not plan.mirrors:
            return [bucket]
        jobs = mirror_jobs(plan.mirrors, bucket=plan.bucket.name, namespace=plan.namespace, hugging_face=plan.hugging_face)
        copies = WeightsMirror(
            f"{self._name}-mirror",
            {"prerequisites": mirror_prerequisites(plan.namespace), "jobs": jobs},
            # without the GPU pools: the copies are made while Google looks for the machines
            opts=pulumi.ResourceOptions(parent=self._platform, provider=provider, depends_on=[*needed, bucket]),
        )
        return [bucket, copies]

    def token(self, provider: kubernetes.Provider, namespace: pulumi.Resource) -> SecretManagerToken:
        """Make what mounts the Hugging Face token from Secret Manager."""
        plan, secret = self._plan, self._plan.hugging_face.secret
        # the plan refused the source without it
        assert secret
        accounts = [
            service_account(service.name, role)
            for service in plan.services
            if service.weights.source is WeightsSource.HUB
            for role in (Role.HEAD, Role.WORKER)
        ]
        return SecretManagerToken(
            f"{self._name}-hugging-face",
            {
                "manifest": secret_provider_class(secret, plan.namespace),
                "secret_project": secret.project,
                "secret": secret.name,
                "cluster_project": self._project_with_a_cluster(),
                "namespace": plan.namespace,
                "service_accounts": accounts + ([MIRROR_ACCOUNT] if plan.mirrors else []),
            },
            opts=pulumi.ResourceOptions(parent=self._platform, provider=provider, depends_on=[self.cluster, namespace]),
        )

    def _project_with_a_cluster(self) -> pulumi.Output[str]:
        """Return the project when there is a cluster: the identity pool comes with it, and before that an API may be off."""
        project = self.project
        return self.cluster.cluster_name.apply(lambda _: project)


def _exclusion(exclusion: MaintenanceExclusionArgs) -> GkeMaintenanceExclusionArgs:
    return {"name": exclusion.name, "start": exclusion.start, "end": exclusion.end, "scope": exclusion.scope}
