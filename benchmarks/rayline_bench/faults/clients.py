"""Clients that stream completions, one after the other, and count what becomes of each request."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

ANSWERED = "answered"
"""[DONE] came and the answer has as many tokens as were asked for."""
PAUSE_AFTER_FAILURE_SECONDS = 0.25
"""As a client that retries. Without it a refused connection would be counted thousands of times a second."""
SILENCE_SECONDS = 60.0
"""No token for so long is a failure: nothing here takes so long, and a lost stream must not end the count."""


@dataclass
class Request:
    """One request; times are seconds on time.monotonic()."""

    client: int
    started: float
    outcome: str = ""
    """ANSWERED, how it failed, or "" while it is open."""
    ended: float = 0.0
    first_token: float = 0.0
    events: int = 0
    """Server-sent events that came, at least one of them for the role and the usage; a token each with `stream_interval: 1`."""
    port: int = 0
    """The client's own port: by it HAProxy's list of sessions says which replica answers."""


@dataclass
class Load:
    """Clients that each stream one answer after the other over a connection of their own, which they keep.

    `clients` of them ask for `tokens` tokens: their answers come in quick succession and show for how long there are none.
    `long_clients` ask for `long_tokens`: these are the streams that a fault meets in the middle.

    A context manager: leaving it lets every open stream come to its end. The clients run in a thread of their own, so
    that the caller can break things meanwhile.
    """

    url: str
    """Base URL, without /v1."""
    model: str
    api_key: str | None
    clients: int = 4
    tokens: int = 100
    long_clients: int = 0
    long_tokens: int = 3000
    requests: list[Request] = field(default_factory=list)
    """In the order of their start, open ones included."""
    _pause: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _no_more_long: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _errors: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._errors:
            raise self._errors[0]

    def done(self) -> list[Request]:
        """Requests that have ended."""
        return [one for one in self.requests if one.outcome]

    def open(self) -> list[Request]:
        """Streams that have begun and not ended."""
        return [one for one in self.requests if one.first_token and not one.outcome]

    def fresh(self) -> list[Request]:
        """Long streams that have begun and have more than two thirds of their way before them: no buffer holds so much."""
        return [one for one in self.open() if one.client >= self.clients and one.events < self.long_tokens / 3]

    def let_long_streams_end(self) -> None:
        """The long clients ask no more."""
        self._no_more_long.set()

    def slow_down(self, pause: float) -> None:
        """From now on each client waits `pause` seconds after an answer."""
        self._pause = pause

    def answered_since(self, moment: float) -> set[int]:
        """Clients with an answer to a request that they sent after `moment`."""
        return {one.client for one in self.done() if one.outcome == ANSWERED and one.started >= moment}

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Until `condition`; raises TimeoutError with `what` and the count so far, or the clients' own error."""
        give_up = time.monotonic() + seconds
        while not condition():
            if self._errors:
                raise self._errors[0]
            if time.monotonic() > give_up:
                raise TimeoutError(f"not within {seconds:.0f} s: {what}; until now {dict(outcomes(self.done()))}")
            time.sleep(0.05)

    def wait_for_every_client(self, seconds: float = 120) -> None:
        """Until each client, but the long ones, has had an answer to a request that it sends from now on."""
        now = time.monotonic()
        everyone = set(range(self.clients))
        self.wait(lambda: everyone <= self.answered_since(now), seconds, "an answer for every client")

    def _run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self._errors.append(error)

    async def _all(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients + self.long_clients)))

    async def _client(self, number: int) -> None:
        is_long = number >= self.clients
        tokens = self.long_tokens if is_long else self.tokens
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        # One connection for each client, kept as clients do: what runs into a reload is a real connection.
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        timeout = httpx.Timeout(SILENCE_SECONDS)
        # reading the authorities' certificates takes longer than anything else here, and http needs none
        verify = not self.url.startswith("http://")
        async with httpx.AsyncClient(
            base_url=self.url, headers=headers, limits=limits, timeout=timeout, trust_env=False, verify=verify
        ) as client:
            port = 0
            while not self._stop.is_set() and not (is_long and self._no_more_long.is_set()):
                # until the answer begins the last connection's port is the best guess: clients keep theirs
                request = Request(number, time.monotonic(), port=port)
                self.requests.append(request)
                outcome = await ask(client, self.model, tokens, request)
                request.ended = time.monotonic()
                request.outcome = outcome
                port = request.port
                if not self._stop.is_set():
                    await asyncio.sleep(self._pause if outcome == ANSWERED else PAUSE_AFTER_FAILURE_SECONDS)


async def ask(client: httpx.AsyncClient, model: str, tokens: int, request: Request) -> str:
    """Streams one completion to its end; returns its outcome, fills in `request` on the way. Never raises httpx errors."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": f"hello {request.client}"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            stream = answer.extensions.get("network_stream")
            address = stream.get_extra_info("client_addr") if stream is not None else None
            request.port = address[1] if address else 0
            if answer.status_code != 200:
                await answer.aread()
                return _refused(answer)
            tail = b""
            async for piece in answer.aiter_bytes():
                if not request.first_token:
                    request.first_token = time.monotonic()
                request.events += piece.count(b"data: ")
                tail = (tail + piece)[-4096:]
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return "connection refused"
    except httpx.TimeoutException:
        return f"silent for {SILENCE_SECONDS:.0f} s"
    except httpx.TransportError:
        return "stream cut" if request.first_token else "connection closed before an answer"
    return _ended(tail.decode(errors="replace"), tokens)


def _refused(answer: httpx.Response) -> str:
    reason = answer.headers.get("x-serve-reason")
    return f"HTTP {answer.status_code}" + (f" {reason}" if reason else "")


def _ended(tail: str, tokens: int) -> str:
    """What the end of a stream that was closed in good order says."""
    if "data: [DONE]" not in tail:
        return "error in the stream" if '"error"' in tail else "stream ended without [DONE]"
    counts = re.findall(r'"completion_tokens":\s*(\d+)', tail)
    if not counts or int(counts[-1]) != tokens:
        return f"{counts[-1] if counts else 'no'} tokens instead of {tokens}"
    return ANSWERED


def outcomes(requests: Sequence[Request]) -> Counter[str]:
    """How many requests ended how."""
    return Counter(one.outcome for one in requests if one.outcome)


def longest_gap(requests: Sequence[Request], since: float, until: float) -> float:
    """The longest time between `since` and `until` in which no answer came to its end, seconds."""
    ends = sorted(one.ended for one in requests if one.outcome == ANSWERED and since < one.ended < until)
    moments = [since, *ends, until]
    return max(later - earlier for earlier, later in itertools.pairwise(moments))
