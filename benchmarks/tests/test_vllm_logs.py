"""The memory model against logs of vLLM that others published."""

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
