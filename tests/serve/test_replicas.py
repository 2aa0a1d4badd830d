"""The replica count follows the stack file, or the load, without a reload of what serves already."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rayline.local import runtime
from tests.serve.serving import API_KEY, Served, ray_service, run, wait_until


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


SCALING = {"target_ongoing_requests": 1, "upscale_delay_seconds": 1, "downscale_delay_seconds": 1}


@pytest.fixture
def autoscaled(tmp_path: Path) -> Iterator[Served]:
    """A session of its own: from a fixed count to autoscaling and back Serve loads every replica anew, which takes minutes."""
    with run(tmp_path, ray_service(autoscaling=SCALING | {"max_replicas": 1})) as one:
        yield one


@contextmanager
def load(served: Served, clients: int) -> Iterator[None]:
    """So many clients, each asking for a long answer again and again, over HAProxy and the direct path."""
    enough = threading.Event()
    failures: list[str] = []

    def client() -> None:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 900, "ignore_eos": True}
        while not enough.is_set():
            answer = httpx.post(
                f"{served.running.url}/v1/completions",
                json=body,
                headers={"Authorization": f"Bearer {API_KEY}"},
                timeout=120,
                trust_env=False,
            )
            if answer.status_code != 200:
                failures.append(f"{answer.status_code} {answer.text[:200]}")

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_autoscaling_sees_requests_on_the_direct_path_and_adds_a_replica(autoscaled: Served):
    before = replicas_of_the_model(autoscaled)
    autoscaled.up(ray_service(autoscaling=SCALING | {"max_replicas": 2}))
    assert replicas_of_the_model(autoscaled) == before, "other bounds must not reload what serves"

    def count() -> str:
        replicas = runtime.status(autoscaled.state_dir).replicas or {}
        return replicas.get("LLMServer:tiny", "")

    with load(autoscaled, clients=4):
        assert wait_until(lambda: count() == "2/2", 300), f"no second replica under load: {count()}"
        assert before < replicas_of_the_model(autoscaled)
    assert wait_until(lambda: count() == "1/1", 300), f"the second replica stays without load: {count()}"
