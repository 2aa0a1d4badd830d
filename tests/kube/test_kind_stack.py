"""The life of the `kind` stack on a real cluster: a real Pulumi engine, the real KubeRay operator, a model on the CPU.

Needs `pulumi` (with its Kubernetes and random providers) and `kubectl` on PATH, and KUBECONFIG naming a cluster whose
namespaces `rayline` and `kuberay-system` are free. $RAYLINE_KIND_CONFIG may name a YAML file that is merged over the stack's
configuration: another image, a chart folder, volumes.
"""

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MISSING = [tool for tool in ("pulumi", "kubectl") if not shutil.which(tool)] + (
    [] if os.environ.get("KUBECONFIG") else ["KUBECONFIG"]
)

pytestmark = [
    pytest.mark.kube,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs a Kubernetes cluster and the tools for it; missing here: {', '.join(MISSING)}"
    ),
]


def merged(base: Any, over: Any) -> Any:
    """`over` laid over `base`, maps into maps."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {
            key: merged(base.get(key), over[key]) if key in over else base[key]
            for key in [*base, *(over.keys() - base.keys())]
        }
    return over


class Stack:
    """The project in a folder of its own with file state, and the CLI on it."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder / "project"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, tracked.split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        (self.folder / ".venv").symlink_to(ROOT / ".venv")
        (folder / "state").mkdir()
        self.environment = os.environ | {
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        self.pulumi("stack", "init", "kind")
        self.path = self.folder / "stacks" / "Pulumi.kind.yaml"
        overrides = os.environ.get("RAYLINE_KIND_CONFIG")
        if overrides:
            document = yaml.safe_load(self.path.read_text())
            # the CLI has written the project's prefix before each key
            plain = {key.removeprefix("rayline:"): value for key, value in document["config"].items()}
            document["config"] = merged(plain, yaml.safe_load(pathlib.Path(overrides).read_text()))
            self.path.write_text(yaml.safe_dump(document))

    def pulumi(self, *arguments: str, timeout: float = 1500) -> str:
        """Run the CLI; its output, or an AssertionError that shows it."""
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, (
            f"pulumi {' '.join(arguments)} failed:\n{done.stdout[-6000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout

    def up(self, *more: str) -> str:
        return self.pulumi("up", "--stack", "kind", "--yes", "--skip-preview", *more)

    def change(self, path: str, value: str) -> None:
        self.pulumi("config", "set", "--stack", "kind", "--path", path, value)

    def output(self, name: str) -> Any:
        return json.loads(self.pulumi("stack", "output", name, "--stack", "kind", "--show-secrets", "--json"))


def kubectl(*arguments: str) -> str:
    return subprocess.run(["kubectl", *arguments], check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, up. Whatever happens it is destroyed at the end, and then nothing of it may be left."""
    made = Stack(tmp_path_factory.mktemp("kind"))
    try:
        made.up()
        yield made
    finally:
        made.pulumi("destroy", "--stack", "kind", "--yes", "--skip-preview")
    left = kubectl("get", "namespace,crd", "-o", "name").split()
    assert [name for name in left if name.endswith(("/rayline", "/kuberay-system", ".ray.io"))] == []


@pytest.fixture
def endpoint(stack: Stack) -> Iterator[str]:
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


def test_the_service_answers_through_its_serve_service(stack: Stack, endpoint: str) -> None:
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


def test_the_fast_path_is_wired_in_the_worker_pod(stack: Stack) -> None:
    pod = kubectl(
        "-n", "rayline", "get", "pod", "-l", "ray.io/node-type=worker,rayline/service=chat", "-o", "name"
    ).split()[0]
    configuration = kubectl(
        "-n", "rayline", "exec", pod, "-c", "ray-worker", "--", "sh", "-c", "cat /tmp/haproxy-serve/*/haproxy.cfg"
    )
    assert "use_backend http-llm-via-ingress-request-router" in configuration
    assert "server SERVE_REPLICA_llm-LLMServer" in configuration


def test_up_again_changes_nothing(stack: Stack) -> None:
    stack.up("--expect-no-changes")


def test_the_operator_finds_nothing_to_write_into_the_spec(stack: Stack) -> None:
    # else it owns those lists, and the next `up` that changes them is a conflict
    fields = kubectl("-n", "rayline", "get", "rayservice", "chat", "-o", "json", "--show-managed-fields")
    owned = [
        entry for entry in json.loads(fields)["metadata"]["managedFields"] if entry["manager"] == "kuberay-operator"
    ]
    assert owned, "the operator has not touched the RayService yet"
    assert not any("f:spec" in entry["fieldsV1"] for entry in owned)


def test_a_change_of_the_model_s_limits_keeps_the_ray_cluster(stack: Stack, endpoint: str) -> None:
    before = kubectl("-n", "rayline", "get", "raycluster", "-o", "name")
    stack.change("services.chat.max_num_seqs", "32")
    stack.up()
    assert kubectl("-n", "rayline", "get", "raycluster", "-o", "name") == before
    stack.up("--expect-no-changes")


def test_no_key_stands_in_the_cluster_outside_its_secret(stack: Stack) -> None:
    key = stack.output("api_keys")["chat"]
    for kind in ("rayservice", "raycluster", "pod", "configmap"):
        assert key not in kubectl("-n", "rayline", "get", kind, "-o", "yaml")
