"""`rayline status`, `logs` and `key` of a service in a cluster, seen through kubectl."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from rayline.service.api_key import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret
from rayline_cli import cli
from tests.unit.fake_cluster import HEAD, SERVICE, WORKER, FakeCluster


def rayline(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, [arguments[0], "--stack", "kind", *arguments[1:]])


def test_a_service_that_serves_is_shown_with_its_replicas_and_pods(fake: FakeCluster):
    result = rayline("status")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert f"{SERVICE}: serving" in text
    assert f"http://{SERVICE}-serve-svc.rayline:8000/v1 in the cluster" in text
    assert "application llm RUNNING" in text
    assert "replicas 1/1 LLMServer:" in text
    assert f"pod {HEAD} head, Running" in text


def test_the_status_of_each_service_is_data_for_a_script(fake: FakeCluster):
    found = json.loads(rayline("status", "--json").stdout)[SERVICE]
    assert (found["healthy"], found["conditions"]["Ready"]) == (True, "True")
    assert found["applications"] == {"llm": "RUNNING"}


def test_a_pod_that_cannot_start_is_shown_with_its_reason_and_the_exit_code_is_1(fake: FakeCluster):
    fake.ray_service["status"]["conditions"][0] = {"type": "Ready", "status": "False", "message": "no endpoints"}
    worker = next(pod for pod in fake.pods if pod["metadata"]["name"] == WORKER)
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    worker["status"] = {
        "phase": "Pending",
        "containerStatuses": [{"name": "ray-worker", "state": {"waiting": waiting}, "restartCount": 3}],
        "conditions": [{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3 nodes are available"}],
    }
    fake.save()
    result = rayline("status")
    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert "no endpoints" in text
    assert "ray-worker waits: ImagePullBackOff Back-off pulling image" in text
    assert "restarted 3 times" in text
    assert "unschedulable: 0/3 nodes are available" in text


def test_a_service_that_was_never_deployed_is_said_so(fake: FakeCluster):
    fake.ray_service["metadata"]["name"] = "other"
    fake.save()
    result = rayline("status")
    assert result.exit_code == 1
    assert f"no RayService {SERVICE} in namespace" in " ".join(result.output.split())


def test_the_logs_of_a_crash_are_shown_with_those_of_the_container_that_followed(fake: FakeCluster):
    for pod in fake.pods:
        pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "ray", "restartCount": 0}]}
        fake.logs[f"{pod['metadata']['name']} -c ray --tail=5"] = "runs"
        fake.files[pod["metadata"]["name"]] = "==> serve/controller_1.log <==\ndeployed"
    fake.pods[0]["status"]["containerStatuses"][0]["restartCount"] = 1
    fake.logs[f"{WORKER} -c ray --tail=5 --previous"] = "CUDA error"
    fake.save()
    result = rayline("logs", "--lines", "5")
    assert result.exit_code == 0, result.output
    assert result.stdout.index("CUDA error") < result.stdout.rindex("runs")
    assert f"{WORKER}/ray before its last restart" in result.stdout
    assert "deployed" in result.stdout


def test_the_logs_of_one_component_are_its_files_alone(fake: FakeCluster):
    for pod in fake.pods:
        fake.files[pod["metadata"]["name"]] = "a line of the replica"
    fake.save()
    assert "a line of the replica" in rayline("logs", "--component", "replica").stdout
    calls = [json.loads(line) for line in (fake.folder / "calls").read_text().splitlines()]
    script = next(call[-1] for call in calls if "sh" in call)
    assert "serve/replica_*.log" in script
    assert "controller" not in script


def test_an_unknown_component_is_refused_with_the_known_ones(fake: FakeCluster):
    result = rayline("logs", "--component", "proxy")
    assert result.exit_code == 2
    assert "--component proxy: unknown. Fix: one of ray, dashboard, controller, replica, haproxy, operator" in " ".join(
        result.output.split()
    )


@pytest.mark.parametrize(
    ("options", "shown"), [([], "sk-current\n"), (["--service", SERVICE, "--context", "mine"], "sk-current\n")]
)
def test_the_key_comes_from_the_secret_of_the_service(fake: FakeCluster, options: list[str], shown: str):
    fake.secrets[api_key_secret(SERVICE)] = {API_KEY_KEY: "sk-current", PREVIOUS_API_KEY_KEY: ""}
    fake.save()
    result = rayline("key", *options)
    assert (result.exit_code, result.stdout) == (0, shown)


def test_a_first_key_has_no_previous_one(fake: FakeCluster):
    result = rayline("key", "--previous")
    assert result.exit_code == 1
    assert "has its first key" in result.output
