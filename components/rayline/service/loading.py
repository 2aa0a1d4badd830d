"""Decide how the engine loads a model: its quantization, KV cache, drafter and LoRA slots, as the engine's arguments say."""

from collections.abc import Mapping
from typing import Any

from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.choices import Task
from rayline.facts.quantizations import KV_CACHE_BYTES, LEAST_FOR_FP8_KV_CACHE, QUANTIZATIONS
from rayline.models.model import BF16, Model
from rayline.schema.secret_values import may_show
from rayline.service.request import ServiceRequest
from rayline.service.types import LoadedModel

# They draft from the prompt, without weights (vllm 0.29.0 vllm/config/speculative.py).
WITHOUT_WEIGHTS = ("ngram", "ngram_gpu", "suffix")


def plan_loading(
    request: ServiceRequest, model: Model, task: Task, kwargs: Mapping[str, Any], warnings: list[str]
) -> LoadedModel:
    """Return how the engine loads the model. Refuses what the GPU or the model has not, and warns of what it does slowly."""
    _check_unknown(request, model, warnings)
    drafter, multi_token = _drafter(request, model, kwargs.get("speculative_config"), warnings)
    adapters = request.arguments.adapters
    if adapters and model.active_parameters:
        warnings.append("adapters: the plan does not count the LoRA slots of a mixture's experts; leave memory for them")
    return LoadedModel(
        model,
        task,
        bytes_per_weight=_bytes_per_weight(request, model, kwargs.get("quantization"), warnings),
        kv_value_bytes=_kv_value_bytes(request, model, kwargs.get("kv_cache_dtype")),
        drafter=drafter,
        multi_token=multi_token,
        lora_slots=adapters.active if adapters else 0,
        lora_rank=adapters.max_rank if adapters else 0,
    )


def _check_unknown(request: ServiceRequest, model: Model, warnings: list[str]) -> None:
    if model.unknown is None:
        return
    if request.arguments.engine.max_model_len is None:
        why = f"required, as the plan cannot derive it: {model.unknown}. Fix: the longest prompt plus answer that you need, tokens"
        request.refuse("engine.max_model_len", why)
    warnings.append(f"{model.model}: {model.unknown}; what fits is a guess, and vLLM's start-up log has the truth")


def _bytes_per_weight(request: ServiceRequest, model: Model, wanted: Any, warnings: list[str]) -> float | None:
    """Return the bytes of a linear layer's weight where the engine quantizes as it loads; None where the checkpoint decides."""
    name = wanted if isinstance(wanted, str) else model.quantization
    row = QUANTIZATIONS.get(name or "")
    spec = ACCELERATORS.get(request.arguments.accelerator)
    place = "engine.kwargs.quantization" if isinstance(wanted, str) else "model"
    shown = wanted if isinstance(wanted, str) else request.arguments.model
    if row and spec and not row.least <= spec.compute_capability < (row.below or 1e9):
        why = f"vLLM has no {name} kernels for {request.arguments.accelerator.value} (compute capability {spec.compute_capability})"
        request.refuse(place, f"{why}. Fix: a GPU of {row.least} on, or another quantization", shown)
    elif row and spec and row.fast and spec.compute_capability < row.fast:
        warnings.append(
            f"{name} on {request.arguments.accelerator.value}: the GPU has no such arithmetic, so vLLM unpacks the weights to 16 bits "
            "as it multiplies (Marlin): it saves memory and no time"
        )
    # a quantized checkpoint has its size already
    return row.bytes_per_weight if row and model.quantization is None else None


def _kv_value_bytes(request: ServiceRequest, model: Model, wanted: Any) -> int:
    kind = wanted if isinstance(wanted, str) and wanted != "auto" else model.kv_cache_dtype or "auto"
    size = KV_CACHE_BYTES.get(kind, BF16)
    spec = ACCELERATORS.get(request.arguments.accelerator)
    if size < BF16 and spec and spec.compute_capability < LEAST_FOR_FP8_KV_CACHE:
        why = f"{request.arguments.accelerator.value} has no FP8 arithmetic (compute capability {spec.compute_capability})"
        request.refuse("engine.kwargs.kv_cache_dtype", f"{why}: from {LEAST_FOR_FP8_KV_CACHE} on, or bfloat16", kind)
    return size


def _drafter(request: ServiceRequest, model: Model, config: Any, warnings: list[str]) -> tuple[Model | None, bool]:
    """Return the model that drafts tokens, and whether the model's own layer does."""
    if not isinstance(config, Mapping):
        return None, False
    name = config.get("model")
    # vLLM takes `model: ngram` and `method: "[ngram]"` as well (vllm/config/speculative.py)
    method = str(config.get("method") or name or "").strip("[]")
    if method in WITHOUT_WEIGHTS:
        return None, False
    where = "engine.speculation" if request.arguments.engine.speculation else "engine.kwargs.speculative_config"
    if method.endswith("mtp") and not isinstance(name, str):
        if model.drafter_bytes is None:
            warnings.append(
                "speculative_config: the model's file has no drafter_bytes, so the weights of its drafter do not count"
            )
        return None, True
    if not isinstance(name, str):
        return None, False
    drafter = request.models.get(name)
    # a secret in its place is refused with the other arguments
    if drafter is None and may_show("", name):
        request.refuse(f"{where}.model", f"no file describes it. Fix: `rayline model add {name}` writes one", name)
    return drafter, False
