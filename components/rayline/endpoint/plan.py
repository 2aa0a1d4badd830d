"""Decide about the endpoint for clients outside the cluster; refuse one that cannot work or guards nothing."""

import ipaddress
import re
from collections.abc import Iterable, Mapping

from rayline.cluster.types import ClusterPlan
from rayline.endpoint.arguments import HOST_LABEL, EndpointArgs
from rayline.endpoint.types import EndpointPlan
from rayline.facts.choices import ClusterMode, Exposure, Tls, UpgradeStrategy
from rayline.facts.google import MAX_DRAINING_SECONDS, PROXY_SUBNET_MAX_PREFIX
from rayline.facts.names import COMPUTE, fitted
from rayline.schema.check import Check
from rayline.service.arguments import ServiceArgs
from rayline.service.types import ServicePlan

PUBLIC_ONLY = ("rate_limit_per_minute", "rate_limit_by", "iap_members")
MAX_DOMAIN = 253


def plan_endpoint(
    check: Check, args: EndpointArgs, services: Mapping[str, ServiceArgs], cluster: ClusterPlan, name: str
) -> EndpointPlan:
    """Decide about the endpoint. `name` is the platform's; the names of Google resources begin with it."""
    if args.exposure is Exposure.NONE:
        if not check.told("endpoint"):
            _refuse_without_exposure(check, args, services)
        return EndpointPlan(args)
    if not cluster.on_google:
        says = f"only with a GKE cluster, whose Gateway API makes the load balancer, and cluster.mode is {cluster.mode.value}"
        gke = "; cluster.gke true where it is a GKE cluster" if cluster.mode is ClusterMode.EXISTING else ""
        fix = f"point your own gateway at <service>-serve-svc:8000 and let it pass /v1{gke}"
        check.refuse("endpoint.exposure", args.exposure, f"{says}. Fix: {fix}")
    for service, asked in services.items():
        if asked.rollout.strategy is UpgradeStrategy.INCREMENTAL:
            check.refuse(
                f"services.{service}.rollout.strategy",
                asked.rollout.strategy,
                "KubeRay creates a Gateway of its own for it and leaves the endpoint's Service empty (kuberay 5148). "
                "Fix: new-cluster or none with endpoint.exposure",
            )
    _check_tls(check, args)
    if args.exposure is Exposure.PUBLIC:
        _check_public(check, args, services)
    else:
        _check_internal(check, args, cluster)
    if not args.domain:
        says = "required with exposure internal and public. Fix: your domain, for example llm.example.com"
        check.refuse("endpoint.domain", None, says)
    domain = args.domain or ""
    return EndpointPlan(
        args,
        resource_name=fitted(name, COMPUTE, tail="endpoint") if name else "endpoint",
        # with the domain in it, so that another domain makes a second certificate before the first one goes
        certificate_name=fitted("-".join(part for part in (name, domain.replace(".", "-")) if part), COMPUTE),
        hostnames=_hostnames(check, domain, services),
    )


def _refuse_without_exposure(check: Check, args: EndpointArgs, services: Mapping[str, ServiceArgs]) -> None:
    why = "has no effect without endpoint.exposure internal or public. Fix: leave it out"
    for key in sorted(args.model_fields_set - {"exposure"}):
        check.refuse(f"endpoint.{key}", _shown(args, key), why)
    for service, asked in services.items():
        if asked.api.hostname:
            check.refuse(f"services.{service}.api.hostname", asked.api.hostname, why)


def _shown(args: EndpointArgs, key: str) -> object:
    """Return the value of a key for a message; None for a list."""
    value = getattr(args, key)
    return None if isinstance(value, list) else value


def _check_tls(check: Check, args: EndpointArgs) -> None:
    public = args.exposure is Exposure.PUBLIC
    if args.tls is Tls.NONE and public:
        check.refuse("endpoint.tls", args.tls, "keys and prompts would cross the internet in clear text. Fix: managed or own")
    if args.tls is Tls.OWN and not args.certificate:
        fix = "the name of a Certificate Manager map" if public else "the name of a TLS Secret in the platform's namespace"
        check.refuse("endpoint.certificate", None, f"required with endpoint.tls own. Fix: {fix}")
    elif args.tls is not Tls.OWN and args.certificate:
        check.only_with("endpoint.certificate", args.certificate, "endpoint.tls own", args.tls)


