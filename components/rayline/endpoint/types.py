"""How clients outside the cluster reach the services."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rayline.facts.choices import Exposure, RateLimitKey, Tls
from rayline.facts.google import CERTIFICATE_MANAGER_API, IAP_API, LOAD_BALANCER_RANGES


@dataclass(frozen=True)
class EndpointPlan:
    """How clients outside of the cluster reach the services. Only `exposure` says something while that is none."""

    exposure: Exposure
    resource_name: str = ""
    """Of the address, the policies and the proxies' subnet in Google Cloud."""
    certificate_name: str = ""
    """Of a managed certificate and what belongs to it."""
    domain: str = ""
    tls: Tls = Tls.NONE
    certificate: str | None = None
    hostnames: Mapping[str, str] = field(default_factory=dict)
    """Service -> the name that clients use."""
    rate_limit_per_minute: int | None = None
    rate_limit_by: RateLimitKey = RateLimitKey.CLIENT_IP
    iap_members: tuple[str, ...] = ()
    proxy_cidr: str | None = None
    """Where the proxies of an internal load balancer are."""

    @property
    def source_ranges(self) -> tuple[str, ...]:
        """Address ranges from which the load balancer's health checks and proxies come to port 8000; empty without one."""
        if self.exposure is Exposure.NONE:
            return ()
        return LOAD_BALANCER_RANGES + ((self.proxy_cidr,) if self.proxy_cidr else ())

    @property
    def apis(self) -> tuple[str, ...]:
        """Google APIs that only the endpoint needs."""
        certificate = (CERTIFICATE_MANAGER_API,) if self.tls is Tls.MANAGED else ()
        return certificate + ((IAP_API,) if self.iap_members else ())

    @property
    def urls(self) -> dict[str, str]:
        """Service -> address of its OpenAI-compatible API for clients outside."""
        scheme = "http" if self.tls is Tls.NONE else "https"
        return {service: f"{scheme}://{hostname}/v1" for service, hostname in self.hostnames.items()}
