"""The memory model against what vLLM itself printed at start-up, and against itself."""

from dataclasses import dataclass

import pytest

from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.choices import Accelerator
from rayline.models.catalog import shipped_models
from rayline.models.model import GIB
from rayline.service.fit import GPU_BLOCK_TOKENS, kv_layout, memory_fit, weights_gib
from rayline.service.types import EngineLimits, LoadedModel

MODELS = shipped_models()


@dataclass(frozen=True)
class Log:
    """One start-up log of vLLM: "Available KV cache memory" and "Maximum concurrency for N tokens per request"."""

    model: str
    vllm: str
    available: str  # as printed: its number of digits says how far it was rounded
    max_model_len: int
    concurrency: float
    max_num_batched_tokens: int = 2048
    tensor_parallel_size: int = 1

    @property
    def prefix_caching(self) -> bool:
        """Off by default for hybrid models until 0.24; on in the logs of 0.28 and 0.29."""
        return self.minor >= 28

    @property
    def batches_in_flight(self) -> int:
        """vLLM 0.26 began to charge sliding windows for two batches (vllm-project/vllm #47728)."""
        return 2 if self.minor >= 26 else 1

    @property
    def minor(self) -> int:
        return int(self.vllm.split(".")[1])


LOGS = [
    Log("Qwen/Qwen3.5-0.8B", "0.28.0", "67.08", 262144, 22.08, max_num_batched_tokens=8192),
    Log("Qwen/Qwen3.5-0.8B", "0.28.0", "61.82", 8192, 451.32),
    Log("Qwen/Qwen3.5-4B", "0.29.0", "9.1", 32768, 8.17),
    Log("Qwen/Qwen3.5-9B", "0.19.0", "20.27", 262144, 2.52, max_num_batched_tokens=8192),
    Log("Qwen/Qwen3.5-9B", "0.20.0", "6.56", 4096, 36.91),
    Log("Qwen/Qwen3.5-9B", "0.20.0", "15.06", 4096, 169.82, tensor_parallel_size=2),
    Log("Qwen/Qwen3.5-27B", "0.29.0", "31.24", 8192, 38.35, max_num_batched_tokens=8192),
    Log("Qwen/Qwen3.5-27B", "0.28.0", "18.61", 262144, 1.14),
    Log("Qwen/Qwen3-0.6B", "0.19.0", "5.68", 4096, 12.98, max_num_batched_tokens=1024),
    Log("google/gemma-4-E4B-it", "0.22.1", "4.1", 32768, 6.85),
    Log("google/gemma-4-31B-it", "0.23.0", "28.41", 32768, 2.98, max_num_batched_tokens=8192),
    Log("google/gemma-4-31B-it", "0.26.0", "182.37", 16384, 13.25, max_num_batched_tokens=8192),
]


@pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.model.split('/')[1]}-{log.vllm}-{log.available}GiB")
def test_the_block_model_gives_the_concurrency_that_vllm_printed(log):
    layout = kv_layout(
        LoadedModel(MODELS[log.model]),
        tensor_parallel_size=log.tensor_parallel_size,
        prefix_caching=log.prefix_caching,
        block_tokens=GPU_BLOCK_TOKENS,
    )
    request = layout.blocks_per_request(log.max_model_len, log.max_num_batched_tokens * log.batches_in_flight)
    half_a_digit = 0.5 / 10 ** len(log.available.partition(".")[2])

    def concurrency(gib: float) -> float:
        return int(gib * GIB // layout.block_bytes) / request

    fewest, most = (concurrency(float(log.available) + off) for off in (-half_a_digit, half_a_digit))
    assert round(fewest, 2) <= log.concurrency <= round(most, 2)
    # the rounding of the log must not be what makes this pass
    assert most - fewest < 0.05 * log.concurrency


def l4(model: str = "Qwen/Qwen3.5-4B", max_model_len: int = 32768, tensor: int = 1, pipeline: int = 1, **limits):
    spec = ACCELERATORS[Accelerator.L4]
    asked = {"max_num_seqs": spec.max_num_seqs, "max_num_batched_tokens": spec.max_num_batched_tokens} | limits
    return memory_fit(
        LoadedModel(MODELS[model]),
        EngineLimits(max_model_len, gpu_memory_utilization=0.92, **asked),
        memory_gib=spec.memory_gib,
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        prefix_caching=True,
    )


def test_the_whole_estimate_is_within_a_tenth_of_what_vllm_had_left_on_an_l4():
    # vLLM 0.29.0, Qwen3.5-4B, 22.03 GiB, 0.92: "Available KV cache memory: 9.1 GiB", "Maximum concurrency ... 8.17x"
    fit = l4()
    assert fit.kv_cache_gib == pytest.approx(9.1, rel=0.10)
    assert fit.concurrency == pytest.approx(8.17, rel=0.10)


def test_the_parts_of_the_memory_add_up_to_what_vllm_may_use():
    fit = l4()
    assert fit.usable_gib == pytest.approx(22.03 * 0.92)
    parts = fit.weights_gib + fit.activation_gib + fit.overhead_gib + fit.kv_cache_gib
    assert parts == pytest.approx(fit.usable_gib)


@pytest.mark.parametrize("model", MODELS)
def test_the_longest_context_fits_and_one_block_more_does_not(model):
    fit = l4(model, max_model_len=1024, tensor=8)
    assert 0 < fit.longest_context <= MODELS[model].max_context
    assert l4(model, max_model_len=fit.longest_context, tensor=8).fits
    if fit.longest_context < MODELS[model].max_context:
        assert not l4(model, max_model_len=fit.longest_context + 1, tensor=8).fits


def test_a_model_that_does_not_fit_names_the_missing_memory():
    fit = l4("google/gemma-4-31B-it", max_model_len=1024)
    assert not fit.fits
    assert fit.blocks == 0
    assert fit.longest_context == 0
    assert fit.short_by_gib > fit.weights_gib - fit.usable_gib


def test_tensor_parallelism_splits_weights_and_heads_and_pipelines_split_weights_alone():
    one, tensor, pipeline = l4("Qwen/Qwen3.5-9B"), l4("Qwen/Qwen3.5-9B", tensor=2), l4("Qwen/Qwen3.5-9B", pipeline=2)
    assert tensor.weights_gib == pipeline.weights_gib == one.weights_gib / 2
    assert tensor.layout.block_bytes * 2 == one.layout.block_bytes
    assert pipeline.layout.block_bytes == one.layout.block_bytes
    assert min(tensor.concurrency, pipeline.concurrency) > 2 * one.concurrency


def test_kv_heads_are_never_split_below_one():
    # Gemma 4 E2B has one KV head: four GPUs each hold a copy
    assert l4("google/gemma-4-E2B-it", tensor=4).layout.block_bytes == l4("google/gemma-4-E2B-it").layout.block_bytes


def test_prefix_caching_doubles_what_linear_attention_keeps_for_a_sequence():
    def fixed(prefix_caching: bool) -> int:
        model = MODELS["Qwen/Qwen3.5-4B"]
        layout = kv_layout(
            LoadedModel(model), tensor_parallel_size=1, prefix_caching=prefix_caching, block_tokens=GPU_BLOCK_TOKENS
        )
        return layout.blocks_per_request(1, 4096) - 1

    assert (fixed(False), fixed(True)) == (3, 6)


def test_a_smaller_step_leaves_sliding_window_models_more_room():
    few, many = (l4("google/gemma-4-E4B-it", max_num_batched_tokens=tokens, max_num_seqs=16) for tokens in (1024, 8192))
    assert few.concurrency > 1.2 * many.concurrency


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.loaded_gib])
def test_loaded_weights_agree_with_the_number_of_parameters(name):
    # of Qwen3.5 the logs of 0.8B, 4B, 9B and 27B have 0.13 to 0.16 GiB beside the parameters, whatever the size
    model = MODELS[name]
    assert weights_gib(LoadedModel(model)) == pytest.approx(model.weights_bytes / GIB, rel=0.06, abs=0.16)
