"""`rayline status`, `logs` and `key` of a service in a cluster, seen through kubectl."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from components.api_key_manifests import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret
from rayline import cli
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


NO_PLUGIN = """E1128 08:16:02.1 3056 memcache.go:265] "Unhandled Error" err=<
\tcouldn't get current server API group list: Get "https://192.0.2.1/api?timeout=32s": getting credentials: exec: \
executable gke-gcloud-auth-plugin not found
\t
\tInstall gke-gcloud-auth-plugin for use with kubectl
 >
Unable to connect to the server: getting credentials: exec: executable gke-gcloud-auth-plugin not found

Install gke-gcloud-auth-plugin for use with kubectl"""
LOGGED_OUT = """F1128 08:13:42.499223    3063 cred.go:145] print credential failed with error: Failed to retrieve access token (
Please run:

  $ gcloud auth login

)
F1128 08:13:46.736648    3150 cred.go:145] print credential failed with error: Failed to retrieve access token (
Please run:

  $ gcloud auth login

)
Unable to connect to the server: getting credentials: exec: executable gke-gcloud-auth-plugin failed with exit code 1"""
REFUSED = "The connection to the server 192.0.2.1:6443 was refused - did you specify the right host or port?"


@pytest.mark.parametrize(
    ("said", "wrong", "fix"),
    [
        (NO_PLUGIN, "executable gke-gcloud-auth-plugin not found", "gcloud components install gke-gcloud-auth-plugin"),
        (LOGGED_OUT, "getting credentials", "gcloud auth login"),
        (REFUSED, "192.0.2.1:6443 was refused", "start the cluster"),
        (REFUSED.replace("192.0.2.1:6443", "localhost:8080"), "localhost:8080 was refused", "set KUBECONFIG"),
        ('error: context "nowhere" does not exist', 'context "nowhere" does not exist', "kubectl config get-contexts"),
        ("error: stat /gone: no such file or directory", "stat /gone", "cluster.kubeconfig"),
        ('error: error loading config file "/bad": yaml: line 1', '"/bad"', "has to name a kubeconfig"),
        ("error: You must be logged in to the server (Unauthorized)", "Unauthorized", "log in to the cluster again"),
        (
            "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown authority",
            "x509",
            "get the cluster's kubeconfig again",
        ),
        (
            'Error from server (Forbidden): rayservices.ray.io "chat" is forbidden: User "eve" cannot get resource',
            'User "eve" cannot get resource',
            "docs/operations.md",
        ),
        ('error: the server doesn\'t have a resource type "rayservice"', "resource type", "KubeRay is not installed"),
    ],
)
@pytest.mark.parametrize("command", ["status", "logs", "key", "verify"])
def test_a_cluster_that_cannot_be_asked_is_never_taken_for_one_without_the_service(
    fake: FakeCluster, command: str, said: str, wrong: str, fix: str
):
    fake.refusals["broken"] = said
    fake.save()
    result = rayline(command, "--context", "broken")
    assert (result.exit_code, result.stdout.count("Traceback")) == (1, 0)
    assert wrong in result.stderr
    assert fix in result.stderr.partition("Fix: ")[2]
    # neither the library's own log, nor what is said at each attempt
    assert "memcache.go" not in result.stderr
    assert result.stderr.count("gcloud auth login") <= 2


@pytest.mark.parametrize("command", ["status", "logs", "key", "verify"])
def test_a_service_that_was_never_deployed_is_said_so_by_each_command(fake: FakeCluster, command: str):
    fake.ray_service["metadata"]["name"] = "other"
    fake.pods = []
    fake.save()
    result = rayline(command)
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert (
        f"the cluster has no RayService {SERVICE} in namespace rayline, so {SERVICE} is not deployed there. Fix: "
        in said
    )
    fake.namespaces = []
    fake.save()
    assert "the cluster has no namespace rayline, so" in " ".join(rayline(command).output.split())


def test_the_logs_of_a_parked_service_say_that_it_is_parked(fake: FakeCluster):
    fake.ray_service["spec"]["suspend"] = True
    fake.pods = []
    fake.save()
    result = rayline("logs")
    assert result.exit_code == 1
    assert f"service {SERVICE} is parked: it has no pod" in result.stderr
    assert f"Fix: services.{SERVICE}.park: false" in result.stderr


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