def _check_public(check: Check, args: EndpointArgs, services: Mapping[str, ServiceArgs]) -> None:
    for service, asked in services.items():
        if not asked.api.key and not args.iap_members:
            says = (
                "with endpoint.exposure public any client could use the model. Fix: leave it on, or name endpoint.iap_members"
            )
            check.refuse(f"services.{service}.api.key", False, says)
    for key in ("proxy_cidr", "create_proxy_subnet"):
        if args.said(key):
            check.only_with(f"endpoint.{key}", getattr(args, key), "exposure internal", args.exposure)
    if args.rate_limit_per_minute is None and args.said("rate_limit_by"):
        says = "counts nothing without endpoint.rate_limit_per_minute. Fix: set that too, or leave it out"
        check.refuse("endpoint.rate_limit_by", args.rate_limit_by, says)


def _check_internal(check: Check, args: EndpointArgs, cluster: ClusterPlan) -> None:
    for key in PUBLIC_ONLY:
        if args.said(key):
            says = "only with exposure public: an internal endpoint has neither Cloud Armor nor IAP. Fix: leave it out"
            check.refuse(f"endpoint.{key}", _shown(args, key), says)
    if not cluster.on_google:
        return
    proxies = ipaddress.IPv4Network(args.proxy_cidr)
    if proxies.prefixlen > PROXY_SUBNET_MAX_PREFIX:
        says = f"too small for a proxy-only subnet. Fix: /{PROXY_SUBNET_MAX_PREFIX} or larger; Google recommends /23"
        check.refuse("endpoint.proxy_cidr", args.proxy_cidr, says)
    if cluster.args.network.existing:
        if not args.said("proxy_cidr"):
            says = "required in a network that exists. Fix: a free range of it, or that of its proxy-only subnet in the region"
            check.refuse("endpoint.proxy_cidr", None, says)
        return
    if cluster.mode is ClusterMode.EXISTING:
        says = "required with endpoint.exposure internal: the address and the proxies lie in the cluster's network"
        if not check.told("cluster.network"):
            check.refuse("cluster.network.existing", None, f"{says}. Fix: its network and its subnetwork")
        return
    if not args.create_proxy_subnet:
        says = "only with cluster.network.existing: a new network has no such subnet. Fix: leave it out"
        check.refuse("endpoint.create_proxy_subnet", False, says)
    for key in ("nodes_cidr", "pods_cidr", "services_cidr"):
        other = getattr(cluster.args.network, key)
        if proxies.overlaps(ipaddress.IPv4Network(other)):
            says = f"overlaps cluster.network.{key} {other}. Fix: a range of its own"
            check.refuse("endpoint.proxy_cidr", args.proxy_cidr, says)


def _hostnames(check: Check, domain: str, services: Mapping[str, ServiceArgs]) -> dict[str, str]:
    """Return the host name of each service. The certificate covers the domain and one label before it."""
    hostnames: dict[str, str] = {}
    for service, asked in services.items():
        path, hostname = f"services.{service}.api.hostname", asked.api.hostname or f"{service}.{domain}"
        label, _, rest = hostname.partition(".")
        if domain and hostname != domain and (rest != domain or not re.fullmatch(HOST_LABEL, label)):
            fix = f"{domain} or one label before it, such as {service}.{domain}"
            check.refuse(path, hostname, f"the certificate does not cover it. Fix: {fix}")
        elif len(hostname) > MAX_DOMAIN:
            check.refuse(path, hostname, f"{len(hostname)} characters. Fix: a name with at most {MAX_DOMAIN} characters")
        other = next((other for other, taken in hostnames.items() if taken == hostname), None)
        if other:
            check.refuse(path, hostname, f"services.{other} has this name already. Fix: a name of its own")
        hostnames[service] = hostname
    return hostnames


def endpoint_warnings(endpoint: EndpointPlan, services: Iterable[ServicePlan]) -> list[str]:
    """Warn of a public endpoint without a limit, and of streams that the load balancer cuts."""
    warnings = []
    if endpoint.exposure is Exposure.PUBLIC and endpoint.args.rate_limit_per_minute is None:
        warnings.append("the public endpoint limits no client's requests: set endpoint.rate_limit_per_minute")
    for service in services:
        stream = service.asked.rollout.longest_stream_seconds
        if endpoint.exposure is not Exposure.NONE and stream > MAX_DRAINING_SECONDS:
            warnings.append(
                f"{service.name}: the load balancer leaves a stream {MAX_DRAINING_SECONDS} s at most when its pod goes, less than "
                f"longest_stream_seconds {stream}"
            )
    return warnings
