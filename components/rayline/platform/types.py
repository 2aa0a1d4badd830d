"""Plan of a whole platform."""

from dataclasses import dataclass

from rayline.cluster.types import ClusterPlan
from rayline.endpoint.types import EndpointPlan
from rayline.head.types import HeadPlan
from rayline.hugging_face.types import HuggingFacePlan
from rayline.isolation.types import IsolationPlan
from rayline.kuberay.types import KuberayPlan
from rayline.models.types import BucketPlan, Mirror
from rayline.pools.types import NodePool
from rayline.service.types import ServicePlan, every_model


@dataclass(frozen=True)
class Plan:
    """Plan of a whole platform."""

    namespace: str
    create_namespace: bool
    cluster: ClusterPlan
    kuberay: KuberayPlan
    hugging_face: HuggingFacePlan
    head: HeadPlan
    endpoint: EndpointPlan
    isolation: IsolationPlan | None
    """None on this machine."""
    bucket: BucketPlan | None
    mirrors: tuple[Mirror, ...]
    pools: tuple[NodePool, ...]
    services: tuple[ServicePlan, ...]
    hourly_usd: float | None
    """Cost at the planned sizes, with the cluster fee, without the machines in `unpriced`; None where nothing is bought."""
    highest_hourly_usd: float | None
    """The same under the highest load of all services, with those that are parked."""
    unpriced: tuple[str, ...]
    """Machines without a known price in this region."""
    price_source: str
    warnings: tuple[str, ...] = ()

    @property
    def urls(self) -> dict[str, str]:
        """Return the address of each model's OpenAI-compatible API for clients outside the cluster."""
        urls = self.endpoint.urls
        return {model.label: model.under(urls[model.name]) for model in every_model(self.services) if model.name in urls}
