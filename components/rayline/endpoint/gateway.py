"""Gateway of all services with its resources in Google Cloud, and the route of each service."""

from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.cluster.kubernetes_object import KubernetesObject
from rayline.facts.choices import Exposure, RateLimitKey, Tls

# GKE deletes the load balancer behind a finalizer of the Gateway, which takes minutes.
DELETE_TIMEOUT = "30m"
TLS_POLICY: dict[str, Any] = {"profile": "MODERN", "min_tls_version": "TLS_1_2"}
# Keys of Cloud Armor's counters. An API key counts in both headers that the gate takes: requests without the counted header count
# together, also those without a key. enforce_on_key has to be empty beside configs (pulumi-gcp 10.2, compute/security_policy.py).
_RATE_LIMIT_KEYS: dict[RateLimitKey, dict[str, Any]] = {
    RateLimitKey.CLIENT_IP: {"enforce_on_key": "IP"},
    RateLimitKey.API_KEY: {
        "enforce_on_key": "",
        "enforce_on_key_configs": [
            {"enforce_on_key_type": "HTTP_HEADER", "enforce_on_key_name": header} for header in ("Authorization", "x-api-key")
        ],
    },
}


class EndpointGatewayArgs(TypedDict):
    """One load balancer for all services."""

    project: str
    """Google Cloud project."""
    region: str
    """Region of the cluster."""
    network_id: NotRequired[pulumi.Input[str] | None]
    """internal: id of the VPC."""
    subnetwork_id: NotRequired[pulumi.Input[str] | None]
    """internal: id of the subnet of the address."""
    exposure: Exposure
    """internal or public."""
    resource_name: str
    """Name of address, TLS policy, Cloud Armor policy and proxies' subnet, as in the manifests."""
    certificate_name: str
    """Name of a managed certificate, its map and its DNS authorization."""
    domain: str
    """Domain that a managed certificate covers, with all names one label before it."""
    tls: Tls
    """Where the certificate comes from; managed creates one."""
    proxy_cidr: NotRequired[str | None]
    """internal: range of the proxies; none where the VPC has their subnet."""
    proxy_project: NotRequired[str | None]
    """internal: project of the VPC, where it is another one (Shared VPC)."""
    rate_limit_per_minute: NotRequired[int | None]
    """public: requests a minute that Cloud Armor lets through."""
    rate_limit_by: RateLimitKey
    """public: client address or API key, whose requests count together."""
    iap_members: list[str]
    """public: principals that may pass Identity-Aware Proxy."""
    gateway: dict[str, Any]
    """Manifest of the Gateway."""
    extras: list[dict[str, Any]]
    """Manifests that refer to the Gateway."""


