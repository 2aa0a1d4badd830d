"""Keys of `endpoint`."""

from typing import Annotated

from rayline.facts.choices import Exposure, RateLimitKey, Tls
from rayline.schema.base import LABEL, Arguments, Cidr, Count, FromText, ObjectName, form

HOST_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# the last label is no number, so an address is no domain
HOST = rf"({HOST_LABEL}\.)+{LABEL}"
Domain = Annotated[
    str, form(HOST, "a domain name such as llm.example.com: lower-case, no scheme, no path, no wildcard, no address")
]
# Principals of an IAM binding. allUsers and allAuthenticatedUsers would let every client in.
Member = Annotated[
    str,
    form(
        r"(user|group|serviceAccount):[^@\s]+@\S+|domain:\S+|principal(Set)?://\S+",
        "a principal such as group:ml@example.com, user:, serviceAccount:, domain:example.com or principalSet://; allUsers guards nothing",
        512,
    ),
]


class EndpointArgs(Arguments):
    """Gateway (a Google load balancer) in front of all services of a GKE cluster. It routes /v1 and nothing else."""

    exposure: Annotated[Exposure, FromText] = Exposure.NONE
    """none (clients in the cluster), internal (clients in the VPC and networks connected to it) or public (the internet)."""
    domain: Domain | None = None
    """Your domain, for example llm.example.com; each service has a name below it. Required with internal and public."""
    tls: Annotated[Tls, FromText] = Tls.MANAGED
    """managed (Google issues and renews the certificate), own (see `certificate`) or none (only with internal)."""
    certificate: ObjectName | None = None
    """tls own: with public the name of a Certificate Manager map, with internal that of a TLS Secret in the platform's namespace."""
    rate_limit_per_minute: Count | None = None
    """public: requests a minute for each `rate_limit_by`; Cloud Armor answers 429 to more. Default: no limit."""
    rate_limit_by: Annotated[RateLimitKey, FromText] = RateLimitKey.CLIENT_IP
    """public: count requests by client-ip, or by api-key (the headers Authorization and x-api-key)."""
    iap_members: list[Member] = []
    """public: principals that pass Identity-Aware Proxy, for example group:ml@example.com. Default: no IAP."""
    # the size that Google recommends, after the ranges of nodes and Services
    proxy_cidr: Cidr = "10.0.80.0/23"
    """internal: address range of the load balancer's proxies in the VPC, /26 or larger."""
    create_proxy_subnet: bool = True
    """internal: create the proxy-only subnet with this range; false, in a network that exists: the VPC has it in the region already."""
