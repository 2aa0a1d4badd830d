"""A second replica joins while the first goes on; then parts of the service with two replicas are killed under load.

Counts and kinds only: how long things take depends on the machine, and stands in the receipt of `rayline faults`, which also
has what takes minutes: a rolled model, a drain, lost nodes. Scaling under load is in test_autoscaling.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from rayline_bench.faults.rows import FAULTS
from rayline_bench.faults.scenes import LONG_TOKENS, Scene, observe
from rayline_cli.local import runtime
from tests.serve.serving import API_KEY, Served, ray_service, replicas_of_the_model


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
