"""CRDs of the KubeRay operator, as resources of their own.

Helm installs a chart's CRDs once and never upgrades them. The API server prunes fields that its CRDs lack, so an operator that is
newer than its CRDs loses them silently.
"""

import pathlib
from typing import TypedDict

import pulumi
import pulumi_kubernetes as kubernetes


class KuberayCrdsArgs(TypedDict):
    """The CRDs of one KubeRay version."""

    files: list[str]
    """Paths or addresses of the CRD files."""
    keep: bool
    """Leave the CRDs in the cluster when the stack is destroyed. The provider of the next stack then has to take them over."""


class KuberayCrds(pulumi.ComponentResource):
    """CRDs of KubeRay. The deletion of one deletes every object of its kind in the cluster."""

    def __init__(self, name: str, args: KuberayCrdsArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:KuberayCrds", name, dict(args), opts)
        kubernetes.yaml.v2.ConfigGroup(
            name,
            files=[file if "://" in file else str(pathlib.Path(file).expanduser()) for file in args["files"]],
            # the engine hands it down to each CRD (pulumi, pkg/resource/deploy/source_eval.go, inheritFromParent)
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=args["keep"]),
        )
        self.register_outputs({})
