"""How clients outside of the cluster reach the services, and a refusal of an endpoint that cannot work or guards nothing."""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

from ..facts import defaults
from ..facts.choices import ClusterMode, Exposure, RateLimitKey, Tls, UpgradeStrategy
from ..facts.google import PROXY_SUBNET_MAX_PREFIX
from ..names import COMPUTE, fitted
from .check import DNS_LABEL, DNS_RULE, Check
from .types import ClusterPlan, EndpointPlan

LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DOMAIN = re.compile(rf"({LABEL}\.)+{LABEL}")
MAX_DOMAIN = 253
# Principals of an IAM binding; allUsers and allAuthenticatedUsers are none that guard anything.
IAM_MEMBER = re.compile(r"(user|group|serviceAccount):[^@\s]+@\S+|domain:\S+|principal(Set)?://\S+")
PUBLIC_ONLY = ("rate_limit_per_minute", "rate_limit_by", "iap_members")


def plan_endpoint(check: Check, args: Mapping[str, Any], cluster: ClusterPlan, name: str) -> EndpointPlan:
    """`args` are those of InferencePlatform; `name` is the platform's, with which the names of Google resources begin."""
    given, services = args.get("endpoint") or {}, args.get("services") or {}
    exposure = Exposure(given.get("exposure", defaults.EXPOSURE))
    if exposure is Exposure.NONE:
        _refuse_without_exposure(check, given, services)
        return EndpointPlan(exposure)
    if cluster.mode is not ClusterMode.CREATE:
        check.refuse(
            "endpoint.exposure",
            exposure,
            f"only with cluster.mode create, and it is {cluster.mode.value}: the load balancer needs a GKE cluster with the Gateway API in this kit's own VPC; elsewhere point a gateway of yours at <service>-serve-svc:8000 and let it pass /v1",
        )
    for service, asked in services.items():
        if asked.get("upgrade") == UpgradeStrategy.INCREMENTAL:
            check.refuse(
                f"services.{service}.upgrade",
                asked["upgrade"],
                "KubeRay makes a Gateway of its own for it and leaves the Service empty that the endpoint leads to (kuberay 5148): new-cluster or none with endpoint.exposure",
            )
    tls = Tls(given.get("tls", defaults.TLS))
    _check_tls(check, exposure, tls, given.get("certificate"))
    if exposure is Exposure.PUBLIC:
        _check_public(check, given, services)
        if given.get("proxy_cidr"):
            check.refuse(
                "endpoint.proxy_cidr",
                given["proxy_cidr"],
                "only with exposure internal, and it is public: leave it out",
            )
    else:
        for key in PUBLIC_ONLY:
            if given.get(key):
                check.refuse(
                    f"endpoint.{key}",
                    given[key],
                    "only with exposure public: the kit puts neither Cloud Armor nor IAP before an internal endpoint",
                )
    proxy_cidr = given.get("proxy_cidr") or defaults.PROXY_CIDR
    if exposure is Exposure.INTERNAL and cluster.mode is ClusterMode.CREATE:
        _check_proxy_cidr(check, proxy_cidr, cluster)
    domain = _domain(check, given.get("domain"))
    rate_limit = given.get("rate_limit_per_minute")
    if rate_limit is None and given.get("rate_limit_by") and exposure is Exposure.PUBLIC:
        check.refuse(
            "endpoint.rate_limit_by", given["rate_limit_by"], "counts nothing without endpoint.rate_limit_per_minute"
        )
    return EndpointPlan(
        exposure=exposure,
        resource_name=fitted(name, COMPUTE, tail="endpoint") if name else "endpoint",
        certificate_name=_certificate_name(name, domain),
        domain=domain,
        tls=tls,
        certificate=given.get("certificate"),
        hostnames=_hostnames(check, domain, services),
        rate_limit_per_minute=rate_limit,
        rate_limit_by=RateLimitKey(given.get("rate_limit_by") or defaults.RATE_LIMIT_BY),
        iap_members=tuple(given.get("iap_members") or ()),
        proxy_cidr=proxy_cidr if exposure is Exposure.INTERNAL else None,
    )


