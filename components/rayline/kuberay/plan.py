"""Decide how the KubeRay operator comes into the cluster."""

from rayline.facts.choices import ClusterMode, OperatorSource
from rayline.facts.runtimes import KUBERAY_CRD_FILES, KUBERAY_CRDS
from rayline.kuberay.arguments import KuberayArgs
from rayline.kuberay.types import KuberayPlan
from rayline.schema.check import Check


def plan_kuberay(check: Check, args: KuberayArgs, mode: ClusterMode) -> KuberayPlan:
    """Decide how the operator comes into the cluster."""
    if args.source is OperatorSource.GKE_ADDON and mode is not ClusterMode.CREATE:
        says = "the add-on is part of the configuration of a new cluster. Fix: helm or preinstalled"
        check.refuse("kuberay.source", args.source, says)
    if args.source is not OperatorSource.HELM:
        for key in sorted(args.model_fields_set - {"source"}):
            check.only_with(f"kuberay.{key}", getattr(args, key), "kuberay.source helm", args.source)
    if args.watch_namespaces and mode is ClusterMode.LOCAL:
        check.only_with("kuberay.watch_namespaces", args.watch_namespaces, "a cluster", mode)
    folder = args.chart.startswith((".", "/", "~"))
    crds = args.crds or (f"{args.chart}/crds" if folder else KUBERAY_CRDS.format(version=args.version))
    return KuberayPlan(
        source=args.source,
        version=args.version,
        repository=None if folder else args.repository,
        chart=args.chart,
        crd_files=tuple(f"{crds.rstrip('/')}/{name}" for name in KUBERAY_CRD_FILES),
        # on a cluster that others use too, deleting a CRD deletes their RayServices
        keep_crds=mode is ClusterMode.EXISTING if args.keep_crds is None else args.keep_crds,
        watch_namespaces=tuple(args.watch_namespaces),
    )


def kuberay_warnings(kuberay: KuberayPlan) -> list[str]:
    """Warn of an add-on whose version the kit does not decide."""
    if kuberay.source is not OperatorSource.GKE_ADDON:
        return []
    return [
        "GKE decides the add-on's KubeRay version: authOptions and the autoscaler's version need 1.6 or newer; check with "
        "`kubectl get crd rayservices.ray.io`"
    ]
