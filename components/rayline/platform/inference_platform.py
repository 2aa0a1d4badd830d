"""The one class that platform teams use: a cluster, its pools, the operator, and the services."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pulumi
import pulumi_kubernetes as kubernetes

from rayline.cluster.gke_cluster import GkeCluster, GkeMaintenanceExclusionArgs
from rayline.cluster.network import PlatformNetwork
from rayline.cluster.project_apis import ProjectApis
from rayline.cluster.types import ClusterPlan, MaintenanceExclusion
from rayline.endpoint.gateway import EndpointGateway, EndpointGatewayArgs, ServiceRoute
from rayline.endpoint.manifests import gateway, gateway_extras, service_policies, service_route
from rayline.facts import defaults
from rayline.facts.choices import Capacity, ClusterMode, Exposure, HeadStore, OperatorSource, TokenSource, WeightsSource
from rayline.facts.labels import Role, service_account
from rayline.head.head_store import HeadStoreInstance
from rayline.hugging_face.hugging_face_secret import HuggingFaceSecret
from rayline.hugging_face.manifests import secret_provider_class
from rayline.hugging_face.secret_manager_token import SecretManagerToken
from rayline.isolation.isolation import Isolation
from rayline.isolation.manifests import isolation, pod_security_labels
from rayline.kuberay.crds import KuberayCrds
from rayline.kuberay.operator import KuberayOperator, KuberayOperatorArgs
from rayline.platform.arguments import InferencePlatformArgs
from rayline.platform.plan import make_plan
from rayline.platform.types import Plan
from rayline.pools.compute_class import ComputeClass
from rayline.pools.gpu_node_pool import GpuNodePool, GpuNodePoolArgs
from rayline.pools.manifests import compute_class, network_claim_template
from rayline.pools.network_claim import NetworkClaim
from rayline.pools.types import NodePool
from rayline.schema.check import PlanError
from rayline.schema.pulumi_types import typed_dict
from rayline.service.llm_service import LlmService
from rayline.service.manifest import ray_service
from rayline.weights.bucket import WeightsBucket
from rayline.weights.manifests import bucket_roles
from rayline.weights.mirror import WeightsMirror
from rayline.weights.mirror_manifests import ACCOUNT as MIRROR_ACCOUNT
from rayline.weights.mirror_manifests import BUCKET_ROLES as MIRROR_ROLES
from rayline.weights.mirror_manifests import mirror_jobs, mirror_prerequisites

if TYPE_CHECKING:
    InferencePlatformInput = Mapping[str, Any] | InferencePlatformArgs
else:
    # what Pulumi's schema reader knows
    InferencePlatformInput = typed_dict(InferencePlatformArgs)


class Google(NamedTuple):
    """What there is in Google Cloud for a cluster of the kit's own."""

    network: PlatformNetwork
    cluster: GkeCluster
    pools: list[pulumi.Resource]


