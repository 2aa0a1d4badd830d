"""What CPU and GPU services share on the way to a ServicePlan."""

from dataclasses import dataclass, field
from typing import Any

from rayline.cluster.types import ClusterPlan
from rayline.facts.models import Model
from rayline.facts.runtimes import Runtime
from rayline.schema.check import Check
from rayline.service.arguments import ServiceArgs
from rayline.service.environment import with_haproxy_threads
from rayline.service.scale import Scale
from rayline.service.types import ServicePlan, WorkerGroup
from rayline.weights.types import ServiceWeights


@dataclass(frozen=True)
class Common:
    """A service whose model and runtime are known, with what is decided before its card is looked at."""

    name: str
    asked: ServiceArgs
    model: Model
    runtime: Runtime
    scale: Scale
    env: dict[str, str]
    engine_kwargs: dict[str, Any]
    cluster: ClusterPlan
    weights: ServiceWeights
    warnings: list[str] = field(default_factory=list)
    """What a reader should know of the service, without its name."""

    @property
    def path(self) -> str:
        """Where the service stands in a stack file."""
        return f"services.{self.name}"

    @property
    def tensor(self) -> int:
        """GPUs that share each layer."""
        return self.asked.engine.tensor_parallel_size

    @property
    def pipeline(self) -> int:
        """Groups of such GPUs that share the layers."""
        return self.asked.engine.pipeline_parallel_size

    def service(self, *, workers: WorkerGroup, **decided: Any) -> ServicePlan:
        """Return the plan of the service with what its card decided."""
        return ServicePlan(
            name=self.name,
            asked=self.asked,
            model=self.model,
            weights=self.weights,
            runtime=self.runtime,
            replicas=self.scale.replicas,
            upgrade=self.scale.upgrade,
            env=with_haproxy_threads(self.env, workers.cpus),
            workers=workers,
            engine_kwargs=self.engine_kwargs,
            pool=None,
            warnings=tuple(self.warnings),
            **decided,
        )


def context_tokens(check: Check, common: Common, default: int) -> int:
    """Return the longest prompt plus answer that the stack asks for, else the default, within the model's limit."""
    limit, asked = common.model.max_context, common.asked.engine.max_model_len
    if asked is not None and asked > limit:
        check.refuse(f"{common.path}.engine.max_model_len", asked, f"1 to {limit}, which is the limit of {common.asked.model}")
    return min(asked or default, limit)
