"""The replica count follows the load, without a reload of what serves already."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from rayline_cli.local import runtime
from tests.serve.serving import API_KEY, PATIENCE, Served, ray_service, replicas_of_the_model, run, wait_until

SCALING = {"target_ongoing_requests": 1, "upscale_delay_seconds": 1, "downscale_delay_seconds": 1}
UNHURRIED = SCALING | {"downscale_delay_seconds": 600}
"""What the load has asked for stays while it loads, also without the load."""


@pytest.fixture
def autoscaled(tmp_path: Path) -> Iterator[Served]:
    """A session of its own: from a fixed count to autoscaling and back Serve loads every replica anew, which takes minutes."""
    with run(tmp_path, ray_service(autoscaling=SCALING | {"max_replicas": 1})) as one:
        yield one


@contextmanager
def load(served: Served, clients: int, tokens: int, pause: float = 0) -> Iterator[None]:
    """So many clients, each asking for an answer again and again, over HAProxy and the direct path. None may fail."""
    enough = threading.Event()
    failures: list[str] = []

    def client() -> None:
        body = {"model": "tiny", "prompt": "a", "max_tokens": tokens, "ignore_eos": True}
        while not enough.is_set():
            answer = httpx.post(
                f"{served.running.url}/v1/completions",
                json=body,
                headers={"Authorization": f"Bearer {API_KEY}"},
                timeout=PATIENCE,
                trust_env=False,
            )
            if answer.status_code != 200:
                failures.append(f"{answer.status_code} {answer.text[:200]}")
            enough.wait(pause)

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
    autoscaled.up(ray_service(autoscaling=UNHURRIED | {"max_replicas": 2}))
    assert replicas_of_the_model(autoscaled) == before, "other bounds must not reload what serves"

    def count() -> str:
        replicas = runtime.status(autoscaled.state_dir).replicas or {}
        return replicas.get("LLMServer:tiny", "")

    with load(autoscaled, clients=4, tokens=900):
        assert wait_until(lambda: count().endswith("/2"), 120), f"no second replica asked for under load: {count()}"
    with load(autoscaled, clients=1, tokens=10, pause=3):
        assert wait_until(lambda: count() == "2/2", 300), f"the second replica does not come: {count()}"
        assert before < replicas_of_the_model(autoscaled)
    autoscaled.up(ray_service(autoscaling=SCALING | {"max_replicas": 2}))
    assert wait_until(lambda: count() == "1/1", 300), f"the second replica stays without load: {count()}"
