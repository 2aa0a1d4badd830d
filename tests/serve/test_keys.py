"""Keys as clients send them, and keys that change while the service runs: no stream and no process notices."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rayline_cli import local_secrets, render
from rayline_cli.local import runtime
from rayline_cli.local.session import SECRETS_FOLDER
from rayline_cli.verify import Outcome
from tests.serve.serving import API_KEY, PATIENCE, TOKEN, Recorder, Served, program_of, ray_service, wait_until

SECRET = "tiny-api-key"
TOKENS = 900
STREAMED = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": TOKENS,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}

MESSAGE = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
ORIGIN = {"Origin": "https://chat.example.com"}


def ask(served: Served, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    return httpx.request(method, served.running.url + path, json=body, headers=headers, trust_env=False, timeout=PATIENCE)


def test_a_request_as_anthropics_clients_send_it_gets_an_answer(served: Served):
    headers = {"x-api-key": API_KEY, "anthropic-version": "2023-06-01"}
    answer = ask(served, "POST", "/v1/messages", MESSAGE, **headers)
    assert (answer.status_code, answer.json()["type"]) == (200, "message"), answer.text
    assert answer.json()["usage"]["output_tokens"] > 0
    streamed = ask(served, "POST", "/v1/messages", MESSAGE | {"stream": True}, **headers)
    assert "event: message_stop" in streamed.text
    counted = ask(served, "POST", "/v1/messages/count_tokens", MESSAGE, **headers)
    assert counted.json()["input_tokens"] > 0


def test_official_clients_get_answers_and_say_clearly_that_a_key_is_wrong(served: Served):
    import anthropic
    import openai

    url = served.running.url

    def of_anthropic(key: str) -> anthropic.Anthropic:
        http = anthropic.DefaultHttpxClient(trust_env=False)
        return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, http_client=http)

    def of_openai(key: str) -> openai.OpenAI:
        http = openai.DefaultHttpxClient(trust_env=False)
        return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http)

    assert of_anthropic(API_KEY).messages.create(**MESSAGE).usage.output_tokens > 0
    assert of_openai(API_KEY).chat.completions.create(**MESSAGE).choices
    with pytest.raises(anthropic.AuthenticationError, match=r"authentication_error.*x-api-key: KEY"):
        of_anthropic("sk-wrong").messages.create(**MESSAGE)
    with pytest.raises(openai.AuthenticationError, match=r"Authorization: Bearer KEY") as refused:
        of_openai("sk-wrong").chat.completions.create(**MESSAGE)
    assert refused.value.code == "invalid_api_key"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/models", "/tokenize", "/nothing/here"])
def test_a_browsers_preflight_is_answered_without_a_key_and_asks_no_route(served: Served, path: str):
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-api-key"}
    answer = ask(served, "OPTIONS", path, **ORIGIN, **asks)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,x-api-key"


def test_a_page_of_another_origin_can_read_answers_and_refusals(served: Served):
    for key, status in ((API_KEY, 200), ("sk-wrong", 401)):
        for headers in ({"Authorization": f"Bearer {key}"}, {"x-api-key": key}):
            answer = ask(served, "POST", "/v1/messages", MESSAGE, **ORIGIN, **headers)
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, "*")


def test_every_route_and_method_refuses_what_is_no_valid_key(served: Served):
    described = ask(served, "GET", "/openapi.json", **{"x-api-key": API_KEY}).json()["paths"]
    paths = [re.sub(r"{.*?}", "x", path) for path in described]
    assert {"/v1/messages", "/v1/chat/completions", "/metrics", "/tokenize"} <= {*paths}
    refused: list[dict[str, str]] = [
        {},
        {"x-api-key": "sk-wrong"},
        {"api-key": API_KEY},
        ORIGIN,
        {"Access-Control-Request-Method": "POST"},
    ]
    with httpx.Client(base_url=served.running.url, trust_env=False, timeout=PATIENCE) as client:
        answers = {
            (method, path, *headers): client.request(method, path, headers=headers).status_code
            for path in paths
            for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
            for headers in refused
        }
    assert [asked for asked, status in answers.items() if status != 401] == []


@dataclass
class Rotating:
    """The shared session under a stack file whose api.key_generation is raised."""

    served: Served
    state_dir: Path
    key: str = API_KEY

    def raise_to(self, generation: int) -> float:
        """`rayline up` after the stack file changed. Returns when the key's file changed, seconds since the epoch."""
        program = program_of(api={"key_generation": generation})
        values = local_secrets.secret_values(render.secrets(program), self.state_dir, {SECRET: generation})
        self.served.running = runtime.up(
            render.ray_services(program)[0], state_dir=self.served.state_dir, secrets=values, report=Recorder()
        )
        self.key = values[SECRET, "api_key"]
        return (self.served.session.folder / SECRETS_FOLDER / SECRET / "api_key").stat().st_mtime

    def status(self, key: str) -> int:
        return httpx.post(
            f"{self.served.running.url}/tokenize",
            json={"model": "tiny", "prompt": "a"},
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=PATIENCE,
        ).status_code


