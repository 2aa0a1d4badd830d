"""Claim of workers on the network cards of their machines, where replicas span machines."""

from typing import Any, TypedDict

import pulumi

from rayline.cluster.kubernetes_object import KubernetesObject


class NetworkClaimArgs(TypedDict):
    """A claim template."""

    manifest: dict[str, Any]
    """The manifest: resource.k8s.io/v1 ResourceClaimTemplate."""


class NetworkClaim(pulumi.ComponentResource):
    """One claim template. It has to be there before the pods that name it; GKE makes a claim for each."""

    template_name: pulumi.Output[str]
    """Name of the template, which pods name."""

    def __init__(self, name: str, args: NetworkClaimArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:NetworkClaim", name, {}, opts)
        KubernetesObject(name, args["manifest"], pulumi.ResourceOptions(parent=self))
        self.template_name = pulumi.Output.from_input(args["manifest"]["metadata"]["name"])
        self.register_outputs({"template_name": self.template_name})
