"""The KubeRay operator from its Helm chart, without the CRDs, which are resources of their own."""

from typing import NotRequired, TypedDict

import pulumi
import pulumi_kubernetes as kubernetes

from rayline.facts import defaults
from rayline.facts.choices import PodSecurity
from rayline.facts.labels import POOL_LABEL, STACK_LABEL
from rayline.isolation.manifests import pod_security_labels
from rayline.service.pods import cpu_quantity


class KuberayOperatorArgs(TypedDict):
    """The KubeRay operator."""

    version: str
    """Version of the chart and the image."""
    repository: NotRequired[str | None]
    """Helm repository; without it `chart` is a folder."""
    chart: str
    """Chart name, or the path of a chart folder on this machine."""
    namespace: str
    """Namespace of the operator; this component creates it."""
    watch_namespaces: list[str]
    """Namespaces in which alone the operator acts and has rights; they have to exist."""
    owner: str
    """Name of the stack, as a label of the operator's namespace."""
    on_system_pool: bool
    """Run on the kit's CPU pool."""


class KuberayOperator(pulumi.ComponentResource):
    """Namespace and Helm release. Deliberately without a ServiceMonitor, which needs another project's CRDs."""

    release_name: pulumi.Output[str]
    """Name of the Helm release."""

    def __init__(self, name: str, args: KuberayOperatorArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:KuberayOperator", name, dict(args), opts)
        namespace = kubernetes.core.v1.Namespace(
            f"{name}-namespace",
            # the chart's pod needs nothing that this standard forbids
            metadata={
                "name": args["namespace"],
                "labels": pod_security_labels(PodSecurity.RESTRICTED) | {STACK_LABEL: args["owner"]},
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        repository = args.get("repository")
        release = kubernetes.helm.v3.Release(
            f"{name}-release",
            name="kuberay-operator",
            namespace=namespace.metadata["name"],
            chart=args["chart"],
            version=args["version"] if repository else None,
            repository_opts={"repo": repository} if repository else None,
            skip_crds=True,
            timeout=600,
            values=chart_values(args),
            opts=pulumi.ResourceOptions(
                parent=self, custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m", delete="15m")
            ),
        )
        self.release_name = release.name.apply(lambda known: known or "")
        self.register_outputs({"release_name": self.release_name})


def chart_values(args: KuberayOperatorArgs) -> dict:
    """Return the values of the chart. Its default of 100m CPU is throttled easily; its default rights span all namespaces."""
    # both, because the chart's own limit of 100m would stay beside a request of 500m, and Kubernetes refuses that
    size = {"cpu": cpu_quantity(defaults.OPERATOR_CPUS), "memory": f"{defaults.OPERATOR_MEMORY_GIB}Gi"}
    values: dict = {
        "image": {"tag": f"v{args['version']}"},
        "resources": {"requests": size, "limits": size},
        "singleNamespaceInstall": True,
        "watchNamespace": args["watch_namespaces"],
    }
    if args["on_system_pool"]:
        values["nodeSelector"] = {POOL_LABEL: "system"}
    return values
