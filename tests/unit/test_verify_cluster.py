"""`rayline verify` and `rayline up` of a service in a cluster, seen through kubectl."""

from __future__ import annotations

import copy
import json
import pathlib
import re
import subprocess
import sys
import urllib.error
from collections.abc import Callable

import psutil
import pytest
from typer.testing import CliRunner, Result

from rayline_cli import cli, deploy, offline
from rayline_cli.clients import kubernetes
from rayline_cli.clients.kubernetes import Kubectl
from rayline_cli.verify import NotSeen, Outcome, View, cluster, expected
from rayline_cli.verify.cluster import NotServed, wait_until_served
from tests.unit.fake_cluster import ACTIVE, HEAD, NAMESPACE, SERVICE, WORKER, FakeCluster
from tests.unit.verify_service import RECORDED
from tests.unit.waiting import wait_until


def test_every_check_passes_through_kubectl(fake: FakeCluster):
    found = fake.checks()
    assert found.pop("vLLM's Ray executor V2").outcome is Outcome.NOT_APPLICABLE
    assert {name: check.evidence for name, check in found.items() if check.outcome is not Outcome.PASS} == {}
    assert "NetworkPolicies are as declared" in found["reachable from outside"].evidence
    # every pod of the cluster that serves was looked into, and no other
    calls = [json.loads(line) for line in (fake.folder / "calls").read_text().splitlines()]
    assert {call[call.index("-i") + 1] for call in calls if "exec" in call} == {HEAD, WORKER}
    assert all(call[:2] == ["--namespace", NAMESPACE] for call in calls)


def test_a_variable_that_only_the_worker_lacks_is_named_with_its_pod(fake: FakeCluster):
    fake.worker_environment = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "true"}
    check = fake.checks()["environment parity"]
    assert check.outcome is Outcome.FAIL
    assert f"RAY_SERVE_THROUGHPUT_OPTIMIZED='true' (declared '1') in ray::ServeController on {WORKER}" in check.evidence


def dashboard_open(fake: FakeCluster) -> None:
    fake.dashboard_without_token = 200


def dashboard_in_the_service(fake: FakeCluster) -> None:
    fake.open.append(8265)


def load_balancer(fake: FakeCluster) -> None:
    fake.services.append(
        {"metadata": {"name": "dashboard"}, "spec": {"type": "LoadBalancer", "selector": {"ray.io/node-type": "head"}}}
    )


def no_default_deny(fake: FakeCluster) -> None:
    fake.policies = [one for one in fake.policies if one["metadata"]["name"] != "default-deny"]


def policy_edited(fake: FakeCluster) -> None:
    next(one for one in fake.policies if one["metadata"]["name"] == "chat-ray")["spec"]["ingress"] = [{}]


def policy_of_somebody_else(fake: FakeCluster) -> None:
    fake.policies.append(
        {"metadata": {"name": "open"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}}
    )


def policy_of_a_benchmark(fake: FakeCluster) -> None:
    policy_of_somebody_else(fake)
    fake.policies[-1]["metadata"]["labels"] = {"rayline/bench": "chat-bench-0"}


@pytest.mark.parametrize(
    ("break_it", "evidence"),
    [
        (dashboard_open, "the dashboard answers HTTP 200 without Ray's token"),
        (dashboard_in_the_service, "8265 (Ray's dashboard)"),
        (load_balancer, "Service dashboard of type LoadBalancer"),
        (no_default_deny, "NetworkPolicy default-deny is missing"),
        (policy_edited, "NetworkPolicy chat-ray is not as declared"),
        (policy_of_somebody_else, "NetworkPolicy open is not declared and lets others in"),
        (policy_of_a_benchmark, "open is not declared and lets others in (a benchmark's, which deletes it when it ends)"),
    ],
)
def test_what_others_could_reach_fails(fake: FakeCluster, break_it: Callable[[FakeCluster], None], evidence: str):
    break_it(fake)
    target = fake.target()
    outcome, said, fix = target.reachability(View(target))
    assert outcome is Outcome.FAIL, said
    assert evidence in said
    assert fix


def test_a_context_that_is_not_there_is_said_in_kubectls_words(fake: FakeCluster):
    with pytest.raises(NotSeen, match=r'context "nowhere" does not exist'):
        Kubectl(NAMESPACE, context="nowhere").get("rayservice", SERVICE)


