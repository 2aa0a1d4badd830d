"""Types of the plan of the endpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rayline.endpoint.arguments import EndpointArgs
from rayline.facts.choices import Exposure, Tls
from rayline.facts.google import CERTIFICATE_MANAGER_API, IAP_API, LOAD_BALANCER_RANGES


@dataclass(frozen=True)
class EndpointPlan:
    """Endpoint for clients outside the cluster: `args` is what the stack says. The other fields are empty without exposure."""

    args: EndpointArgs
    resource_name: str = ""
    """Name of the address, the policies and the proxies' subnet in Google Cloud."""
    certificate_name: str = ""
    """Name of a managed certificate, its map and its DNS authorization."""
    hostnames: Mapping[str, str] = field(default_factory=dict)
    """Host name of each service."""

    @property
    def exposure(self) -> Exposure:
        """Return where clients may be: in the cluster alone, in the VPC, or on the internet."""
        return self.args.exposure

    @property
    def source_ranges(self) -> tuple[str, ...]:
        """Return the addresses of health checks and proxies, which reach port 8000; empty without an endpoint."""
        if self.exposure is Exposure.NONE:
            return ()
        return LOAD_BALANCER_RANGES + ((self.args.proxy_cidr,) if self.exposure is Exposure.INTERNAL else ())

    @property
    def apis(self) -> tuple[str, ...]:
        """Return the Google APIs that only the endpoint needs."""
        if self.exposure is Exposure.NONE:
            return ()
        certificate = (CERTIFICATE_MANAGER_API,) if self.args.tls is Tls.MANAGED else ()
        return certificate + ((IAP_API,) if self.args.iap_members else ())

    @property
    def urls(self) -> dict[str, str]:
        """Return the address of each service's OpenAI-compatible API for clients outside the cluster."""
        scheme = "http" if self.args.tls is Tls.NONE else "https"
        return {service: f"{scheme}://{hostname}/v1" for service, hostname in self.hostnames.items()}
