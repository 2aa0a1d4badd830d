"""`rayline verify` on real sessions: it passes on the fast path, fails for each switch that is off, and sees what somebody breaks."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rayline_cli.local.session import SESSION_VARIABLE
from rayline_cli.verify import Outcome
from rayline_cli.verify.outside import UrlTarget
from tests.serve.serving import API_KEY, Served, failed, found, ray_service


def test_a_session_that_another_process_started_is_verified(served: Served):
    checks = found(served.target())
    assert failed(checks) == {}
    assert checks.pop("vLLM's Ray executor V2").outcome is Outcome.NOT_APPLICABLE
    assert {check.outcome for check in checks.values()} == {Outcome.PASS}


def test_the_bytes_of_a_stream_are_counted_at_the_replicas_server(served: Served):
    evidence = found(served.target())["direct streaming: path of the tokens"].evidence
    numbers = re.search(r"(\d+) bytes of a stream came, HAProxy counts (\d+) .* and (\d+) from others", evidence)
    assert numbers, evidence
    came, direct, other = map(int, numbers.groups())
    assert 0 < came <= direct
    assert other == 0


def test_another_expectation_fails_the_check_that_it_concerns(served: Served):
    env = {"RAY_SERVE_HAPROXY_NBTHREAD": "3", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}
    problems = failed(found(served.target(ray_service(pods={"env": env}, api={"served_model_name": "other"}))))
    assert "RAY_SERVE_HAPROXY_NBTHREAD='1' (declared '3') in ray::ServeController" in problems["environment parity"]
    assert "lacks other" in problems["model list"]
    assert "still runs the previous configuration" in problems["declared configuration"]


@contextmanager
def out_of_service(served: Served) -> Iterator[None]:
    """The model's server taken out of HAProxy, at its own admin socket."""
    config = next(served.session.folder.glob("h/*/haproxy.cfg"))
    (name,) = set(re.findall(r"server (SERVE_REPLICA\S*LLMServer\S*) ", config.read_text()))
    backend = re.search(r"^backend (\S+)-via-ingress-request-router", config.read_text(), re.M)
    assert backend

    def say(state: str) -> None:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(config.with_name("admin.sock")))
            one.sendall(f"set server {backend[1]}/{name} state {state}\n".encode())
            assert one.recv(1000).strip() == b""

    say("maint")
    try:
        yield
    finally:
        say("ready")


def test_a_server_that_is_out_of_service_is_seen(served: Served):
    with out_of_service(served):
        problems = failed(found(served.target()))
    assert "is not UP" in problems["HAProxy: replicas as servers"]
    assert "direct streaming: path of the tokens" in problems


def test_a_listener_that_others_could_reach_is_seen(served: Served):
    code = (
        "import socket, sys; s = socket.create_server(('0.0.0.0', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={SESSION_VARIABLE: served.session.id},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        evidence = failed(found(served.target()))["reachable from outside"]
    finally:
        process.communicate()
    assert f"0.0.0.0:{port}" in evidence


def test_an_address_is_verified_with_what_a_client_sees(served: Served):
    checks = found(UrlTarget(f"{served.running.url}/v1", API_KEY))
    assert failed(checks) == {}
    judged = {name for name, check in checks.items() if check.outcome is Outcome.PASS}
    assert judged == {"direct streaming: deployments", "model list", "streamed completion", "API key"}


def test_an_address_with_a_wrong_key_fails_and_says_where_the_key_belongs(served: Served):
    checks = found(UrlTarget(served.running.url, "sk-wrong"))
    assert set(failed(checks)) == {"direct streaming: deployments", "model list", "streamed completion", "API key"}
    assert "RAYLINE_API_KEY" in checks["model list"].fix
