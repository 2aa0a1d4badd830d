"""Two models in one RayCluster: one that generates, and one beside it with vectors, at a path and with a key of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayline_bench.faults import parts
from rayline_cli.local import runtime
from rayline_cli.verify import Outcome
from tests.serve.own_session.test_tasks import CAT, KITTEN, minilm
from tests.serve.serving import API_KEY, FURTHER_KEY, Served, add_model, failed, found, get, planned_from, post, run

QUESTION = {"model": "tiny", "prompt": "a", "max_tokens": 8, "ignore_eos": True}
TEXTS = {"model": "vectors", "input": [CAT, KITTEN]}


def manifest_of(folder: Path, **vectors: Any) -> dict:
    models = folder / "models"
    if not models.exists():
        models.mkdir()
        add_model(models, str(minilm()), "--as", str(minilm()))
    application = {"model": str(minilm()), "api": {"served_model_name": "vectors"}, **vectors}
    return planned_from(models, applications={"vectors": application})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with run(tmp_path_factory.mktemp("state"), manifest_of(folder)) as served:
        yield served


def ask(served: Served, path: str, body: dict[str, Any], key: str) -> httpx.Response:
    return post(f"{served.running.url}{path}", json=body, headers={"Authorization": f"Bearer {key}"})


def test_up_asks_each_model_and_names_its_address(served: Served):
    assert served.running.routes == {"": ["tiny"], "/vectors": ["vectors"]}
    told = "\n".join(served.report.lines)
    assert "What is the capital of France? ->" in told
    assert "2 vectors" not in told
    assert "3 vectors of 384 values" in told


def test_every_check_of_a_model_is_made_for_each_of_them(served: Served):
    checks = found(served.target())
    assert failed(checks) == {}
    assert "POST /v1/embeddings" in checks["vectors: pooled answer"].evidence
    assert checks["llm: streamed completion"].outcome is Outcome.PASS
    for name in ("llm", "vectors"):
        assert checks[f"{name}: direct streaming: path of the tokens"].outcome is Outcome.PASS
        assert checks[f"{name}: API key"].outcome is Outcome.PASS


def test_each_model_answers_at_its_own_path_only(served: Served):
    assert ask(served, "/v1/completions", QUESTION, API_KEY).json()["usage"]["completion_tokens"] == 8
    first, second = (row["embedding"] for row in ask(served, "/vectors/v1/embeddings", TEXTS, FURTHER_KEY).json()["data"])
    assert sum(map(float.__mul__, first, second)) > 0.5
    assert ask(served, "/vectors/v1/completions", QUESTION, FURTHER_KEY).status_code == 404
    listed = get(f"{served.running.url}/vectors/v1/models", headers={"x-api-key": FURTHER_KEY}).json()["data"]
    assert [model["id"] for model in listed] == ["vectors"]


def test_the_key_of_one_model_does_not_open_the_other(served: Served):
    for path, body, key in (("/v1/completions", QUESTION, FURTHER_KEY), ("/vectors/v1/embeddings", TEXTS, API_KEY)):
        assert ask(served, path, body, key).status_code == 401, path
        assert post(f"{served.running.url}{path}", json=body).status_code == 401, path


def test_the_count_of_one_model_changes_while_both_answer(served: Served, folder: Path):
    before = {process.pid for process in parts.of_role(served.session, "ray::ServeReplica:llm:LLMServer")}
    with ThreadPoolExecutor(2) as clients:
        change = clients.submit(served.up, manifest_of(folder, replicas=2))
        answers = []
        while not change.done():
            answers.append(ask(served, "/v1/completions", QUESTION, API_KEY).status_code)
            answers.append(ask(served, "/vectors/v1/embeddings", TEXTS, FURTHER_KEY).status_code)
        change.result()
    assert set(answers) == {200}, f"{len(answers)} requests"
    assert {process.pid for process in parts.of_role(served.session, "ray::ServeReplica:llm:LLMServer")} == before
    counts = runtime.status(served.state_dir).replicas
    assert counts
    assert counts["vectors/LLMServer:vectors"] == "2/2"
    assert counts["llm/LLMServer:tiny"] == "1/1"
