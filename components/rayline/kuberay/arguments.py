"""Keys of `kuberay`."""

from typing import Annotated

from rayline.facts.choices import OperatorSource
from rayline.facts.runtimes import KUBERAY_CHART, KUBERAY_REPOSITORY, KUBERAY_VERSION
from rayline.schema.base import Arguments, DnsLabel, FromText, Line, form, items


class KuberayArgs(Arguments):
    """The KubeRay operator."""

    source: Annotated[OperatorSource, FromText] = OperatorSource.HELM
    """helm (a release of this stack), gke-addon (Google runs it) or preinstalled."""
    version: Annotated[
        str, form(r"1\.(?:[4-9]|[1-9][0-9])\.[0-9]+(?:-rc\.[0-9]+)?", f"a version such as {KUBERAY_VERSION}, without v")
    ] = KUBERAY_VERSION
    """Chart and CRD version."""
    repository: Annotated[str, form(r"(https?|oci)://[^\s]+", "an address with https:// or oci://")] = KUBERAY_REPOSITORY
    """Helm repository."""
    chart: Line = KUBERAY_CHART
    """Chart name in the repository, or the path of a chart folder on this machine."""
    crds: Line | None = None
    """Folder or address with the CRD files of that version. Default: the chart folder's crds, or KubeRay's release on GitHub."""
    watch_namespaces: Annotated[list[DnsLabel], items(100, "namespaces")] = []
    """Further namespaces for the operator: of other stacks in the cluster, which have source preinstalled. They have to exist."""
    keep_crds: bool | None = None
    """Keep the CRDs when the stack is destroyed; their deletion deletes every RayService of the cluster. Default: true with mode existing."""
