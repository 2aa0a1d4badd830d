"""Replicas that are added while the time to first token is too long, by a real Prometheus that reads the session's metrics."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import yaml

from rayline.service.reading import RayService
from rayline_cli.local import runtime
from rayline_cli.verify import Outcome
from tests.serve.serving import API_KEY, Served, failed, found, get, post, ray_service, run, wait_until

PROMETHEUS = shutil.which("prometheus")
pytestmark = [pytest.mark.full, pytest.mark.skipif(PROMETHEUS is None, reason="needs Prometheus; not on PATH: prometheus")]
WINDOW_SECONDS = 10
NEVER = 100_000.0
"""Requests in progress that Serve's own policy would add a replica for."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def manifest(prometheus: str) -> dict:
    """The tiny model with a bound that no answer keeps. Only the window of the metric is another one: a test has no minutes."""
    scaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": NEVER,
        "upscale_delay_seconds": 1,
        "downscale_delay_seconds": 5,
        "time_to_first_token_ms": 1,
        "prometheus": prometheus,
    }

    def shorter(config: dict[str, Any]) -> None:
        (deployment,) = [d for d in config["applications"][0]["deployments"] if "autoscaling_config" in d]
        deployment["autoscaling_config"]["policy"]["policy_kwargs"]["window_seconds"] = WINDOW_SECONDS

    return dict(RayService(ray_service(autoscaling=scaling)).with_serve(shorter).manifest)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a Prometheus, and the file in which it finds what it reads."""
    assert PROMETHEUS
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    targets = folder / "targets.yaml"
    targets.write_text("[]")
    scrape = {
        "job_name": "ray",
        "scrape_interval": "1s",
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
    command = [PROMETHEUS, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        assert wait_until(lambda: _ready(url), 30), (folder / "log").read_text()[-2000:]
        yield url, targets
    finally:
        process.terminate()
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        return get(f"{url}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def served(prometheus: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    url, targets = prometheus
    with run(tmp_path_factory.mktemp("state"), manifest(url)) as served:
        targets.write_text(yaml.safe_dump([{"targets": [f"127.0.0.1:{served.session.ports['metrics']}"]}]))
        yield served


def replicas(served: Served) -> str:
    return (runtime.status(served.state_dir).replicas or {}).get("LLMServer:tiny", "")


def check(served: Served) -> tuple[Outcome, str]:
    result = found(served.target())["scaling by time to first token"]
    return result.outcome, result.evidence


def test_verify_sees_that_prometheus_has_the_metric_of_the_replica(served: Served):
    assert wait_until(lambda: check(served)[0] is Outcome.PASS, 60), check(served)
    assert "replica(s) of tiny" in check(served)[1]
    # the requests of `verify` are late too, and a replica that starts meanwhile is a failure of the declared counts
    assert wait_until(lambda: not failed(found(served.target())), 120), failed(found(served.target()))


def test_a_replica_is_added_while_the_first_token_is_too_late_and_goes_without_requests(served: Served):
    assert wait_until(lambda: replicas(served) == "1/1", 120), "without requests one replica is enough"
    body = {"model": "tiny", "prompt": "a", "max_tokens": 1}
    done = Event()

    def client() -> None:
        while not done.is_set():
            answer = post(f"{served.running.url}/v1/completions", json=body, headers={"Authorization": f"Bearer {API_KEY}"})
            assert answer.status_code == 200, answer.text
            done.wait(0.5)

    with ThreadPoolExecutor(1) as clients:
        running = clients.submit(client)
        try:
            assert wait_until(lambda: replicas(served) == "2/2" or running.done(), 240), replicas(served)
        finally:
            done.set()
        running.result()
    assert wait_until(lambda: replicas(served) == "1/1", 120), replicas(served)


def test_verify_fails_where_prometheus_does_not_answer(served: Served):
    target = served.target(manifest(f"http://127.0.0.1:{free_port()}"))
    result = found(target)["scaling by time to first token"]
    assert result.outcome is Outcome.FAIL
    assert "does not answer the head" in result.evidence
