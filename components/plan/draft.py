"""A service on its way to a ServicePlan: what CPU and GPU services share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..facts import defaults
from ..facts.accelerators import MachineType
from ..facts.choices import Accelerator, Capacity
from ..facts.models import Model
from ..facts.runtimes import Runtime
from .check import Check
from .environment import with_haproxy_threads
from .scale import Scale
from .types import ClusterPlan, ServicePlan, ServiceWeights, WorkerGroup


@dataclass(frozen=True)
class PoolKey:
    """What two services have to agree on to share nodes. `ways` are the rungs of a ladder, else the one capacity."""

    machine: MachineType
    capacity: Capacity
    ways: tuple[Capacity, ...]
    zones: tuple[str, ...]
    reservation: str | None = None
    max_run_hours: int | None = None
    secondary_boot_disk: str | None = None
    rdma: bool = False


@dataclass(frozen=True)
class Draft:
    """A service whose pool is not yet known."""

    plan: ServicePlan
    pool_key: PoolKey | None


@dataclass(frozen=True)
class Common:
    """What CPU and GPU services share on the way to a ServicePlan."""

    name: str
    path: str
    given: Mapping[str, Any]
    model_id: str
    model: Model
    runtime: Runtime
    accelerator: Accelerator
    scale: Scale
    tensor: int
    pipeline: int
    env: dict[str, str]
    engine_kwargs: dict[str, Any]
    api_key: bool
    api_key_generation: int
    ray_token_generation: int
    stream_interval: int
    longest: int
    cluster: ClusterPlan
    weights: ServiceWeights
    warnings: list[str]
    """What a reader should know of the service, without its name."""

    @property
    def prefix_caching(self) -> bool:
        """Whether the KV cache of common prompt beginnings is kept."""
        return self.given.get("enable_prefix_caching", defaults.ENABLE_PREFIX_CACHING)

    def service(self, *, workers: WorkerGroup, **decided: Any) -> ServicePlan:
        given = self.given
        return ServicePlan(
            name=self.name,
            model_id=self.model_id,
            model=self.model,
            served_model_name=given.get("served_model_name") or self.model_id,
            weights=self.weights,
            accelerator=self.accelerator,
            runtime=self.runtime,
            image=given.get("image") or self.runtime.image,
            replicas=self.scale.replicas,
            upgrade=self.scale.upgrade,
            incremental=self.scale.incremental,
            parked=self.scale.parked,
            tensor_parallel_size=self.tensor,
            pipeline_parallel_size=self.pipeline,
            prefix_caching=self.prefix_caching,
            stream_interval=self.stream_interval,
            log_engine_metrics=given.get("log_engine_metrics", defaults.LOG_ENGINE_METRICS),
            env=with_haproxy_threads(self.env, workers.cpus),
            own_variables=tuple(given.get("env") or ()),
            workers=workers,
            engine_kwargs=self.engine_kwargs,
            api_key=self.api_key,
            api_key_generation=self.api_key_generation,
            ray_token_generation=self.ray_token_generation,
            longest_stream_seconds=self.longest,
            volumes=tuple(given.get("volumes") or ()),
            warnings=tuple(self.warnings),
            **decided,
        )


def context_tokens(check: Check, common: Common, default: int) -> int:
    limit = common.model.max_context
    given = common.given.get("max_model_len")
    if given is None:
        return min(default, limit)
    if not 1 <= given <= limit:
        check.refuse(f"{common.path}.max_model_len", given, f"1 to {limit}, which is the limit of {common.model_id}")
        return min(default, limit)
    return given