def test_a_dropped_connection_to_a_pod_is_made_again(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kubernetes, "POLL_SECONDS", 0)
    (fake.folder / "drops").write_text("2")
    assert all(check.outcome in (Outcome.PASS, Outcome.NOT_APPLICABLE) for check in fake.checks().values())


def test_a_connection_that_drops_each_time_is_said_without_kubectls_own_log(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kubernetes, "POLL_SECONDS", 0)
    (fake.folder / "drops").write_text("1000")
    with pytest.raises(NotSeen, match=r"kubectl exec -i [\w-]+: error: .*unexpected EOF") as said:
        fake.target().nodes[0].run({"do": "look"})
    assert "v2.go" not in str(said.value)


def test_without_kubectl_that_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotSeen, match="kubectl is not on PATH"):
        Kubectl(NAMESPACE).get("pods")


# --- waiting ---------------------------------------------------------------------------------------------------------


class Steps:
    """A report that changes the cluster when it is told what is waited for."""

    def __init__(self, fake: FakeCluster, *repairs: Callable[[], None]) -> None:
        self.fake, self.repairs, self.said = fake, list(repairs), []

    def phase(self, name: str, detail: str) -> None:
        self.said.append(detail)
        if self.repairs:
            self.repairs.pop(0)()
            self.fake.save()

    def done(self, name: str, seconds: float, detail: str) -> None:
        self.said.append("done")

    def note(self, text: str) -> None:
        raise AssertionError(text)


def wait(fake: FakeCluster, steps: Steps, seconds: float = 60) -> list[str]:
    fake.save()
    wait_until_served(Kubectl(NAMESPACE), fake.manifest, steps, seconds)
    return steps.said


def test_what_is_served_already_is_not_waited_for(fake: FakeCluster):
    assert wait(fake, Steps(fake)) == ["done"]


def test_the_old_configurations_running_is_not_taken_for_the_new_ones(fake: FakeCluster):
    """decision 0015: generation observed, RayService Ready, application RUNNING, and all of it is the old configuration."""
    application = fake.details["applications"]["llm"]
    new = application["deployed_app_config"]
    application["deployed_app_config"] = copy.deepcopy(new)
    llm = application["deployed_app_config"]["args"]["llm_configs"][0]
    llm["engine_kwargs"] = llm["engine_kwargs"] | {"max_num_seqs": 1}
    (deployment,) = [one for name, one in application["deployments"].items() if name.startswith("LLMServer")]
    (replica,) = deployment["replicas"]

    def taken_up() -> None:
        application["deployed_app_config"] = new
        deployment["status"] = "UPDATING"

    def new_replica() -> None:
        deployment["status"] = "HEALTHY"
        deployment["replicas"].append(replica | {"replica_id": "old", "state": "STOPPING"})

    def old_one_gone() -> None:
        deployment["replicas"].pop()

    said = wait(fake, Steps(fake, taken_up, new_replica, old_one_gone))
    assert [one.partition(": ")[0] for one in said][1:] == [
        next(iter(expected(fake.manifest).llm_deployments)) + " 1/1 running",
        next(iter(expected(fake.manifest).llm_deployments)),
        "done",
    ]
    assert said[0] == "application llm still runs the previous configuration"
    assert "still STOPPING" in said[2]


def test_what_kuberay_has_not_done_yet_is_waited_for(fake: FakeCluster):
    status = fake.ray_service["status"]
    fake.ray_service["metadata"]["generation"] = 4
    ready, upgrade = status["conditions"]

    def observed() -> None:
        status["observedGeneration"] = 4
        upgrade["status"] = "True"
        status["pendingServiceStatus"] = {"rayClusterName": "chat-new"}

    def switched() -> None:
        upgrade["status"] = "False"
        del status["pendingServiceStatus"]
        ready.update(status="False", message="endpoints are not there yet")

    def came_ready() -> None:
        ready["status"] = "True"

    said = wait(fake, Steps(fake, observed, switched, came_ready))
    assert said == [
        "KubeRay has not taken up the change yet",
        "RayCluster chat-new is coming up, the old one serves",
        "the RayService is not ready: endpoints are not there yet",
        "done",
    ]


