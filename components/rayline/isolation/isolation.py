"""What keeps a platform and its neighbours apart: policies, accounts, quotas, priorities, budgets, and what reads its metrics."""

from typing import Any, TypedDict

import pulumi

from rayline.cluster.kubernetes_object import KubernetesObject


class IsolationObjectsArgs(TypedDict):
    """The objects to make."""

    manifests: list[dict[str, Any]]
    """Manifests, each of its own kind and name, in the platform's namespace or cluster-wide."""


class Isolation(pulumi.ComponentResource):
    """The namespace's guards. They stand before the first service comes and until the last one is gone."""

    def __init__(self, name: str, args: IsolationObjectsArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:Isolation", name, dict(args), opts)
        for manifest in args["manifests"]:
            KubernetesObject(
                f"{name}-{manifest['kind'].lower()}-{manifest['metadata']['name']}",
                manifest,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({})
