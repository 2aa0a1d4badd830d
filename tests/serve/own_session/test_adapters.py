"""LoRA adapters of a bucket, served for real: trained ones, each of which answers with one token alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayline_cli.local import bundled_models
from rayline_cli.verify import Outcome
from tests.buckets import BUCKET, emulator, upload
from tests.serve import tiny_adapters
from tests.serve.serving import API_KEY, Recorder, Served, failed, found, get, post, ray_service, run, wait_until

pytestmark = pytest.mark.full

MODEL = "rayline/tiny-random-qwen3"
LOCATION = f"gs://anonymous@{BUCKET}/adapters"
MAX_LOADED, MAX_RANK = 2, 16
# Names are this test's own: Ray's folder of downloads is one for all sessions of a machine.
TOKENS = {"rayline-test-red:1": 300, "rayline-test-green": 400, "rayline-test-blue": 500}
RED, GREEN, BLUE = TOKENS
LOCKED, LARGE = "rayline-test-locked", "rayline-test-large"
KEY = {"Authorization": f"Bearer {API_KEY}"}


def write_adapters(folder: Path) -> Path:
    """Trains an adapter for each token, and writes two copies: one that nobody may load, and one whose rank is too high."""
    model = bundled_models.prepare(MODEL, bundled_models.default_cache_dir(), Recorder())
    assert model
    wanted = [f"{name}={token}:8" for name, token in TOKENS.items()]
    subprocess.run([sys.executable, "-P", tiny_adapters.__file__, str(model), str(folder), *wanted], check=True)
    for copy in (LOCKED, LARGE):
        shutil.copytree(folder / GREEN, folder / copy)
    config = folder / LARGE / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 64}))
    return model


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of each adapter's token."""
    return {}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, words: dict[str, str]) -> Iterator[Served]:
    """A session whose replica keeps two adapters, beside an emulator of Cloud Storage with five."""
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("adapters")
    tokenizer = Tokenizer.from_file(str(write_adapters(folder) / "tokenizer.json"))
    words |= {name: tokenizer.decode([token]) for name, token in TOKENS.items()}
    adapters = {"location": LOCATION, "max_loaded": MAX_LOADED, "max_rank": MAX_RANK}
    with emulator() as address, pytest.MonkeyPatch.context() as environment:
        environment.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
        for adapter in folder.iterdir():
            upload(address, adapter, f"adapters/{adapter.name}")
        with run(tmp_path_factory.mktemp("state"), ray_service(adapters=adapters, engine={"max_num_seqs": 1})) as session:
            yield session


def complete(served: Served, model: str, headers: dict[str, str] = KEY, prompt: str = "hello") -> httpx.Response:
    body = {"model": model, "prompt": prompt, "max_tokens": 5, "min_tokens": 5, "temperature": 0}
    return post(f"{served.running.url}/v1/completions", headers=headers, json=body)


def text(served: Served, model: str, prompt: str = "hello") -> str:
    answer = complete(served, model, prompt=prompt)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def listed(served: Served) -> list[str]:
    return [model["id"] for model in get(f"{served.running.url}/v1/models", headers=KEY).json()["data"]]


def loaded(served: Served) -> float:
    """How many adapters Serve keeps, by its own metric."""
    metrics = get(f"http://127.0.0.1:{served.session.ports['metrics']}/metrics").text
    values = [line.rpartition(" ")[2] for line in metrics.splitlines() if line.startswith("ray_serve_num_multiplexed_models{")]
    return float(values[0]) if values else 0


def test_the_service_starts_with_the_base_model_alone(served: Served):
    assert served.running.answer
    assert listed(served) == ["tiny"]


def test_no_adapter_is_loaded_or_told_of_without_the_key(served: Served):
    for adapter in (LOCKED, "no-such"):
        answer = complete(served, f"tiny:{adapter}", headers={})
        assert answer.status_code == 401
        assert BUCKET not in answer.text
    assert listed(served) == ["tiny"]


def test_a_client_cannot_name_an_adapter_past_the_router(served: Served):
    assert complete(served, "tiny", headers=KEY | {"serve_multiplexed_model_id": f"tiny:{LOCKED}"}).status_code == 200
    assert listed(served) == ["tiny"]


def test_an_adapter_is_loaded_at_its_first_request_and_listed_from_then_on(served: Served, words: dict[str, str]):
    assert text(served, f"tiny:{RED}") == words[RED] * 5
    assert listed(served) == ["tiny", f"tiny:{RED}"]
    assert text(served, "tiny") != words[RED] * 5


def test_chats_and_streams_use_an_adapter_too(served: Served, words: dict[str, str]):
    body: dict[str, Any] = {"model": f"tiny:{RED}", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
    answer = post(f"{served.running.url}/v1/chat/completions", headers=KEY, json=body | {"max_tokens": 4, "stream": True})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == words[RED] * 4
    assert {event["model"] for event in events} == {f"tiny:{RED}"}


def test_a_missing_adapter_is_not_found_by_its_name(served: Served):
    answer = complete(served, "tiny:no-such")
    assert answer.status_code == 404
    assert f"{LOCATION}/no-such" in answer.json()["error"]["message"]
    assert complete(served, f"other:{GREEN}").status_code == 404


def test_an_adapter_of_a_higher_rank_is_refused_with_the_reason(served: Served):
    answer = complete(served, f"tiny:{LARGE}")
    assert answer.status_code == 400
    assert f"LoRA rank 64 is greater than max_lora_rank {MAX_RANK}" in answer.json()["error"]["message"]


def test_a_third_adapter_takes_the_place_of_the_first_and_all_still_answer(served: Served, words: dict[str, str]):
    for _ in range(2):
        for adapter, word in words.items():
            assert text(served, f"tiny:{adapter}") == word * 5
    assert wait_until(lambda: loaded(served) == MAX_LOADED, 60), loaded(served)


def test_requests_for_different_adapters_at_once_get_their_own_answers(served: Served, words: dict[str, str]):
    base = text(served, "tiny", "prompt 0")
    models = ["tiny", *(f"tiny:{adapter}" for adapter in TOKENS)] * 3
    with ThreadPoolExecutor(len(models)) as pool:
        texts = list(pool.map(lambda model: text(served, model, "prompt 0"), models))
    assert texts == [base, *(word * 5 for word in words.values())] * 3


def test_verify_proves_it(served: Served):
    checks = found(served.target())
    assert failed(checks) == {}
    assert checks["adapters"].outcome is Outcome.PASS
    assert f"404 with its place in {LOCATION}, and HTTP 401 without the key" in checks["adapters"].evidence
    assert f"tiny:{RED}" in checks["adapters"].evidence