class InferencePlatform(pulumi.ComponentResource):
    """Everything from the VPC to a running endpoint. Refuses arguments that cannot work before anything is created."""

    cluster_name: pulumi.Output[str]
    """Name of the GKE cluster; empty when the cluster is not made here."""
    kubeconfig: pulumi.Output[str]
    """Kubeconfig of the GKE cluster; empty when the cluster is not made here."""
    endpoints: pulumi.Output[dict[str, str]]
    """Address of each service inside the cluster."""
    urls: pulumi.Output[dict[str, str]]
    """Address of each service for clients outside the cluster; empty without an endpoint."""
    endpoint_address: pulumi.Output[str]
    """IP address of the endpoint; empty without one."""
    dns_records: pulumi.Output[list[dict[str, str]]]
    """DNS records (name, type, data) to make for the endpoint; empty without one."""
    api_keys: pulumi.Output[dict[str, str]]
    """Key of each service; secret."""

    def __init__(self, name: str, args: InferencePlatformInput, opts: pulumi.ResourceOptions | None = None):
        try:
            self.plan = make_plan(args, name=name)
        except PlanError as error:
            raise pulumi.RunError(f"the configuration of {name} cannot work:\n{error}") from None
        super().__init__("rayline:index:InferencePlatform", name, {}, opts)
        plan = self.plan
        google = self._google(name, plan) if plan.cluster.mode is ClusterMode.CREATE else None
        gke, pools = (google.cluster, google.pools) if google else (None, [])
        provider = self._kubernetes_provider(f"{name}-kubernetes", plan.cluster, gke)
        in_cluster = pulumi.ResourceOptions(parent=self, provider=provider, depends_on=pools)
        namespace = kubernetes.core.v1.Namespace(
            f"{name}-namespace",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=plan.namespace,
                labels=pod_security_labels(plan.isolation.pod_security) if plan.isolation else None,
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=provider,
                depends_on=[gke] if gke else [],
                # it goes when Google has removed the services' network endpoint groups, which hold the VPC (ingress-gce 1720)
                custom_timeouts=pulumi.CustomTimeouts(delete="30m"),
            ),
        )
        in_namespace = pulumi.ResourceOptions(parent=self, provider=provider, depends_on=[namespace])
        # a service goes before its operator, its nodes and its secrets, so that the operator can finish it
        needed: list[pulumi.Resource] = [namespace]
        if plan.kuberay.source is OperatorSource.HELM and plan.cluster.mode is not ClusterMode.LOCAL:
            crds = KuberayCrds(
                f"{name}-kuberay-crds",
                {"files": list(plan.kuberay.crd_files), "keep": plan.kuberay.keep_crds},
                opts=pulumi.ResourceOptions(
                    parent=self,
                    # CRDs that an earlier stack left are taken over; anything else that exists stays its owner's
                    provider=self._kubernetes_provider(
                        f"{name}-crds", plan.cluster, gke, takes_over=plan.kuberay.keep_crds
                    ),
                    depends_on=[gke] if gke else [],
                ),
            )
            needed.append(self._operator(name, plan, provider, [crds, namespace, *([gke] if gke else [])]))
        if plan.isolation:
            needed.append(
                Isolation(
                    f"{name}-isolation",
                    {"manifests": isolation(plan)},
                    opts=in_namespace,
                )
            )
        if plan.hugging_face.source is TokenSource.PULUMI_SECRET and plan.hugging_face.secret_name:
            needed.append(
                HuggingFaceSecret(
                    f"{name}-hugging-face",
                    {
                        "namespace": namespace.metadata["name"],
                        "secret_name": plan.hugging_face.secret_name,
                        "token": plan.hugging_face.token,
                    },
                    opts=in_namespace,
                )
            )
        if gke and plan.hugging_face.secret:
            needed.append(self._secret_manager_token(name, plan, gke, provider, namespace))
        if gke and plan.bucket:
            bucket = self._weights(name, plan, gke)
            needed.append(bucket)
            if plan.mirrors:
                copies = WeightsMirror(
                    f"{name}-mirror",
                    {
                        "prerequisites": mirror_prerequisites(plan.namespace),
                        "jobs": mirror_jobs(
                            plan.mirrors,
                            bucket=plan.bucket.name,
                            namespace=plan.namespace,
                            hugging_face=plan.hugging_face,
                        ),
                    },
                    # without the GPU pools: the copies are made while Google looks for the machines
                    opts=pulumi.ResourceOptions(parent=self, provider=provider, depends_on=[*needed]),
                )
                needed.append(copies)
        if gke:
            needed += self._ladders(name, plan, gke, provider)
        if any(pool.rdma for pool in plan.pools):
            needed.append(
                NetworkClaim(
                    f"{name}-rdma",
                    {"manifest": network_claim_template(plan.namespace)},
                    opts=in_namespace,
                )
            )
        store_address: pulumi.Input[str] | None = plan.head.address
        if plan.head.store is HeadStore.MEMORYSTORE and google:
            store = self._memorystore(name, plan, google, namespace, in_namespace)
            needed.append(store)
            store_address = store.address
        endpoint = self._endpoint(name, plan, google, in_namespace) if google else None
        by_name = {pool.name: pool for pool in plan.pools}
        services = {
            service.name: LlmService(
                f"{name}-{service.name}",
                {
                    "ray_service": ray_service(
                        service,
                        namespace=plan.namespace,
                        hugging_face=plan.hugging_face,
                        pool=by_name.get(service.pool or ""),
                        head=plan.head,
                        store_address=store_address,
                    ),
                    "api_key": service.asked.api.key,
                    "start_timeout_seconds": service.start_timeout_seconds,
                    "api_key_generation": service.asked.api.key_generation,
                    "ray_token_generation": service.asked.rollout.ray_token_generation,
                },
                opts=pulumi.ResourceOptions.merge(in_cluster, pulumi.ResourceOptions(depends_on=needed)),
            )
            for service in plan.services
        }
        if endpoint:
            for service in plan.services:
                # after the service, so that the backend is there and the route goes first
                ServiceRoute(
                    f"{name}-{service.name}-route",
                    {
                        "policies": service_policies(plan.endpoint, service, plan.namespace),
                        "route": service_route(plan.endpoint, service, plan.namespace),
                    },
                    opts=pulumi.ResourceOptions(
                        parent=self, provider=provider, depends_on=[endpoint, services[service.name]]
                    ),
                )
        self.urls = pulumi.Output.from_input(plan.endpoint.urls)
        self.endpoint_address = endpoint.address if endpoint else pulumi.Output.from_input("")
        self.dns_records = _dns_records(plan, endpoint) if endpoint else pulumi.Output.from_input([])
        self.cluster_name = gke.cluster_name if gke else pulumi.Output.from_input("")
        self.kubeconfig = gke.kubeconfig if gke else pulumi.Output.from_input("")
        self.endpoints = pulumi.Output.all(**{key: service.endpoint for key, service in services.items()})
        self.api_keys = pulumi.Output.secret(
            pulumi.Output.all(**{key: service.api_key for key, service in services.items()})
        )
        self.register_outputs(
            {
                "cluster_name": self.cluster_name,
                "kubeconfig": self.kubeconfig,
                "endpoints": self.endpoints,
                "urls": self.urls,
                "endpoint_address": self.endpoint_address,
                "dns_records": self.dns_records,
                "api_keys": self.api_keys,
            }
        )

    def _google(self, name: str, plan: Plan) -> Google:
        cluster = plan.cluster
        # the plan refused a cluster without them
        assert cluster.project and cluster.region and cluster.location  # noqa: PT018
        assert cluster.system_pool
        assert cluster.maintenance
        here = pulumi.ResourceOptions(parent=self)
        if cluster.apis:
            apis = ProjectApis(f"{name}-apis", {"project": cluster.project, "apis": list(cluster.apis)}, opts=here)
            here = pulumi.ResourceOptions(parent=self, depends_on=[apis])
        network = PlatformNetwork(
            name,
            {
                "project": cluster.project,
                "region": cluster.region,
                "nodes_cidr": cluster.nodes_cidr,
                "pods_cidr": cluster.pods_cidr,
                "services_cidr": cluster.services_cidr,
            },
            opts=here,
        )
        gke = GkeCluster(
            name,
            {
                "project": cluster.project,
                "location": cluster.location,
                "network_id": network.network_id,
                "subnetwork_id": network.subnetwork_id,
                "zones": list(cluster.zones),
                "release_channel": cluster.release_channel,
                "maintenance_start": cluster.maintenance.start,
                "maintenance_end": cluster.maintenance.end,
                "maintenance_recurrence": cluster.maintenance.recurrence,
                "maintenance_exclusions": [_exclusion(one) for one in cluster.maintenance.exclusions],
                "dns_endpoint": cluster.dns_endpoint,
                "authorized_networks": dict(cluster.authorized_networks),
                "private_nodes": cluster.private_nodes,
                "deletion_protection": cluster.deletion_protection,
                "ray_addon": plan.kuberay.source is OperatorSource.GKE_ADDON,
                "secret_manager": cluster.secret_manager,
                "gcs_fuse": cluster.gcs_fuse,
                "metrics": list(cluster.metrics),
                "managed_prometheus": cluster.managed_prometheus,
                "workload_logs": cluster.workload_logs,
                "image_streaming": cluster.image_streaming,
                "cost_allocation": cluster.cost_allocation,
                "labels": dict(cluster.labels),
                "system_machine_type": cluster.system_pool.machine.name,
                "system_min_nodes": cluster.system_pool.min_nodes,
                "system_max_nodes": cluster.system_pool.max_nodes,
            },
            # the NAT has to be there before nodes without public addresses pull their images
            opts=pulumi.ResourceOptions.merge(here, pulumi.ResourceOptions(depends_on=[network])),
        )
        pools: list[pulumi.Resource] = []
        for pool in plan.pools:
            if pool.capacity is Capacity.LADDER:
                continue  # GKE makes its pools
            # CPU pool first, then one after the other: GKE refuses two operations on pools at a time
            after = pools[-1:] or [gke]
            pools.append(
                GpuNodePool(
                    f"{name}-{pool.name}",
                    _pool_arguments(pool, cluster, gke),
                    opts=pulumi.ResourceOptions(parent=self, depends_on=after),
                )
            )
        return Google(network, gke, pools)

    def _ladders(self, name: str, plan: Plan, gke: GkeCluster, provider: kubernetes.Provider) -> list[pulumi.Resource]:
        return [
            ComputeClass(
                f"{name}-{pool.name}",
                {
                    "manifest": compute_class(
                        pool,
                        service_account=gke.node_service_account,
                        private_nodes=plan.cluster.private_nodes,
                        image_streaming=plan.cluster.image_streaming,
                    )
                },
                opts=pulumi.ResourceOptions(parent=self, provider=provider, depends_on=[gke]),
            )
            for pool in plan.pools
            if pool.capacity is Capacity.LADDER
        ]

    def _memorystore(
        self,
        name: str,
        plan: Plan,
        google: Google,
        namespace: kubernetes.core.v1.Namespace,
        in_namespace: pulumi.ResourceOptions,
    ) -> HeadStoreInstance:
        return HeadStoreInstance(
            f"{name}-head-store",
            {
                "project": plan.cluster.project or "",
                "region": plan.cluster.region or "",
                "network_id": google.network.network_id,
                "memory_gib": plan.head.memorystore_gib,
                "deletion_protection": plan.cluster.deletion_protection,
                "labels": dict(plan.cluster.labels),
                "namespace": namespace.metadata["name"],
                "secret_name": plan.head.password_secret or "",
            },
            opts=in_namespace,
        )

    def _endpoint(
        self,
        name: str,
        plan: Plan,
        google: Google,
        in_namespace: pulumi.ResourceOptions,
    ) -> EndpointGateway | None:
        endpoint = plan.endpoint
        if endpoint.exposure is Exposure.NONE:
            return None
        arguments: EndpointGatewayArgs = {
            "project": plan.cluster.project or "",
            "region": plan.cluster.region or "",
            "network_id": google.network.network_id,
            "subnetwork_id": google.network.subnetwork_id,
            "exposure": endpoint.exposure,
            "resource_name": endpoint.resource_name,
            "certificate_name": endpoint.certificate_name,
            "domain": endpoint.domain,
            "tls": endpoint.tls,
            "rate_limit_by": endpoint.rate_limit_by,
            "iap_members": list(endpoint.iap_members),
            "gateway": gateway(endpoint, plan.namespace),
            "extras": gateway_extras(endpoint, plan.namespace),
        }
        if endpoint.proxy_cidr:
            arguments["proxy_cidr"] = endpoint.proxy_cidr
        if endpoint.rate_limit_per_minute is not None:
            arguments["rate_limit_per_minute"] = endpoint.rate_limit_per_minute
        return EndpointGateway(
            # another exposure makes everything anew, under other names, before the old goes
            f"{name}-{endpoint.exposure.value}-endpoint",
            arguments,
            opts=in_namespace,
        )

    def _kubernetes_provider(
        self, name: str, cluster: ClusterPlan, gke: GkeCluster | None, *, takes_over: bool = False
    ) -> kubernetes.Provider:
        return kubernetes.Provider(
            name,
            kubeconfig=gke.kubeconfig if gke else cluster.kubeconfig,
            context=None if gke else cluster.context,
            # without it the provider replaces itself, and all that it made, where a preview does not know the kubeconfig
            cluster_identifier=gke.cluster_id if gke else None,
            # else a new key replaces the Secret, which is then missing for a moment
            enable_secret_mutable=True,
            upsert_existing_objects=True if takes_over else None,
            enable_patch_force=True if takes_over else None,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _weights(self, name: str, plan: Plan, gke: GkeCluster) -> WeightsBucket:
        # the plan refused a bucket without a cluster
        assert plan.bucket and plan.cluster.project and plan.cluster.region  # noqa: PT018
        project = plan.cluster.project
        return WeightsBucket(
            f"{name}-weights",
            {
                "project": project,
                "region": plan.cluster.region,
                "bucket": plan.bucket.name,
                "create": plan.bucket.create,
                "keep": plan.bucket.keep,
                # asked for when there is a cluster: the identity pool comes with it
                "cluster_project": gke.cluster_name.apply(lambda _: project),
                "namespace": plan.namespace,
                "grants": {
                    service_account(one.name, Role.WORKER): bucket_roles(one)
                    for one in plan.services
                    if one.weights.bucket
                }
                | ({MIRROR_ACCOUNT: MIRROR_ROLES} if plan.mirrors else {}),
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=[gke]),
        )

    def _secret_manager_token(
        self, name: str, plan: Plan, gke: GkeCluster, provider: kubernetes.Provider, namespace: pulumi.Resource
    ) -> SecretManagerToken:
        # the plan refused the source without either
        assert plan.hugging_face.secret and plan.cluster.project  # noqa: PT018
        secret, project = plan.hugging_face.secret, plan.cluster.project
        return SecretManagerToken(
            f"{name}-hugging-face",
            {
                "manifest": secret_provider_class(secret, plan.namespace),
                "secret_project": secret.project,
                "secret": secret.name,
                # asked for when there is a cluster: the identity pool comes with it, and before that an API may be off
                "cluster_project": gke.cluster_name.apply(lambda _: project),
                "namespace": plan.namespace,
                "service_accounts": [
                    service_account(service.name, role)
                    for service in plan.services
                    if service.weights.source is WeightsSource.HUB
                    for role in (Role.HEAD, Role.WORKER)
                ]
                + ([MIRROR_ACCOUNT] if plan.mirrors else []),
            },
            opts=pulumi.ResourceOptions(parent=self, provider=provider, depends_on=[gke, namespace]),
        )

    def _operator(
        self, name: str, plan: Plan, provider: kubernetes.Provider, after: list[pulumi.Resource]
    ) -> KuberayOperator:
        arguments: KuberayOperatorArgs = {
            "version": plan.kuberay.version,
            "chart": plan.kuberay.chart,
            "namespace": defaults.OPERATOR_NAMESPACE,
            "watch_namespace": plan.namespace,
            "on_system_pool": plan.cluster.mode is ClusterMode.CREATE,
        }
        if plan.kuberay.repository:
            arguments["repository"] = plan.kuberay.repository
        return KuberayOperator(
            f"{name}-kuberay", arguments, opts=pulumi.ResourceOptions(parent=self, provider=provider, depends_on=after)
        )


def _dns_records(plan: Plan, endpoint: EndpointGateway) -> pulumi.Output[list[dict[str, str]]]:
    """What the owner of the domain has to make: a name for every service, and the proof for a managed certificate."""
    names = list(plan.endpoint.hostnames.values())
    return pulumi.Output.all(endpoint.address, endpoint.certificate_records).apply(
        lambda known: [{"name": f"{name}.", "type": "A", "data": known[0]} for name in names] + list(known[1])
    )


def _exclusion(one: MaintenanceExclusion) -> GkeMaintenanceExclusionArgs:
    arguments: GkeMaintenanceExclusionArgs = {"name": one.name, "start": one.start, "scope": one.scope}
    if one.end:
        arguments["end"] = one.end
    return arguments


def _pool_arguments(pool: NodePool, cluster: ClusterPlan, gke: GkeCluster) -> GpuNodePoolArgs:
    arguments: GpuNodePoolArgs = {
        "project": cluster.project or "",
        "location": cluster.location or "",
        "cluster": gke.cluster_name,
        "service_account": gke.node_service_account,
        "pool": pool.name,
        "accelerator": pool.accelerator,
        "machine_type": pool.machine.name,
        "gpus_per_node": pool.machine.gpus,
        "capacity": pool.capacity,
        "zones": list(pool.zones),
        "max_nodes": pool.max_nodes,
        "boot_disk_gib": pool.boot_disk_gib,
        "drain_seconds": pool.drain_seconds,
        "image_streaming": cluster.image_streaming,
        "private_nodes": cluster.private_nodes,
        "deletion_protection": cluster.deletion_protection,
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
