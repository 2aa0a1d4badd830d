"""Google Cloud resources of a platform: network, cluster, node pools, and the services around them.

This is the seam for another cloud: a class with `cluster` (kubeconfig and cluster_id, or None for a cluster that exists), `pools`,
`ready` and the public methods below.
"""

from typing import NamedTuple

import pulumi
import pulumi_kubernetes as kubernetes

from rayline.cluster.gke_cluster import GkeCluster, GkeClusterArgs
from rayline.cluster.network import PlatformNetwork
from rayline.cluster.project_apis import ProjectApis
from rayline.endpoint.gateway import EndpointGateway, EndpointGatewayArgs
from rayline.endpoint.manifests import gateway, gateway_extras
from rayline.facts.choices import Capacity, ClusterMode, Exposure, OperatorSource
from rayline.facts.google import PODS_RANGE, SERVICES_RANGE
from rayline.facts.labels import Role, service_account
from rayline.head.head_store import HeadStoreInstance
from rayline.hugging_face.manifests import secret_provider_class
from rayline.hugging_face.secret_manager_token import SecretManagerToken
from rayline.models.bucket import WeightsBucket
from rayline.models.manifests import bucket_grants
from rayline.models.mirror import WeightsMirror
from rayline.models.mirror_manifests import ACCOUNT as MIRROR_ACCOUNT
from rayline.models.mirror_manifests import BUCKET_ROLES as MIRROR_ROLES
from rayline.models.mirror_manifests import mirror_jobs, mirror_prerequisites
from rayline.models.types import BucketPlan
from rayline.platform.types import Plan
from rayline.pools.compute_class import ComputeClass
from rayline.pools.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from rayline.pools.manifests import compute_class
from rayline.pools.types import NodePool


class ClusterNetwork(NamedTuple):
    """The VPC and the subnet of the cluster, and the subnet's secondary ranges. Empty where the plan needs none of them."""

    network_id: pulumi.Input[str] = ""
    subnetwork_id: pulumi.Input[str] = ""
    pods_range: str = PODS_RANGE
    services_range: str = SERVICES_RANGE