def test_pods_with_the_old_environment_are_not_the_new_cluster(fake: FakeCluster):
    ray = fake.pods[0]["spec"]["containers"][1]
    new = ray["env"]
    ray["env"] = [entry for entry in new if entry["name"] != "RAY_SERVE_ENABLE_HA_PROXY"]

    def replaced() -> None:
        ray["env"] = new

    said = wait(fake, Steps(fake, replaced))
    assert WORKER in said[0]
    assert said[1:] == ["done"]


def test_a_failed_deployment_ends_the_wait_in_serves_words(fake: FakeCluster):
    application = fake.details["applications"]["llm"]
    application.update(status="DEPLOY_FAILED", message="ValueError: max_model_len is too long")
    with pytest.raises(NotServed, match="max_model_len is too long"):
        wait(fake, Steps(fake))


def test_the_wait_ends_with_what_it_waited_for(fake: FakeCluster):
    fake.ray_service["metadata"]["generation"] = 4
    with pytest.raises(NotServed, match=r"not served after 0 s: KubeRay has not taken up"):
        wait(fake, Steps(fake), seconds=0)


# kubectl 1.36's words for each
REFUSALS = {
    "no server": ("The connection to the server 10.0.0.9:443 was refused - did you specify the right host or port?", "VPN"),
    "no name": ("Unable to connect to the server: dial tcp: lookup gke.example on 10.0.0.2:53: no such host", "VPN"),
    "no login": ("error: You must be logged in to the server (Unauthorized)", "gcloud auth login"),
    "no rights": (
        'Error from server (Forbidden): rayservices.ray.io "chat" is forbidden: User "x" cannot get resource "rayservices"',
        "rayline permissions",
    ),
    "no context": ("Error in configuration: context was not found for specified context: nowhere", "get-contexts"),
    "no file": ("error: stat /nonexistent: no such file or directory", "KUBECONFIG"),
}


@pytest.mark.parametrize(("said", "fix"), REFUSALS.values(), ids=REFUSALS)
def test_a_cluster_that_cannot_be_reached_ends_the_wait_with_what_to_do(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch, said: str, fix: str
):
    monkeypatch.setattr(cluster, "UNREACHABLE_SECONDS", 0.1)
    fake.refuse("E1128 08:54:04.505549 19055 memcache.go:265] a line of its library\n" + said)
    with pytest.raises(NotServed, match="chat cannot be seen for") as raised:
        wait(fake, Steps(fake), seconds=5400)
    assert said in str(raised.value)
    assert re.search(rf"Fix: .*{re.escape(fix)}", str(raised.value))


def test_a_cluster_that_is_reached_after_a_moment_is_waited_for(fake: FakeCluster):
    fake.refuse("Unable to connect to the server: dial tcp: lookup gke.example: no such host")
    said = wait(fake, Steps(fake, lambda: fake.refuse("")))
    assert "no such host" in said[0]
    assert said[1:] == ["done"]


@pytest.mark.parametrize(
    "said",
    [
        "Error from server: error dialing backend: dial tcp 10.0.0.7:10250: connect: connection refused",
        "Unable to connect to the server: net/http: TLS handshake timeout",
        "ConnectionRefusedError: [Errno 111] Connection refused\ncommand terminated with exit code 1",
        'Error from server (NotFound): rayservices.ray.io "chat" not found',
    ],
)
def test_what_may_pass_is_no_reason_to_give_a_cluster_up(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch, said: str):
    monkeypatch.setattr(cluster, "UNREACHABLE_SECONDS", 0.0)
    fake.refuse(said)
    look_again = [lambda: None] * 3
    assert wait(fake, Steps(fake, *look_again, lambda: fake.refuse("")))[-1] == "done"


def test_a_long_wait_says_every_few_minutes_that_it_goes_on():
    said = [cluster._since(minutes * 60, "it is not ready") for minutes in (0, 1, 2, 3, 5)]
    assert list(dict.fromkeys(said)) == ["it is not ready", "after 2 min: it is not ready", "after 4 min: it is not ready"]


