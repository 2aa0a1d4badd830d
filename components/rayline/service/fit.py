"""Compute whether a model fits a GPU, with how long a context and how many sequences at once.

The KV cache is counted as vLLM 0.29 counts it (vllm/v1/core/kv_cache_utils.py): layers in groups of equal size, one pool
of blocks of equal bytes, whole blocks per request and group. Weights come from the model's row. Activations, CUDA graphs
and the CUDA context are an estimate; docs/models.md compares it with vLLM's own reports. The start-up log's "GPU KV cache size" is
exact, and this estimate is there before anything is paid for.
"""

from collections.abc import Callable
from math import ceil

from rayline.facts.models import BF16, FP32, Attention, Model
from rayline.service.types import GIB, EngineLimits, KvLayout, MemoryFit

GPU_BLOCK_TOKENS = 16  # vLLM's smallest block on CUDA
CPU_BLOCK_TOKENS = 128  # vllm/platforms/cpu.py

# CUDA context, NCCL, allocator slack and captured graphs: logs of 0.19 to 0.29 leave 0.7 to 1.2 GiB unexplained by the rest.
FIXED_OVERHEAD_GIB = 1.0
# Peak activation per batched token: gate, up and their product, and about eight copies of the residual stream.
RESIDUAL_COPIES = 8
MLP_COPIES = 3
# The sampler holds logits in float32 about three times over for every sequence of the dummy run.
LOGIT_COPIES = 3


def kv_layout(model: Model, *, tensor_parallel_size: int, prefix_caching: bool, block_tokens: int) -> KvLayout:
    """Return the model's layers grouped as vLLM groups them. Each GPU has at least one KV head."""

    def token_bytes(layer: Attention) -> int:
        return 2 * max(1, layer.kv_heads // tensor_parallel_size) * layer.head_dim * BF16

    layers_per_group = min(layer.layers for layer in model.attention)
    if model.linear:
        layers_per_group = min(layers_per_group, model.linear.layers)
        state = model.linear.state_bytes() / tensor_parallel_size
        # the attention block grows until its page holds one state
        needed = max(ceil(state / token_bytes(layer)) for layer in model.attention)
        block_tokens = max(block_tokens, ceil(needed / 16) * 16)
    page_bytes = max(token_bytes(layer) * block_tokens for layer in model.attention)
    groups: list[tuple[str, int, int, int | None]] = [
        (
            "full" if layer.window is None else "sliding",
            ceil(layer.layers / layers_per_group),
            page_bytes // token_bytes(layer),
            layer.window,
        )
        for layer in model.attention
    ]
    if model.linear:
        groups.append(("linear", ceil(model.linear.layers / layers_per_group), 0, None))
    return KvLayout(page_bytes * layers_per_group, tuple(groups), prefix_caching)


def weights_gib(model: Model) -> float:
    """Return the GiB of weights that vLLM loads, over all GPUs of a replica."""
    return model.loaded_gib or model.parameters * model.weight_bytes / GIB


def activation_gib(model: Model, *, max_num_batched_tokens: int, max_num_seqs: int, tensor_parallel_size: int) -> float:
    """Return the GiB of activations in the profiling run on one GPU: an estimate, see the module's docstring."""
    width = MLP_COPIES * model.intermediate_size / tensor_parallel_size + RESIDUAL_COPIES * model.hidden_size
    logits = LOGIT_COPIES * max_num_seqs * model.vocab_size * FP32
    return (max_num_batched_tokens * width * BF16 + logits) / GIB + model.encoder_profiling_gib


def memory_fit(
    model: Model,
    limits: EngineLimits,
    *,
    memory_gib: float,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    prefix_caching: bool,
) -> MemoryFit:
    """Return how a model fits GPUs of `memory_gib` each. The stages of a pipeline share evenly."""
    gpus = tensor_parallel_size * pipeline_parallel_size
    weights = weights_gib(model) / gpus
    activation = activation_gib(
        model,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_num_seqs=limits.max_num_seqs,
        tensor_parallel_size=tensor_parallel_size,
    )
    usable = memory_gib * limits.gpu_memory_utilization
    kv_cache = usable - weights - activation - FIXED_OVERHEAD_GIB
    layout = kv_layout(
        model, tensor_parallel_size=tensor_parallel_size, prefix_caching=prefix_caching, block_tokens=GPU_BLOCK_TOKENS
    )
    # each stage of a pipeline holds its share of the layers
    blocks = int(max(0.0, kv_cache) * GIB * pipeline_parallel_size // layout.block_bytes)
    return _fit(model, limits, layout, blocks, memory_gib, usable, weights, activation, FIXED_OVERHEAD_GIB, kv_cache)


def cpu_memory_fit(
    model: Model, limits: EngineLimits, *, kv_cache_gib: float, memory_gib: float, prefix_caching: bool
) -> MemoryFit:
    """Return the same on the CPU. VLLM_CPU_KVCACHE_SPACE is the KV cache, the worker's memory holds the rest."""
    layout = kv_layout(model, tensor_parallel_size=1, prefix_caching=prefix_caching, block_tokens=CPU_BLOCK_TOKENS)
    blocks = int(kv_cache_gib * GIB // layout.block_bytes)
    activation = activation_gib(
        model, max_num_batched_tokens=limits.max_num_batched_tokens, max_num_seqs=limits.max_num_seqs, tensor_parallel_size=1
    )
    return _fit(model, limits, layout, blocks, memory_gib, memory_gib, weights_gib(model), activation, 0.0, kv_cache_gib)


def _fit(model, limits, layout, blocks, memory, usable, weights, activation, overhead, kv_cache) -> MemoryFit:
    return MemoryFit(
        memory_gib=memory,
        usable_gib=usable,
        weights_gib=weights,
        activation_gib=activation,
        overhead_gib=overhead,
        kv_cache_gib=kv_cache,
        blocks=blocks,
        layout=layout,
        limits=limits,
        longest_context=largest(
            model.max_context, lambda tokens: blocks >= layout.blocks_per_request(tokens, limits.tokens_in_flight)
        ),
    )


def largest(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest whole number up to `limit` for which the monotone `fits` holds; 0 where it holds for none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
