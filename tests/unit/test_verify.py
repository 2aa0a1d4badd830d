"""The check of the keys fails where something is open: a check that cannot fail proves nothing."""

import json
from typing import Any, cast

import pytest

from components.api_key_manifests import KEYS_VARIABLE
from rayline.verify import HttpAnswer, Outcome, Target
from rayline.verify.checks import _api_key

ROUTES = ["/v1/models", "/v1/chat/completions", "/invocations", "/tokenize", "/v1/responses/{response_id}/cancel"]


class Service:
    """Of a running service what this check asks: one with `open_paths`, of which the rest asks for a key."""

    model_ids = ("tiny",)

    def __init__(self, open_paths: tuple[str, ...] = (), declared: bool = True, described: int = 200):
        self.open_paths, self.described = open_paths, described
        self.declared_env = {KEYS_VARIABLE: "/etc/rayline/api-keys"} if declared else {}
        self.asked: list[tuple[str, str]] = []

    def endpoint(self, path: str, *, with_key: bool, method: str = "GET", body: Any = None) -> HttpAnswer:
        if not with_key:
            self.asked.append((method, path))
            return HttpAnswer(200 if path in self.open_paths else 401, "")
        if path == "/openapi.json":
            return HttpAnswer(self.described, json.dumps({"paths": {route: {"post": {}} for route in ROUTES}}))
        return HttpAnswer(200, "")


def test_a_service_that_asks_for_the_key_everywhere_passes():
    service = Service()
    outcome, evidence, _ = _api_key(cast(Target, service))
    assert outcome is Outcome.PASS, evidence
    assert {("POST", "/invocations"), ("POST", "/tokenize"), ("GET", "/v1/models")} <= set(service.asked)
    assert ("POST", "/v1/responses/x/cancel") in service.asked, "what the application says it has is asked as well"


@pytest.mark.parametrize("path", ["/invocations", "/tokenize", "/v1/models", "/metrics", "/v1/responses/x/cancel"])
def test_one_open_path_fails_and_is_named(path):
    outcome, evidence, fix = _api_key(cast(Target, Service(open_paths=(path,))))
    assert outcome is Outcome.FAIL
    assert f"{path}: HTTP 200" in evidence
    assert "gate" in fix


def test_a_service_that_tells_none_of_its_routes_fails():
    assert _api_key(cast(Target, Service(described=404)))[0] is Outcome.FAIL


def test_a_service_without_a_gate_is_said_to_be_open():
    outcome, evidence, _ = _api_key(cast(Target, Service(declared=False)))
    assert (outcome, "open" in evidence) == (Outcome.NOT_APPLICABLE, True)
