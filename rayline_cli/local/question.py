"""Asks the served model one question, streamed, and measures the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

QUESTION = "What is the capital of France?"
MAX_TOKENS = 64


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
        """Speed of decoding: tokens after the first over the time after the first. 0 for a single token."""
        rest = self.total_seconds - self.first_token_seconds
        return (self.completion_tokens - 1) / rest if rest > 0 and self.completion_tokens > 1 else 0.0


def ask(
    base_url: str,
    model_id: str,
    *,
    api_key: str | None,
    question: str = QUESTION,
    max_tokens: int = MAX_TOKENS,
    temperature: float = 0.0,
    timeout_seconds: float | None = 180,
) -> Answer:
    """POST /v1/chat/completions with stream=true. Raises NoAnswer, also when nothing comes for `timeout_seconds`."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    request = {
        "model": model_id,
        "messages": [{"role": "user", "content": question}],
        "temperature": temperature,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.monotonic()
    first: float | None = None
    words: list[str] = []
    tokens = 0
    finish_reason = ""
    try:
        with (
            httpx.Client(timeout=timeout_seconds, trust_env=False) as client,
            client.stream("POST", f"{base_url}/v1/chat/completions", json=request, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise NoAnswer(f"HTTP {answer.status_code}: {answer.read().decode(errors='replace')[:500]}")
            for event in _events(answer.iter_lines()):
                if "error" in event:
                    raise NoAnswer(json.dumps(event["error"]))
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                for choice in event.get("choices") or []:
                    text = (choice.get("delta") or {}).get("content") or ""
                    if text and first is None:
                        first = time.monotonic() - started
                    words.append(text)
                    finish_reason = choice.get("finish_reason") or finish_reason
    except httpx.HTTPError as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from None
    total = time.monotonic() - started
    if not tokens:
        raise NoAnswer(f"the stream ended without a token or without usage; it said {''.join(words)!r}")
    return Answer(question, "".join(words).strip(), tokens, total if first is None else first, total, finish_reason)


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The JSON bodies of server-sent events, up to [DONE]."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        yield json.loads(data)
