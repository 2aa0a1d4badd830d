"""The Gateway before all services with what it needs in Google Cloud, and a service's way through it."""

from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.cluster.kubernetes_object import KubernetesObject
from rayline.facts.choices import Exposure, RateLimitKey, Tls

# GKE takes the load balancer apart behind a finalizer of the Gateway; that is minutes.
DELETE_TIMEOUT = "30m"
# What Cloud Armor counts by. Of the API key both headers that the gate takes: a request without the counted header is
# counted together with all others without it, those that bring no key among them. enforce_on_key has to be empty beside
# configs (pulumi-gcp 10.2, compute/security_policy.py).
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
    network_id: pulumi.Input[str]
    """Id of the VPC."""
    subnetwork_id: pulumi.Input[str]
    """Id of the subnet that an internal address is from."""
    exposure: Exposure
    """internal or public."""
    resource_name: str
    """Name of address, TLS policy, Cloud Armor policy and proxies' subnet, as the manifests say it."""
    certificate_name: str
    """Name of a managed certificate, its map and its DNS authorization."""
    domain: str
    """The domain that a managed certificate covers, with all names one label before it."""
    tls: Tls
    """Whether a certificate is made here."""
    proxy_cidr: NotRequired[str]
    """internal: range of the proxies."""
    rate_limit_per_minute: NotRequired[int]
    """public: requests a minute that Cloud Armor lets through."""
    rate_limit_by: RateLimitKey
    """public: whose requests are counted together."""
    iap_members: list[str]
    """public: who may pass Identity-Aware Proxy."""
    gateway: dict[str, Any]
    """The manifest of the Gateway."""
    extras: list[dict[str, Any]]
    """Manifests that hang on the Gateway."""