def test_a_cluster_that_does_not_answer_is_waited_for(fake: FakeCluster):
    fake.ray_service["status"]["activeServiceStatus"] = {}

    def answers() -> None:
        fake.ray_service["status"]["activeServiceStatus"] = {"rayClusterName": ACTIVE}

    said = wait(fake, Steps(fake, answers))
    assert "no RayCluster that serves" in said[0]
    assert RECORDED["details"]


# --- the commands ----------------------------------------------------------------------------------------------------


def pulumi(fake: FakeCluster, exit_code: int) -> None:
    """A `pulumi` on PATH that has done its work, well or badly."""
    tool = fake.folder / "pulumi"
    tool.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    tool.chmod(0o755)


def rayline(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, list(arguments))


def test_up_ends_with_the_checks(fake: FakeCluster):
    pulumi(fake, 0)
    result = rayline("up", "--stack", "kind", "--yes")
    assert result.exit_code == 0, result.output
    assert re.search(r"pass +direct streaming: path of the tokens: ", result.output)
    assert "every replica runs the declared configuration" in result.stderr


def test_up_fails_where_a_check_does(fake: FakeCluster):
    pulumi(fake, 0)
    dashboard_open(fake)
    fake.save()
    result = rayline("up", "--stack", "kind", "--yes")
    assert result.exit_code == 1
    assert re.search(r"FAIL +reachable from outside: ", result.output)
    assert "1 of 13 checks failed" in result.stderr


def test_up_looks_into_nothing_where_pulumi_failed(fake: FakeCluster):
    pulumi(fake, 255)
    assert rayline("up", "--stack", "kind", "--yes").exit_code == 1
    before = (fake.folder / "calls").read_text().splitlines()
    assert len(before) == 2, "two looks at the cluster before Pulumi: is it there, and whose is the operator"


def test_up_does_not_begin_beside_an_operator_of_another_stack(fake: FakeCluster):
    fake.labels = {"kuberay-system": {"rayline/stack": "other"}}
    fake.save()
    result = rayline("up", "--stack", "kind", "--yes", "--json")
    assert result.exit_code == 1
    (error,) = json.loads(result.stdout)["errors"]
    assert "the KubeRay operator in kuberay-system belongs to stack other. Fix: kuberay.source preinstalled" in error


@pytest.mark.parametrize("labels", [{"rayline/stack": "kind"}, {}], ids=["labelled", "deployed before there was a label"])
def test_up_goes_on_where_the_operator_is_its_own(fake: FakeCluster, labels: dict[str, str]):
    pulumi(fake, 255)
    fake.labels = {"kuberay-system": labels}
    fake.save()
    assert "KubeRay operator" not in rayline("up", "--stack", "kind", "--yes").output


def test_up_does_not_begin_where_the_cluster_cannot_be_reached(fake: FakeCluster):
    fake.refuse("The connection to the server localhost:8080 was refused - did you specify the right host or port?")
    # there is no pulumi on PATH: it is not asked
    result = rayline("up", "--stack", "kind", "--yes", "--json")
    assert result.exit_code == 1
    (error,) = json.loads(result.stdout)["errors"]
    assert "the stack's cluster cannot be reached: kubectl get pods" in error
    assert "Fix: set KUBECONFIG, or cluster.kubeconfig" in error


