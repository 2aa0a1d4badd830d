"""The memory model against logs of vLLM that others published."""

from dataclasses import replace

import pytest

from rayline_bench.vllm_logs import LOGGED_STARTS, LoggedStart


@pytest.mark.parametrize("start", LOGGED_STARTS, ids=lambda start: f"{start.model_id} on {start.card}")
def test_the_block_model_meets_the_logs_whose_rules_it_follows(start: LoggedStart) -> None:
    one_batch_in_flight = "gemma" in start.model_id and tuple(map(int, start.vllm.split("."))) < (0, 26)
    if one_batch_in_flight:
        assert start.concurrency_from_logged_memory() < start.concurrency
    else:
        # what is left is the rounding of the printed GiB
        assert start.concurrency_from_logged_memory() == pytest.approx(start.concurrency, rel=0.003)


@pytest.mark.parametrize("start", LOGGED_STARTS, ids=lambda start: f"{start.model_id} on {start.card}")
def test_the_memory_estimate_errs_by_less_than_two_gib(start: LoggedStart) -> None:
    assert start.fit().kv_cache_gib == pytest.approx(start.kv_cache_gib, abs=2.0)


def of(served: str) -> LoggedStart:
    (start,) = [start for start in LOGGED_STARTS if served in (start.served, start.model_id)]
    return start


@pytest.mark.parametrize(
    ("served", "weights_gib", "tokens"),
    [
        # akamaslabs/vllm-benchmark study 16
        ("Qwen/Qwen3-30B-A3B-FP8", 7.4, 401_776),
        # vllm-project/recipes at 8959cf64, models/Qwen/Qwen3.8-27B.yaml
        ("Qwen3.8-27B-FP8", 14.28, 377_456),
        ("Qwen3.8-27B-NVFP4 (unsloth)", 10.64, 920_517),
    ],
)
def test_several_gpus_agree_with_the_published_figures_within_a_tenth(served: str, weights_gib: float, tokens: int) -> None:
    start = of(served)
    fit = start.fit()
    assert fit.weights_gib == pytest.approx(weights_gib, rel=0.10)
    assert fit.kv_cache_gib == pytest.approx(start.kv_cache_gib, rel=0.10)
    assert fit.concurrency * start.max_model_len == pytest.approx(tokens, rel=0.10)
    assert start.concurrency * start.max_model_len == pytest.approx(tokens, rel=0.003)


def test_the_cache_of_the_fp8_checkpoint_had_16_bits_whatever_the_page_says() -> None:
    # whole blocks: the printed tokens are a fraction of the blocks that one request holds, and no fraction of an FP8 cache's
    start = of("Qwen3.8-27B-FP8")
    assert start.loaded
    sixteen, eight = (
        replace(start, loaded=replace(start.loaded, kv_value_bytes=size)).fit().layout.blocks_per_request(262_144, 4_096)
        for size in (2, 1)
    )
    assert (sixteen, eight) == (341, 174)
    assert any(int(blocks / sixteen * 262_144) == 377_456 for blocks in range(1000))
    assert not any(int(blocks / eight * 262_144) == 377_456 for blocks in range(1000))