class EndpointGateway(pulumi.ComponentResource):
    """Address, certificate, policies and Gateway. The routes of services are components of their own."""

    address: pulumi.Output[str]
    """IP address of the load balancer."""
    certificate_records: pulumi.Output[list[dict[str, str]]]
    """DNS records (name, type, data) that prove the ownership of the domain to Google; empty without a managed certificate."""

    def __init__(self, name: str, args: EndpointGatewayArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:EndpointGateway", name, dict(args), opts)
        self._name, self._args = name, args
        self._own = pulumi.ResourceOptions(parent=self)
        public = Exposure(args["exposure"]) is Exposure.PUBLIC
        needed = self._public() if public else self._internal()
        self.certificate_records = pulumi.Output.from_input([])
        if Tls(args["tls"]) is Tls.MANAGED:
            needed.append(self._certificate(public))
        options = pulumi.ResourceOptions(
            parent=self, depends_on=needed, custom_timeouts=pulumi.CustomTimeouts(delete=DELETE_TIMEOUT)
        )
        gateway = KubernetesObject(name, args["gateway"], opts=options)
        for extra in args["extras"]:
            options = pulumi.ResourceOptions(parent=self, depends_on=[*needed, gateway])
            KubernetesObject(f"{name}-{extra['kind'].lower()}", extra, opts=options)
        self.register_outputs({"address": self.address, "certificate_records": self.certificate_records})

    def _public(self) -> list[pulumi.Resource]:
        name, args = self._name, self._args
        named: Any = {"project": args["project"], "name": args["resource_name"], "opts": self._own}
        address = gcp.compute.GlobalAddress(f"{name}-address", **named)
        self.address = address.address
        needed: list[pulumi.Resource] = [address, gcp.compute.SSLPolicy(f"{name}-tls", **named, **TLS_POLICY)]
        if args.get("rate_limit_per_minute") is not None:
            needed.append(self._armor())
        for member in args["iap_members"]:
            # the backend services' names are GKE's own, so the grant is the project's, for the endpoint's names alone
            gcp.iap.WebTypeComputeIamMember(
                f"{name}-iap-{member}",
                project=args["project"],
                role="roles/iap.httpsResourceAccessor",
                member=member,
                condition={
                    "title": args["resource_name"],
                    "expression": f'request.host == "{args["domain"]}" || request.host.endsWith(".{args["domain"]}")',
                },
                opts=self._own,
            )
        return needed

    def _armor(self) -> pulumi.Resource:
        args = self._args
        every_client: Any = {"versioned_expr": "SRC_IPS_V1", "config": {"src_ip_ranges": ["*"]}}
        limit: Any = {
            "conform_action": "allow",
            "exceed_action": "deny(429)",
            "rate_limit_threshold": {"count": args.get("rate_limit_per_minute") or 0, "interval_sec": 60},
            **_RATE_LIMIT_KEYS[RateLimitKey(args["rate_limit_by"])],
        }
        return gcp.compute.SecurityPolicy(
            f"{self._name}-armor",
            project=args["project"],
            name=args["resource_name"],
            rules=[
                {
                    "action": "throttle",
                    "priority": 1000,
                    "description": "requests a minute",
                    "match": every_client,
                    "rate_limit_options": limit,
                },
                # every policy ends with a rule of the lowest priority
                {"action": "allow", "priority": 2147483647, "description": "the rest", "match": every_client},
            ],
            opts=self._own,
        )

    def _internal(self) -> list[pulumi.Resource]:
        name, args = self._name, self._args
        named: Any = {"project": args["project"], "region": args["region"], "name": args["resource_name"], "opts": self._own}
        proxies: list[pulumi.Resource] = []
        if args.get("proxy_cidr"):
            proxies.append(
                gcp.compute.Subnetwork(
                    f"{name}-proxies",
                    network=args.get("network_id"),
                    ip_cidr_range=args.get("proxy_cidr"),
                    purpose="REGIONAL_MANAGED_PROXY",
                    role="ACTIVE",
                    **named | {"project": args.get("proxy_project") or args["project"]},
                )
            )
        address = gcp.compute.Address(f"{name}-address", address_type="INTERNAL", subnetwork=args.get("subnetwork_id"), **named)
        self.address = address.address
        needed: list[pulumi.Resource] = [*proxies, address]
        if Tls(args["tls"]) is not Tls.NONE:
            needed.append(gcp.compute.RegionSslPolicy(f"{name}-tls", **named, **TLS_POLICY))
        return needed

    def _certificate(self, public: bool) -> pulumi.Resource:
        """Create the certificate. Return what the load balancer takes: a regional one the certificate, a global one a map."""
        name, args, manager = self._name, self._args, gcp.certificatemanager
        named: Any = {"project": args["project"], "name": args["certificate_name"], "opts": self._own}
        location = "global" if public else args["region"]
        authorization = manager.DnsAuthorization(
            f"{name}-domain",
            location=location,
            domain=args["domain"],
            # a record of this project's own: of the other kind there is one for each domain, in all projects
            type="PER_PROJECT_RECORD",
            **named,
        )
        self.certificate_records = authorization.dns_resource_records.apply(
            lambda records: [{"name": record.name, "type": record.type, "data": record.data} for record in records or []]
        )
        certificate = manager.Certificate(
            f"{name}-certificate",
            location=location,
            managed={
                # a service that comes later needs no other certificate
                "domains": [args["domain"], f"*.{args['domain']}"],
                "dns_authorizations": [authorization.id],
            },
            **named,
        )
        if not public:
            return certificate
        certificates = manager.CertificateMap(f"{name}-certificates", **named)
        return manager.CertificateMapEntry(
            f"{name}-certificates-entry", map=certificates.name, matcher="PRIMARY", certificates=[certificate.id], **named
        )


class ServiceRouteArgs(TypedDict):
    """One service behind the Gateway."""

    policies: list[dict[str, Any]]
    """Manifests of the policies of the service's backend."""
    route: dict[str, Any]
    """Manifest of the HTTPRoute."""


class ServiceRoute(pulumi.ComponentResource):
    """Health check, backend policy and route of one service. It depends on the service, and so is deleted before it."""

    def __init__(self, name: str, args: ServiceRouteArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:ServiceRoute", name, dict(args), opts)
        policies = [
            KubernetesObject(f"{name}-{policy['kind'].lower()}", policy, opts=pulumi.ResourceOptions(parent=self))
            for policy in args["policies"]
        ]
        # a backend without them starts with health checks of GET / and 30 s for an answer
        KubernetesObject(name, args["route"], opts=pulumi.ResourceOptions(parent=self, depends_on=policies))
        self.register_outputs({})
