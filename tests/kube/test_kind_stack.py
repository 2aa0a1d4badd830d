"""The life of the `kind` stack on a real cluster: a real Pulumi engine, the real KubeRay operator, a model on the CPU.

Needs `pulumi` (with its Kubernetes and random providers) and `kubectl` on PATH, and KUBECONFIG naming a cluster whose
namespaces `rayline` and `kuberay-system` are free. $RAYLINE_KIND_CONFIG may name a YAML file that is merged over the stack's
configuration: another image, a chart folder, volumes.
"""

import json
import os
import pathlib
import subprocess
from collections.abc import Iterator

import httpx
import pytest
import yaml

from rayline import offline
from tests.pulumi_project import PulumiProject, missing

MISSING = missing("pulumi", "kubectl") + ([] if os.environ.get("KUBECONFIG") else ["KUBECONFIG"])

pytestmark = [
    pytest.mark.kube,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs a Kubernetes cluster and the tools for it; missing here: {', '.join(MISSING)}"
    ),
]


def kubectl(*arguments: str) -> str:
    return subprocess.run(["kubectl", *arguments], check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulumiProject]:
    """The stack, up. Whatever happens it is destroyed at the end, and then only KubeRay's CRDs may be left."""
    path = os.environ.get("RAYLINE_KIND_CONFIG")
    overrides = yaml.safe_load(pathlib.Path(path).read_text()) if path else None
    made = PulumiProject(tmp_path_factory.mktemp("kind"), "kind", overrides=overrides)
    try:
        # as an earlier stack leaves them; the stack has to take them over
        for file in offline.record("kind", config=offline.read_stack_file(made.path)).plan.kuberay.crd_files:
            kubectl("apply", "--server-side", "--field-manager", "somebody-else", "-f", file)
        made.up()
        yield made
    finally:
        made.pulumi("destroy", "--stack", "kind", "--yes", "--skip-preview")
    left = kubectl("get", "namespace,crd", "-o", "name").split()
    assert [name for name in left if name.endswith(("/rayline", "/kuberay-system"))] == []
    # others may use the cluster, so the CRDs stay
    kept = [name for name in left if name.endswith(".ray.io")]
    assert len(kept) == 4
    kubectl("delete", *kept)


@pytest.fixture
def endpoint(stack: PulumiProject) -> Iterator[str]:
    """The serve Service through a port-forward on a free local port."""
    process = subprocess.Popen(
        ["kubectl", "-n", "rayline", "port-forward", "--address", "127.0.0.1", "svc/chat-serve-svc", ":8000"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()  # Forwarding from 127.0.0.1:38333 -> 8000
        yield "http://" + line.split()[2]
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_the_service_answers_through_its_serve_service(stack: PulumiProject, endpoint: str) -> None:
    key = stack.output("api_keys")["chat"]
    question = {
        "model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "max_tokens": 20,
    }
    answer = httpx.post(
        f"{endpoint}/v1/chat/completions", json=question, headers={"Authorization": f"Bearer {key}"}, timeout=120
    )
    assert answer.status_code == 200, answer.text
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]


def test_no_key_no_answer(endpoint: str) -> None:
    assert httpx.get(f"{endpoint}/v1/models", timeout=30).status_code == 401


def test_the_fast_path_is_wired_in_the_worker_pod(stack: PulumiProject) -> None:
    pod = kubectl(
        "-n", "rayline", "get", "pod", "-l", "ray.io/node-type=worker,rayline/service=chat", "-o", "name"
    ).split()[0]
    configuration = kubectl(
        "-n", "rayline", "exec", pod, "-c", "ray-worker", "--", "sh", "-c", "cat /tmp/haproxy-serve/*/haproxy.cfg"
    )
    assert "use_backend http-llm-via-ingress-request-router" in configuration
    assert "server SERVE_REPLICA_llm-LLMServer" in configuration


def test_up_again_changes_nothing(stack: PulumiProject) -> None:
    stack.up("--expect-no-changes")


def test_the_operator_finds_nothing_to_write_into_the_spec(stack: PulumiProject) -> None:
    # else it owns those lists, and the next `up` that changes them is a conflict
    fields = kubectl("-n", "rayline", "get", "rayservice", "chat", "-o", "json", "--show-managed-fields")
    owned = [
        entry for entry in json.loads(fields)["metadata"]["managedFields"] if entry["manager"] == "kuberay-operator"
    ]
    assert owned, "the operator has not touched the RayService yet"
    assert not any("f:spec" in entry["fieldsV1"] for entry in owned)


def test_a_change_of_the_model_s_limits_keeps_the_ray_cluster(stack: PulumiProject, endpoint: str) -> None:
    before = kubectl("-n", "rayline", "get", "raycluster", "-o", "name")
    stack.change("services.chat.max_num_seqs", "32")
    stack.up()
    assert kubectl("-n", "rayline", "get", "raycluster", "-o", "name") == before
    stack.up("--expect-no-changes")


def test_no_key_stands_in_the_cluster_outside_its_secret(stack: PulumiProject) -> None:
    key = stack.output("api_keys")["chat"]
    for kind in ("rayservice", "raycluster", "pod", "configmap"):
        assert key not in kubectl("-n", "rayline", "get", kind, "-o", "yaml")
