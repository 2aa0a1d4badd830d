"""Keys of `isolation`."""

from typing import Annotated

from rayline.facts.choices import PodSecurity
from rayline.schema.base import Arguments, DnsLabel, FromText


class IsolationArgs(Arguments):
    """Isolation of the platform from its neighbours in the cluster: modes create and existing."""

    pod_security: Annotated[PodSecurity, FromText] = PodSecurity.RESTRICTED
    """Pod Security Standard that the namespace enforces; `host_path` volumes need privileged."""
    network_policies: bool = True
    """Deny all traffic of the namespace that the services do not need. The network of the cluster has to enforce it."""
    allow_from_namespaces: list[DnsLabel] = []
    """Namespaces whose pods may call the services on port 8000. Without any, only a gateway and `kubectl port-forward` do."""
    allow_metrics_from_namespaces: list[DnsLabel] | None = None
    """Namespaces whose pods may read metrics. Default: Google's managed collectors with mode create, else none."""
    operator_namespace: DnsLabel | None = None
    """With kuberay.source preinstalled: namespace of the operator. Default kuberay-system."""
