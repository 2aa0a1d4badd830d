"""A second replica joins while the first goes on; limits of requests; then parts of the service are killed under load.

Counts and kinds only: how long things take depends on the machine, and stands in the receipt of `rayline faults`, which also
has what takes minutes: a rolled model, a drain, lost nodes. Scaling and a changed engine under load are in own_session/test_changes_under_load.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import httpx
import pytest

from rayline_bench.faults.rows import FAULTS
from rayline_bench.faults.scenes import LONG_TOKENS, Scene, observe
from rayline_cli.local import runtime
from rayline_cli.verify import Outcome, check_switches
from tests.serve.serving import API_KEY, Served, post, ray_service, replicas_of_the_model


@dataclass
class ScaledUp:
    """The shared session after its count was changed from one replica to two."""

    served: Served
    replicas_before: set[int]
    supervisor_before: int


@pytest.fixture(scope="module")
def scaled_up(served: Served) -> Iterator[ScaledUp]:
    """Given back with one replica."""
    before = ScaledUp(served, replicas_of_the_model(served), served.session.supervisor_pid)
    served.up(ray_service(replicas=2))
    yield before
    served.up(ray_service())


@pytest.fixture
def scene(scaled_up: ScaledUp) -> Scene:
    """The session, whole: each fault begins with two replicas behind one HAProxy."""
    served = scaled_up.served

    def up(**settings: object) -> object:
        return served.up(ray_service(**({"replicas": 2} | settings)))

    scene = Scene(lambda: served.session, served.running.url, "tiny", API_KEY, up, rest_seconds=3)
    scene.settle(replicas=2)
    return scene


def test_a_second_replica_joins_and_the_first_goes_on(scaled_up: ScaledUp):
    served, before = scaled_up.served, scaled_up.replicas_before
    after = replicas_of_the_model(served)
    assert served.session.supervisor_pid == scaled_up.supervisor_before, "Ray was not restarted"
    assert len(before) == 1
    assert len(after) == 2
    assert before < after, "a change of the count must not reload the replica that serves"
    replicas = runtime.status(served.state_dir).replicas
    assert replicas is not None
    assert replicas["LLMServer:tiny"] == "2/2"


def ask(served: Served, tokens: int = 1) -> httpx.Response:
    body = {"model": "tiny", "prompt": "a", "max_tokens": tokens, "ignore_eos": True}
    return post(f"{served.running.url}/v1/completions", json=body, headers={"Authorization": f"Bearer {API_KEY}"})


def test_verify_sees_that_turns_of_a_session_go_to_several_replicas_without_sessions(scaled_up: ScaledUp):
    served = scaled_up.served
    expected = ray_service(replicas=2, traffic={"routing": "sessions"})
    check = {check.name: check for check in check_switches(served.target(expected))}["sessions"]
    assert check.outcome is Outcome.FAIL, check.evidence


def test_what_is_beyond_the_limits_is_refused_at_once_and_nothing_else_fails(scaled_up: ScaledUp):
    served, before = scaled_up.served, replicas_of_the_model(scaled_up.served)
    served.up(ray_service(replicas=2, traffic={"max_in_progress": 2, "max_queued": 2, "retry_after_seconds": 7}))
    assert replicas_of_the_model(served) == before, "limits change without a new replica"
    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda _: ask(served, tokens=100), range(24)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {429}
    assert {answer.headers["retry-after"] for answer in refused} == {"7"}
    assert len(answers) - len(refused) >= 8, "two in progress and two in the queue of each replica"
    served.up(ray_service(replicas=2))
    with ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda _: ask(served), range(24)))
    assert {answer.status_code for answer in answers} == {200}, "without limits all wait"


def test_a_killed_replica_takes_its_own_streams_and_no_others(scene: Scene):
    seen = observe(scene, FAULTS["replica"])
    assert seen.failed_on_it > 0, "streams of a killed process cannot be finished by another"
    assert seen.failed_elsewhere == 0, seen
    assert seen.failed_new == 0, "HAProxy sends new requests to the other replica"


def test_a_killed_router_cuts_no_stream_not_even_through_reloads_of_haproxy(scene: Scene):
    seen = observe(scene, replace(FAULTS["reload"], long_tokens=LONG_TOKENS))
    assert seen.running_on_it > 0
    assert seen.failed_on_it == seen.failed_elsewhere == 0, "tokens do not pass the router"
    assert set(seen.failed) <= {"HTTP 503 router_unreachable"}, "new requests wait for the next router"


def test_a_killed_haproxy_takes_every_stream_of_its_node_and_comes_back(scene: Scene):
    seen = observe(scene, FAULTS["haproxy"])
    assert seen.failed_on_it == seen.running_on_it > 0, "every stream passed the killed process"
    # 404: a new HAProxy listens before it knows the routes
    allowed = {"stream cut", "connection closed before an answer", "connection refused", "HTTP 404"}
    assert set(seen.failed) <= allowed, seen
