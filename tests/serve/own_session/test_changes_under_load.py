"""Changes under load: the replica count follows it, sessions stay on their replica, and a changed engine starts before the old one stops."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from rayline_cli.local import runtime
from rayline_cli.local.runtime import LocalRuntimeError
from rayline_cli.verify import Outcome, check_switches
from rayline_cli.verify.inside import haproxy_counters
from tests.serve.serving import API_KEY, Served, get, post, ray_service, replicas_of_the_model, run, wait_until, with_model

pytestmark = pytest.mark.full

KEY = {"Authorization": f"Bearer {API_KEY}"}

SCALING = {"target_ongoing_requests": 1, "upscale_delay_seconds": 1, "downscale_delay_seconds": 1}
UNHURRIED = SCALING | {"downscale_delay_seconds": 600}
"""What the load has asked for stays while it loads, also without the load."""


def declared(scaling: dict[str, Any], most: int, **service: Any) -> dict:
    """The RayService with an autoscaled model, which has a spare replica for changes and keeps sessions."""
    common = {"rollout": {"spare_replicas": 1}, "traffic": {"routing": "sessions"}}
    return ray_service(autoscaling=scaling | {"max_replicas": most}, **common, **service)


@pytest.fixture(scope="module")
def autoscaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A session of its own: from a fixed count to autoscaling and back Serve loads every replica anew, which takes minutes."""
    with run(tmp_path_factory.mktemp("autoscaled"), declared(SCALING, 1)) as one:
        yield one


@contextmanager
def load(served: Served, clients: int, tokens: int, pause: float = 0) -> Iterator[list[int]]:
    """So many clients, each asking for an answer again and again, over HAProxy and the direct path. None may fail.

    Yields the answers' numbers of tokens, as they come.
    """
    enough = threading.Event()
    answers: list[int] = []
    failures: list[str] = []

    def client() -> None:
        body = {"model": "tiny", "prompt": "a", "max_tokens": tokens, "ignore_eos": True}
        while not enough.is_set():
            try:
                answer = post(f"{served.running.url}/v1/completions", json=body, headers=KEY)
            except httpx.RemoteProtocolError:
                # HAProxy that is replaced closes connections on which nothing was sent yet. Every client then sends again.
                answer = post(f"{served.running.url}/v1/completions", json=body, headers=KEY)
            if answer.status_code == 200:
                answers.append(answer.json()["usage"]["completion_tokens"])
            else:
                failures.append(f"{answer.status_code} {answer.text[:200]}")
            enough.wait(pause)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert failures == []


def count(served: Served) -> str:
    replicas = runtime.status(served.state_dir).replicas or {}
    return replicas.get("LLMServer:tiny", "")


@dataclass
class Grown:
    """The session while the load has a second replica."""

    served: Served
    before: set[int]


@pytest.fixture(scope="class")
def grown(autoscaled: Served) -> Iterator[Grown]:
    """Given back with one replica."""
    before = replicas_of_the_model(autoscaled)
    autoscaled.up(declared(UNHURRIED, 2))
    assert replicas_of_the_model(autoscaled) == before, "other bounds must not reload what serves"
    with load(autoscaled, clients=4, tokens=900):
        assert wait_until(lambda: count(autoscaled).endswith("/2"), 120), f"no second replica under load: {count(autoscaled)}"
    with load(autoscaled, clients=1, tokens=10, pause=3):
        assert wait_until(lambda: count(autoscaled) == "2/2", 300), f"the second replica does not come: {count(autoscaled)}"
    yield Grown(autoscaled, before)
    autoscaled.up(declared(SCALING, 2))
    assert wait_until(lambda: count(autoscaled) == "1/1", 300), f"the second replica stays without load: {count(autoscaled)}"


def requests_by_replica(served: Served) -> dict[str, int]:
    """HAProxy's count of requests for each replica of the model."""
    rows = haproxy_counters(next(served.session.folder.glob("h/*/admin.sock")))
    return {
        row["svname"]: int(row["req_tot"] or 0) for row in rows if "LLMServer" in row["svname"] and "-via-" in row["pxname"]
    }


def both_answered(served: Served) -> bool:
    """Whether two replicas of the model have answered a request."""
    return sum(count > 0 for count in requests_by_replica(served).values()) == 2


def replicas_that_answered(served: Served, session: str, requests: int) -> set[str]:
    """The replicas that a session's requests reached."""
    counted = requests_by_replica(served)
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
    for _ in range(requests):
        answer = post(f"{served.running.url}/v1/completions", json=body, headers=KEY | {"x-session-id": session})
        assert answer.status_code == 200, answer.text
    now = requests_by_replica(served)
    return {name for name in now if now[name] > counted.get(name, 0)}


class TestWithASecondReplica:
    def test_autoscaling_sees_requests_on_the_direct_path_and_adds_a_replica(self, grown: Grown):
        assert grown.before < replicas_of_the_model(grown.served)

    def test_a_session_stays_on_one_replica_and_sessions_use_both(self, grown: Grown):
        # Serve counts a replica before HAProxy and the router have heard of it.
        others = (f"other-{number}" for number in itertools.count())
        assert wait_until(
            lambda: bool(replicas_that_answered(grown.served, next(others), 1)) and both_answered(grown.served), 120
        )
        replicas_of_sessions = [replicas_that_answered(grown.served, f"session-{number}", 3) for number in range(16)]
        assert {len(replicas) for replicas in replicas_of_sessions} == {1}
        assert len(set().union(*replicas_of_sessions)) == 2
        check = {check.name: check for check in check_switches(grown.served.target())}["sessions"]
        assert check.outcome is Outcome.PASS, check.evidence


def test_an_engine_that_cannot_start_leaves_the_old_replica_serving(autoscaled: Served):
    before = replicas_of_the_model(autoscaled)
    with load(autoscaled, clients=1, tokens=10, pause=0.2) as answers:
        with pytest.raises(LocalRuntimeError, match=r"max_model_len \(100000\) is greater than"):
            autoscaled.up(with_model(declared(SCALING, 1), engine_kwargs={"max_model_len": 100000}))
        answered = len(answers)
        assert wait_until(lambda: len(answers) > answered + 5, 60), "it answers after the failure, too"
    assert before <= replicas_of_the_model(autoscaled)


def test_a_changed_engine_starts_before_the_old_one_stops_and_no_request_fails(autoscaled: Served):
    before = replicas_of_the_model(autoscaled)
    with load(autoscaled, clients=3, tokens=40, pause=0.2) as answers:
        autoscaled.up(declared(SCALING, 1, engine={"max_model_len": 8192}))
        answered = len(answers)
        assert wait_until(lambda: len(answers) > answered + 5, 60)
    after = replicas_of_the_model(autoscaled)
    assert len(after) == 1
    assert before.isdisjoint(after)
    models = get(f"{autoscaled.running.url}/v1/models", headers=KEY)
    assert models.json()["data"][0]["max_model_len"] == 8192
