"""The `kind` stack on a real cluster: a real Pulumi engine, the real KubeRay operator, a model on the CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rayline_cli import offline, render
from rayline_cli.progress import PlainReport
from rayline_cli.verify.cluster import Kubectl, wait_until_served
from tests.kube.cluster import kubectl, kubectl_apply, objects, wait_until
from tests.kube.conftest import NAMESPACE, SERVICE, Stack, ask
from tests.pulumi_project import ROOT


def chat(model: str) -> dict:
    """A question that a small model can answer."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "max_tokens": 20,
    }


def test_the_service_answers_through_its_serve_service(stack: Stack, endpoint: str) -> None:
    answer = ask(endpoint, "/v1/chat/completions", key=stack.api_key(), body=chat(stack.model()))
    assert answer.status_code == 200, answer.text
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/invocations", "/tokenize"])
def test_no_key_no_answer_on_whatever_path(stack: Stack, endpoint: str, path: str) -> None:
    assert ask(endpoint, path, body=chat(stack.model())).status_code == 401


def test_the_fast_path_is_wired_in_the_worker_pod(stack: Stack) -> None:
    pod = objects("pods", NAMESPACE, f"ray.io/node-type=worker,rayline/service={SERVICE}")[0]["metadata"]["name"]
    configuration = kubectl(
        "-n", NAMESPACE, "exec", pod, "-c", "ray-worker", "--", "sh", "-c", "cat /tmp/haproxy-serve/*/haproxy.cfg"
    )
    assert "use_backend http-llm-via-ingress-request-router" in configuration
    assert "server SERVE_REPLICA_llm-LLMServer" in configuration


def verify(stack: Stack) -> subprocess.CompletedProcess[str]:
    """`rayline verify` as a person calls it, with the stack's own file."""
    command = [sys.executable, "-m", "rayline_cli.cli", "verify", "--stack", "kind", "--config-file", str(stack.path)]
    return subprocess.run([*command, "--json", "--all-on"], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_verify_proves_the_whole_of_it(stack: Stack) -> None:
    done = verify(stack)
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = {check["name"]: check["outcome"] for check in json.loads(done.stdout)["services"][SERVICE]}
    assert outcomes.pop("vLLM's Ray executor V2") == "not-applicable"
    assert set(outcomes.values()) == {"pass"}
    assert stack.api_key() not in done.stdout + done.stderr


def test_verify_sees_a_policy_that_lets_others_in(stack: Stack) -> None:
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "open", "namespace": NAMESPACE},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]},
    }
    kubectl_apply(policy)
    try:
        done = verify(stack)
    finally:
        kubectl("-n", NAMESPACE, "delete", "networkpolicy", "open")
    assert done.returncode == 1
    failed = [check for check in json.loads(done.stdout)["services"][SERVICE] if check["outcome"] == "fail"]
    assert [check["name"] for check in failed] == ["reachable from outside"]
    assert "NetworkPolicy open is not declared" in failed[0]["evidence"]


def test_bench_measures_the_service_from_a_job_beside_it_and_leaves_nothing(stack: Stack, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    command = [sys.executable, "-m", "rayline_cli.cli", "bench", "--stack", "kind", "--config-file", str(stack.path), "--json"]
    command += ["--concurrency", "4", "--requests", "8", "--repeats", "2", "--receipt", str(receipt)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    points = json.loads(receipt.read_text())["points"]
    assert [(point["load"]["completed"], point["load"]["failed"]) for point in points] == [(8, 0)] * 2
    assert json.loads(done.stdout)["results"][0]["repeats"] == 2
    assert stack.api_key() not in receipt.read_text() + done.stdout + done.stderr
    wait_until(lambda: not objects("jobs,pods,configmaps,networkpolicies", NAMESPACE, "rayline/bench"), "an end", 60)


def test_up_again_changes_nothing(stack: Stack) -> None:
    stack.up("--expect-no-changes")


def test_the_operator_finds_nothing_to_write_into_the_spec(stack: Stack) -> None:
    # else it owns those lists, and the next `up` that changes them is a conflict
    fields = kubectl("-n", NAMESPACE, "get", "rayservice", SERVICE, "-o", "json", "--show-managed-fields")
    owned = [entry for entry in json.loads(fields)["metadata"]["managedFields"] if entry["manager"] == "kuberay-operator"]
    assert owned, "the operator has not touched the RayService yet"
    assert not any("f:spec" in entry["fieldsV1"] for entry in owned)


def test_a_change_of_the_models_limits_keeps_the_ray_cluster(stack: Stack) -> None:
    before = kubectl("-n", NAMESPACE, "get", "raycluster", "-o", "name")
    stack.change(f"services.{SERVICE}.engine.max_num_seqs", str(stack.setting("engine.max_num_seqs", 64) // 2))
    stack.up()
    assert kubectl("-n", NAMESPACE, "get", "raycluster", "-o", "name") == before
    # `pulumi up` is back before Serve has it; `rayline up` waits for this
    (manifest,) = render.ray_services(offline.record("kind", config=offline.read_stack_file(stack.path)))
    wait_until_served(Kubectl(NAMESPACE), manifest, PlainReport(), 600)
    assert verify(stack).returncode == 0
    stack.up("--expect-no-changes")


def test_no_key_stands_in_the_cluster_outside_its_secret(stack: Stack) -> None:
    key = stack.api_key()
    for kind in ("rayservice", "raycluster", "pod", "configmap"):
        assert key not in kubectl("-n", NAMESPACE, "get", kind, "-o", "yaml")


def test_the_namespace_admits_restricted_pods_alone(stack: Stack) -> None:
    namespace = json.loads(kubectl("get", "namespace", NAMESPACE, "-o", "json"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    with pytest.raises(RuntimeError, match="violates PodSecurity"):
        kubectl("-n", NAMESPACE, "run", "as-root", "--image=busybox:1.36", "--dry-run=server")
