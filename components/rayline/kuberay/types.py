"""Types of the plan of the KubeRay operator."""

from dataclasses import dataclass

from rayline.facts.choices import OperatorSource


@dataclass(frozen=True)
class KuberayPlan:
    """Source and version of the operator and its CRDs."""

    source: OperatorSource
    version: str
    repository: str | None
    """None where the chart is a folder on this machine."""
    chart: str
    crd_files: tuple[str, ...]
    keep_crds: bool
    watch_namespaces: tuple[str, ...] = ()
    """Further namespaces for the operator."""
