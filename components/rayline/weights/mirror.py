"""Copies of models in the bucket: Jobs that have ended well before the services that read them come."""

from typing import Any, TypedDict

import pulumi

from rayline.cluster.kubernetes_object import KubernetesObject


class WeightsMirrorArgs(TypedDict):
    """The copies to make."""

    prerequisites: list[dict[str, Any]]
    """Manifests of what all Jobs use."""
    jobs: list[dict[str, Any]]
    """Manifests of the Jobs."""


class WeightsMirror(pulumi.ComponentResource):
    """Waits for each Job to end well: Pulumi's Kubernetes provider does so for Jobs, and says why one did not."""

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
            # longer than the Job's own deadline, so that it is the Job that tells what went wrong
            patience = f"{manifest['spec']['activeDeadlineSeconds'] // 60 + 5}m"
            KubernetesObject(
                f"{name}-{manifest['metadata']['name']}",
                manifest,
                opts=pulumi.ResourceOptions(
                    parent=self,
                    depends_on=needed,
                    # a Job cannot change, so another image, script or size would run one again that has done its work
                    ignore_changes=["spec"],
                    custom_timeouts=pulumi.CustomTimeouts(create=patience, update=patience),
                ),
            )
        self.register_outputs({})
