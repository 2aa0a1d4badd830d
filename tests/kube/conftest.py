"""The stack `kind` on a real cluster, up for as long as these tests run.

Needs `pulumi` (with its Kubernetes and random providers) and `kubectl` on PATH, and KUBECONFIG naming a cluster whose
namespaces `rayline` and `kuberay-system` are free. $RAYLINE_KIND_CONFIG may name a YAML file that is merged over the stack's
configuration: another image, a chart folder, volumes. $RAYLINE_KIND_BESIDE may name a command that runs while the first
`up` does, for a cluster that needs volumes in the namespace which the stack makes.
"""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from rayline_cli import offline
from tests.kube.cluster import kubectl
from tests.pulumi_project import PulumiProject, missing

NAMESPACE, SERVICE = "rayline", "chat"
MISSING = missing("pulumi", "kubectl") + ([] if os.environ.get("KUBECONFIG") else ["KUBECONFIG"])


class Stack(PulumiProject):
    """The stack, and what a test asks about its one service."""

    def api_key(self) -> str:
        """The key that clients send now."""
        return self.output("api_keys")[SERVICE]

    def config(self) -> dict[str, Any]:
        """What the stack file says, without the prefix that the CLI writes before each key."""
        document = yaml.safe_load(self.path.read_text())
        return {name.removeprefix("rayline:"): value for name, value in document["config"].items()}

    def setting(self, path: str, default: Any) -> Any:
        """What the stack file says about the service at a path such as `replicas` or `pods.image`."""
        *groups, key = path.split(".")
        found = self.config()["services"][SERVICE]
        for group in groups:
            found = found.get(group, {})
        return found.get(key, default)

    def allow(self, namespace: str) -> None:
        """Let clients of another namespace in, beside those that are let in already."""
        allowed = self.config().get("isolation", {}).get("allow_from_namespaces", [])
        if namespace not in allowed:
            self.change(f"isolation.allow_from_namespaces[{len(allowed)}]", namespace)

    def model(self) -> str:
        """What clients ask for."""
        return self.setting("api.served_model_name", self.setting("model", ""))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, up. Whatever happens it is destroyed at the end, and then nothing of it may be left but KubeRay's CRDs."""
    overrides = os.environ.get("RAYLINE_KIND_CONFIG")
    made = Stack(
        tmp_path_factory.mktemp("kind"),
        "kind",
        overrides=yaml.safe_load(pathlib.Path(overrides).read_text()) if overrides else None,
    )
    beside = os.environ.get("RAYLINE_KIND_BESIDE")
    command = subprocess.Popen(beside, shell=True, start_new_session=True) if beside else None
    try:
        # as an earlier stack leaves them; this one has to take them over
        for file in offline.record("kind", config=offline.read_stack_file(made.path)).plan.kuberay.crd_files:
            kubectl("apply", "--server-side", "--field-manager", "somebody-else", "-f", file)
        made.up()
        yield made
    finally:
        if command:
            command.terminate()
            command.wait(timeout=20)
        made.pulumi("destroy", "--stack", "kind", "--yes", "--skip-preview")
    left = kubectl("get", "namespace,crd,clusterrole,priorityclass", "-o", "name").split()
    assert [name for name in left if "rayline" in name or name.endswith("/kuberay-system")] == []
    # others may use the cluster, and deleting the CRDs would delete their RayServices
    kept = [name for name in left if name.endswith(".ray.io")]
    assert len(kept) == 4
    kubectl("delete", *kept)


@contextlib.contextmanager
def port_forward() -> Iterator[str]:
    """Address of the serve Service through a port-forward on a free local port."""
    process = subprocess.Popen(
        [*("kubectl", "-n", NAMESPACE, "port-forward", "--address", "127.0.0.1"), *(f"svc/{SERVICE}-serve-svc", ":8000")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()  # Forwarding from 127.0.0.1:38333 -> 8000
        if not line:
            raise RuntimeError("no pod is ready behind the serve Service")
        yield "http://" + line.split()[2]
    finally:
        process.terminate()
        process.wait(timeout=20)


def ask(address: str, path: str, *, key: str = "", body: Any = None) -> httpx.Response:
    """One request. Raises RuntimeError where nobody answers, which a test may wait out."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        return httpx.request("POST" if body else "GET", address + path, json=body, headers=headers, timeout=120)
    except httpx.HTTPError as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


@pytest.fixture
def endpoint(stack: Stack) -> Iterator[str]:
    """The serve Service, for one test."""
    with port_forward() as address:
        yield address


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder is one tier, and says why it is skipped."""
    here = pathlib.Path(__file__).parent
    for item in items:
        if item.path.parent == here:
            item.add_marker(pytest.mark.kube)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(2400))
            if MISSING:
                why = f"needs a Kubernetes cluster and the tools for it; missing here: {', '.join(MISSING)}"
                item.add_marker(pytest.mark.skip(reason=why))
