"""The arm of plain vLLM behind vllm-router."""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from rayline_bench import processes, servers
from rayline_bench.arms import ARMS, CONSISTENT_HASH, ROUND_ROBIN, Base, Process, ProcessArm
from rayline_cli import offline, render


@pytest.fixture(scope="module")
def base() -> Base:
    return Base(render.ray_services(offline.record("local"))[0], replicas=2)


def processes_of(name: str, base: Base) -> list[Process]:
    arm = ARMS[name].build(base)
    assert isinstance(arm, ProcessArm)
    return list(arm.processes)


def test_each_engine_has_a_server_of_its_own_and_the_router_lists_them_all(base):
    started = processes_of("vllm-router", base)
    assert [process.name for process in started] == ["server1", "server2", "router"]
    one, two = (ARMS["vllm-router"].build(Base(base.manifest, replicas)).memory_gib for replicas in (1, 2))
    assert two == 2 * one
    router = started[-1].argv
    assert router[router.index("--worker-urls") + 1 :] == ["http://127.0.0.1:{server1}", "http://127.0.0.1:{server2}"]
    assert router[router.index("--policy") + 1] == ROUND_ROBIN
    for number, process in enumerate(started[:2], start=1):
        assert process.argv[process.argv.index("--port") + 1] == f"{{server{number}}}"
        assert "--enforce-eager" in process.argv


class Worker:
    """Answers as a vLLM server does, as far as the router asks, and counts."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        worker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                worker.sessions.append(self.headers["x-session-id"])
                self._answer({"choices": []})

            def _answer(self, body: dict) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.mark.parametrize(("arm", "policy"), [("vllm-router", ROUND_ROBIN), ("vllm-router-sessions", CONSISTENT_HASH)])
def test_the_command_of_the_arm_starts_a_router_that_spreads_requests_and_keeps_sessions_together(base, arm, policy):
    pytest.importorskip("vllm_router", reason="needs the laboratory's packages")
    router = processes_of(arm, base)[-1]
    assert policy in router.argv
    workers = [Worker(), Worker()]
    ports = servers.free_ports([router.name, *router.more_ports])
    places = ports | {f"server{n}": worker.server.server_port for n, worker in enumerate(workers, start=1)}
    argv = [servers.filled(part, places | {"python": sys.executable}) for part in router.argv]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{ports['router']}"
    try:
        with httpx.Client(trust_env=False, timeout=10) as client:
            give_up = time.monotonic() + 60
            while True:
                try:
                    if client.get(url + processes.READY_PATH).status_code == 200:
                        break
                except httpx.HTTPError:
                    assert process.poll() is None, process.stdout.read().decode()  # type: ignore[union-attr]
                assert time.monotonic() < give_up
                time.sleep(0.1)
            for session in range(12):
                for _ in range(3):
                    headers = {"x-session-id": f"session {session}"}
                    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
                    assert client.post(f"{url}/v1/chat/completions", json=body, headers=headers).status_code == 200
    finally:
        process.kill()
        process.wait()
        for worker in workers:
            worker.server.shutdown()
            worker.server.server_close()
    first, second = (worker.sessions for worker in workers)
    assert len(first) + len(second) == 36
    if policy == CONSISTENT_HASH:
        assert not set(first) & set(second)
        assert first
        assert second
    else:
        assert (len(first), len(second)) == (18, 18)
