"""The replica count follows the stack file without a reload of what serves already."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving import Served, ray_service

from rayline.local import runtime


def replicas_of_the_model(served: Served) -> set[int]:
    """Process ids of the replicas that run the model."""
    title = "ray::ServeReplica:llm:LLMServer"
    return {process.pid for process in served.session.processes() if " ".join(process.cmdline()).startswith(title)}


@pytest.fixture
def one_replica(served: Served) -> Iterator[Served]:
    """The shared session, which is given back as it was."""
    yield served
    served.up(ray_service())


def test_a_second_replica_joins_and_the_first_goes_on(one_replica: Served):
    before = replicas_of_the_model(one_replica)
    ray_before = one_replica.session.supervisor_pid
    one_replica.up(ray_service(replicas=2))
    after = replicas_of_the_model(one_replica)
    assert one_replica.session.supervisor_pid == ray_before, "Ray was not restarted"
    assert len(before) == 1
    assert len(after) == 2
    assert before < after, "a change of the count must not reload the replica that serves"
    replicas = runtime.status(one_replica.state_dir).replicas
    assert replicas is not None
    assert replicas["LLMServer:tiny"] == "2/2"
