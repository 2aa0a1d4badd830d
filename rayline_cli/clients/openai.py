"""Client of an OpenAI-compatible endpoint: its models, and one streamed and timed chat completion."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import httpx

from rayline.facts.choices import Task
from rayline_cli.questions import QUESTIONS, PooledAnswer

QUESTION = "What is the capital of France?"


class NoAnswer(Exception):
    """The model did not answer; the message says what came instead."""


@dataclass(frozen=True)
class Answer:
    """One streamed chat completion."""

    question: str
    text: str
    completion_tokens: int
    first_token_seconds: float
    """From sending the request to the first token with text."""
    total_seconds: float
    finish_reason: str

    @property
    def tokens_per_second(self) -> float:
        """Return the speed of decoding: tokens after the first over the time after the first. 0 for a single token."""
        rest = self.total_seconds - self.first_token_seconds
        return (self.completion_tokens - 1) / rest if rest > 0 and self.completion_tokens > 1 else 0.0


class OpenAiClient:
    """Client of one endpoint."""

    def __init__(self, base_url: str, api_key: str | None) -> None:
        """`base_url` is the address without /v1."""
        self.base_url = base_url
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # trust_env=False: a proxy from the environment has no business between this machine and itself.
        self._client = httpx.Client(base_url=base_url, headers=headers, timeout=60, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> Any:
        """Return the JSON at a path, which need not be one of OpenAI's. Raises NoAnswer."""
        url = f"{self.base_url}{path}"
        try:
            answer = self._client.get(path)
            if answer.status_code != 200:
                raise NoAnswer(f"{url} answers HTTP {answer.status_code}: {answer.text[:200]}")
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise NoAnswer(f"{url} does not answer: {type(error).__name__}") from None

    def models(self) -> list[str]:
        """Return the names of the served models. Raises NoAnswer."""
        try:
            return [model["id"] for model in self.get("/v1/models")["data"]]
        except KeyError as error:
            raise NoAnswer(f"{self.base_url}/v1/models does not answer: {type(error).__name__}") from None

    def ask(
        self,
        model_id: str,
        *,
        question: str = QUESTION,
        max_tokens: int = 64,
        temperature: float = 0.0,
        timeout_seconds: float | None = 180,
    ) -> Answer:
        """Send a question to /v1/chat/completions with stream=true. Raises NoAnswer, also when nothing comes for `timeout_seconds`."""
        request = {
            "model": model_id,
            "messages": [{"role": "user", "content": question}],
            "temperature": temperature,
            "max_tokens": max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started, first, tokens, words, finish_reason = time.monotonic(), None, 0, "", ""
        for event in self._stream("/v1/chat/completions", request, timeout_seconds):
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            for choice in event.get("choices") or []:
                text = (choice.get("delta") or {}).get("content") or ""
                if text and first is None:
                    first = time.monotonic() - started
                words += text
                finish_reason = choice.get("finish_reason") or finish_reason
        total = time.monotonic() - started
        if not tokens:
            raise NoAnswer(f"the stream ended without a token or without usage; it said {words!r}")
        return Answer(question, words.strip(), tokens, total if first is None else first, total, finish_reason)

    def pool(self, task: Task, model_id: str) -> PooledAnswer:
        """Send the question of a task other than generate. Raises NoAnswer, also for an answer without a meaning."""
        question, started = QUESTIONS[task], time.monotonic()
        try:
            answer = self._client.post(question.path, json={"model": model_id, **question.body}, timeout=None)
            if answer.status_code != 200:
                raise NoAnswer(f"{question.path}: HTTP {answer.status_code}: {answer.text[:500]}")
            return PooledAnswer(question.text, question.answer(answer.json()), time.monotonic() - started)
        except ValueError as error:
            raise NoAnswer(f"{question.path}: {error}") from None
        except httpx.HTTPError as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from None

    def _stream(self, path: str, request: dict[str, Any], timeout_seconds: float | None) -> Iterator[dict[str, Any]]:
        """Yield the events of a streamed completion. Raises NoAnswer."""
        try:
            with self._client.stream("POST", path, json=request, timeout=timeout_seconds) as answer:
                if answer.status_code != 200:
                    raise NoAnswer(f"HTTP {answer.status_code}: {answer.read().decode(errors='replace')[:500]}")
                for event in events(answer.iter_lines()):
                    if "error" in event:
                        raise NoAnswer(json.dumps(event["error"]))
                    yield event
        except httpx.HTTPError as error:
            raise NoAnswer(f"{type(error).__name__}: {error}") from None


def events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the JSON bodies of server-sent events, up to [DONE]."""
    for line in lines:
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            yield json.loads(data)
