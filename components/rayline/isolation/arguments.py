"""The keys of `isolation`: what keeps the platform and its neighbours apart."""

from typing import Annotated

from rayline.facts.choices import PodSecurity
from rayline.schema.base import Arguments, DnsLabel, FromText


class IsolationArgs(Arguments):
    """What keeps the platform and its neighbours apart: cluster modes create and existing."""

    pod_security: Annotated[PodSecurity, FromText] = PodSecurity.RESTRICTED
    """Pod Security Standard that the namespace enforces; `host_path` volumes need privileged."""
    network_policies: bool = True
    """Deny all traffic of the namespace except what the services need. The cluster's network has to enforce it."""
    allow_from_namespaces: list[DnsLabel] = []
    """Namespaces whose pods may call the services on port 8000; without any, a gateway and `kubectl port-forward` only."""
    allow_metrics_from_namespaces: list[DnsLabel] | None = None
    """Namespaces whose pods may read metrics; when left out, Google's managed collectors with mode create, else none."""
    operator_namespace: DnsLabel | None = None
    """With kuberay.source preinstalled: where the operator runs. Default kuberay-system."""
