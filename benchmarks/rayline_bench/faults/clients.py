"""Clients that stream completions one after the other, and the outcome of each request."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import httpx

from rayline_cli.local.waiting import slowdown

ANSWERED = "answered"
"""The stream ended with [DONE] and has the number of tokens of the request."""
PAUSE_AFTER_FAILURE_SECONDS = 0.25
"""As a client that retries. Without it a refused connection would be counted thousands of times a second."""
SILENCE_SECONDS = 60.0
"""A stream without a token for so long has failed. Nothing here takes so long, and a lost stream must not end the count."""


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
    """The client's own port. HAProxy's list of sessions names the replica of each port."""


@dataclass
class StreamLoad:
    """Clients that each stream one answer after the other over a connection of their own, which they keep.

    `clients` of them request `tokens` tokens: their answers come in quick succession and show gaps. `long_clients` request
    `long_tokens`: these are the streams that a fault interrupts.

    A context manager: leaving it lets every open stream come to its end. Each client has a thread, so that the caller can
    kill processes meanwhile.
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
    pause: float = 0.0
    """Seconds that each client waits after an answer."""
    no_more_long_streams: bool = False
    """Whether the long clients send no further request."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[Future[None]] = field(default_factory=list)

    def __enter__(self) -> Self:
        pool = ThreadPoolExecutor(max(1, self.clients + self.long_clients))
        self._running = [pool.submit(self._client, number) for number in range(self.clients + self.long_clients)]
        pool.shutdown(wait=False)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for client in self._running:
            client.result()

    def done(self) -> list[Request]:
        """Return the requests that have ended."""
        return [request for request in self.requests if request.outcome]

    def open(self) -> list[Request]:
        """Return the streams that have begun and not ended."""
        return [request for request in self.requests if request.first_token and not request.outcome]

    def fresh(self) -> list[Request]:
        """Return the long streams with more than two thirds of their tokens still to come: no buffer holds so many."""
        return [stream for stream in self.open() if stream.client >= self.clients and stream.events < self.long_tokens / 3]

    def wait(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Return when `condition` holds. Raises a client's own error, or TimeoutError with `what` and the count so far.

        `seconds` are those of an idle machine: a busy one has more.
        """
        begun = time.monotonic()
        while not condition():
            for client in self._running:
                if client.done():
                    client.result()
            if time.monotonic() - begun > seconds * slowdown():
                raise TimeoutError(f"not within {seconds:.0f} s: {what}; until now {dict(outcomes(self.done()))}")
            time.sleep(0.05)

    def wait_for_every_client(self, seconds: float = 120) -> None:
        """Return when each client, but the long ones, has an answer to a request that it sends from now on."""
        now, everyone = time.monotonic(), set(range(self.clients))

        def answered() -> set[int]:
            return {request.client for request in self.done() if request.outcome == ANSWERED and request.started >= now}

        self.wait(lambda: everyone <= answered(), seconds, "an answer for every client")

    def wait_for_long_streams(self) -> None:
        """Return when every long client has a stream that has just begun."""
        self.wait(lambda: len(self.fresh()) == self.long_clients, 120, "long streams")

    def _client(self, number: int) -> None:
        is_long = number >= self.clients
        # One connection for each client, kept as clients do: a reload of HAProxy meets a real connection.
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        # verify: reading the authorities' certificates takes longer than anything else here, and http needs none
        options = {"headers": headers, "limits": limits, "timeout": SILENCE_SECONDS, "trust_env": False, "verify": False}
        with httpx.Client(base_url=self.url, **options) as client:
            port = 0
            while not (self._stop.is_set() or (is_long and self.no_more_long_streams)):
                # until the answer begins the last connection's port is the best guess: clients keep theirs
                request = Request(number, time.monotonic(), port=port)
                self.requests.append(request)
                outcome = stream(client, self.model, self.long_tokens if is_long else self.tokens, request)
                request.ended = time.monotonic()
                request.outcome, port = outcome, request.port
                self._stop.wait(self.pause if outcome == ANSWERED else PAUSE_AFTER_FAILURE_SECONDS)


def stream(client: httpx.Client, model: str, tokens: int, request: Request) -> str:
    """Stream one completion to its end and return its outcome; fill in `request` on the way. Never raises httpx errors.

    Not clients/openai.py of the product: that gives up with a message, and here the kind of failure is the figure.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"hello {request.client}"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    try:
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            connection = answer.extensions.get("network_stream")
            address = connection.get_extra_info("client_addr") if connection is not None else None
            request.port = address[1] if address else 0
            if answer.status_code != 200:
                answer.read()
                return f"HTTP {answer.status_code} {answer.headers.get('x-serve-reason', '')}".rstrip()
            tail = b""
            for piece in answer.iter_bytes():
                request.first_token = request.first_token or time.monotonic()
                request.events += piece.count(b"data: ")
                tail = (tail + piece)[-4096:]
    except (httpx.ConnectError, httpx.ConnectTimeout):
        return "connection refused"
    except httpx.TimeoutException:
        return f"silent for {SILENCE_SECONDS:.0f} s"
    except httpx.TransportError:
        return "stream cut" if request.first_token else "connection closed before an answer"
    return _outcome_of_end(tail.decode(errors="replace"), tokens)


def _outcome_of_end(tail: str, tokens: int) -> str:
    """Return the outcome of a stream whose connection was closed in good order."""
    if "data: [DONE]" not in tail:
        return "error in the stream" if '"error"' in tail else "stream ended without [DONE]"
    counts = re.findall(r'"completion_tokens":\s*(\d+)', tail)
    if not counts or int(counts[-1]) != tokens:
        return f"{counts[-1] if counts else 'no'} tokens instead of {tokens}"
    return ANSWERED


def outcomes(requests: Sequence[Request]) -> Counter[str]:
    """Return the number of requests of each outcome."""
    return Counter(request.outcome for request in requests if request.outcome)


def longest_gap(requests: Sequence[Request], since: float, until: float) -> float:
    """Return the longest time between `since` and `until` in which no answer came to its end, in seconds."""
    ends = sorted(request.ended for request in requests if request.outcome == ANSWERED and since < request.ended < until)
    return max(later - earlier for earlier, later in itertools.pairwise([since, *ends, until]))
