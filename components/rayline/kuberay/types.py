"""How the KubeRay operator comes into the cluster."""

from dataclasses import dataclass

from rayline.facts.choices import OperatorSource


@dataclass(frozen=True)
class KuberayPlan:
    """How the operator comes into the cluster."""

    source: OperatorSource
    version: str
    repository: str | None
    """None where the chart is a folder on this machine."""
    chart: str
    crd_files: tuple[str, ...]
    keep_crds: bool
