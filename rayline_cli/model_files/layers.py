"""Read from a model's config.json which layers keep a KV cache or a state, and how large they are.

Names of keys are those of huggingface/transformers 5 and of vLLM 0.29.0's vllm/transformers_utils/configs.
"""

from collections import Counter

from rayline.models.model import BF16, FP32, AttentionLayers, RecurrentLayers
from rayline_cli.errors import UsageError

from .numbers import HEADS, LAYERS, WIDTH, Config, number

# `model_type` of the text models that are known. Each was compared with vLLM's own reading of a configuration
# (tests/unit/published_models), or is a relative below.
DECODERS = frozenset(
    {
        *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "qwen3_vl_text"),
        *("phi3", "granite", "minimax_m2", "cohere"),
        *("gemma2", "gemma3_text", "gemma4_text", "gpt_oss", "exaone4", "mimo_v2_flash"),
        *("qwen3_next", "nemotron_h", "granitemoehybrid", "falcon_h1", "jamba"),
    }
)
LATENT = frozenset({"deepseek_v3", "kimi_k2"})
# The text models of Qwen's vision models, and of Qwen3.5, whose start-up logs are in benchmarks/rayline_bench/vllm_logs.py.
RELATIVES = frozenset(
    {
        *("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text", "qwen3_vl_moe_text"),
        *("qwen3_5_text", "qwen3_5_moe_text"),
    }
)
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "distilbert"})
# Drafters of Gemma 4: every layer reads the cache of the model that they draft for (vllm/model_executor/models/gemma4_mtp.py).
ASSISTANTS = frozenset({"gemma4_assistant", "gemma4_unified_assistant"})
KNOWN = DECODERS | LATENT | RELATIVES | ENCODERS

Layers = tuple[list[AttentionLayers], RecurrentLayers | None, str | None]


def read_layers(text: Config) -> Layers:
    """Return the layers with a KV cache, those with a state, and what is not known about them (None: all is known)."""
    kind = str(text.get("model_type", ""))
    if kind in ENCODERS:
        return [], None, None
    if kind in LATENT:
        return [_latent(text)], None, None
    kinds = _kinds(text)
    if kind in KNOWN:
        return _attention(text, kinds), _recurrent(text, kinds), None
    if text.get("kv_lora_rank"):
        attention, what = [_latent(text)], "a compressed vector"
    else:
        attention, what = _attention(text, ["full"] * _count(text)), "all keys and values"
    unknown = (
        f"architecture {kind or 'without a model_type'}: the KV cache is counted as if every layer kept {what} of each token"
    )
    return attention, None, unknown


# What config.json leaves out where it is the default of the class in transformers 5.
CLASS_DEFAULTS: dict[str, Config] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "vocab_size": 262208,
    }
}


def _needed(text: Config, names: tuple[str, ...]) -> int:
    value = number(text, names)
    if not value:
        fix = "add the key to a copy of the model in a folder, with the value of its class in transformers"
        raise UsageError(f"config.json has no {names[0]}. Fix: {fix}")
    return value


def heads(text: Config) -> int:
    """Return the attention heads of one layer. Raises UsageError."""
    return _needed(text, HEADS)


def _count(text: Config) -> int:
    return _needed(text, LAYERS)


def _head_dim(text: Config) -> int:
    return number(text, ("head_dim",)) or _needed(text, WIDTH) // heads(text)


def _latent(text: Config) -> AttentionLayers:
    """One vector of the KV rank and the rotary part for each token (vllm/model_executor/layers/attention/mla_attention.py)."""
    size = _needed(text, ("kv_lora_rank",)) + int(text.get("qk_rope_head_dim") or 0)
    return AttentionLayers(layers=_count(text), kv_heads=1, head_dim=size, latent=True)


# Words of `layer_types`, `layers_block_type` and the letters of `hybrid_override_pattern`.
_WORDS = {
    **dict.fromkeys(("full_attention", "attention", "global_attention", "full", "*"), "full"),
    **dict.fromkeys(("sliding_attention", "local_attention"), "sliding"),
    **dict.fromkeys(("linear_attention", "mamba", "mamba2", "M"), "state"),
}


