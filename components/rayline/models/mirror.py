"""Run the Jobs that copy models into the bucket before the services start."""

from typing import Any, TypedDict

import pulumi

from rayline.cluster.kubernetes_object import KubernetesObject


class WeightsMirrorArgs(TypedDict):
    """The Jobs, and what they need."""

    prerequisites: list[dict[str, Any]]
    """Manifests that all Jobs need."""
    jobs: list[dict[str, Any]]
    """Manifests of the Jobs."""


class WeightsMirror(pulumi.ComponentResource):
    """The Jobs. Pulumi's Kubernetes provider waits until each has succeeded, and reports why one failed."""

    def __init__(self, name: str, args: WeightsMirrorArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:WeightsMirror", name, dict(args), opts)
        needed = [
            KubernetesObject(
                f"{name}-{manifest['kind'].lower()}-{manifest['metadata']['name']}",
                manifest,
                opts=pulumi.ResourceOptions(parent=self),
            )
            for manifest in args["prerequisites"]
        ]
        for manifest in args["jobs"]:
            # longer than the Job's own deadline, so that the Job reports the failure
            patience = f"{manifest['spec']['activeDeadlineSeconds'] // 60 + 5}m"
            KubernetesObject(
                f"{name}-{manifest['metadata']['name']}",
                manifest,
                opts=pulumi.ResourceOptions(
                    parent=self,
                    depends_on=needed,
                    # a Job cannot change, so another image, script or size would repeat a finished copy
                    ignore_changes=["spec"],
                    custom_timeouts=pulumi.CustomTimeouts(create=patience, update=patience),
                ),
            )
        self.register_outputs({})
