"""How clients outside of the cluster reach the services, and a refusal of an endpoint that cannot work or guards nothing."""

import ipaddress
import re
from collections.abc import Mapping

from rayline.cluster.types import ClusterPlan
from rayline.endpoint.arguments import HOST_LABEL, EndpointArgs
from rayline.endpoint.types import EndpointPlan
from rayline.facts.choices import ClusterMode, Exposure, Tls, UpgradeStrategy
from rayline.facts.google import PROXY_SUBNET_MAX_PREFIX
from rayline.facts.names import COMPUTE, fitted
from rayline.schema.check import Check
from rayline.service.arguments import ServiceArgs

PUBLIC_ONLY = ("rate_limit_per_minute", "rate_limit_by", "iap_members")
MAX_DOMAIN = 253


def plan_endpoint(
    check: Check, asked: EndpointArgs, services: Mapping[str, ServiceArgs], cluster: ClusterPlan, name: str
) -> EndpointPlan:
    """Decide about the endpoint. `name` is the platform's, with which the names of Google resources begin."""
    exposure = asked.exposure
    if exposure is Exposure.NONE:
        if not check.told("endpoint"):
            _refuse_without_exposure(check, asked, services)
        return EndpointPlan(exposure)
    if cluster.mode is not ClusterMode.CREATE:
        check.refuse(
            "endpoint.exposure",
            exposure,
            f"only with cluster.mode create, and it is {cluster.mode.value}: the load balancer needs a GKE cluster with the Gateway API in this kit's own VPC; elsewhere point a gateway of yours at <service>-serve-svc:8000 and let it pass /v1",
        )
    for service, one in services.items():
        if one.rollout.strategy is UpgradeStrategy.INCREMENTAL:
            check.refuse(
                f"services.{service}.rollout.strategy",
                one.rollout.strategy,
                "KubeRay makes a Gateway of its own for it and leaves the Service empty that the endpoint leads to (kuberay 5148): new-cluster or none with endpoint.exposure",
            )
    _check_tls(check, asked)
    if exposure is Exposure.PUBLIC:
        _check_public(check, asked, services)
    else:
        _check_internal(check, asked, cluster)
    if not asked.domain:
        check.refuse("endpoint.domain", None, "required with exposure internal and public, for example llm.example.com")
    domain = asked.domain or ""
    return EndpointPlan(
        exposure=exposure,
        resource_name=fitted(name, COMPUTE, tail="endpoint") if name else "endpoint",
        certificate_name=_certificate_name(name, domain),
        domain=domain,
        tls=asked.tls,
        certificate=asked.certificate,
        hostnames=_hostnames(check, domain, services),
        rate_limit_per_minute=asked.rate_limit_per_minute,
        rate_limit_by=asked.rate_limit_by,
        iap_members=tuple(asked.iap_members),
        proxy_cidr=asked.proxy_cidr if exposure is Exposure.INTERNAL else None,
    )


def _refuse_without_exposure(check: Check, asked: EndpointArgs, services: Mapping[str, ServiceArgs]) -> None:
    why = "has no meaning without endpoint.exposure internal or public: leave it out"
    for key in sorted(asked.model_fields_set - {"exposure"}):
        value = getattr(asked, key)
        check.refuse(f"endpoint.{key}", None if isinstance(value, list) else value, why)
    for service, one in services.items():
        if one.api.hostname:
            check.refuse(f"services.{service}.api.hostname", one.api.hostname, why)


def _check_tls(check: Check, asked: EndpointArgs) -> None:
    public = asked.exposure is Exposure.PUBLIC
    what = "the name of a Certificate Manager map" if public else "the name of a TLS Secret in the platform's namespace"
    if asked.tls is Tls.NONE and public:
        check.refuse("endpoint.tls", asked.tls, "keys and prompts would cross the internet in clear text: managed or own")
    if asked.tls is Tls.OWN and not asked.certificate:
        check.refuse("endpoint.certificate", None, f"required with endpoint.tls own: {what}")
    elif asked.tls is not Tls.OWN and asked.certificate:
        check.refuse("endpoint.certificate", asked.certificate, f"only with endpoint.tls own, and it is {asked.tls.value}")


def _check_public(check: Check, asked: EndpointArgs, services: Mapping[str, ServiceArgs]) -> None:
    for service, one in services.items():
        if not one.api.key and not asked.iap_members:
            check.refuse(
                f"services.{service}.api.key",
                False,
                "with endpoint.exposure public everybody could use the model: leave api.key on, or name endpoint.iap_members",
            )
    if asked.said("proxy_cidr"):
        check.refuse("endpoint.proxy_cidr", asked.proxy_cidr, "only with exposure internal, and it is public: leave it out")
    if asked.rate_limit_per_minute is None and asked.said("rate_limit_by"):
        check.refuse("endpoint.rate_limit_by", asked.rate_limit_by, "counts nothing without endpoint.rate_limit_per_minute")


def _check_internal(check: Check, asked: EndpointArgs, cluster: ClusterPlan) -> None:
    for key in PUBLIC_ONLY:
        if asked.said(key):
            value = getattr(asked, key)
            check.refuse(
                f"endpoint.{key}",
                None if isinstance(value, list) else value,
                "only with exposure public: the kit puts neither Cloud Armor nor IAP before an internal endpoint",
            )
    if cluster.mode is ClusterMode.CREATE:
        _check_proxy_cidr(check, asked.proxy_cidr, cluster)


def _check_proxy_cidr(check: Check, proxy_cidr: str, cluster: ClusterPlan) -> None:
    network = ipaddress.IPv4Network(proxy_cidr)
    if network.prefixlen > PROXY_SUBNET_MAX_PREFIX:
        check.refuse("endpoint.proxy_cidr", proxy_cidr, f"/{PROXY_SUBNET_MAX_PREFIX} or larger; Google recommends /23")
    for key in ("nodes_cidr", "pods_cidr", "services_cidr"):
        other = getattr(cluster.args.network, key)
        if network.overlaps(ipaddress.IPv4Network(other)):
            check.refuse("endpoint.proxy_cidr", proxy_cidr, f"overlaps cluster.network.{key} {other}: a range of its own")


def _hostnames(check: Check, domain: str, services: Mapping[str, ServiceArgs]) -> dict[str, str]:
    """Service -> name. The certificate covers the domain and one label before it, so names beyond that are refused."""
    found: dict[str, str] = {}
    for service, asked in services.items():
        path, hostname = f"services.{service}.api.hostname", asked.api.hostname or f"{service}.{domain}"
        label, _, rest = hostname.partition(".")
        if domain and hostname != domain and (rest != domain or not re.fullmatch(HOST_LABEL, label)):
            check.refuse(
                path, hostname, f"{domain} or one label before it, such as {service}.{domain}: the certificate covers no others"
            )
        elif len(hostname) > MAX_DOMAIN:
            check.refuse(path, hostname, f"{len(hostname)} characters: a name has at most {MAX_DOMAIN} characters")
        other = next((one for one, taken in found.items() if taken == hostname), None)
        if other:
            check.refuse(path, hostname, f"services.{other} has this name already: every service has its own")
        found[service] = hostname
    return found


def _certificate_name(name: str, domain: str) -> str:
    """With the domain in it, so that another domain makes a second certificate before the first one goes."""
    return fitted("-".join(part for part in (name, domain.replace(".", "-")) if part), COMPUTE)
