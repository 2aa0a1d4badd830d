"""The `kind` stack on a real cluster: a real Pulumi engine, the real KubeRay operator, a model on the CPU."""

import json

import pytest

from tests.kube.cluster import kubectl, objects
from tests.kube.conftest import NAMESPACE, SERVICE, Stack, ask


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


def test_up_again_changes_nothing(stack: Stack) -> None:
    stack.up("--expect-no-changes")


def test_the_operator_finds_nothing_to_write_into_the_spec(stack: Stack) -> None:
    # else it owns those lists, and the next `up` that changes them is a conflict
    fields = kubectl("-n", NAMESPACE, "get", "rayservice", SERVICE, "-o", "json", "--show-managed-fields")
    owned = [
        entry for entry in json.loads(fields)["metadata"]["managedFields"] if entry["manager"] == "kuberay-operator"
    ]
    assert owned, "the operator has not touched the RayService yet"
    assert not any("f:spec" in entry["fieldsV1"] for entry in owned)


def test_a_change_of_the_models_limits_keeps_the_ray_cluster(stack: Stack) -> None:
    before = kubectl("-n", NAMESPACE, "get", "raycluster", "-o", "name")
    stack.change(f"services.{SERVICE}.max_num_seqs", str(stack.setting("max_num_seqs", 64) // 2))
    stack.up()
    assert kubectl("-n", NAMESPACE, "get", "raycluster", "-o", "name") == before
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
