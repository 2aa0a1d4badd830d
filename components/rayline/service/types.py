"""The parts of a service's plan."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from rayline.facts.accelerators import MachineType
from rayline.facts.choices import Accelerator, Task, UpgradeStrategy, WeightsSource
from rayline.facts.labels import APPLICATION
from rayline.facts.runtimes import Runtime
from rayline.facts.serve_flags import SWITCHES
from rayline.models.model import BF16, GIB, AttentionLayers, Model
from rayline.models.types import ServiceWeights
from rayline.pools.types import PoolKey
from rayline.service.arguments import AutoscalingArgs, RolloutArgs, ServiceArgs


@dataclass(frozen=True)
class LoadedModel:
    """A model as the engine loads it: its file, and what the engine's arguments make of it."""

    model: Model
    task: Task = Task.GENERATE
    bytes_per_weight: float | None = None
    """Of a weight of a linear layer, where the engine quantizes as it loads."""
    kv_value_bytes: int = BF16
    """Bytes of one value of the KV cache."""
    drafter: Model | None = None
    """The model that drafts tokens, where another one does."""
    multi_token: bool = False
    """Whether the model's own multi-token-prediction layer drafts."""
    lora_slots: int = 0
    """LoRA adapters in the GPU's memory at once."""
    lora_rank: int = 0

    @property
    def is_encoder(self) -> bool:
        """Whether no layer keeps a cache: a step then holds a whole prompt."""
        return self.task is not Task.GENERATE and not self.model.keeps_cache

    @property
    def drafting(self) -> tuple[AttentionLayers, ...]:
        """The layers of the drafter, which have a KV cache of their own."""
        if self.multi_token and self.model.attention:
            full = next((layer for layer in self.model.attention if layer.window is None), self.model.attention[0])
            return (full.model_copy(update={"layers": 1}),)
        return tuple(self.drafter.attention) if self.drafter else ()


@dataclass(frozen=True)
class KvLayout:
    """vLLM's division of the KV cache into blocks."""

    block_bytes: int
    groups: tuple[tuple[str, int, int, int | None], ...]
    """(kind, number of groups, tokens per block, window) with kind full, sliding or linear."""
    prefix_caching: bool

    def blocks_per_request(self, tokens: int, tokens_in_flight: int) -> int:
        """Return the most blocks that a request of `tokens` tokens holds."""
        blocks = 0
        for kind, count, block_tokens, window in self.groups:
            if kind == "linear":
                # one state, and a second one to resume from when prefixes are cached (mamba_cache_mode=align)
                blocks += count * (2 if self.prefix_caching else 1)
            elif window is None:
                blocks += count * ceil(tokens / block_tokens)
            else:
                held = min(window - 1 + tokens_in_flight, tokens)
                blocks += count * (ceil(held / block_tokens) + 1)
        return blocks


