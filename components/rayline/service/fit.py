"""Compute whether a model fits a GPU, with how long a context and how many sequences at once.

The KV cache is counted as vLLM 0.29 counts it (vllm/v1/core/kv_cache_utils.py): layers in groups of equal size, one pool
of blocks of equal bytes, whole blocks per request and group. Weights come from the model's file. Activations, CUDA graphs
and the CUDA context are an estimate; docs/models.md compares it with vLLM's own reports. The start-up log's "GPU KV cache size" is
exact, and this estimate is there before anything is paid for.
"""

from collections import Counter
from collections.abc import Callable
from math import ceil

from rayline.facts.choices import Task
from rayline.models.model import BF16, FP32, GIB, Model
from rayline.service.types import EngineLimits, KvLayout, LoadedModel, MemoryFit

GPU_BLOCK_TOKENS = 16  # vLLM's smallest block on CUDA
CPU_BLOCK_TOKENS = 128  # vllm/platforms/cpu.py

# CUDA context, NCCL, allocator slack and captured graphs: logs of 0.19 to 0.29 leave 0.7 to 1.2 GiB unexplained by the rest.
FIXED_OVERHEAD_GIB = 1.0
# Peak activation per batched token: gate, up and their product, and about eight copies of the residual stream.
RESIDUAL_COPIES = 8
MLP_COPIES = 3
# The sampler holds logits in float32 about three times over for every sequence of the dummy run.
LOGIT_COPIES = 3


# CUDA and NCCL outside of vLLM's budget where a replica has several GPUs: 2.3 to 2.4 GiB on each of 4 L4s (akamaslabs/vllm-benchmark 16)
OUTSIDE_GIB = 2.35


