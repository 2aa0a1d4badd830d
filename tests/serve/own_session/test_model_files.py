"""Models that no file of the kit describes, served for real: one of a folder, and one of a bucket, each after `rayline model add`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rayline.models.catalog import read_models
from rayline_cli.clients.openai import Answer
from rayline_cli.local import bundled_models, runtime
from rayline_cli.verify import Outcome
from tests.buckets import BUCKET, emulator, upload
from tests.serve import tiny_models
from tests.serve.serving import API_KEY, Recorder, Served, add_model, failed, found, get, planned_from, post, run

pytestmark = pytest.mark.full

# A step of several drafted tokens rounds differently from steps of one, and random weights have close seconds.
EXACT = {"dtype": "float32"}
ADDRESS = f"gs://anonymous@{BUCKET}/gemma/v1"
TOKENIZER = "rayline/tiny-random-qwen3"


def write_models(folder: Path) -> None:
    """Writes the models of tiny_models into a folder, by a process of their own."""
    tokenizer = bundled_models.prepare(TOKENIZER, bundled_models.default_cache_dir(), Recorder())
    subprocess.run([sys.executable, "-P", tiny_models.__file__, str(folder), str(tokenizer)], check=True)


def manifest_of(models: Path, model: str, **more: Any) -> dict:
    """The RayService of a stack whose service has the model, planned from the files of a folder."""
    engine = {"max_model_len": 2048, "max_num_seqs": 4, "max_num_batched_tokens": 1024} | more
    return planned_from(models, model=model, engine=engine)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack") / "models"


@pytest.fixture(scope="module")
def hybrid(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A session with a hybrid of a folder. An emulator of Cloud Storage runs beside it, of which its processes know."""
    folder = models.parent / "granite"
    write_models(models.parent)
    add_model(models, str(folder), "--as", str(folder))
    with emulator() as address, pytest.MonkeyPatch.context() as environment:
        environment.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
        environment.setenv("HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
        upload(address, models.parent / "gemma", "gemma/v1")
        with run(tmp_path_factory.mktemp("state"), manifest_of(models, str(folder))) as served:
            yield served


def architecture_of(served: Served, name: str) -> bool:
    """Whether vLLM's log has the architecture that it has resolved."""
    return f"Resolved architecture: {name}" in "\n".join(runtime.logs(served.state_dir, component="replica", lines=4000))


def root_of(served: Served) -> str:
    """The folder of the weights, as vLLM has it."""
    (model,) = get(f"{served.running.url}/v1/models", headers={"Authorization": f"Bearer {API_KEY}"}).json()["data"]
    assert model["id"] == "tiny"
    return model["root"]


def test_a_hybrid_of_a_folder_is_planned_from_its_own_files_and_answers(hybrid: Served, models: Path):
    folder = str(models.parent / "granite")
    added = read_models(models)[folder]
    assert (added.architecture, added.unknown) == ("GraniteMoeHybridForCausalLM", None)
    assert added.recurrent
    assert (added.recurrent.layers, [layer.layers for layer in added.attention]) == (2, [2])
    assert added.active_parameters
    assert added.active_parameters < added.parameters
    assert isinstance(hybrid.running.answer, Answer)
    assert hybrid.running.answer.completion_tokens > 1
    assert root_of(hybrid) == folder
    assert architecture_of(hybrid, "GraniteMoeHybridForCausalLM")


def test_a_model_of_a_bucket_takes_its_place_and_answers(hybrid: Served, models: Path):
    add_model(models, ADDRESS)
    added = read_models(models)[ADDRESS]
    assert [(layer.layers, layer.window) for layer in added.attention] == [(1, None), (3, 64)]
    running = hybrid.up(manifest_of(models, ADDRESS, kwargs=EXACT))
    assert isinstance(running.answer, Answer)
    assert running.answer.completion_tokens > 1
    downloaded = Path(root_of(hybrid))
    assert (downloaded / "model.safetensors").read_bytes() == (models.parent / "gemma" / "model.safetensors").read_bytes()
    assert architecture_of(hybrid, "Gemma3ForCausalLM")


def completions(served: Served) -> list[dict[str, Any]]:
    """The greedy completions of three prompts, each with what the engine counts."""
    prompts = ["one two three " * 8, "a b c d e a b c d e a b c", "the end"]
    bodies = [{"model": "tiny", "prompt": text, "max_tokens": 96, "min_tokens": 96, "temperature": 0} for text in prompts]
    headers = {"Authorization": f"Bearer {API_KEY}"}
    return [post(f"{served.running.url}/v1/completions", json=body, headers=headers).json() for body in bodies]


def test_drafts_from_the_prompt_change_no_answer_and_are_accepted(hybrid: Served, models: Path):
    alone = completions(hybrid)
    hybrid.up(manifest_of(models, ADDRESS, kwargs=EXACT, speculation={"method": "ngram", "tokens": 4}))
    drafted = completions(hybrid)
    assert [answer["choices"][0]["text"] for answer in drafted] == [answer["choices"][0]["text"] for answer in alone]
    counted = [answer["metrics"]["speculative_decoding"] for answer in drafted]
    print(f"accepted of drafted: {[(row['num_accepted_draft_tokens'], row['num_draft_tokens']) for row in counted]}")
    assert sum(row["num_accepted_draft_tokens"] for row in counted) > 0
    checks = found(hybrid.target())
    assert failed(checks) == {}
    assert checks["speculation"].outcome is Outcome.PASS