def _kinds(text: Config) -> list[str]:
    """Return for each layer full, sliding or state, both (of which falcon_h1 has every layer) or none."""
    count, kind = _count(text), text.get("model_type")
    window = _window(text)
    if kind == "falcon_h1":
        return ["both"] * count
    if isinstance(pattern := text.get("hybrid_override_pattern"), str):
        return [_WORDS.get(letter, "none") for letter in pattern]
    if isinstance(pattern := text.get("hybrid_layer_pattern"), list):
        return ["sliding" if local else "full" for local in pattern]
    if isinstance(words := text.get("layer_types") or text.get("layers_block_type"), list):
        found = [_WORDS.get(str(word), "none") for word in words]
        return ["full" if word == "sliding" and not window else word for word in found]
    if isinstance(text.get("attn_layer_period"), int):
        offset = int(text.get("attn_layer_offset") or 0)
        return ["full" if at % text["attn_layer_period"] == offset else "state" for at in range(count)]
    if isinstance(every := text.get("full_attention_interval"), int):
        return ["full" if (at + 1) % every == 0 else "state" for at in range(count)]
    if isinstance(every := text.get("sliding_window_pattern"), int) and window:
        return ["full" if (at + 1) % every == 0 else "sliding" for at in range(count)]
    if kind == "gemma2":
        return ["full" if at % 2 else "sliding" for at in range(count)]
    # Llama's attention reads `layer_types` alone: vLLM keeps the whole context of Mistral, whatever its sliding_window
    return ["full"] * count


def _window(text: Config) -> int | None:
    size = text.get("sliding_window")
    return int(size) if size and text.get("use_sliding_window", True) is not False else None


def _attention(text: Config, kinds: list[str]) -> list[AttentionLayers]:
    # the last layers read the cache of those before them
    shared = int(text.get("num_kv_shared_layers") or 0)
    counts = Counter(kinds[: len(kinds) - shared])
    # every head its own where the configuration does not say: an upper bound
    kv_heads = number(text, ("num_key_value_heads", "num_kv_heads", "n_head_kv")) or heads(text)
    head_dim, value_dim = _head_dim(text), text.get("v_head_dim")
    full, sliding = counts["full"] + counts["both"], counts["sliding"]
    window = _window(text)
    layers = []
    if full:
        layers.append(
            AttentionLayers(
                layers=full,
                kv_heads=int((text.get("num_global_key_value_heads") if sliding else None) or kv_heads),
                head_dim=int(text.get("global_head_dim") or head_dim),
                value_dim=int(value_dim) if value_dim and value_dim != head_dim else None,
            )
        )
    if sliding:
        value_dim = text.get("swa_v_head_dim") or value_dim
        head_dim = int(text.get("swa_head_dim") or head_dim)
        layers.append(
            AttentionLayers(
                layers=sliding,
                kv_heads=int(text.get("swa_num_key_value_heads") or kv_heads),
                head_dim=head_dim,
                value_dim=int(value_dim) if value_dim and value_dim != head_dim else None,
                window=window,
            )
        )
    return layers


def _recurrent(text: Config, kinds: list[str]) -> RecurrentLayers | None:
    layers = kinds.count("state") + kinds.count("both")
    if not layers:
        return None

    def get(*names: str) -> int:
        return number(text, names) or 0

    # Nemotron-H keeps its state in float32 unless it says otherwise (vllm/model_executor/models/config.py)
    usual = "float32" if text.get("model_type") == "nemotron_h" else ""
    state_type = str(text.get("mamba_ssm_dtype") or text.get("mamba_ssm_cache_dtype") or usual)
    size = FP32 if state_type == "float32" else BF16
    if get("linear_num_value_heads"):
        # gated delta net (vllm/model_executor/layers/mamba/mamba_utils.py, gated_delta_net_state_shape)
        keys, key_dim = get("linear_num_key_heads"), get("linear_key_head_dim")
        values, value_dim = get("linear_num_value_heads"), get("linear_value_head_dim")
        state = values * value_dim * key_dim * size
        conv = (2 * keys * key_dim + values * value_dim) * (get("linear_conv_kernel_dim") - 1) * BF16
    elif get("mamba_num_heads", "mamba_n_heads", "num_heads"):
        # Mamba 2 (mamba2_state_shape)
        width = get("mamba_num_heads", "mamba_n_heads", "num_heads")
        dim = get("mamba_head_dim", "mamba_d_head", "head_dim")
        depth = get("ssm_state_size", "mamba_d_state", "state_size")
        groups = get("n_groups", "mamba_n_groups") or 1
        state = width * dim * depth * size
        conv = (width * dim + 2 * groups * depth) * (get("conv_kernel", "mamba_d_conv") - 1) * BF16
    else:
        # Mamba 1 (mamba1_state_shape)
        inner = get("mamba_expand", "expand") * get("hidden_size")
        state, conv = inner * get("mamba_d_state", "state_size") * size, inner * (get("mamba_d_conv", "conv_kernel") - 1) * BF16
    return RecurrentLayers(layers=layers, state_bytes=state + conv) if state + conv else None
