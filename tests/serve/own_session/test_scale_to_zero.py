"""A service without load stops its last replica, holds the requests that come then, and answers them when a replica runs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from rayline_cli.local import runtime
from rayline_cli.verify import Outcome
from rayline_cli.verify.inside import haproxy_counters
from tests.serve.serving import API_KEY, Served, failed, found, get, post, ray_service, replicas_of_the_model, run, wait_until

pytestmark = pytest.mark.full

KEY = {"Authorization": f"Bearer {API_KEY}"}
ZERO = {
    "min_replicas": 0,
    "max_replicas": 1,
    "target_ongoing_requests": 8,
    "upscale_delay_seconds": 1,
    "downscale_delay_seconds": 1,
    "downscale_to_zero_delay_seconds": 10,
}
COLD_START = 3600.0
"""Seconds for a request that waits for a replica, which starts slowly on a busy machine."""
REQUESTS = 6


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with run(tmp_path_factory.mktemp("zero"), ray_service(autoscaling=ZERO)) as session:
        yield session


@pytest.fixture
def at_zero(served: Served) -> Served:
    """The session without a replica, as HAProxy sees it too, and without its processes."""
    assert wait_until(lambda: count(served) == "0/0", 300), f"the last replica stays without load: {count(served)}"
    assert wait_until(lambda: not servers_of_the_model(served), 60)
    assert wait_until(lambda: not replicas_of_the_model(served), 60), "the processes of the last replica stay"
    return served


def servers_of_the_model(served: Served) -> list[str]:
    """HAProxy's servers that are replicas of the model."""
    (socket,) = served.session.folder.glob("h/*/admin.sock")
    return [row["svname"] for row in haproxy_counters(socket) if "LLMServer" in row["svname"]]


def count(served: Served) -> str:
    return (runtime.status(served.state_dir).replicas or {}).get("LLMServer:tiny", "")


def completion(served: Served, number: int) -> httpx.Response:
    body = {"model": "tiny", "prompt": f"{number} a", "max_tokens": 5, "ignore_eos": True}
    return post(f"{served.running.url}/v1/completions", json=body, headers=KEY, timeout=COLD_START)


def test_a_new_service_loads_the_model_before_it_counts_as_running(served: Served):
    assert failed({check.name: check for check in served.running.checks}) == {}
    assert served.running.answer is not None


def test_without_load_no_process_of_a_replica_runs_and_the_endpoint_stays_healthy(at_zero: Served):
    assert replicas_of_the_model(at_zero) == set()
    status = runtime.status(at_zero.state_dir)
    assert status.healthy
    assert status.detail == "serving; the next request starts a replica of LLMServer:tiny"
    # the load balancer's health check, which starts nothing
    assert get(f"{at_zero.running.url}/-/healthz").status_code == 200


def test_a_request_without_the_key_is_refused_at_once_and_starts_nothing(at_zero: Served):
    # a request that Serve takes has no answer while there is no replica, so each answer is the gate's
    for path in ("/v1/models", "/", "/metrics"):
        assert get(f"{at_zero.running.url}{path}").status_code == 401
    assert post(f"{at_zero.running.url}/v1/completions", json={"model": "tiny", "prompt": "a"}).status_code == 401
    assert count(at_zero) == "0/0"


def test_all_requests_at_zero_are_held_and_answered(at_zero: Served):
    with ThreadPoolExecutor(REQUESTS) as pool:
        answers = list(pool.map(lambda number: completion(at_zero, number), range(REQUESTS)))
    assert [answer.status_code for answer in answers] == [200] * REQUESTS
    assert [answer.json()["usage"]["completion_tokens"] for answer in answers] == [5] * REQUESTS
    assert len(replicas_of_the_model(at_zero)) == 1


def test_verify_loads_the_model_with_its_own_request_and_finds_nothing_wrong(at_zero: Served):
    checks = found(at_zero.target())
    assert failed(checks) == {}
    zero = checks["scale to zero"]
    assert zero.outcome is Outcome.PASS
    assert "without a replica a request without the key got HTTP 401; one with it was answered" in zero.evidence


def test_up_again_at_zero_keeps_the_session_and_answers(at_zero: Served):
    session = at_zero.session.supervisor_pid
    running = at_zero.up(at_zero.manifest)
    assert at_zero.session.supervisor_pid == session
    assert running.answer is not None
    assert failed({check.name: check for check in running.checks}) == {}
