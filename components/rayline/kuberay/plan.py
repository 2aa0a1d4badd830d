"""Decide how the KubeRay operator comes into the cluster."""

from collections.abc import Mapping
from typing import Any

from rayline.facts.choices import ClusterMode, OperatorSource
from rayline.facts.runtimes import KUBERAY_CHART, KUBERAY_CRD_FILES, KUBERAY_CRDS, KUBERAY_REPOSITORY, KUBERAY_VERSION
from rayline.kuberay.types import KuberayPlan
from rayline.schema.check import Check


def plan_kuberay(check: Check, given: Mapping[str, Any], mode: ClusterMode) -> KuberayPlan:
    source = OperatorSource(given.get("source", OperatorSource.HELM))
    if source is OperatorSource.GKE_ADDON and mode is not ClusterMode.CREATE:
        check.refuse(
            "kuberay.source", source, "the add-on is part of the cluster's own configuration: helm or preinstalled here"
        )
    if source is not OperatorSource.HELM:
        for key in ("version", "repository", "chart", "crds", "keep_crds"):
            if given.get(key) is not None:
                check.refuse(f"kuberay.{key}", given[key], f"only with kuberay.source helm, and it is {source.value}")
    version, chart = given.get("version") or KUBERAY_VERSION, given.get("chart") or KUBERAY_CHART
    folder = chart.startswith((".", "/", "~"))
    crds = given.get("crds") or (f"{chart}/crds" if folder else KUBERAY_CRDS.format(version=version))
    return KuberayPlan(
        source=source,
        version=version,
        repository=None if folder else given.get("repository") or KUBERAY_REPOSITORY,
        chart=chart,
        crd_files=tuple(f"{crds.rstrip('/')}/{name}" for name in KUBERAY_CRD_FILES),
        # on a cluster that others use too, deleting a CRD deletes their RayServices
        keep_crds=given.get("keep_crds", mode is ClusterMode.EXISTING),
    )
