"""What the plan of a service consists of."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from rayline.facts.accelerators import MachineType
from rayline.facts.choices import Accelerator, UpgradeStrategy, WeightsSource
from rayline.facts.models import Model
from rayline.facts.runtimes import Runtime
from rayline.facts.serve_flags import SWITCHES
from rayline.pools.types import PoolKey
from rayline.service.arguments import RolloutArgs, ServiceArgs
from rayline.weights.types import ServiceWeights

GIB = 2**30


@dataclass(frozen=True)
class KvLayout:
    """How vLLM cuts the KV cache: bytes of one block, and how many blocks one request of a length needs."""

    block_bytes: int
    groups: tuple[tuple[str, int, int, int | None], ...]
    """(kind, number of groups, tokens per block, window) with kind full, sliding or linear."""
    prefix_caching: bool

    def blocks_per_request(self, tokens: int, tokens_in_flight: int) -> int:
        """Blocks that a request of `tokens` tokens holds at most."""
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
    """vLLM's limits, always explicit. Tokens, sequences, tokens, and a fraction of the card's memory."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float
    batches_in_flight: int = 2
    """Engine steps that sliding-window layers are charged for: two since vLLM 0.26, one before (facts/runtimes.py)."""

    @property
    def tokens_in_flight(self) -> int:
        """Tokens of all engine steps that can be under way."""
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
        """Requests of `tokens` tokens whose KV cache fits at once; at max_model_len vLLM's "Maximum concurrency"."""
        return self.blocks / self.layout.blocks_per_request(tokens, self.limits.tokens_in_flight)

    @property
    def concurrency(self) -> float:
        """Requests of `max_model_len` tokens that fit at once."""
        return self.sequences(self.limits.max_model_len)

    @property
    def kv_cache_tokens(self) -> int:
        """What vLLM logs as "GPU KV cache size"."""
        return int(self.concurrency * self.limits.max_model_len)

    @property
    def fits(self) -> bool:
        """At least one request of the asked length fits."""
        return self.concurrency >= 1

    @property
    def short_by_gib(self) -> float:
        """GiB that one request of `max_model_len` tokens lacks; 0 when it fits."""
        needed = self.layout.blocks_per_request(self.limits.max_model_len, self.limits.tokens_in_flight)
        return max(0.0, needed * self.layout.block_bytes / GIB - self.kv_cache_gib)


@dataclass(frozen=True)
class WorkerGroup:
    """The worker pods of a service. `cpus` and `memory_gib` are requests of one pod that fit GKE's allocatable."""

    workers: int
    """Workers of the replicas that a service has when nothing drives it up; none run while it is parked."""
    most_workers: int
    """Workers under the highest load that autoscaling answers; equal to `workers` with a fixed count."""
    surge_workers: int
    """Workers that a second cluster adds while a change goes on."""
    max_workers: int
    """The group's own maximum, which a live RayCluster keeps for ever."""
    gpus: int
    ray_cpus: int
    """CPUs that Ray counts on a worker; 0 leaves it to Ray. One for a replica on the CPU, whatever the pod asks for."""
    cpus: float
    memory_gib: int
    ephemeral_gib: int
    replicas_per_worker: float


@dataclass(frozen=True)
class Autoscaling:
    """Ray Serve's request-based autoscaling: the mean of ongoing requests a replica is kept near the target."""

    min_replicas: int
    max_replicas: int
    target_ongoing_requests: float
    upscale_delay_seconds: int
    downscale_delay_seconds: int


@dataclass(frozen=True)
class ServicePlan:
    """Everything about one service that a manifest, a card in the terminal or a bill needs.

    `asked` is what the stack says, with defaults; the other fields are what the plan decided.
    """

    name: str
    asked: ServiceArgs
    model: Model
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
    """Cost of the workers that run when nothing drives the count up; 0 while parked."""
    start_timeout_seconds: int
    autoscaling: Autoscaling | None = None
    warnings: tuple[str, ...] = ()

    @property
    def model_id(self) -> str:
        """Id of the model at Hugging Face."""
        return self.asked.model

    @property
    def served_model_name(self) -> str:
        """The `model` that clients ask for."""
        return self.asked.api.served_model_name or self.asked.model

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
        """Whether the RayCluster is away and its GPUs free."""
        return self.asked.park

    @property
    def incremental(self) -> RolloutArgs | None:
        """How traffic moves to a new cluster in steps; None where it does not."""
        return self.asked.rollout if self.upgrade is UpgradeStrategy.INCREMENTAL else None

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one replica; 1 on the CPU."""
        return self.asked.engine.tensor_parallel_size * self.asked.engine.pipeline_parallel_size

    @property
    def gpus(self) -> int:
        """GPUs that the replicas use."""
        return 0 if self.machine is None else self.replicas * self.gpus_per_replica

    @property
    def has_hub_cache(self) -> bool:
        """Whether the kit keeps what Hugging Face sends on a volume of its own. One of the stack may be the cache as well."""
        return (
            self.weights.source is WeightsSource.HUB
            and self.weights.uri == self.model_id
            and self.accelerator is not Accelerator.CPU
            and not self.asked.pods.volumes
        )

    @property
    def running_workers(self) -> int:
        """Worker pods that exist when nothing drives the count up."""
        return 0 if self.parked else self.workers.workers

    def on(self, switch: str) -> bool:
        """Return whether a switch, by its name in SWITCHES, is on."""
        return self.env[SWITCHES[switch]] == "1"


@dataclass(frozen=True)
class Draft:
    """A service whose pool is not yet known."""

    plan: ServicePlan
    pool_key: PoolKey | None