@dataclass
class Stream:
    started: float
    ended: float
    tokens: int


@dataclass
class Readers:
    """Clients that stream one answer after the other, each with the key of the moment."""

    rotating: Rotating
    streams: list[Stream] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        while not self._stop.is_set():
            started, tokens, done = time.time(), 0, False
            headers = {"Authorization": f"Bearer {self.rotating.key}"}
            url = f"{self.rotating.served.running.url}/v1/chat/completions"
            with httpx.stream("POST", url, json=STREAMED, headers=headers, trust_env=False, timeout=PATIENCE) as answer:
                for line in answer.iter_lines():
                    done = done or line == "data: [DONE]"
                    if line.startswith("data: {"):
                        tokens = ((json.loads(line[6:]).get("usage")) or {}).get("completion_tokens", tokens)
            if answer.status_code != 200 or not done:
                self.failures.append(f"HTTP {answer.status_code}, {tokens} tokens, ended: {done}")
            self.streams.append(Stream(started, time.time(), tokens))

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture
def rotating(served: Served, tmp_path: Path) -> Iterator[Rotating]:
    """Begins with the session's first key; the session is given back as it was."""
    first = {SECRET: {"api_key": API_KEY}, "tiny-ray-auth": {"auth_token": TOKEN}}
    (tmp_path / local_secrets.FILE).write_text(json.dumps(first))
    yield Rotating(served, tmp_path)
    served.up(ray_service())


def test_keys_rotate_under_running_streams(rotating: Rotating):
    served = rotating.served
    before = {process.pid for process in served.session.processes() if "Serve" in " ".join(process.cmdline())}
    readers = Readers(rotating)
    threads = [threading.Thread(target=readers.read) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        assert wait_until(lambda: len(readers.streams) >= 8, 120)
        moments, keys = [], [rotating.key]
        for generation in (2, 3):
            moments.append(rotating.raise_to(generation))
            keys.append(rotating.key)
            # `up` has asked with the new key already; the key before it is valid as well
            assert [rotating.status(key) for key in keys[-2:]] == [200, 200]
        assert wait_until(lambda: rotating.status(keys[0]) == 401, 5), "the oldest key ends with the second raise"
        after_the_last = len(readers.streams) + 8
        assert wait_until(lambda: len(readers.streams) >= after_the_last, 120)
    finally:
        readers.stop()
        for thread in threads:
            thread.join()
    assert readers.failures == []
    assert {check.outcome for check in served.running.checks} <= {Outcome.PASS, Outcome.NOT_APPLICABLE}
    assert {stream.tokens for stream in readers.streams} == {TOKENS}
    for moment in moments:
        assert any(stream.started < moment < stream.ended for stream in readers.streams), "no stream ran at the change"
    after = {process.pid for process in served.session.processes() if "Serve" in " ".join(process.cmdline())}
    assert before <= after, "a process of Serve was started anew"
