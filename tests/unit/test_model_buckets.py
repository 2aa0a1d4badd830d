"""`rayline model add gs://…`: a model in a bucket says about itself what the plan has to know."""

import json
import math
import pathlib
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from rayline.models.catalog import read_models
from rayline.platform.plan import make_plan
from rayline_cli import cli
from rayline_cli.model_files import folders, weights
from tests.buckets import BUCKET, emulator, upload
from tests.http_answers import Answering
from tests.model_folders import decoder, write_model

TINY = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    "max_position_embeddings": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
PLACE = f"gs://{BUCKET}/llama/v1"


def add(models: pathlib.Path, source: str = PLACE, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["model", "add", source, "--folder", str(models), *options])
    return done.exit_code, done.output


@pytest.fixture
def models(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "models"


@pytest.fixture
def tiny(tmp_path: pathlib.Path) -> pathlib.Path:
    return write_model(tmp_path / "tiny", TINY, decoder(TINY))


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.delenv("GOOGLE_OAUTH_ACCESS_TOKEN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with emulator() as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield address


# --- an emulator


def test_a_model_in_a_bucket_is_read_as_the_same_model_in_a_folder_is(bucket, tiny, models):
    upload(bucket, tiny, "llama/v1")
    code, text = add(models)
    assert code == 0, text
    assert add(models, str(tiny), "--as", "acme/tiny")[0] == 0
    known = read_models(models)
    added, here = known[PLACE], known["acme/tiny"]
    assert added.source.startswith(f"config.json and safetensors headers of {PLACE}, read on ")
    assert added.model_dump(exclude={"model", "source", "at_hugging_face"}) == here.model_dump(
        exclude={"model", "source", "at_hugging_face"}
    )
    service = {"model": PLACE, "accelerator": "l4"}
    plan = make_plan({"cluster": {"mode": "existing"}, "models": str(models), "services": {"a": service}})
    assert plan.services[0].weights.uri == PLACE


def test_the_c_client_s_variable_names_an_emulator_too(bucket, tiny, models, monkeypatch):
    upload(bucket, tiny, "llama/v1")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", bucket)
    assert add(models, f"gs://anonymous@{BUCKET}/llama/v1/")[0] == 0


def test_an_index_and_a_header_longer_than_the_first_request_are_read(bucket, tiny, models, monkeypatch):
    (tiny / "model.safetensors").rename(tiny / "part-1.safetensors")
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "part-1.safetensors"}}))
    upload(bucket, tiny, "llama/v1")
    monkeypatch.setattr(weights, "HEADER_BYTES", 64)
    code, text = add(models)
    assert code == 0, text
    assert read_models(models)[PLACE].parameters == sum(math.prod(shape) for _, shape in decoder(TINY).values())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gs://no-such-bucket/llama", "there is no bucket no-such-bucket. Fix: "),
        (f"gs://{BUCKET}/elsewhere", "the bucket has no files in this folder. Fix: "),
        ("gs://", "no address of a folder in Cloud Storage. Fix: gs://BUCKET/FOLDER"),
        ("s3://acme/llama", "only those of Cloud Storage (gs://) are read. Fix: copy the model to a folder here"),
    ],
)
def test_an_address_that_has_no_model_is_refused_with_a_fix(bucket, models, source, message):
    code, text = add(models, source)
    assert code == 2
    assert message in text
    assert not models.exists()


def test_a_folder_without_weights_is_refused(bucket, tiny, models):
    (tiny / "model.safetensors").write_bytes(b"half")
    upload(bucket, tiny, "llama/v1")
    code, text = add(models)
    assert code == 2
    assert f"{PLACE}: model.safetensors: not a safetensors file" in text


def test_a_bucket_has_no_revisions(bucket, models):
    code, text = add(models, PLACE, "--revision", "v1")
    assert code == 2
    assert "--revision v1: is Hugging Face's" in text


# --- rights, which an emulator has not


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], list[str | None]]]:
    """Cloud Storage that answers each request with one status; the callable returns the Authorization headers it got."""
    answers: list[tuple[int, str]] = []
    seen: list[str | None] = []

    class Handler(Answering):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            status, message = answers[-1]
            self.answer(status, json.dumps({"error": {"code": status, "message": message}}))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(folders, "GOOGLE", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", raising=False)

    def answering(status: int, message: str) -> list[str | None]:
        answers.append((status, message))
        return seen

    yield answering
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("status", "token", "source", "code", "message"),
    [
        (
            403,
            "ya29.good",
            PLACE,
            2,
            "your account may not read this bucket (me@acme.com does not have storage.objects.list access)",
        ),
        (401, "ya29.old", PLACE, 2, "Google refuses the credentials. Fix: gcloud auth application-default login"),
        (
            401,
            "",
            PLACE,
            2,
            "the bucket is not public, and no Google credentials are used. Fix: gcloud auth application-default",
        ),
        (401, "ya29.good", f"gs://anonymous@{BUCKET}/llama", 2, "Fix: no anonymous@ in the address, and gcloud auth"),
        (
            503,
            "ya29.good",
            PLACE,
            1,
            "Cloud Storage answers HTTP 503 (me@acme.com does not have storage.objects.list access). Fix: ",
        ),
    ],
    ids=["no right", "an old token", "no login", "not public", "down"],
)
def test_a_bucket_that_refuses_says_why_and_what_opens_it(google, models, monkeypatch, status, token, source, code, message):
    seen = google(status, "me@acme.com does not have storage.objects.list access.")
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", token)
    exit_code, text = add(models, source)
    assert exit_code == code
    assert message in text
    assert "ya29" not in text
    assert seen == [None if not token or "anonymous" in source else f"Bearer {token}"]


def test_a_right_that_is_missing_names_the_role_and_the_command(google, models, monkeypatch):
    google(403, "no")
    monkeypatch.setenv("GOOGLE_OAUTH_ACCESS_TOKEN", "ya29.good")
    assert f"add-iam-policy-binding gs://{BUCKET} --role=roles/storage.objectViewer" in add(models)[1]


def test_gclouds_default_credentials_are_those_that_read_the_bucket(google, models, tmp_path):
    gcloud = tmp_path / "programs" / "gcloud"
    gcloud.parent.mkdir()
    gcloud.write_text('#!/bin/sh\n[ "$*" = "auth application-default print-access-token --quiet" ] && echo ya29.gcloud\n')
    gcloud.chmod(0o755)
    seen = google(403, "no")
    text = add(models)[1]
    assert seen == ["Bearer ya29.gcloud"]
    assert "ya29" not in text


def test_a_storage_that_is_away_is_a_failure(models, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")
    code, text = add(models)
    assert code == 1
    assert "Cloud Storage cannot be reached (ConnectError). Fix: " in text