def _refuse_without_exposure(check: Check, given: Mapping[str, Any], services: Mapping[str, Any]) -> None:
    for key in given:
        if key != "exposure":
            check.refuse(
                f"endpoint.{key}",
                given[key],
                "has no meaning without endpoint.exposure internal or public: leave it out",
            )
    for service, asked in services.items():
        if asked.get("hostname"):
            check.refuse(
                f"services.{service}.hostname",
                asked["hostname"],
                "has no meaning without endpoint.exposure internal or public: leave it out",
            )


def _check_tls(check: Check, exposure: Exposure, tls: Tls, certificate: str | None) -> None:
    what = (
        "the name of a Certificate Manager map"
        if exposure is Exposure.PUBLIC
        else "the name of a TLS Secret in the platform's namespace"
    )
    if tls is Tls.NONE and exposure is Exposure.PUBLIC:
        check.refuse("endpoint.tls", tls, "keys and prompts would cross the internet in clear text: managed or own")
    if tls is Tls.OWN and not certificate:
        check.refuse("endpoint.certificate", None, f"required with endpoint.tls own: {what}")
    elif tls is not Tls.OWN and certificate:
        check.refuse("endpoint.certificate", certificate, f"only with endpoint.tls own, and it is {tls.value}")
    elif certificate and not DNS_LABEL.fullmatch(certificate):
        check.refuse("endpoint.certificate", certificate, f"{what}: {DNS_RULE}, no path")


def _check_public(check: Check, given: Mapping[str, Any], services: Mapping[str, Any]) -> None:
    members = given.get("iap_members") or ()
    for service, asked in services.items():
        if not asked.get("api_key", True) and not members:
            check.refuse(
                f"services.{service}.api_key",
                False,
                "with endpoint.exposure public everybody could use the model: leave api_key on, or name endpoint.iap_members",
            )
    for index, member in enumerate(members):
        if not IAM_MEMBER.fullmatch(member):
            check.refuse(
                f"endpoint.iap_members[{index}]",
                member,
                "a principal such as group:ml@example.com, user:, serviceAccount:, domain:example.com or principalSet://; allUsers guards nothing",
            )


def _check_proxy_cidr(check: Check, proxy_cidr: str, cluster: ClusterPlan) -> None:
    network = ipaddress.IPv4Network(proxy_cidr)
    if network.prefixlen > PROXY_SUBNET_MAX_PREFIX:
        check.refuse("endpoint.proxy_cidr", proxy_cidr, f"/{PROXY_SUBNET_MAX_PREFIX} or larger; Google recommends /23")
    for key in ("nodes_cidr", "pods_cidr", "services_cidr"):
        other = getattr(cluster, key)
        if other and network.overlaps(ipaddress.IPv4Network(other)):
            check.refuse(
                "endpoint.proxy_cidr", proxy_cidr, f"overlaps cluster.network.{key} {other}: a range of its own"
            )


def _domain(check: Check, domain: str | None) -> str:
    if not domain:
        check.refuse(
            "endpoint.domain", domain, "required with exposure internal and public, for example llm.example.com"
        )
    elif not DOMAIN.fullmatch(domain) or len(domain) > MAX_DOMAIN:
        check.refuse(
            "endpoint.domain",
            domain,
            "a domain name such as llm.example.com: lower-case, no scheme, no path, no wildcard",
        )
    return domain or ""


def _hostnames(check: Check, domain: str, services: Mapping[str, Any]) -> dict[str, str]:
    """Service -> name. The certificate covers the domain and one label before it, so names beyond that are refused."""
    found: dict[str, str] = {}
    for service, asked in services.items():
        path, hostname = f"services.{service}.hostname", asked.get("hostname") or f"{service}.{domain}"
        label, _, rest = hostname.partition(".")
        if domain and hostname != domain and (rest != domain or not re.fullmatch(LABEL, label)):
            check.refuse(
                path,
                hostname,
                f"{domain} or one label before it, such as {service}.{domain}: the certificate covers no others",
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
