"""Pulumi resource of a manifest of any kind, without a second spelling of every field."""

from typing import Any

import pulumi


class KubernetesObject(pulumi.CustomResource):
    """Object of a cluster. `manifest` is what `kubectl apply` takes, and may hold Outputs."""

    def __init__(self, name: str, manifest: dict[str, Any], opts: pulumi.ResourceOptions | None = None):
        version = manifest["apiVersion"]
        # Pulumi calls Kubernetes' nameless group "core"
        group = version if "/" in version else f"core/{version}"
        super().__init__(f"kubernetes:{group}:{manifest['kind']}", name, manifest, opts)
