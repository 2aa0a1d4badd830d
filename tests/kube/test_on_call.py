"""What `rayline status`, `logs` and `key` say of the service on a real cluster: while it serves, and after a crash."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.kube.cluster import kubectl, objects, wait_until
from tests.kube.conftest import NAMESPACE, SERVICE, Stack
from tests.pulumi_project import ROOT

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.timeout(2400)]


def rayline(command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A command as a person calls it."""
    line = [sys.executable, "-m", "rayline_cli.cli", command, "--stack", "kind", *options]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)


def status() -> dict[str, Any]:
    return json.loads(rayline("status", "--json").stdout)[SERVICE]


def names(role: str) -> set[str]:
    found = objects("pods", NAMESPACE, f"rayline/service={SERVICE},ray.io/node-type={role}")
    return {pod["metadata"]["name"] for pod in found}


def serving_worker() -> str:
    """A worker with a replica: one without is never ready."""
    found = objects("pods", NAMESPACE, f"rayline/service={SERVICE},ray.io/node-type=worker")
    ready = [pod for pod in found if any(one["ready"] for one in pod["status"].get("containerStatuses", []))]
    return ready[0]["metadata"]["name"]


def test_status_shows_what_serves_and_its_pods(stack: Stack) -> None:
    wait_until(lambda: status()["healthy"], "the service is healthy", 600, every=10)
    found = status()
    assert found["detail"] == "serving"
    assert set(found["applications"].values()) == {"RUNNING"}
    assert set(found["pods"]) == names("head") | names("worker")


def test_logs_bring_rays_files_of_each_pod_and_the_operators_output_and_no_key(stack: Stack) -> None:
    shown = rayline("logs", "--lines", "5").stdout
    for pod in names("head") | names("worker"):
        assert f"==> {pod}:raylet.out <==" in shown
    assert "serve/controller_" in shown
    # vLLM's own words are in the output of the worker's processes
    assert f"==> {serving_worker()}:worker-" in shown
    assert "==> kuberay-operator-" in rayline("logs", "--component", "operator").stdout
    assert stack.api_key() not in shown


def test_key_prints_the_key_that_clients_send(stack: Stack) -> None:
    assert rayline("key").stdout.strip() == stack.api_key()


@pytest.mark.parametrize("command", ["status", "logs", "key", "verify"])
def test_a_context_that_is_not_there_is_refused_with_where_to_find_them(stack: Stack, command: str) -> None:
    done = rayline(command, "--context", "rayline-nowhere")
    assert done.returncode == 1
    assert 'context "rayline-nowhere" does not exist. Fix: name one of `kubectl config get-contexts`' in done.stderr


def test_a_ray_container_that_was_killed_is_told_when_its_pod_is_gone(stack: Stack) -> None:
    """With Ray's autoscaler pods do not restart: KubeRay deletes this one within a second, and its logs with it."""
    victim = serving_worker()
    # SIGTERM is handled by `ray start --block`, which ends; PID 1 of a container ignores a SIGKILL from inside of it
    kubectl("-n", NAMESPACE, "exec", victim, "-c", "ray-worker", "--", "sh", "-c", "kill 1")
    wait_until(lambda: victim in status()["crashed"], "the crash is told", 240)
    assert "worker, ended with " in status()["crashed"][victim]
    assert f"==> {victim}: worker, ended with " in rayline("logs", "--component", "haproxy").stdout
    wait_until(lambda: status()["healthy"], "another worker serves", 600, every=10)