class GoogleCloud:
    """Network, GKE cluster and GPU pools of a platform, unless the cluster exists. The methods create what else a plan needs from Google."""

    def __init__(self, platform: pulumi.Resource, name: str, plan: Plan):
        # the plan refused a cluster without them
        assert plan.cluster.project and plan.cluster.region  # noqa: PT018
        self.project, self.region = plan.cluster.project, plan.cluster.region
        self._platform, self._name, self._plan = platform, name, plan
        self._apis = self._project_apis()
        self.ready: list[pulumi.Resource] = [self._apis] if self._apis else []
        """What everything in the cluster waits for."""
        self.network, self.cluster, self.pools = ClusterNetwork(), None, list[pulumi.Resource]()
        create = plan.cluster.mode is ClusterMode.CREATE
        if existing := plan.cluster.args.network.existing:
            self.network = ClusterNetwork(existing.network, existing.subnetwork, existing.pods_range, existing.services_range)
        elif create:
            made = self._network()
            self.network = ClusterNetwork(made.network_id, made.subnetwork_id)
            # the NAT has to be there before nodes without public addresses pull their images
            self.ready.append(made)
        if create:
            self.cluster = GkeCluster(name, self._cluster(), opts=self._after(*self.ready))
            self.ready = [self.cluster]
            self.pools = self._pools(self.cluster)

    def _after(self, *resources: pulumi.Resource, provider: kubernetes.Provider | None = None) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self._platform, provider=provider, depends_on=list(resources))

    def _project_apis(self) -> ProjectApis | None:
        apis = list(self._plan.cluster.apis)
        return ProjectApis(f"{self._name}-apis", {"project": self.project, "apis": apis}, opts=self._after()) if apis else None

    def _network(self) -> PlatformNetwork:
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
            opts=self._after(*self.ready),
        )

    def _cluster(self) -> GkeClusterArgs:
        cluster, args = self._plan.cluster, self._plan.cluster.args
        assert cluster.location and cluster.system_pool  # noqa: PT018
        return {
            "project": self.project,
            "location": cluster.location,
            "network_id": self.network.network_id,
            "subnetwork_id": self.network.subnetwork_id,
            "pods_range": self.network.pods_range,
            "services_range": self.network.services_range,
            "zones": list(cluster.zones),
            "release_channel": args.release_channel,
            "maintenance_start": args.maintenance.start,
            "maintenance_end": args.maintenance.end,
            "maintenance_recurrence": args.maintenance.recurrence,
            "maintenance_exclusions": [
                {"name": exclusion.name, "start": exclusion.start, "end": exclusion.end, "scope": exclusion.scope}
                for exclusion in args.maintenance.exclusions
            ],
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
        }

    def _pools(self, cluster: GkeCluster) -> list[pulumi.Resource]:
        made: list[pulumi.Resource] = []
        for pool in self._plan.pools:
            # GKE creates the pools of a ladder
            if pool.capacity is not Capacity.LADDER:
                # CPU pool first, then one after the other: GKE refuses two operations on pools at a time
                after = made[-1:] or [cluster]
                made.append(GpuNodePool(f"{self._name}-{pool.name}", self._pool(pool, cluster), opts=self._after(*after)))
        return made

    def _pool(self, pool: NodePool, made: GkeCluster) -> GpuNodePoolArgs:
        cluster = self._plan.cluster
        return {
            "project": self.project,
            "location": cluster.location or "",
            "cluster": made.cluster_name,
            "service_account": made.node_service_account,
            "pool": pool.name,
            "accelerator": pool.accelerator,
            "machine_type": pool.machine.name,
            "gpus_per_node": pool.machine.gpus,
            "capacity": pool.capacity,
            "reservation": pool.reservation,
            "max_run_hours": pool.max_run_hours,
            "zones": list(pool.zones),
            "secondary_boot_disk": pool.secondary_boot_disk,
            "rdma": pool.rdma or None,
            "max_nodes": pool.max_nodes,
            "boot_disk_gib": pool.boot_disk_gib,
            "drain_seconds": pool.drain_seconds,
            "image_streaming": cluster.args.image_streaming,
            "private_nodes": cluster.args.private_nodes,
            "deletion_protection": cluster.args.deletion_protection,
        }

    def ladders(self, provider: kubernetes.Provider) -> list[pulumi.Resource]:
        """Create the ComputeClass of each ladder, whose node pools GKE creates; none in a cluster that exists."""
        args, cluster = self._plan.cluster.args, self.cluster
        if cluster is None:
            return []
        manifests = {
            pool.name: compute_class(
                pool,
                service_account=cluster.node_service_account,
                private_nodes=args.private_nodes,
                image_streaming=args.image_streaming,
            )
            for pool in self._plan.pools
            if pool.capacity is Capacity.LADDER
        }
        return [
            ComputeClass(f"{self._name}-{name}", {"manifest": manifest}, opts=self._after(cluster, provider=provider))
            for name, manifest in manifests.items()
        ]

    def head_store(self, in_namespace: pulumi.ResourceOptions) -> HeadStoreInstance:
        """Create the Memorystore instance of the Ray heads."""
        plan = self._plan
        return HeadStoreInstance(
            f"{self._name}-head-store",
            {
                "project": self.project,
                "region": self.region,
                "network_id": self.network.network_id,
                "memory_gib": plan.head.args.memorystore_gib,
                "deletion_protection": plan.cluster.args.deletion_protection,
                "labels": plan.cluster.args.labels,
                "namespace": plan.namespace,
                "secret_name": plan.head.password_secret or "",
            },
            opts=in_namespace,
        )

    def endpoint(self, in_namespace: pulumi.ResourceOptions) -> EndpointGateway | None:
        """Create the load balancer; None where the plan has no endpoint."""
        endpoint, args, namespace = self._plan.endpoint, self._plan.endpoint.args, self._plan.namespace
        if args.exposure is Exposure.NONE:
            return None
        arguments: EndpointGatewayArgs = {
            "project": self.project,
            "region": self.region,
            "network_id": self.network.network_id or None,
            "subnetwork_id": self.network.subnetwork_id or None,
            "exposure": args.exposure,
            "resource_name": endpoint.resource_name,
            "certificate_name": endpoint.certificate_name,
            "domain": args.domain or "",
            "tls": args.tls,
            "proxy_cidr": args.proxy_cidr if args.exposure is Exposure.INTERNAL and args.create_proxy_subnet else None,
            "proxy_project": self._plan.cluster.network_project,
            "rate_limit_per_minute": args.rate_limit_per_minute,
            "rate_limit_by": args.rate_limit_by,
            "iap_members": args.iap_members,
            "gateway": gateway(endpoint, namespace),
            "extras": gateway_extras(endpoint, namespace),
        }
        # another exposure creates everything again, under other names, before the old goes
        return EndpointGateway(f"{self._name}-{args.exposure.value}-endpoint", arguments, opts=in_namespace)

    def weights(self, provider: kubernetes.Provider, needed: list[pulumi.Resource]) -> list[pulumi.Resource]:
        """Create the bucket with weights, the Jobs that fill it, and the workers' rights on each bucket that they read."""
        plan, grants = self._plan, bucket_grants(self._plan.services)
        own = grants.pop(plan.bucket.name, {}) if plan.bucket else {}
        others: list[pulumi.Resource] = [
            self._bucket(f"{self._name}-weights-{name}", BucketPlan(name, create=False, mirror=False, keep=True), accounts)
            for name, accounts in grants.items()
        ]
        if not plan.bucket:
            return others
        bucket = self._bucket(
            f"{self._name}-weights", plan.bucket, own | ({MIRROR_ACCOUNT: MIRROR_ROLES} if plan.mirrors else {})
        )
        if not plan.mirrors:
            return [bucket, *others]
        jobs = mirror_jobs(
            plan.mirrors,
            bucket=plan.bucket.name,
            namespace=plan.namespace,
            hugging_face=plan.hugging_face,
            on_system_pool=self.cluster is not None,
        )
        copies = WeightsMirror(
            f"{self._name}-mirror",
            {"prerequisites": mirror_prerequisites(plan.namespace), "jobs": jobs},
            # without the GPU pools: the copies are made while Google looks for the machines
            opts=self._after(*needed, bucket, provider=provider),
        )
        return [bucket, copies, *others]

    def _bucket(self, name: str, bucket: BucketPlan, grants: dict[str, list[str]]) -> WeightsBucket:
        return WeightsBucket(
            name,
            {
                "project": self.project,
                "region": self.region,
                "bucket": bucket.name,
                "create": bucket.create,
                "keep": bucket.keep,
                "cluster_project": self._project_with_a_cluster(),
                "namespace": self._plan.namespace,
                "grants": grants,
            },
            opts=self._after(*self.ready),
        )

    def token(self, provider: kubernetes.Provider, namespace: pulumi.Resource) -> SecretManagerToken:
        """Create the mount of the Hugging Face token from Secret Manager."""
        plan, secret = self._plan, self._plan.hugging_face.secret
        # the plan refused the source without it
        assert secret
        downloading = [service for service in plan.services if service.downloads]
        accounts = [service_account(service.name, role) for service in downloading for role in (Role.HEAD, Role.WORKER)]
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
            opts=self._after(*self.ready, namespace, provider=provider),
        )

    def _project_with_a_cluster(self) -> pulumi.Input[str]:
        """Return the project once there is a cluster: the identity pool comes with it, and before that an API may be off."""
        project = self.project
        if self.cluster:
            return self.cluster.cluster_name.apply(lambda _: project)
        return self._apis.project if self._apis else project