def started(*arguments: str) -> subprocess.Popen[str]:
    """A command in a process of its own, as a pipeline starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "rayline_cli.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=offline.PROJECT_ROOT,
    )


def test_sigterm_while_the_service_starts_ends_up_with_its_one_object(fake: FakeCluster):
    pulumi(fake, 0)
    fake.ray_service["metadata"]["generation"] = 4
    fake.save()
    process = started("up", "--stack", "kind", "--yes", "--json")
    assert process.stderr is not None
    assert any("KubeRay has not taken up the change yet" in line for line in process.stderr)
    process.terminate()
    out, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    said = json.loads(out)
    assert said["exit_code"] == 130
    assert "the deployment continues in the cluster" in said["errors"][0]


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("command", [["status"], ["verify"], ["logs"], ["up", "--yes"]], ids=" ".join)
def test_sigterm_ends_a_command_like_ctrl_c_and_what_it_started_with_it(fake: FakeCluster, command: list[str]):
    running = fake.folder / "running"
    (fake.folder / "kubectl").write_text(
        f"#!/bin/sh\necho $$ > {running}.new\n/bin/mv {running}.new {running}\nexec /bin/sleep 60\n"
    )
    process = started(*command, "--stack", "kind")
    wait_until(running.exists)
    process.terminate()
    log = process.communicate(timeout=60)[1]
    assert process.returncode == 130, log
    assert "interrupted" in log
    wait_until(lambda: has_ended(int(running.read_text())))


def test_up_ends_with_one_object_for_a_script(fake: FakeCluster):
    pulumi(fake, 0)
    done = subprocess.run(
        [sys.executable, "-m", "rayline_cli.cli", "up", "--stack", "kind", "--yes", "--json"],
        capture_output=True,
        text=True,
        cwd=offline.PROJECT_ROOT,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["stack"], said["exit_code"], said["errors"]) == ("kind", 0, [])
    assert {check["outcome"] for check in said["services"][SERVICE]} == {"pass", "not-applicable"}


def test_what_is_missing_for_a_deployment_is_in_the_object_for_a_script(fake: FakeCluster):
    (fake.folder / "kubectl").unlink()
    result = rayline("up", "--stack", "kind", "--yes", "--json")
    assert result.exit_code == 1
    assert "kubectl is not on PATH" in json.loads(result.stdout)["errors"][0]


@pytest.mark.parametrize("command", ["up", "down"])
def test_without_a_terminal_and_without_yes_nothing_is_begun(fake: FakeCluster, command: str):
    pulumi(fake, 0)
    result = rayline(command, "--stack", "kind")
    assert result.exit_code == 2
    assert f"Fix: rayline {command} --stack kind --yes" in " ".join(result.output.split())


def test_verify_gives_data_and_passes_the_context_on(fake: FakeCluster):
    result = rayline("verify", "--stack", "kind", "--context", "mine", "--json", "--service", SERVICE)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["target"], said["passed"], list(said["services"])) == ("stack kind", True, [SERVICE])
    calls = [json.loads(line) for line in (fake.folder / "calls").read_text().splitlines()]
    assert all(call[2:4] == ["--context", "mine"] for call in calls)


def test_a_parked_service_is_not_looked_for(fake: FakeCluster, tmp_path: pathlib.Path):
    text = (offline.PROJECT_ROOT / "stacks/Pulumi.kind.yaml").read_text()
    path = tmp_path / "Pulumi.kind.yaml"
    path.write_text(text.replace("accelerator: cpu", "accelerator: cpu\n      park: true"))
    result = rayline("verify", "--stack", "kind", "--config-file", str(path))
    assert result.exit_code == 0, result.output
    assert "parked" in result.output


def test_a_made_clusters_kubeconfig_is_pulumis_and_is_gone_afterwards(fake: FakeCluster, monkeypatch: pytest.MonkeyPatch):
    tool = fake.folder / "pulumi"
    tool.write_text("#!/bin/sh\necho the-kubeconfig\n")
    tool.chmod(0o755)
    program = offline.record("dev-l4")
    with deploy.cluster_access(program, None) as kubectl:
        path = pathlib.Path(kubectl.kubeconfig or "")
        assert path.read_text() == "the-kubeconfig\n"
        assert path.stat().st_mode & 0o077 == 0
    assert not path.exists()
    pulumi(fake, 1)
    with pytest.raises(deploy.DeployError, match=r"Fix: log in .*--context"), deploy.cluster_access(program, None):
        pass
    tool.write_text("#!/bin/sh\necho \"error: current stack does not have output property 'kubeconfig'\" >&2\nexit 1\n")
    never = pytest.raises(deploy.DeployError, match=r"is not deployed.* Fix: rayline up --stack dev-l4")
    with never, deploy.cluster_access(program, None):
        pass
    tool.unlink()

    def offline_install(**_: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(deploy, "TOOLS", fake.folder)
    monkeypatch.setattr("pulumi.automation.PulumiCommand.install", offline_install)
    no_cli = pytest.raises(
        deploy.DeployError, match=r"could not be fetched \(.*Name or service not known.*pulumi.com/docs/install"
    )
    with no_cli, deploy.cluster_access(program, None):
        pass
    with deploy.cluster_access(program, "mine") as kubectl:
        assert (kubectl.context, kubectl.kubeconfig) == ("mine", None)
