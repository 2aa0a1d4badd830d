"""Isolation of a platform: policies, accounts, quota, priorities, budgets and monitoring."""

from typing import Any, TypedDict

import pulumi

from rayline.cluster.kubernetes_object import KubernetesObject


class IsolationObjectsArgs(TypedDict):
    """Objects of the isolation."""

    manifests: list[dict[str, Any]]
    """Manifests, each of its own kind and name, in the platform's namespace or cluster-wide."""


class Isolation(pulumi.ComponentResource):
    """Isolation of the namespace, created before the first service and deleted after the last one."""

    def __init__(self, name: str, args: IsolationObjectsArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:Isolation", name, dict(args), opts)
        for manifest in args["manifests"]:
            KubernetesObject(
                f"{name}-{manifest['kind'].lower()}-{manifest['metadata']['name']}",
                manifest,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
