"""Pulumi component of a whole platform: a cluster, its pools, the operator, and the services."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pulumi
import pulumi_kubernetes as kubernetes

from rayline.endpoint.gateway import EndpointGateway, ServiceRoute
from rayline.endpoint.manifests import service_policies, service_route
from rayline.facts import defaults
from rayline.facts.choices import ClusterMode, HeadStore, OperatorSource, TokenSource
from rayline.hugging_face.hugging_face_secret import HuggingFaceSecret
from rayline.isolation.isolation import Isolation
from rayline.isolation.manifests import isolation, pod_security_labels
from rayline.kuberay.crds import KuberayCrds
from rayline.kuberay.operator import KuberayOperator
from rayline.platform.arguments import InferencePlatformArgs
from rayline.platform.google import GoogleCloud
from rayline.platform.plan import make_plan
from rayline.pools.manifests import network_claim_template
from rayline.pools.network_claim import NetworkClaim
from rayline.schema.check import PlanError
from rayline.schema.pulumi_types import typed_dict
from rayline.service.llm_service import LlmService
from rayline.service.manifest import ray_service
from rayline.service.pods import code_kinds
from rayline.service.types import every_model

if TYPE_CHECKING:
    InferencePlatformInput = Mapping[str, Any] | InferencePlatformArgs
else:
    # Pulumi's schema reader needs a TypedDict
    InferencePlatformInput = typed_dict(InferencePlatformArgs)


class InferencePlatform(pulumi.ComponentResource):
    """Platform from the VPC to a running endpoint. It refuses arguments that cannot work before it creates anything."""

    cluster_name: pulumi.Output[str]
    """Name of the GKE cluster; empty for a cluster that is not created here."""
    kubeconfig: pulumi.Output[str]
    """Kubeconfig of the GKE cluster; empty for a cluster that is not created here."""
    endpoints: pulumi.Output[dict[str, str]]
    """Address of each service inside the cluster."""
    urls: pulumi.Output[dict[str, str]]
    """Address of each service for clients outside the cluster; empty without an endpoint."""
    endpoint_address: pulumi.Output[str]
    """IP address of the endpoint; empty without one."""
    dns_records: pulumi.Output[list[dict[str, str]]]
    """DNS records (name, type, data) to create for the endpoint; empty without one."""
    api_keys: pulumi.Output[dict[str, str]]
    """Key of each service; secret."""

    def __init__(self, name: str, args: InferencePlatformInput, opts: pulumi.ResourceOptions | None = None):
        try:
            self.plan = make_plan(args, name=name)
        except PlanError as error:
            raise pulumi.RunError(f"the configuration of {name} cannot work:\n{error}") from None
        super().__init__("rayline:index:InferencePlatform", name, {}, opts)
        # the only cloud so far; another one is a class with the same attributes and methods
        self._cloud = GoogleCloud(self, name, self.plan) if self.plan.cluster.on_google else None
        self._gke = self._cloud.cluster if self._cloud else None
        self._cluster: list[pulumi.Resource] = self._cloud.ready if self._cloud else []
        self._kubernetes = self._kubernetes_provider("kubernetes")
        self._namespace = self._make_namespace()

        # a service is deleted before its operator, its nodes and its secrets, so that the operator can finish it
        needed: list[pulumi.Resource] = [self._namespace]
        needed += self._operator()
        needed += self._isolation()
        needed += self._token()
        if self._cloud:
            needed += self._cloud.weights(self._kubernetes, needed)
            needed += self._cloud.ladders(self._kubernetes)
        needed += self._network_cards()
        store_address = self._head_store(needed)
        endpoint = self._cloud.endpoint(self._in_namespace()) if self._cloud else None
        services = self._services(needed, store_address)
        if endpoint:
            self._routes(endpoint, services)
        self._register(endpoint, services)

    def _kubernetes_provider(self, ending: str, *, takes_over: bool = False) -> kubernetes.Provider:
        gke, args = self._gke, self.plan.cluster.args
        return kubernetes.Provider(
            f"{self._name}-{ending}",
            kubeconfig=gke.kubeconfig if gke else args.kubeconfig,
            context=None if gke else args.context,
            # without it the provider replaces itself, and all its objects, where a preview does not know the kubeconfig
            cluster_identifier=gke.cluster_id if gke else None,
            # without it a new key replaces the Secret, which is then missing for a moment
            enable_secret_mutable=True,
            upsert_existing_objects=True if takes_over else None,
            enable_patch_force=True if takes_over else None,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _in_cluster(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, provider=self._kubernetes, depends_on=list(after))

    def _in_namespace(self) -> pulumi.ResourceOptions:
        return self._in_cluster(self._namespace)

    def _make_namespace(self) -> kubernetes.core.v1.Namespace | kubernetes.core.v1.NamespacePatch:
        isolation = self.plan.isolation
        # a patch sets labels on what exists, and takes them away with the stack
        kind = kubernetes.core.v1.Namespace if self.plan.create_namespace else kubernetes.core.v1.NamespacePatch
        return kind(
            f"{self._name}-namespace",
            metadata={
                "name": self.plan.namespace,
                "labels": pod_security_labels(isolation.args.pod_security) if isolation else None,
            },
            opts=pulumi.ResourceOptions(
                parent=self,
                provider=self._kubernetes,
                depends_on=self._cluster,
                # it goes when Google has removed the services' network endpoint groups, which hold the VPC (ingress-gce 1720)
                custom_timeouts=pulumi.CustomTimeouts(delete="30m"),
            ),
        )

    def _operator(self) -> list[pulumi.Resource]:
        kuberay, mode = self.plan.kuberay, self.plan.cluster.mode
        if kuberay.source is not OperatorSource.HELM or mode is ClusterMode.LOCAL:
            return []
        crds = KuberayCrds(
            f"{self._name}-kuberay-crds",
            {"files": list(kuberay.crd_files), "keep": kuberay.keep_crds},
            opts=pulumi.ResourceOptions(
                parent=self,
                # CRDs that an earlier stack left are taken over; anything else that exists stays its owner's
                provider=self._kubernetes_provider("crds", takes_over=kuberay.keep_crds),
                depends_on=self._cluster,
            ),
        )
        operator = KuberayOperator(
            f"{self._name}-kuberay",
            {
                "version": kuberay.version,
                "repository": kuberay.repository,
                "chart": kuberay.chart,
                "namespace": defaults.OPERATOR_NAMESPACE,
                "watch_namespaces": list(dict.fromkeys([self.plan.namespace, *kuberay.watch_namespaces])),
                "owner": self._name,
                "on_system_pool": mode is ClusterMode.CREATE,
            },
            opts=self._in_cluster(crds, self._namespace, *self._cluster),
        )
        return [operator]

    def _isolation(self) -> list[pulumi.Resource]:
        if not self.plan.isolation:
            return []
        return [Isolation(f"{self._name}-isolation", {"manifests": isolation(self.plan)}, opts=self._in_namespace())]

    def _token(self) -> list[pulumi.Resource]:
        token = self.plan.hugging_face
        if token.source is not TokenSource.PULUMI_SECRET or not token.secret_name:
            return [self._cloud.token(self._kubernetes, self._namespace)] if self._cloud and token.secret else []
        secret = HuggingFaceSecret(
            f"{self._name}-hugging-face",
            {"namespace": self._namespace.metadata["name"], "secret_name": token.secret_name, "token": token.token},
            opts=self._in_namespace(),
        )
        return [secret]

    def _network_cards(self) -> list[pulumi.Resource]:
        if not any(pool.rdma for pool in self.plan.pools):
            return []
        manifest = network_claim_template(self.plan.namespace)
        return [NetworkClaim(f"{self._name}-rdma", {"manifest": manifest}, opts=self._in_namespace())]

    def _head_store(self, needed: list[pulumi.Resource]) -> pulumi.Input[str] | None:
        """Return the address of the heads' Redis; None without one. A Memorystore instance joins `needed`."""
        head = self.plan.head.args
        if head.store is not HeadStore.MEMORYSTORE or not self._cloud:
            return head.address
        store = self._cloud.head_store(self._in_namespace())
        needed.append(store)
        return store.address

    def _services(self, needed: list[pulumi.Resource], store_address: pulumi.Input[str] | None) -> dict[str, LlmService]:
        plan = self.plan
        pools = {pool.name: pool for pool in plan.pools}
        after = [*(self._cloud.pools if self._cloud else []), *needed]
        return {
            service.name: LlmService(
                f"{self._name}-{service.name}",
                {
                    "ray_service": ray_service(
                        service,
                        namespace=plan.namespace,
                        hugging_face=plan.hugging_face,
                        pool=pools.get(service.pool or ""),
                        head=plan.head,
                        store_address=store_address,
                    ),
                    "api_key": service.asked.api.key,
                    "start_timeout_seconds": service.start_timeout_seconds,
                    "api_key_generation": service.asked.api.key_generation,
                    "ray_token_generation": service.asked.rollout.ray_token_generation,
                    "applications": {model.application: model.asked.api.key_generation for model in service.beside},
                    "code": code_kinds(service) if service.has_code else None,
                },
                opts=self._in_cluster(*after),
            )
            for service in plan.services
        }

    def _routes(self, endpoint: EndpointGateway, services: Mapping[str, LlmService]) -> None:
        for service in self.plan.services:
            ServiceRoute(
                f"{self._name}-{service.name}-route",
                {
                    "policies": service_policies(self.plan.endpoint, service, self.plan.namespace),
                    "route": service_route(self.plan.endpoint, service, self.plan.namespace),
                },
                # after the service, so that the backend is there and the route goes first
                opts=self._in_cluster(endpoint, services[service.name]),
            )

    def _register(self, endpoint: EndpointGateway | None, services: Mapping[str, LlmService]) -> None:
        cluster, known = self._gke, pulumi.Output.from_input
        self.cluster_name = cluster.cluster_name if cluster else known("")
        self.kubeconfig = cluster.kubeconfig if cluster else known("")
        models = every_model(self.plan.services)
        self.endpoints = pulumi.Output.all(**{m.label: services[m.name].endpoint.apply(m.under) for m in models})
        self.urls = known(self.plan.urls)
        self.endpoint_address = endpoint.address if endpoint else known("")
        self.dns_records = self._dns_records(endpoint) if endpoint else known([])
        keys = {name: service.api_key for name, service in services.items()}
        for name, service in services.items():
            keys |= {f"{name}/{application}": key for application, key in service.further_keys.items()}
        self.api_keys = pulumi.Output.secret(pulumi.Output.all(**keys))
        outputs = ("cluster_name", "kubeconfig", "endpoints", "urls", "endpoint_address", "dns_records", "api_keys")
        self.register_outputs({output: getattr(self, output) for output in outputs})

    def _dns_records(self, endpoint: EndpointGateway) -> pulumi.Output[list[dict[str, str]]]:
        """Return the records that the owner of the domain creates: a name for each service, and a managed certificate's proof."""
        names = list(self.plan.endpoint.hostnames.values())
        return pulumi.Output.all(endpoint.address, endpoint.certificate_records).apply(
            lambda known: [{"name": f"{name}.", "type": "A", "data": known[0]} for name in names] + list(known[1])
        )
