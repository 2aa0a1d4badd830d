"""The check of adapters passes where the loader answers behind the key, and fails where one of both is not so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from rayline_cli.verify import Outcome, Target, check_switches
from tests.unit.verify_service import Service, answer

LOCATION = "gs://acme/adapters"


@dataclass
class WithAdapters(Service):
    """A service with adapters, whose answers to a missing one can be changed."""

    missing: dict[str, Any] = field(
        default_factory=lambda: answer(404, f"no adapter in {LOCATION}/rayline-verify-no-such-adapter")
    )
    keyless: dict[str, Any] = field(default_factory=lambda: answer(401))

    def __post_init__(self) -> None:
        self.serve_config["applications"][0]["args"]["llm_configs"][0]["lora_config"] = {"dynamic_lora_loading_path": LOCATION}

    def _answer(self, path: str, method: str = "GET", body: Any = None, auth: bool = True) -> Mapping[str, Any]:
        if isinstance(body, dict) and ":" in body.get("model", ""):
            return self.missing if auth else self.keyless
        return super()._answer(path, method, body, auth)


def check(service: Service):
    return {check.name: check for check in check_switches(cast(Target, service))}.get("adapters")


def test_a_missing_adapter_that_is_named_behind_the_key_passes():
    passed = check(WithAdapters())
    assert passed
    assert passed.outcome is Outcome.PASS, passed.evidence
    assert passed.evidence.endswith("and HTTP 401 without the key; no request has loaded an adapter yet")


def test_the_loaded_adapters_are_evidence():
    models = json.dumps({"data": [{"id": "tiny"}, {"id": "tiny:red:1"}, {"id": "tiny:green"}]})
    passed = check(WithAdapters(models=models))
    assert passed
    assert passed.evidence.endswith("loaded and listed: tiny:red:1, tiny:green")


@pytest.mark.parametrize(
    ("broken", "evidence"),
    [
        (
            {"missing": answer(404, "The model `tiny:rayline-verify-no-such-adapter` does not exist.")},
            "and not 404 with its place",
        ),
        ({"missing": answer(500)}, "an adapter that does not exist gets HTTP 500"),
        ({"keyless": answer(404)}, "without the key it gets HTTP 404: adapters are loaded before the key is checked"),
    ],
    ids=["vLLM's own answer", "an error", "before the gate"],
)
def test_another_answer_fails(broken, evidence):
    failed = check(WithAdapters(**broken))
    assert failed
    assert failed.outcome is Outcome.FAIL
    assert evidence in failed.evidence
    assert failed.fix


def test_an_open_service_is_not_expected_to_refuse():
    passed = check(WithAdapters(api_key=False, keyless=answer(404)))
    assert passed
    assert passed.outcome is Outcome.PASS


def test_a_service_without_adapters_has_no_such_check():
    assert check(Service()) is None
