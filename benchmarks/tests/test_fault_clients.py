"""The counting clients see each way in which a request can fail. A server that misbehaves on purpose plays the service."""

from __future__ import annotations

import itertools
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rayline_bench.faults import clients
from rayline_bench.faults.clients import ANSWERED, Request, StreamLoad, longest_gap, outcomes

TOKENS = 3
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


def event(**data: object) -> bytes:
    return chunk(f"data: {json.dumps(data)}\n\n")


TOKEN = event(choices=[{"delta": {"content": "a"}}])
USAGE = event(choices=[], usage={"completion_tokens": TOKENS})
DONE = chunk("data: [DONE]\n\n")
END = b"0\r\n\r\n"
REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nX-Serve-Reason: router_unreachable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)


@contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """A server that says the same to every request and closes the connection; its URL."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            request = self.request.makefile("rb")
            length = 0
            while (line := request.readline()).strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            request.read(length)  # a connection that is closed with unread data is reset
            for piece in pieces:
                self.request.sendall(piece)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def first_outcome(url: str) -> Request:
    load = StreamLoad(url, "m", None, clients=1, tokens=TOKENS)
    with load:
        load.wait(lambda: bool(load.done()), 60, "an end")
    return load.requests[0]


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        pytest.param((HEAD, TOKEN, USAGE, DONE, END), ANSWERED, id="answered"),
        pytest.param((HEAD, TOKEN, TOKEN), "stream cut", id="the connection ends in the middle"),
        pytest.param((), "connection closed before an answer", id="the connection ends at once"),
        pytest.param((HEAD, TOKEN, USAGE, END), "stream ended without [DONE]", id="no end mark"),
        pytest.param((HEAD, event(error={"code": 500}), END), "error in the stream", id="an error as an event"),
        pytest.param((REFUSED,), "HTTP 503 router_unreachable", id="refused with a reason"),
        pytest.param(
            (HEAD, TOKEN, event(usage={"completion_tokens": 2}), DONE, END), "2 tokens instead of 3", id="too few tokens"
        ),
    ],
)
def test_each_way_to_end_has_an_outcome_of_its_own(pieces: tuple[bytes, ...], outcome: str):
    with answering(*pieces) as url:
        assert first_outcome(url).outcome == outcome


def test_a_port_without_a_listener_is_a_refused_connection():
    with answering() as url:
        pass
    assert first_outcome(url).outcome == "connection refused"


def test_silence_is_a_failure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clients, "SILENCE_SECONDS", 0.2)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Silent) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert first_outcome(f"http://127.0.0.1:{server.server_address[1]}").outcome.startswith("silent for")
        server.shutdown()


class _Silent(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while self.request.recv(65536):
            pass


def test_leaving_the_load_lets_open_streams_come_to_their_end():
    with answering(HEAD, TOKEN, USAGE, DONE, END) as url:
        with StreamLoad(url, "m", None, clients=3, tokens=TOKENS) as load:
            load.wait_for_every_client(60)
        assert load.requests
        assert outcomes(load.requests) == {ANSWERED: len(load.requests)}


def test_a_client_that_was_slowed_down_pauses_after_each_answer():
    with answering(HEAD, TOKEN, USAGE, DONE, END) as url, StreamLoad(url, "m", None, clients=1, tokens=TOKENS) as load:
        load.pause = 0.5
        slowed = time.monotonic()
        load.wait(lambda: len([one for one in load.done() if one.started > slowed]) >= 3, 60, "three answers")
    after = [one for one in load.requests if one.ended > slowed]
    assert all(later.started - earlier.ended >= 0.5 for earlier, later in itertools.pairwise(after))


def test_a_wait_that_ends_in_vain_has_the_counts_until_then():
    with answering(REFUSED) as url, StreamLoad(url, "m", None, clients=1, tokens=TOKENS) as load:
        load.wait(lambda: bool(load.done()), 60, "an end")
        with pytest.raises(TimeoutError, match=r"an answer for every client.*HTTP 503 router_unreachable"):
            load.wait_for_every_client(0.1)


def _ended(at: float, outcome: str = ANSWERED) -> Request:
    return Request(0, at - 1, outcome, at)


@pytest.mark.parametrize(
    ("requests", "gap"),
    [
        ([], 10),
        ([_ended(14)], 6),
        ([_ended(11), _ended(12), _ended(19)], 7),
        ([_ended(15, "stream cut")], 10),
        ([_ended(5), _ended(25)], 10),
    ],
    ids=["no answer", "one", "between two", "a failure is no answer", "answers outside"],
)
def test_the_longest_gap_is_between_answers_within_the_time(requests: list[Request], gap: float):
    assert longest_gap(requests, 10, 20) == gap
