"""The KubeRay operator: its CRDs as resources of their own, then the chart of the same version.

Helm installs a chart's CRDs once and never upgrades them; an operator that is newer than its CRDs loses fields silently,
because the API server prunes what it does not know. So the chart comes without them.
"""

import pathlib
from typing import NotRequired, TypedDict

import pulumi
import pulumi_kubernetes as kubernetes

from .facts import defaults
from .facts.choices import PodSecurity
from .isolation_manifests import pod_security_labels
from .ray_service_manifest import POOL_LABEL, cpu_quantity

CRD_FILES = ("ray.io_rayclusters.yaml", "ray.io_rayjobs.yaml", "ray.io_rayservices.yaml", "ray.io_raycronjobs.yaml")
CRDS_OF_A_RELEASE = "https://raw.githubusercontent.com/ray-project/kuberay/v{version}/helm-chart/kuberay-operator/crds"


class KuberayOperatorArgs(TypedDict):
    """The KubeRay operator, for one namespace."""

    version: str
    """Version of the chart and the CRDs."""
    repository: str
    """Helm repository; not used when `chart` is a folder."""
    chart: str
    """Chart name, or the path of a chart folder on this machine."""
    crds: NotRequired[str]
    """Folder or address with the CRD files of that version."""
    namespace: str
    """Namespace of the operator; made by this component."""
    watch_namespace: str
    """The only namespace in which the operator acts and has rights; it has to exist."""
    on_system_pool: bool
    """Run on the kit's CPU pool."""


class KuberayOperator(pulumi.ComponentResource):
    """CRDs, namespace and Helm release. Deliberately without a ServiceMonitor, which needs another project's CRDs."""

    release_name: pulumi.Output[str]
    """Name of the Helm release."""

    def __init__(self, name: str, args: KuberayOperatorArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:KuberayOperator", name, dict(args), opts)
        crds = kubernetes.yaml.v2.ConfigGroup(
            f"{name}-crds",
            files=crd_files(args["chart"], args.get("crds"), args["version"]),
            opts=pulumi.ResourceOptions(parent=self),
        )
        namespace = kubernetes.core.v1.Namespace(
            f"{name}-namespace",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=args["namespace"],
                # the chart's pod asks for nothing that this standard forbids
                labels=pod_security_labels(PodSecurity.RESTRICTED),
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        local = is_folder(args["chart"])
        release = kubernetes.helm.v3.Release(
            f"{name}-release",
            kubernetes.helm.v3.ReleaseArgs(
                name="kuberay-operator",
                namespace=namespace.metadata["name"],
                chart=args["chart"],
                version=None if local else args["version"],
                repository_opts=None if local else kubernetes.helm.v3.RepositoryOptsArgs(repo=args["repository"]),
                skip_crds=True,
                timeout=600,
                values=chart_values(args),
            ),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[crds],
                custom_timeouts=pulumi.CustomTimeouts(create="15m", update="15m", delete="15m"),
            ),
        )
        self.release_name = release.name.apply(lambda known: known or "")
        self.register_outputs({"release_name": self.release_name})


def is_folder(chart: str) -> bool:
    """Whether a chart is a folder on this machine rather than a name in a repository."""
    return chart.startswith((".", "/", "~"))


def crd_files(chart: str, crds: str | None, version: str) -> list[str]:
    """Paths or addresses of the CRDs that belong to the chart."""
    if crds is None and is_folder(chart):
        crds = str(pathlib.Path(chart).expanduser() / "crds")
    base = (crds or CRDS_OF_A_RELEASE.format(version=version)).rstrip("/")
    return [f"{base}/{name}" for name in CRD_FILES]


def chart_values(args: KuberayOperatorArgs) -> dict:
    """Values of the chart. Its default of 100m CPU is throttled easily, and its default rights span all namespaces."""
    # both, because the chart's own limit of 100m would stay beside a request of 500m, and Kubernetes refuses that
    size = {"cpu": cpu_quantity(defaults.OPERATOR_CPUS), "memory": f"{defaults.OPERATOR_MEMORY_GIB}Gi"}
    values: dict = {
        "image": {"tag": f"v{args['version']}"},
        "resources": {"requests": size, "limits": size},
        "singleNamespaceInstall": True,
        "watchNamespace": [args["watch_namespace"]],
    }
    if args["on_system_pool"]:
        values["nodeSelector"] = {POOL_LABEL: "system"}
    return values