def kv_layout(loaded: LoadedModel, *, tensor_parallel_size: int, prefix_caching: bool, block_tokens: int) -> KvLayout:
    """Return the layers of a model and its drafter grouped as vLLM groups them."""
    recurrent = loaded.model.recurrent
    # (bytes of a token, window) of each kind of layer, and how many there are
    kinds: Counter[tuple[int, int | None]] = Counter()
    for layer in (*loaded.model.attention, *loaded.drafting):
        kinds[layer.token_bytes(tensor_parallel_size, loaded.kv_value_bytes), layer.window] += layer.layers
    if not recurrent and {window for _, window in kinds} <= {None}:
        # one table of blocks for all layers (UniformTypeKVCacheSpecs)
        token = sum(size * layers for (size, _), layers in kinds.items())
        return KvLayout(token * block_tokens, (("full", 1, block_tokens, None),) if kinds else (), prefix_caching)

    counts: list[int] = [*kinds.values(), *([recurrent.layers] if recurrent else [])]
    layers_per_group = min(counts)
    sizes: list[int] = [size for size, _ in kinds]
    page_bytes = max(sizes, default=0) * block_tokens
    if recurrent:
        state = recurrent.state_bytes / tensor_parallel_size
        # the attention block grows until its page holds one state
        needed = max((ceil(state / size) for size in sizes), default=0)
        block_tokens = max(block_tokens, ceil(needed / 16) * 16)
        page_bytes = max(sizes) * block_tokens if sizes else ceil(state)
    groups: list[tuple[str, int, int, int | None]] = [
        ("full" if window is None else "sliding", ceil(layers / layers_per_group), page_bytes // size, window)
        for (size, window), layers in kinds.items()
    ]
    if recurrent:
        groups.append(("linear", ceil(recurrent.layers / layers_per_group), 0, None))
    return KvLayout(page_bytes * layers_per_group, tuple(groups), prefix_caching)


def weights_gib(loaded: LoadedModel) -> float:
    """Return the GiB of weights that vLLM loads, over all GPUs of a replica: model, drafter and LoRA slots."""
    model = loaded.model
    weights = model.loaded_gib or model.weights_bytes / GIB
    if loaded.bytes_per_weight is not None:
        linear = model.linear_parameters or max(0, model.parameters - 2 * model.vocab_size * model.hidden_size)
        weights -= linear * (BF16 - loaded.bytes_per_weight) / GIB
    if loaded.drafter:
        weights += loaded.drafter.loaded_gib or loaded.drafter.weights_bytes / GIB
    if loaded.multi_token:
        weights += (model.drafter_bytes or 0) / GIB
    return weights + loaded.lora_slots * adapter_gib(loaded)


def adapter_gib(loaded: LoadedModel) -> float:
    """Return the GiB of a LoRA adapter with the highest rank on all linear layers; 0 without LoRA."""
    return loaded.lora_rank * _lora_width(loaded.model) * BF16 / GIB


def _lora_width(model: Model) -> int:
    """Return inputs plus outputs of all linear layers. A LoRA slot of rank r holds r times as many values (vllm/lora/layers)."""
    hidden, mlp = model.hidden_size, model.intermediate_size
    width = 0
    for layer in model.attention:
        queries, keys = model.heads * layer.head_dim, layer.kv_heads * layer.head_dim
        width += layer.layers * (3 * hidden + queries + 2 * keys + queries + hidden)
    layers = sum(layer.layers for layer in model.attention) + (model.recurrent.layers if model.recurrent else 0)
    return width + layers * (2 * hidden + 2 * mlp + mlp + hidden)


def activation_gib(loaded: LoadedModel, *, max_num_batched_tokens: int, max_num_seqs: int, tensor_parallel_size: int) -> float:
    """Return the GiB of activations in the profiling run on one GPU: an estimate, see the module's docstring."""
    model = loaded.model
    width = MLP_COPIES * model.intermediate_size / tensor_parallel_size + RESIDUAL_COPIES * model.hidden_size
    # only generation has a sampler
    logits = LOGIT_COPIES * max_num_seqs * model.vocab_size * FP32 * (loaded.task is Task.GENERATE)
    return (max_num_batched_tokens * width * BF16 + logits) / GIB + model.encoder_profiling_gib


def memory_fit(
    loaded: LoadedModel,
    limits: EngineLimits,
    *,
    memory_gib: float,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    prefix_caching: bool,
) -> MemoryFit:
    """Return how a model fits GPUs of `memory_gib` each. The stages of a pipeline share evenly."""
    gpus = tensor_parallel_size * pipeline_parallel_size
    weights = weights_gib(loaded) / gpus
    activation = activation_gib(
        loaded,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        max_num_seqs=limits.max_num_seqs,
        tensor_parallel_size=tensor_parallel_size,
    )
    usable = memory_gib * limits.gpu_memory_utilization
    kv_cache = usable - weights - activation - FIXED_OVERHEAD_GIB
    layout = kv_layout(
        loaded, tensor_parallel_size=tensor_parallel_size, prefix_caching=prefix_caching, block_tokens=GPU_BLOCK_TOKENS
    )
    # each stage of a pipeline holds its share of the layers
    blocks = int(max(0.0, kv_cache) * GIB * pipeline_parallel_size // max(1, layout.block_bytes))
    return _fit(loaded.model, limits, layout, blocks, memory_gib, usable, weights, activation, FIXED_OVERHEAD_GIB, kv_cache)


def cpu_memory_fit(
    loaded: LoadedModel, limits: EngineLimits, *, kv_cache_gib: float, memory_gib: float, prefix_caching: bool
) -> MemoryFit:
    """Return the same on the CPU. VLLM_CPU_KVCACHE_SPACE is the KV cache, the worker's memory holds the rest."""
    layout = kv_layout(loaded, tensor_parallel_size=1, prefix_caching=prefix_caching, block_tokens=CPU_BLOCK_TOKENS)
    blocks = int(kv_cache_gib * GIB // max(1, layout.block_bytes))
    activation = activation_gib(
        loaded, max_num_batched_tokens=limits.max_num_batched_tokens, max_num_seqs=limits.max_num_seqs, tensor_parallel_size=1
    )
    return _fit(
        loaded.model, limits, layout, blocks, memory_gib, memory_gib, weights_gib(loaded), activation, 0.0, kv_cache_gib
    )


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
            model.max_context if kv_cache >= 0 else 0,
            lambda tokens: blocks >= layout.blocks_per_request(tokens, limits.tokens_in_flight),
        ),
    )


def utilization(memory_gib: float, vocab_size: int, max_num_seqs: int, wanted: float, gpus: int) -> float:
    """Return vLLM's share of a GPU's memory: `wanted`, or less where several GPUs need room beside it."""
    if gpus == 1:
        return wanted
    outside = OUTSIDE_GIB + max_num_seqs * vocab_size * FP32 / GIB
    return min(wanted, int((memory_gib - outside) / memory_gib * 100) / 100)


def largest(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest whole number up to `limit` for which the monotone `fits` holds; 0 where it holds for none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
