"""A manifest as a Pulumi resource, whatever its kind.

The pure manifest modules return what `kubectl apply` would take; this turns it into the resource of that kind without a
second spelling of every field.
"""

from typing import Any

import pulumi


class KubernetesObject(pulumi.CustomResource):
    """One object of the cluster. `manifest` has apiVersion, kind, metadata and the kind's own fields; it may hold Outputs."""

    def __init__(self, name: str, manifest: dict[str, Any], opts: pulumi.ResourceOptions | None = None):
        version = manifest["apiVersion"]
        # Pulumi calls Kubernetes' nameless group "core"
        group = version if "/" in version else f"core/{version}"
        super().__init__(f"kubernetes:{group}:{manifest['kind']}", name, manifest, opts)
