"""Ladder of capacities for GPU nodes: GKE creates the node pools and tries the capacities in order."""

from typing import Any, TypedDict

import pulumi

from rayline.cluster.kubernetes_object import KubernetesObject


class ComputeClassArgs(TypedDict):
    """A ComputeClass."""

    manifest: dict[str, Any]
    """The manifest: cloud.google.com/v1 ComputeClass."""


class ComputeClass(pulumi.ComponentResource):
    """One ComputeClass of a GKE cluster. GKE deletes its node pools when their last pod is gone."""

    class_name: pulumi.Output[str]
    """Name of the class, which pods select."""

    def __init__(self, name: str, args: ComputeClassArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:ComputeClass", name, {}, opts)
        KubernetesObject(name, args["manifest"], pulumi.ResourceOptions(parent=self))
        self.class_name = pulumi.Output.from_input(args["manifest"]["metadata"]["name"])
        self.register_outputs({"class_name": self.class_name})
