"""Secrets of the local runtime: random, kept, and for their owner's eyes only."""

import json
import stat

from rayline_cli import render
from rayline_cli.local_secrets import FILE, secret_values
from tests.conftest import recorded

DECLARED = {"chat-api-key": ["api_key"], "chat-ray-auth": ["auth_token"]}


def test_every_key_of_every_secret_has_a_long_random_value(tmp_path):
    values = secret_values(DECLARED, tmp_path)
    assert set(values) == {("chat-api-key", "api_key"), ("chat-ray-auth", "auth_token")}
    assert len(set(values.values())) == 2
    assert min(len(value) for value in values.values()) >= 32
    assert secret_values(DECLARED, tmp_path / "other") != values


def test_values_are_stable_over_runs_and_when_a_secret_is_added(tmp_path):
    first = secret_values({"chat-api-key": ["api_key"]}, tmp_path)
    both = secret_values(DECLARED, tmp_path)
    assert both["chat-api-key", "api_key"] == first["chat-api-key", "api_key"]
    assert secret_values(DECLARED, tmp_path) == both


ROTATED = {"chat-api-key": ["api_key", "previous_api_key"]}


def keys_of(generation: int, folder) -> tuple[str, str]:
    values = secret_values(ROTATED, folder, {"chat-api-key": generation})
    return values["chat-api-key", "api_key"], values["chat-api-key", "previous_api_key"]


def test_the_first_key_has_none_before_it(tmp_path):
    current, previous = keys_of(1, tmp_path)
    assert (bool(current), previous) == (True, "")


def test_each_raise_makes_a_key_and_keeps_the_one_before(tmp_path):
    first, _ = keys_of(1, tmp_path)
    second, kept = keys_of(2, tmp_path)
    assert kept == first != second
    third, kept = keys_of(3, tmp_path)
    assert kept == second
    assert len({first, second, third}) == 3
    assert first not in (tmp_path / FILE).read_text()
    assert keys_of(3, tmp_path) == (third, second)


def test_a_key_from_before_generations_stays_the_first(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"chat-api-key": {"api_key": "sk-old"}}))
    assert keys_of(1, tmp_path)[0] == "sk-old"
    assert keys_of(2, tmp_path)[1] == "sk-old"


def test_the_file_is_readable_by_its_owner_alone(tmp_path):
    secret_values(DECLARED, tmp_path / "made" / "for" / "it")
    assert stat.S_IMODE((tmp_path / "made" / "for" / "it" / FILE).stat().st_mode) == 0o600


def test_a_file_that_others_could_read_is_closed(tmp_path):
    secret_values(DECLARED, tmp_path)
    (tmp_path / FILE).chmod(0o644)
    secret_values(DECLARED, tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_the_hugging_face_token_is_the_environments_and_never_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_from-the-environment")
    values = secret_values({"hf-secret": ["hf_api_token"], **DECLARED}, tmp_path)
    assert values["hf-secret", "hf_api_token"] == "hf_from-the-environment"
    assert "hf_from" not in (tmp_path / FILE).read_text()
    monkeypatch.delenv("HF_TOKEN")
    assert secret_values({"hf-secret": ["hf_api_token"]}, tmp_path) == {("hf-secret", "hf_api_token"): ""}


def test_the_local_stack_declares_the_secrets_that_its_service_refers_to(tmp_path):
    values = secret_values(render.secrets(recorded("local")), tmp_path)
    manifest = json.dumps(render.ray_services(recorded("local")))
    for name, _ in values:
        assert f'"{name}"' in manifest
