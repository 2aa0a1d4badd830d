"""Drafted tokens: planned, counted in the fit, and proven by what an answer counts."""

import json
from dataclasses import replace
from typing import Any

import pytest

from rayline.facts.choices import WeightsSource
from rayline.platform.plan import make_plan
from rayline.service.serve_config import serve_config
from rayline.service.types import ServicePlan
from rayline_cli.verify import Outcome, check_switches
from tests.unit.verify_service import Service, answer


def planned(model: str = "Qwen/Qwen3.5-4B", **engine: Any) -> ServicePlan:
    service = {"model": model, "accelerator": "h200", "engine": {"max_model_len": 8192} | engine}
    return make_plan({"cluster": {"mode": "existing"}, "services": {"a": service}}).services[0]


def engine_of(service: ServicePlan) -> dict[str, Any]:
    return serve_config(service)["applications"][0]["args"]["llm_configs"][0]["engine_kwargs"]


@pytest.mark.parametrize(
    ("model", "speculation", "config"),
    [
        ("Qwen/Qwen3.5-4B", {"method": "ngram", "tokens": 4}, {"method": "ngram", "num_speculative_tokens": 4}),
        ("Qwen/Qwen3.5-4B", {"method": "mtp", "tokens": 1}, {"method": "mtp", "num_speculative_tokens": 1}),
        (
            "Qwen/Qwen3-30B-A3B-FP8",
            {"method": "draft", "tokens": 3, "model": "Qwen/Qwen3-0.6B"},
            {"method": "draft_model", "num_speculative_tokens": 3, "model": "Qwen/Qwen3-0.6B"},
        ),
    ],
    ids=["ngram", "mtp", "draft"],
)
def test_drafts_become_vllms_arguments_and_are_counted_in_answers(model, speculation, config):
    engine = engine_of(planned(model, speculation=speculation))
    assert engine["speculative_config"] == config
    assert engine["per_request_spec_decode_metrics"] == "summary"
    assert "speculative_config" not in engine_of(planned(model))


def test_a_drafter_takes_memory_and_drafts_of_the_prompt_take_none():
    alone = planned().fit
    assert planned(speculation={"method": "ngram", "tokens": 4}).fit == alone
    assert planned(speculation={"method": "mtp", "tokens": 1}).fit.weights_gib > alone.weights_gib
    big = planned("Qwen/Qwen3-30B-A3B-FP8").fit
    drafted = planned("Qwen/Qwen3-30B-A3B-FP8", speculation={"method": "draft", "tokens": 3, "model": "Qwen/Qwen3-0.6B"}).fit
    assert drafted.weights_gib > big.weights_gib
    assert drafted.sequences(8192) < big.sequences(8192)


def test_pods_have_the_token_where_only_the_drafter_is_downloaded():
    found = planned("Qwen/Qwen3-30B-A3B-FP8", speculation={"method": "draft", "tokens": 3, "model": "Qwen/Qwen3-0.6B"})
    bucket = replace(found.weights, source=WeightsSource.GCS_FUSE)
    assert replace(found, weights=bucket).downloads
    assert not replace(planned(), weights=bucket).downloads


def speculating(counted: dict[str, Any] | None) -> Service:
    """A service whose engine drafts tokens, and what its answer counts of them."""

    class Speculating(Service):
        def _answer(self, path: str, method: str = "GET", body: Any = None, auth: bool = True) -> dict[str, Any]:
            if auth and path == "/v1/completions":
                return answer(200, json.dumps({"choices": [], "metrics": counted and {"speculative_decoding": counted}}))
            return super()._answer(path, method, body, auth)

    service = Speculating()
    engine = service.serve_config["applications"][0]["args"]["llm_configs"][0]["engine_kwargs"]
    engine["per_request_spec_decode_metrics"] = "summary"
    return service


@pytest.mark.parametrize(
    ("counted", "outcome", "evidence"),
    [
        ({"num_draft_tokens": 40, "num_accepted_draft_tokens": 31}, Outcome.PASS, "40 tokens were drafted for an answer of 64"),
        ({"num_draft_tokens": 0, "num_accepted_draft_tokens": 0}, Outcome.FAIL, "0 tokens were drafted"),
        (None, Outcome.FAIL, "0 tokens were drafted"),
    ],
    ids=["drafts", "drafts nothing", "counts nothing"],
)
def test_speculation_is_proven_by_the_tokens_of_an_answer(counted, outcome, evidence):
    checks = {check.name: check for check in check_switches(speculating(counted))}  # pyright: ignore[reportArgumentType]
    assert checks["speculation"].outcome is outcome
    assert evidence in checks["speculation"].evidence


def test_a_service_without_drafts_is_not_checked_for_them():
    assert "speculation" not in {check.name for check in check_switches(Service())}  # pyright: ignore[reportArgumentType]
