"""Decide how the KubeRay operator comes into the cluster."""

from rayline.facts.choices import ClusterMode, OperatorSource
from rayline.facts.runtimes import KUBERAY_CRD_FILES, KUBERAY_CRDS
from rayline.kuberay.arguments import KuberayArgs
from rayline.kuberay.types import KuberayPlan
from rayline.schema.check import Check


def plan_kuberay(check: Check, asked: KuberayArgs, mode: ClusterMode) -> KuberayPlan:
    """Decide how the operator comes into the cluster."""
    if asked.source is OperatorSource.GKE_ADDON and mode is not ClusterMode.CREATE:
        check.refuse(
            "kuberay.source", asked.source, "the add-on is part of the cluster's own configuration: helm or preinstalled here"
        )
    if asked.source is not OperatorSource.HELM:
        for key in sorted(asked.model_fields_set - {"source"}):
            why = f"only with kuberay.source helm, and it is {asked.source.value}"
            check.refuse(f"kuberay.{key}", getattr(asked, key), why)
    folder = asked.chart.startswith((".", "/", "~"))
    crds = asked.crds or (f"{asked.chart}/crds" if folder else KUBERAY_CRDS.format(version=asked.version))
    return KuberayPlan(
        source=asked.source,
        version=asked.version,
        repository=None if folder else asked.repository,
        chart=asked.chart,
        crd_files=tuple(f"{crds.rstrip('/')}/{name}" for name in KUBERAY_CRD_FILES),
        # on a cluster that others use too, deleting a CRD deletes their RayServices
        keep_crds=mode is ClusterMode.EXISTING if asked.keep_crds is None else asked.keep_crds,
    )
