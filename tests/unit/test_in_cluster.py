"""`rayline status`, `logs` and `key` of a service in a cluster, seen through kubectl."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rayline.isolation.manifests import OPERATOR_POD
from rayline.service.api_key import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret
from rayline_cli import cli
from tests.unit.fake_cluster import ACTIVE, HEAD, SERVICE, WORKER, FakeCluster


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
        ('error: error loading config file "/bad": yaml: line 1', '"/bad"', "to a kubeconfig that exists and can be read"),
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
        (
            'Error from server (Forbidden): configurations.example.com "chat" is forbidden: User "eve" cannot get it',
            'User "eve" cannot get it',
            "docs/operations.md",
        ),
        ('error: the server doesn\'t have a resource type "rayservice"', "resource type", "KubeRay is not installed"),
    ],
)
@pytest.mark.parametrize("command", ["status", "logs", "key", "verify"])
def test_an_unreachable_cluster_is_not_reported_as_a_missing_service(
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
    assert f"the cluster has no RayService {SERVICE} in namespace rayline, so {SERVICE} is not deployed there. Fix: " in said
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


CRASH = (
    "Deleted worker Pod rayline/{pod}; Pod status: Running; Pod restart policy: Never; Ray container terminated status: "
    "&ContainerStateTerminated{{ExitCode:137,Signal:0,Reason:OOMKilled,Message:,StartedAt:2026-11-28 08:44:26 +0000 UTC,"
    "FinishedAt:2026-11-28 08:{minute:02}:51 +0000 UTC,ContainerID:containerd://d75023f6,}}"
)


def crash(cluster: str, pod: str, minute: int) -> dict[str, Any]:
    """The event of KubeRay 1.7.0 for a pod whose Ray container was killed."""
    return {"involvedObject": {"name": cluster}, "message": CRASH.format(pod=pod, minute=minute)}


@pytest.mark.parametrize("command", ["status", "logs"])
def test_status_lists_crashed_pods_with_reasons_newest_last(fake: FakeCluster, command: str):
    fake.events = [crash(ACTIVE, f"{ACTIVE}-worker-{minute}", minute) for minute in (49, 10, 11, 12, 13, 14)]
    fake.events += [
        # of another service, of a pod that is still there, and no crash at all
        crash("chat-two-9xkqs", "chat-two-9xkqs-worker-1", 50),
        crash(ACTIVE, HEAD, 48),
        {"involvedObject": {"name": ACTIVE}, "message": "Created worker Pod rayline/chat-9xkqs-worker-7"},
    ]
    for pod in fake.pods:
        fake.files[pod["metadata"]["name"]] = ""
    fake.save()
    said = rayline(command).stdout
    told = [line for line in said.splitlines() if "OOMKilled" in line]
    assert [re.search(r"worker-(\d+)", line)[1] for line in told] == ["11", "12", "13", "14", "49"]  # type: ignore[index]
    assert "worker, ended with 137: OOMKilled at 2026-11-28 08:49:51 UTC" in told[-1]


def test_the_files_of_a_head_whose_ray_has_ended_are_read_beside_it(fake: FakeCluster):
    head = next(pod for pod in fake.pods if pod["metadata"]["name"] == HEAD)
    ray = next(one["name"] for one in head["spec"]["containers"] if one["name"] == "ray-head")
    ended = {"name": ray, "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    head["status"]["containerStatuses"] = [{"name": "autoscaler", "state": {"running": {}}}, ended]
    head["spec"]["containers"].append({"name": "autoscaler", "volumeMounts": [{"mountPath": "/tmp/ray"}]})
    for pod in fake.pods:
        fake.files[pod["metadata"]["name"]] = f"a line of {pod['metadata']['name']}"
    fake.save()
    assert f"a line of {HEAD}" in rayline("logs", "--component", "dashboard").stdout
    calls = [json.loads(line) for line in (fake.folder / "calls").read_text().splitlines()]
    readers = {call[call.index("exec") + 1]: call[call.index("-c") + 1] for call in calls if "exec" in call}
    assert (readers[HEAD], readers[WORKER]) == ("autoscaler", "ray-worker")


def test_output_that_is_no_text_is_shown_all_the_same(fake: FakeCluster):
    fake.pods = fake.pods[:1]
    fake.pods[0]["status"] = {"phase": "Pending", "containerStatuses": [{"name": "ray", "restartCount": 0}]}
    fake.logs[f"{WORKER} -c ray --tail=40"] = "before \xff after"
    fake.save()
    result = rayline("logs")
    assert result.exit_code == 0, result.output
    assert "before \ufffd after" in result.stdout


def test_the_operators_logs_come_with_those_of_its_last_crash(fake: FakeCluster):
    operator = {"metadata": {"name": "kuberay-operator-1", "labels": dict(OPERATOR_POD)}}
    operator["status"] = {"containerStatuses": [{"name": "kuberay-operator", "restartCount": 2}]}
    fake.pods.append(operator)
    fake.logs["kuberay-operator-1 -c kuberay-operator --tail=40"] = "reconciles"
    fake.logs["kuberay-operator-1 -c kuberay-operator --tail=40 --previous"] = "leader election lost"
    fake.save()
    said = rayline("logs", "--component", "operator").stdout
    assert said.index("leader election lost") < said.index("reconciles")


def test_a_cluster_without_an_operator_is_said_with_where_else_to_look(fake: FakeCluster):
    result = rayline("logs", "--component", "operator")
    assert result.exit_code == 1
    assert "no KubeRay operator in namespace kuberay-system. Fix: isolation.operator_namespace" in result.stderr


@pytest.mark.parametrize("which", ["activeServiceStatus", "pendingServiceStatus"])
def test_status_shows_serves_reason_for_a_service_that_fails_to_start(fake: FakeCluster, which: str):
    state = fake.ray_service["status"]
    state[which] = state.pop("activeServiceStatus")
    state["conditions"][0] = {"type": "Ready", "status": "False", "message": "RayService is initializing"}
    application = fake.details["applications"]["llm"]
    application["status"] = "DEPLOY_FAILED"
    deployment = next(one for name, one in application["deployments"].items() if name.startswith("LLMServer"))
    deployment["status"] = "DEPLOY_FAILED"
    deployment["message"] = "Failed to start 3 times in a row. Error:\nTraceback\nValueError: no room for max_model_len"
    fake.save()
    result = rayline("status")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())
    assert "Failed to start 3 times in a row. Error: ValueError: no room for max_model_len" in said
    assert "application llm DEPLOY_FAILED" in said
    assert "replicas 1/1 LLMServer" in said


def test_where_serve_cannot_be_asked_kuberays_copy_is_shown_and_why(fake: FakeCluster):
    state = fake.ray_service["status"]
    state["conditions"][0] = {"type": "Ready", "status": "False", "message": "Number of serve endpoints dropped to 0"}
    state["activeServiceStatus"]["applicationStatuses"] = {"llm": {"status": "UNHEALTHY"}}
    fake.pods = [pod for pod in fake.pods if pod["metadata"]["name"] != HEAD]
    fake.save()
    said = " ".join(rayline("status").stdout.split())
    assert f"chat: llm is UNHEALTHY; RayCluster {ACTIVE} has no running head pod. Fix: see why with kubectl -n rayline" in said


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


def test_the_key_as_data_names_its_service_and_generation(fake: FakeCluster):
    fake.secrets[api_key_secret(SERVICE)] = {API_KEY_KEY: "sk-current"}
    fake.save()
    data = json.loads(rayline("key", "--json").stdout)
    assert data == {"stack": "kind", "service": SERVICE, "generation": 1, "key": "sk-current"}


def test_the_logs_as_data_are_the_lines_of_each_log(fake: FakeCluster):
    for pod in fake.pods:
        pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "ray", "restartCount": 0}]}
        fake.logs[f"{pod['metadata']['name']} -c ray --tail=40"] = "runs\nand runs"
        fake.files[pod["metadata"]["name"]] = "==> serve/controller_1.log <==\ndeployed"
    fake.save()
    data = json.loads(rayline("logs", "--json").stdout)
    lines = {log["name"]: log["lines"] for log in data["logs"]}
    assert (data["stack"], lines[f"{HEAD}/ray"], lines["serve/controller_1.log"]) == (
        "kind",
        ["runs", "and runs"],
        ["deployed"],
    )


def test_a_first_key_has_no_previous_one(fake: FakeCluster):
    result = rayline("key", "--previous")
    assert result.exit_code == 1
    assert "has its first key" in result.output