class EndpointGateway(pulumi.ComponentResource):
    """Address, certificate, policies and Gateway. The routes of services are components of their own."""

    address: pulumi.Output[str]
    """IP address of the load balancer."""
    certificate_records: pulumi.Output[list[dict[str, str]]]
    """DNS records (name, type, data) that prove to Google whose domain it is; empty without a managed certificate."""

    def __init__(self, name: str, args: EndpointGatewayArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:EndpointGateway", name, dict(args), opts)
        self._name, self._args = name, args
        self._here = pulumi.ResourceOptions(parent=self)
        public = Exposure(args["exposure"]) is Exposure.PUBLIC
        needed = self._public() if public else self._internal()
        self.certificate_records = pulumi.Output.from_input([])
        if Tls(args["tls"]) is Tls.MANAGED:
            needed.append(self._certificate(public))
        gateway = KubernetesObject(
            name,
            args["gateway"],
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=needed, custom_timeouts=pulumi.CustomTimeouts(delete=DELETE_TIMEOUT)
            ),
        )
        for extra in args["extras"]:
            KubernetesObject(
                f"{name}-{extra['kind'].lower()}",
                extra,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[*needed, gateway]),
            )
        self.register_outputs({"address": self.address, "certificate_records": self.certificate_records})

    def _public(self) -> list[pulumi.Resource]:
        name, args = self._name, self._args
        project, resource_name = args["project"], args["resource_name"]
        address = gcp.compute.GlobalAddress(f"{name}-address", project=project, name=resource_name, opts=self._here)
        self.address = address.address
        needed: list[pulumi.Resource] = [
            address,
            gcp.compute.SSLPolicy(
                f"{name}-tls", project=project, name=resource_name, profile="MODERN", min_tls_version="TLS_1_2", opts=self._here
            ),
        ]
        if args.get("rate_limit_per_minute") is not None:
            needed.append(self._armor())
        for member in args["iap_members"]:
            # the backend services' names are GKE's own, so the grant is the project's, for the endpoint's names alone
            gcp.iap.WebTypeComputeIamMember(
                f"{name}-iap-{member}",
                project=project,
                role="roles/iap.httpsResourceAccessor",
                member=member,
                condition=gcp.iap.WebTypeComputeIamMemberConditionArgs(
                    title=resource_name,
                    expression=f'request.host == "{args["domain"]}" || request.host.endsWith(".{args["domain"]}")',
                ),
                opts=self._here,
            )
        return needed

    def _armor(self) -> pulumi.Resource:
        args, compute = self._args, gcp.compute
        everybody = compute.SecurityPolicyRuleMatchArgs(
            versioned_expr="SRC_IPS_V1", config=compute.SecurityPolicyRuleMatchConfigArgs(src_ip_ranges=["*"])
        )
        return compute.SecurityPolicy(
            f"{self._name}-armor",
            project=args["project"],
            name=args["resource_name"],
            rules=[
                compute.SecurityPolicyRuleArgs(
                    action="throttle",
                    priority=1000,
                    description="requests a minute",
                    match=everybody,
                    rate_limit_options=compute.SecurityPolicyRuleRateLimitOptionsArgs(
                        conform_action="allow",
                        exceed_action="deny(429)",
                        **_RATE_LIMIT_KEYS[RateLimitKey(args["rate_limit_by"])],
                        rate_limit_threshold=compute.SecurityPolicyRuleRateLimitOptionsRateLimitThresholdArgs(
                            count=args.get("rate_limit_per_minute", 0), interval_sec=60
                        ),
                    ),
                ),
                # every policy ends with a rule of the lowest priority
                compute.SecurityPolicyRuleArgs(action="allow", priority=2147483647, description="the rest", match=everybody),
            ],
            opts=self._here,
        )

    def _internal(self) -> list[pulumi.Resource]:
        name, args = self._name, self._args
        project, region, resource_name = args["project"], args["region"], args["resource_name"]
        proxies = gcp.compute.Subnetwork(
            f"{name}-proxies",
            project=project,
            region=region,
            name=resource_name,
            network=args["network_id"],
            ip_cidr_range=args.get("proxy_cidr"),
            purpose="REGIONAL_MANAGED_PROXY",
            role="ACTIVE",
            opts=self._here,
        )
        address = gcp.compute.Address(
            f"{name}-address",
            project=project,
            region=region,
            name=resource_name,
            address_type="INTERNAL",
            subnetwork=args["subnetwork_id"],
            opts=self._here,
        )
        self.address = address.address
        needed: list[pulumi.Resource] = [proxies, address]
        if Tls(args["tls"]) is not Tls.NONE:
            needed.append(
                gcp.compute.RegionSslPolicy(
                    f"{name}-tls",
                    project=project,
                    region=region,
                    name=resource_name,
                    profile="MODERN",
                    min_tls_version="TLS_1_2",
                    opts=self._here,
                )
            )
        return needed

    def _certificate(self, public: bool) -> pulumi.Resource:
        """The last resource of the chain. A regional load balancer takes the certificate, a global one a map."""
        name, args, manager = self._name, self._args, gcp.certificatemanager
        location = "global" if public else args["region"]
        authorization = manager.DnsAuthorization(
            f"{name}-domain",
            project=args["project"],
            location=location,
            name=args["certificate_name"],
            domain=args["domain"],
            # a record of this project's own: the other kind is one per domain, whoever asks
            type="PER_PROJECT_RECORD",
            opts=self._here,
        )
        self.certificate_records = authorization.dns_resource_records.apply(
            lambda records: [{"name": one.name, "type": one.type, "data": one.data} for one in records or []]
        )
        certificate = manager.Certificate(
            f"{name}-certificate",
            project=args["project"],
            location=location,
            name=args["certificate_name"],
            managed=manager.CertificateManagedArgs(
                # a service that comes later needs no other certificate
                domains=[args["domain"], f"*.{args['domain']}"],
                dns_authorizations=[authorization.id],
            ),
            opts=self._here,
        )
        if not public:
            return certificate
        certificates = manager.CertificateMap(
            f"{name}-certificates", project=args["project"], name=args["certificate_name"], opts=self._here
        )
        return manager.CertificateMapEntry(
            f"{name}-certificates-entry",
            project=args["project"],
            name=args["certificate_name"],
            map=certificates.name,
            matcher="PRIMARY",
            certificates=[certificate.id],
            opts=self._here,
        )


class ServiceRouteArgs(TypedDict):
    """One service behind the Gateway."""

    policies: list[dict[str, Any]]
    """Manifests of the policies of the service's backend."""
    route: dict[str, Any]
    """The manifest of the HTTPRoute."""


class ServiceRoute(pulumi.ComponentResource):
    """Health check, backend policy and route of one service. Depends on the service, and so goes before it."""

    def __init__(self, name: str, args: ServiceRouteArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:ServiceRoute", name, dict(args), opts)
        policies = [
            KubernetesObject(f"{name}-{policy['kind'].lower()}", policy, opts=pulumi.ResourceOptions(parent=self))
            for policy in args["policies"]
        ]
        # a backend without them is born with GET / for its health and 30 s for an answer
        KubernetesObject(name, args["route"], opts=pulumi.ResourceOptions(parent=self, depends_on=policies))
        self.register_outputs({})