@dataclass(frozen=True)
class EngineLimits:
    """vLLM's limits, always explicit. `gpu_memory_utilization` is a fraction of the card's memory."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    batches_in_flight: int = 2
    """Engine steps for which sliding-window layers reserve KV cache (facts/runtimes.py)."""

    @property
    def tokens_in_flight(self) -> int:
        """Tokens of all engine steps in flight."""
        return self.batches_in_flight * self.max_num_batched_tokens


@dataclass(frozen=True)
class MemoryFit:
    """The memory of one GPU (or of one CPU worker's KV cache), in GiB, and what fits into it."""

    memory_gib: float
    usable_gib: float
    weights_gib: float
    activation_gib: float
    overhead_gib: float
    kv_cache_gib: float
    blocks: int
    layout: KvLayout
    limits: EngineLimits
    longest_context: int

    def sequences(self, tokens: int) -> float:
        """Return how many requests of `tokens` tokens fit into the KV cache at once."""
        request = self.layout.blocks_per_request(tokens, self.limits.tokens_in_flight)
        # an encoder keeps nothing: it works on the prompts of one step
        step = min(self.limits.max_num_seqs, self.limits.max_num_batched_tokens / tokens)
        return self.blocks / request if request else step * (self.kv_cache_gib >= 0)

    @property
    def concurrency(self) -> float:
        """Requests of `max_model_len` tokens that fit at once: vLLM's "Maximum concurrency"."""
        return self.sequences(self.limits.max_model_len)

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens that vLLM logs as "GPU KV cache size"."""
        return int(self.concurrency * self.limits.max_model_len) if self.layout.groups else 0

    @property
    def fits(self) -> bool:
        """Whether a request of `max_model_len` tokens fits."""
        return self.concurrency >= 1 if self.layout.groups else self.kv_cache_gib >= 0

    @property
    def short_by_gib(self) -> float:
        """GiB that one request of `max_model_len` tokens lacks; 0 when it fits."""
        needed = self.layout.blocks_per_request(self.limits.max_model_len, self.limits.tokens_in_flight)
        return max(0.0, needed * self.layout.block_bytes / GIB - self.kv_cache_gib)


@dataclass(frozen=True)
class WorkerGroup:
    """The worker pods of a service. `cpus` and `memory_gib` are requests of one pod that fit GKE's allocatable."""

    workers: int
    """Workers of the replicas without load; none run while the service is parked."""
    most_workers: int
    """Workers under the highest load; equal to `workers` with a fixed count."""
    surge_workers: int
    """Workers of the second cluster during a rollout."""
    spare_workers: int
    """Workers of the spare replicas during a change in place."""
    max_workers: int
    """`maxReplicas` of the group, which never changes on a live RayCluster."""
    gpus: int
    ray_cpus: int
    """CPUs that Ray counts on a worker; 0 leaves the count to Ray."""
    cpus: float
    memory_gib: int
    ephemeral_gib: int
    replicas_per_worker: float

    @property
    def first_workers(self) -> int:
        """Return the workers that a new RayCluster starts with: one replica's at least, which proves the model."""
        return max(self.workers, ceil(1 / self.replicas_per_worker))

    @property
    def workers_beside(self) -> int:
        """Return the workers that a change needs beside those that run: in a second cluster, or in place."""
        return max(self.surge_workers, self.spare_workers)


@dataclass(frozen=True)
class Scale:
    """Counts of a service: `replicas` without load, `most_replicas` under the highest; and how its RayCluster is replaced."""

    replicas: int
    most_replicas: int
    upgrade: UpgradeStrategy
    spare_replicas: int


@dataclass(frozen=True)
class ServicePlan:
    """All decisions about one service. `asked` are the stack's arguments with defaults; the plan decides the other fields."""

    name: str
    asked: ServiceArgs
    model: Model
    task: Task
    weights: ServiceWeights
    runtime: Runtime
    replicas: int
    limits: EngineLimits
    fit: MemoryFit
    machine: MachineType | None
    pool: str | None
    workers: WorkerGroup
    head_cpus: float
    autoscaler_cpus: float
    head_memory_gib: int
    upgrade: UpgradeStrategy
    env: dict[str, str]
    engine_kwargs: dict[str, Any]
    kv_cache_gib: int | None
    hourly_usd: float | None
    """Cost of the workers without load; 0 while parked."""
    start_timeout_seconds: int
    highest_hourly_usd: float | None = None
    """Cost of the workers under the highest load; 0 while parked."""
    autoscaling: AutoscalingArgs | None = None
    spare_replicas: int = 0
    """Replicas that start beside the running ones when the model or the engine changes."""
    warnings: tuple[str, ...] = ()
    application: str = APPLICATION
    """Name of the model's application in Serve."""
    beside: tuple["ServicePlan", ...] = ()
    """Plans of the further models in the same RayCluster. `workers`, price and pods of this plan are those of all together."""

    @property
    def models(self) -> tuple["ServicePlan", ...]:
        """Return the plans of all models of the RayCluster, this one first."""
        return (self, *self.beside)

    @property
    def applications(self) -> tuple[str, ...]:
        """Names of the applications of all models."""
        return tuple(model.application for model in self.models)

    @property
    def label(self) -> str:
        """Name for people: that of the service, and of a further model's application."""
        return self.name + self.prefix

    @property
    def is_further(self) -> bool:
        """Whether the model is beside that of the service."""
        return self.application != APPLICATION

    @property
    def prefix(self) -> str:
        """Path before /v1 under which the model answers; empty for the service's own."""
        return f"/{self.application}" if self.is_further else ""

    def under(self, url: str) -> str:
        """Return the address of the model's API, for that of the service, which ends with /v1."""
        return f"{url.removesuffix('/v1')}{self.prefix}/v1"

    @property
    def model_id(self) -> str:
        """Id of the model at Hugging Face."""
        return self.asked.model

    @property
    def served_model_name(self) -> str:
        """Value of `model` in requests."""
        return self.asked.api.served_model_name or self.asked.model

    @property
    def prefix_caching(self) -> bool:
        """Whether vLLM reuses the KV cache of common prompt beginnings."""
        return self.asked.engine.caches_prefixes(self.task)

    @property
    def accelerator(self) -> Accelerator:
        """The card of each replica."""
        return self.asked.accelerator

    @property
    def image(self) -> str:
        """Container image of the head and the workers."""
        return self.asked.pods.image or self.runtime.image

    @property
    def parked(self) -> bool:
        """Whether the RayCluster is deleted and its GPUs are free."""
        return self.asked.park

    @property
    def incremental(self) -> RolloutArgs | None:
        """The rollout in steps; None with another strategy."""
        return self.asked.rollout if self.upgrade is UpgradeStrategy.INCREMENTAL else None

    @property
    def most_replicas(self) -> int:
        """Replicas under the highest load."""
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas

    @property
    def scales_to_zero(self) -> bool:
        """Whether no replica runs without load."""
        return self.autoscaling is not None and self.autoscaling.to_zero

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one replica; 1 on the CPU."""
        return self.asked.engine.tensor_parallel_size * self.asked.engine.pipeline_parallel_size

    @property
    def gpus(self) -> int:
        """GPUs that the replicas of all models use."""
        return 0 if self.machine is None else sum(model.replicas * model.gpus_per_replica for model in self.models)

    @property
    def downloads(self) -> bool:
        """Whether replicas of a model download from Hugging Face: the model, or the one that drafts its tokens."""
        drafts = [model.asked.engine.speculation for model in self.models]
        return any(model.weights.source is WeightsSource.HUB for model in self.models) or any(
            draft.model and not draft.model.startswith("/") for draft in drafts if draft
        )

    @property
    def has_hub_cache(self) -> bool:
        """Whether the kit makes a volume for the Hugging Face cache. With volumes of the stack, one of them may be the cache."""
        return (
            self.weights.source is WeightsSource.HUB
            and self.weights.uri == self.model_id
            and self.accelerator is not Accelerator.CPU
            and not self.asked.pods.volumes
        )

    @property
    def scales_by_latency(self) -> bool:
        """Whether the time to first token of a model adds replicas."""
        return any(model.autoscaling and model.autoscaling.time_to_first_token_ms for model in self.models)

    @property
    def has_code(self) -> bool:
        """Whether the pods mount code of the kit: the gate of the keys, or the autoscaling policy."""
        return self.asked.api.key or self.scales_by_latency

    @property
    def has_adapters(self) -> bool:
        """Whether replicas load LoRA adapters."""
        return self.asked.adapters is not None

    @property
    def has_sides(self) -> bool:
        """Whether some replicas compute prompts and others generate."""
        return self.asked.disaggregation is not None

    @property
    def running_workers(self) -> int:
        """Worker pods without load."""
        return 0 if self.parked else self.workers.workers

    def on(self, switch: str) -> bool:
        """Return whether a switch, by its name in SWITCHES, is on."""
        return self.env[SWITCHES[switch]] == "1"


@dataclass(frozen=True)
class Draft:
    """A planned service without its node pool."""

    plan: ServicePlan
    pool_key: PoolKey | None


def every_model(services: Iterable[ServicePlan]) -> Iterator[ServicePlan]:
    """Yield the plan of each model of each service."""
    for service in services:
        yield from service.models
