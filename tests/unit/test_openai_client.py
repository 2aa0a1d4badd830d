"""The client of the endpoint, against a server that answers as vLLM does, and as it should not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest

from rayline_cli.clients.openai import NoAnswer, OpenAiClient, events
from tests.http_answers import Answering

USAGE = {"choices": [], "usage": {"completion_tokens": 3}}


def chunk(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": finish_reason}]}


def stream(*bodies: dict[str, Any], end: str = "data: [DONE]\n\n") -> str:
    return "".join(f"data: {json.dumps(body)}\n\n" for body in bodies) + end


class Endpoint(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.said: dict[str, tuple[int, str]] = {}
        self.asked: list[tuple[str, str | None, Any]] = []


class Handler(Answering):
    server: Endpoint

    def do_GET(self, body: Any = None) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        self.answer(*self.server.said[self.path])

    def do_POST(self) -> None:
        self.do_GET(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[OpenAiClient]:
    with OpenAiClient(endpoint.url, "sk-1") as one:
        yield one


def test_an_answer_has_its_text_its_tokens_and_its_end(endpoint: Endpoint, client: OpenAiClient):
    said = stream(chunk(""), chunk(" Par"), chunk("is", "stop"), USAGE)
    endpoint.said["/v1/chat/completions"] = (200, said)
    answer = client.ask("tiny", max_tokens=4)
    assert (answer.text, answer.completion_tokens, answer.finish_reason) == ("Paris", 3, "stop")
    assert 0 < answer.first_token_seconds <= answer.total_seconds
    ((path, key, body),) = endpoint.asked
    assert (path, key) == ("/v1/chat/completions", "Bearer sk-1")
    assert (body["model"], body["max_tokens"], body["stream"]) == ("tiny", 4, True)


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (401, "no key", "HTTP 401: no key"),
        (200, stream(chunk("a"), {"error": {"message": "out of memory"}}), "out of memory"),
        (200, stream(chunk("a"), end=""), "without a token or without usage; it said 'a'"),
    ],
)
def test_what_is_no_answer_says_what_came_instead(endpoint: Endpoint, client, status: int, text: str, reason: str):
    endpoint.said["/v1/chat/completions"] = (status, text)
    with pytest.raises(NoAnswer, match=reason):
        client.ask("tiny")


def test_models_are_listed_by_their_names(endpoint: Endpoint, client: OpenAiClient):
    endpoint.said["/v1/models"] = (200, json.dumps({"data": [{"id": "one"}, {"id": "two"}]}))
    assert client.models() == ["one", "two"]


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (503, "starting", "/v1/models answers HTTP 503: starting"),
        (200, "<html>", "/v1/models does not answer: JSONDecodeError"),
        (200, "{}", "/v1/models does not answer: KeyError"),
    ],
)
def test_a_list_that_does_not_come_says_why(endpoint: Endpoint, client, status: int, text: str, reason: str):
    endpoint.said["/v1/models"] = (status, text)
    with pytest.raises(NoAnswer, match=reason):
        client.models()


def test_nobody_at_the_address_is_no_answer():
    with OpenAiClient("http://127.0.0.1:9", None) as nobody, pytest.raises(NoAnswer, match="ConnectError"):
        nobody.models()


def test_server_sent_events_end_with_done_and_comments_are_none():
    lines = [": ping", 'data: {"a": 1}', "", 'data:{"a": 2}', "data: [DONE]", 'data: {"a": 3}']
    assert [event["a"] for event in events(lines)] == [1, 2]
