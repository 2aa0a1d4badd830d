"""A service on its way to a ServicePlan."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rayline.cluster.types import ClusterPlan
from rayline.facts.choices import Accelerator, ClusterMode, Task
from rayline.facts.runtimes import RUNTIMES, Runtime
from rayline.facts.serve_flags import HAPROXY_THREADS, SERVE_FLAGS
from rayline.kuberay.types import KuberayPlan
from rayline.models.model import Model
from rayline.models.types import ServiceWeights
from rayline.schema.check import Section, version
from rayline.service.arguments import ServiceArgs
from rayline.service.types import EngineLimits, LoadedModel, Scale, WorkerGroup


@dataclass(frozen=True)
class ServiceRequest(Section):
    """The arguments of a service, and the cluster around it. `path` is the service's place in a stack file."""

    arguments: ServiceArgs
    name: str
    cluster: ClusterPlan
    kuberay: KuberayPlan
    models: Mapping[str, Model]

    @property
    def on_cpu(self) -> bool:
        """Whether the replicas run on the CPU."""
        return self.arguments.accelerator is Accelerator.CPU

    @property
    def on_this_machine(self) -> bool:
        """Whether the service runs on this machine."""
        return self.cluster.mode is ClusterMode.LOCAL

    @property
    def scales_by_latency(self) -> bool:
        """Whether the time to first token adds replicas."""
        scaling = self.arguments.autoscaling
        return scaling is not None and scaling.time_to_first_token_ms is not None

    def has_older_ray(self, least: str) -> bool:
        """Return whether the runtime is known and its Ray is older than a version."""
        runtime = RUNTIMES.get(self.arguments.pods.runtime)
        return runtime is not None and version(runtime.ray_version) < version(least)


@dataclass(frozen=True)
class KnownService(ServiceRequest):
    """A service with a known model and runtime, and the decisions before its machines."""

    loaded: LoadedModel
    runtime: Runtime
    scale: Scale
    env: dict[str, str]
    engine_kwargs: dict[str, Any]
    weights: ServiceWeights
    warnings: list[str] = field(default_factory=list)
    """Warnings about the service, without its name."""

    @property
    def model(self) -> Model:
        """The model's file."""
        return self.loaded.model

    @property
    def tensor(self) -> int:
        """GPUs that share each layer."""
        return self.arguments.engine.tensor_parallel_size

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one replica."""
        return self.tensor * self.arguments.engine.pipeline_parallel_size

    @property
    def prefix_caching(self) -> bool:
        """Whether vLLM reuses the KV cache of common prompt beginnings."""
        return self.arguments.engine.caches_prefixes(self.loaded.task)

    def limits(self, *, max_model_len: int, max_num_seqs: int, max_num_batched_tokens: int) -> EngineLimits:
        """Return the engine limits of the stack, else these defaults. The context stays within the model's limit."""
        engine, longest = self.arguments.engine, self.model.max_context
        if engine.max_model_len is not None and engine.max_model_len > longest:
            self.refuse("engine.max_model_len", f"1 to {longest}, which is the limit of {self.arguments.model}")
        context = min(engine.max_model_len or max_model_len, longest)
        # vLLM does not divide a prompt that is pooled (vllm 0.29.0 vllm/config/model.py, is_chunked_prefill_supported)
        step = max_num_batched_tokens if self.loaded.task is Task.GENERATE else max(max_num_batched_tokens, context)
        return EngineLimits(
            max_model_len=context,
            max_num_seqs=engine.max_num_seqs or max_num_seqs,
            max_num_batched_tokens=engine.max_num_batched_tokens or step,
            gpu_memory_utilization=engine.gpu_memory_utilization,
            batches_in_flight=self.runtime.batches_in_flight,
        )

    def decided(self, workers: WorkerGroup) -> dict[str, Any]:
        """Return the fields of a ServicePlan that are decided once the workers are known."""
        return {
            "name": self.name,
            "asked": self.arguments,
            "model": self.model,
            "task": self.loaded.task,
            "weights": self.weights,
            "runtime": self.runtime,
            "replicas": self.scale.replicas,
            "upgrade": self.scale.upgrade,
            "spare_replicas": self.scale.spare_replicas,
            "env": _with_haproxy_threads(self.env, workers.cpus),
            "workers": workers,
            "engine_kwargs": self.engine_kwargs,
            "pool": None,
            "warnings": tuple(self.warnings),
        }


def _with_haproxy_threads(env: dict[str, str], cpus: float) -> dict[str, str]:
    """Return `env` with no more HAProxy threads than a worker has CPUs; a number of the stack stays."""
    threads = max(1, int(cpus))
    if HAPROXY_THREADS in env or threads >= int(SERVE_FLAGS[HAPROXY_THREADS].default):
        return env
    return {**env, HAPROXY_THREADS: str(threads)}
