"""The namespace's guards on a real cluster: what the API server refuses, who has a token, and what a stranger reaches."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kube.cluster import kubectl, kubectl_apply, objects, pod, wait_until
from tests.kube.conftest import NAMESPACE, Stack

pytestmark = [pytest.mark.kube, pytest.mark.slow, pytest.mark.timeout(2400)]

STRANGERS = "rayline-strangers"
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def ray_pod(role: str) -> dict[str, Any]:
    return objects("pod", NAMESPACE, f"rayline/service,ray.io/node-type={role}")[0]


def refusal(manifest: dict[str, Any]) -> str:
    """What the API server says to an object that it must not take."""
    with pytest.raises(RuntimeError) as caught:
        kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))
    return str(caught.value)


def test_a_pod_with_a_folder_of_the_node_is_refused(stack: Stack) -> None:
    image = stack.setting("pods.image", "")
    folder: dict[str, Any] = {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}
    kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod(image, "fine", NAMESPACE)))
    assert 'violates PodSecurity "restricted' in refusal(pod(image, "host", NAMESPACE, **folder))


def test_a_service_that_would_show_the_dashboard_outside_is_refused(stack: Stack) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "dashboard", "namespace": NAMESPACE},
        "spec": {"type": "LoadBalancer", "selector": {"ray.io/node-type": "head"}, "ports": [{"port": 8265}]},
    }
    assert "exceeded quota: platform" in refusal(service)


def test_the_autoscaler_alone_holds_a_token(stack: Stack) -> None:
    head, worker = (ray_pod(role)["metadata"]["name"] for role in ("head", "worker"))
    found = {
        container: kubectl("-n", NAMESPACE, "exec", name, "-c", container, "--", "sh", "-c", f"ls {TOKEN} || true")
        for name, container in ((head, "ray-head"), (head, "autoscaler"), (worker, "ray-worker"))
    }
    assert {container: text.strip() for container, text in found.items()} == {
        "ray-head": "",
        "autoscaler": TOKEN,
        "ray-worker": "",
    }


def test_the_head_cannot_be_evicted(stack: Stack) -> None:
    head = ray_pod("head")["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": head, "namespace": NAMESPACE}}
    # dry-run: where the budget failed, the pod is still there for the other tests
    eviction["deleteOptions"] = {"dryRun": ["All"]}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{head}/eviction"
    with pytest.raises(RuntimeError, match="disruption budget"):
        kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


@pytest.fixture(scope="module")
def stranger(stack: Stack) -> Iterator[str]:
    """A namespace with a pod `stranger`, which no setting names."""
    try:
        kubectl("create", "namespace", STRANGERS)
        kubectl_apply(pod(stack.setting("pods.image", ""), "stranger", STRANGERS))
        kubectl("-n", STRANGERS, "wait", "--for=condition=Ready", "pod/stranger", "--timeout=100s")
        yield STRANGERS
    finally:
        kubectl("delete", "namespace", STRANGERS, "--ignore-not-found")


def opens(namespace: str, name: str, container: str, address: str, port: int) -> bool:
    """Whether a container gets a TCP connection within three seconds."""
    line = f"timeout 3 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo yes || echo no"
    return kubectl("-n", namespace, "exec", name, "-c", container, "--", "bash", "-c", line).strip() == "yes"


def policies_are_enforced(stranger: str) -> bool:
    """Whether a policy that has nothing to do with the stack takes a way from the stranger that it had."""
    server = kubectl("-n", "default", "get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    assert opens(stranger, "stranger", "main", server, 443)
    closed = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": stranger},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]},
    }
    kubectl_apply(closed)
    try:
        wait_until(lambda: not opens(stranger, "stranger", "main", server, 443), "the policy is enforced", seconds=20)
    except AssertionError:
        return False
    finally:
        kubectl("-n", stranger, "delete", "networkpolicy", "closed")
    wait_until(lambda: opens(stranger, "stranger", "main", server, 443), "the way is open again", seconds=20)
    return True


def test_a_pod_of_another_namespace_reaches_only_the_api_and_only_when_allowed(stack: Stack, stranger: str) -> None:
    head, worker = ray_pod("head"), ray_pod("worker")
    listening = [(head, 6379), (head, 8265), (head, 10001), (head, 8080), (worker, 8000), (worker, 8404), (worker, 8080)]

    def reached() -> list[tuple[str, int]]:
        return [
            (one["metadata"]["labels"]["ray.io/node-type"], port)
            for one, port in listening
            if opens(stranger, "stranger", "main", one["status"]["podIP"], port)
        ]

    # what a stranger does not reach is there all the same: the worker reaches it
    for one, port in listening:
        assert opens(NAMESPACE, worker["metadata"]["name"], "ray-worker", one["status"]["podIP"], port), port
    if not policies_are_enforced(stranger):
        pytest.skip("the network of this cluster does not enforce NetworkPolicies")
    assert reached() == []
    stack.allow(stranger)
    stack.up()
    wait_until(lambda: reached() == [("worker", 8000)], "the way to the API alone is open", seconds=30)
