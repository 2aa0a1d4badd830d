"""Make a model's file from what its own files say."""

import datetime
from collections.abc import Mapping
from typing import Any

from rayline.facts.parsers import PARSERS
from rayline.facts.quantizations import KV_CACHE_BYTES, QUANTIZATIONS
from rayline.models.catalog import is_hub_id
from rayline_cli.errors import UsageError

from .layers import ASSISTANTS, CLASS_DEFAULTS, ENCODERS, heads, read_layers
from .numbers import CONTEXT, LAYERS, WIDTH, number
from .sources import ModelSource
from .weights import active_experts, count

# Where a configuration of several parts has its text model.
_TEXT_PARTS = ("text_config", "llm_config", "language_config")
# What vLLM's profiling run held for images with Qwen3.5-4B on an L4 (models/files); a start-up log of the model itself is right.
IMAGE_PROFILING_GIB = 1.0


def describe(model: str, source: ModelSource) -> dict[str, Any]:
    """Return the values of a model's file, in its order. Raises UsageError for a model that vLLM cannot load."""
    try:
        return _describe(model, source)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise UsageError(f"{source.place}: config.json has a value of another type ({error}). Fix: download it again") from None


def _describe(model: str, source: ModelSource) -> dict[str, Any]:
    whole = source.config
    # the text model of Qwen2.5-Omni is under thinker_config
    outer = whole.get("thinker_config") or whole
    text = {**next((outer[part] for part in _TEXT_PARTS if isinstance(outer.get(part), dict)), outer)}
    text = {**CLASS_DEFAULTS.get(str(text.get("model_type")), {}), **text}
    if whole.get("model_type") in ASSISTANTS:
        text["num_kv_shared_layers"] = number(text, LAYERS)
    quantization, kv_cache_dtype = _quantization(source)
    if quantization:
        whole = {**whole, "quantization_config": whole.get("quantization_config") or {"quant_method": quantization}}
    weights = count(source.tensors, text, whole)
    attention, recurrent, unknown = read_layers(text)
    template = "".join(source.files.get(name, "") for name in ("chat_template.jinja", "tokenizer_config.json"))
    reasoning, tool = _parsers(str(text.get("model_type")), template)
    architecture = next(iter(whole.get("architectures") or ()), None)
    vision = weights.vision or "vision_config" in outer
    pooling = text.get("model_type") in ENCODERS or source.json_of("modules.json") is not None
    pooling = pooling or str(architecture).endswith(("ForSequenceClassification", "ForRewardModel"))
    today = datetime.datetime.now(datetime.UTC).date()
    values: dict[str, Any] = {
        "model": model,
        "source": f"config.json and safetensors headers of {source.place}, read on {today}",
        "licence": source.licence,
        "architecture": architecture,
        "parameters": weights.parameters,
        "active_parameters": weights.active_parameters,
        "weights_bytes": weights.loaded_bytes,
        "linear_parameters": weights.linear_parameters,
        "drafter_bytes": weights.drafter_bytes,
        "quantization": quantization,
        "kv_cache_dtype": kv_cache_dtype,
        "hidden_size": number(text, WIDTH),
        "intermediate_size": _width(text),
        "vocab_size": number(text, ("vocab_size",)) or number(outer, ("vocab_size",)),
        "heads": heads(text),
        "attention": [layer.model_dump(exclude_defaults=True) for layer in attention],
        "recurrent": recurrent.model_dump() if recurrent else None,
        "max_context": _context(text, source),
        "encoder_profiling_gib": IMAGE_PROFILING_GIB if vision else None,
        "gated": source.gated,
        "vision": vision,
        "pooling": pooling,
        "labels": _labels(whole) if str(architecture).endswith("ForSequenceClassification") else None,
        "reasoning_parser": None if pooling else reasoning,
        "tool_call_parser": None if pooling else tool,
        "at_hugging_face": None if is_hub_id(model) else False,
        "unknown": unknown,
    }
    return {key: value for key, value in values.items() if value is not None and (value or key == "at_hugging_face")}


def _labels(config: Mapping[str, Any]) -> int:
    """Return the classes of a classifier. transformers 5 keeps names for them, and has two where the files say nothing."""
    return number(config, ("num_labels",)) or len(config.get("id2label") or {}) or 2


def _context(text: Mapping[str, Any], source: ModelSource) -> int | None:
    """Return the longest context, which the files of an encoder bound further (vllm 0.29.0 vllm/config/model.py:2471)."""
    bounds = [number(text, CONTEXT)]
    if isinstance(transformer := source.json_of("sentence_bert_config.json"), dict):
        bounds.append(number(transformer, ("max_seq_length",)))
    if text.get("model_type") in ENCODERS and isinstance(tokenizer := source.json_of("tokenizer_config.json"), dict):
        bounds.append(number(tokenizer, ("model_max_length",)))
    return min((bound for bound in bounds if bound), default=None)


def _width(text: Mapping[str, Any]) -> int | None:
    """Return the width of the MLP for one token: the widest dense one, or all active experts and the shared one."""
    dense = text.get("intermediate_size") or text.get("n_inner") or text.get("ffn_dim")
    dense = max(dense) if isinstance(dense, list) else dense
    # Gemma 4's layers that share a KV cache have an MLP of twice the width
    dense = dense * 2 if dense and text.get("use_double_wide_mlp") else dense
    expert = text.get("moe_intermediate_size") or (dense if active_experts(text) else 0)
    expert = max(expert) if isinstance(expert, list) else expert
    names = ("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size")
    shared = number(text, names) or int(text.get("n_shared_experts") or 0) * int(expert or 0)
    return max(int(dense or 0), active_experts(text) * int(expert or 0) + shared) or number(text, WIDTH)


def _parsers(kind: str, template: str) -> tuple[str | None, str | None]:
    """Return the parsers of reasoning and tool calls, as far as the chat template shows that the model does either."""
    parsers = PARSERS.get(kind)
    if parsers is None:
        return None, None
    return parsers.reasoning if parsers.reasons in template else None, parsers.tool if "tools" in template else None


def _quantization(source: ModelSource) -> tuple[str | None, str | None]:
    """Return the quantization of a checkpoint and the type of its KV cache. Raises UsageError for one that vLLM lacks."""
    inner = source.config.get("text_config")
    config = source.config.get("quantization_config") or (inner.get("quantization_config") if isinstance(inner, dict) else None)
    extra = source.json_of("hf_quant_config.json")
    older = extra.get("quantization") if isinstance(extra, dict) else None
    if not config and not older:
        return None, None
    config = config or {"quant_method": "modelopt", **(older or {})}
    method = str(config.get("quant_method", "")).lower()
    words = f"{config.get('quant_algo', '')} {config.get('format', '')} {(older or {}).get('quant_algo', '')}".lower()
    # ModelOpt and compressed-tensors name the format beside the method
    if method.startswith("modelopt") or method == "compressed-tensors":
        method = "nvfp4" if "nvfp4" in words or "mixed" in words else method
    if method not in QUANTIZATIONS:
        raise UsageError(
            f"{source.place}: vLLM 0.29 has no quantization {method}. Fix: a checkpoint in one of {', '.join(QUANTIZATIONS)}"
        )
    asked = str(config.get("kv_cache_quant_algo") or (older or {}).get("kv_cache_quant_algo") or "").lower()
    scheme = config.get("kv_cache_scheme")
    if isinstance(scheme, dict) and scheme.get("num_bits") == 8 and scheme.get("type") == "float":
        asked = "fp8"
    return method, asked if asked in KV_CACHE_BYTES else None
