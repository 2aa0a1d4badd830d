"""Decide how a service loads LoRA adapters; refuse what cannot work."""

from math import ceil
from typing import Any

from rayline.facts.runtime import runtime_facts
from rayline.facts.runtimes import MIN_RAY_VERSION_FOR_ADAPTERS
from rayline.facts.serve_flags import FORWARD_BODY
from rayline.models.model import Model
from rayline.service.arguments import AdaptersArgs
from rayline.service.fit import adapter_gib
from rayline.service.request import KnownService, ServiceRequest
from rayline.service.types import WorkerGroup

# Share of a worker's memory that loaded adapters and offloaded KV cache may take together. Ray's object store takes 0.3
# (DEFAULT_OBJECT_STORE_MEMORY_PROPORTION, ray 2.60.0 ray/_private/ray_constants.py), each engine process several GiB.
MOST_OF_MEMORY = 0.5
# vLLM's operators for the CPU take -1, "no adapter", for the last one (vllm 0.29.0 vllm/lora/ops/torch_ops/lora_ops.py; #48421 is open).
# Requests for adapters alone, or for the model alone, are right. The Triton kernels skip -1 (triton_ops/lora_shrink_op.py).
CPU_SEQUENCES = 1


def check_adapters(request: ServiceRequest, model: Model | None) -> None:
    """Refuse adapters that the service's other settings or the model exclude."""
    adapters = request.arguments.adapters
    if adapters is None:
        return
    problem = _reason_without(request, model)
    if problem:
        request.refuse("adapters", f"{problem} Fix: leave `adapters` out", None)
    if adapters.active > adapters.max_loaded:
        why = f"an active adapter is a loaded one: at most adapters.max_loaded, which is {adapters.max_loaded}"
        request.refuse("adapters.max_active", why)
    if request.on_cpu and (request.arguments.engine.max_num_seqs or 1) > CPU_SEQUENCES:
        why = "vLLM answers a request for the model with an adapter where both share a step on the CPU (vllm #48421)"
        request.refuse("engine.max_num_seqs", f"{why}. Fix: {CPU_SEQUENCES}, or leave it out")
    key = "api.served_model_name" if request.arguments.api.served_model_name else "model"
    name = request.arguments.api.served_model_name or request.arguments.model
    if ":" in name:
        # Ray splits MODEL:ADAPTER at the first colon (ray 2.60.0 llm/_internal/common/utils/lora_utils.py)
        request.refuse(key, "Ray reads an adapter's name after the first colon. Fix: an api.served_model_name without colons")
    if request.arguments.pods.env.get(FORWARD_BODY, "1") != "1":
        why = "Ray Serve LLM finds an adapter's name in the body, and refuses adapters without it: leave it out"
        request.refuse(f"pods.env.{FORWARD_BODY}", why, request.arguments.pods.env[FORWARD_BODY])


def _reason_without(request: ServiceRequest, model: Model | None) -> str | None:
    """Return why the service cannot have adapters; None where it can."""
    if not request.arguments.switches.direct_streaming:
        return "they are loaded on the direct path alone, and switches.direct_streaming is off."
    if request.has_older_ray(MIN_RAY_VERSION_FOR_ADAPTERS):
        return f"they need Ray {MIN_RAY_VERSION_FOR_ADAPTERS}, and pods.runtime is {request.arguments.pods.runtime}."
    if model and model.pooling:
        return f"{model.model} gives embeddings or scores, and adapters are for models that generate text."
    if model and model.architecture in runtime_facts().architectures_without_lora:
        return f"vLLM has no LoRA for {model.architecture}, the architecture of {model.model}."
    return None


def check_memory(service: KnownService, workers: WorkerGroup) -> None:
    """Refuse more loaded adapters than a worker's memory holds."""
    adapters, size = service.arguments.adapters, adapter_gib(service.loaded)
    if adapters is None or not size:
        return
    replicas = max(1.0, workers.replicas_per_worker)
    most = int(workers.memory_gib * MOST_OF_MEMORY / (size * replicas))
    if adapters.max_loaded > most:
        why = f"an adapter of rank {adapters.max_rank} has {size:.2f} GiB, and half of a worker's {workers.memory_gib} GiB holds {most}"
        service.refuse("adapters.max_loaded", f"{why}. Fix: fewer, a lower max_rank, or workers with more memory")


def loaded_gib(service: KnownService) -> float:
    """Return the GiB of a replica's memory for the most adapters that it loads."""
    adapters = service.arguments.adapters
    return adapters.max_loaded * adapter_gib(service.loaded) if adapters else 0.0


def on_disk_gib(service: KnownService) -> int:
    """Return the GiB on a worker's disk for the loaded adapters. Ray removes no file of one that it has unloaded."""
    return ceil(loaded_gib(service))


def lora_config(adapters: AdaptersArgs) -> dict[str, Any]:
    """Return Ray Serve LLM's settings of adapters."""
    return {"dynamic_lora_loading_path": adapters.location.rstrip("/"), "max_num_adapters_per_replica": adapters.max_loaded}


def lora_kwargs(adapters: AdaptersArgs) -> dict[str, Any]:
    """Return vLLM's arguments. Its own default of max_cpu_loras is max_loras: each other adapter would be read from disk again."""
    return {
        "enable_lora": True,
        "max_loras": adapters.active,
        "max_cpu_loras": adapters.max_loaded,
        "max_lora_rank": adapters.max_rank,
    }
