"""What clients see when a part of a service with two replicas is killed under load.

Counts and kinds only: how long things take depends on the machine, and stands in the receipt of `python -m rayline.faults`, which also
has what takes minutes: a rolled model, a drain, lost nodes. Scaling under load is in test_replicas.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rayline.faults import scenarios
from rayline.faults.scenarios import Scene
from tests.serve.serving import API_KEY, Served, ray_service, run

# Room for streams that outlast a change; an event for each token, by which they are counted.
SERVICE = {"replicas": 2, "max_model_len": 16384, "stream_interval": 1}


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One session for all faults of this file."""
    with run(tmp_path_factory.mktemp("faults"), ray_service(**SERVICE)) as one:
        yield one


@pytest.fixture
def scene(two_replicas: Served) -> Scene:
    """The session, whole: each fault begins with two replicas behind one HAProxy."""

    def up(**settings: object) -> object:
        return two_replicas.up(ray_service(**(SERVICE | settings)))

    scene = Scene(lambda: two_replicas.session, two_replicas.running.url, "tiny", API_KEY, up)
    scene.settle(replicas=2)
    return scene


def test_a_killed_replica_takes_its_own_streams_and_no_others(scene: Scene):
    seen = scenarios.replica_killed(scene)
    assert seen.failed_on_it > 0, "streams of a killed process cannot be finished by another"
    assert seen.failed_elsewhere == 0, seen
    assert seen.failed_new == 0, "HAProxy sends new requests to the other replica"


def test_a_killed_router_cuts_no_stream_not_even_through_reloads_of_haproxy(scene: Scene):
    seen = scenarios.reloaded_under_long_streams(scene, replicas=2)
    assert seen.running_on_it > 0
    assert seen.failed_on_it == seen.failed_elsewhere == 0, "tokens do not pass the router"
    assert set(seen.failed) <= {"HTTP 503 router_unreachable"}, "new requests wait for the next router"


def test_a_killed_haproxy_takes_every_stream_of_its_node_and_comes_back(scene: Scene):
    seen = scenarios.haproxy_killed(scene)
    assert seen.failed_on_it == seen.running_on_it > 0, "every stream passed the killed process"
    # 404: a new HAProxy listens before it knows the routes
    allowed = {"stream cut", "connection closed before an answer", "connection refused", "HTTP 404"}
    assert set(seen.failed) <= allowed, seen
