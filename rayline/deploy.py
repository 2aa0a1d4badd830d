"""`rayline up` for a stack in a cluster: the tools that have to be there, then Pulumi itself."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from components.facts.choices import ClusterMode

from .offline import PROJECT_ROOT, Program
from .verify.cluster import Kubectl

TOOLS = PROJECT_ROOT / ".tools"
# the folder, as Pulumi takes it from the project's root
POLICY_PACK = "policy"


class DeployError(Exception):
    """Something that a deployment needs is missing; the message says what and where to get it."""


def preflight(program: Program) -> list[str]:
    """What is missing on this machine for the stack; empty when nothing is."""
    missing = []
    if not shutil.which("kubectl"):
        missing.append(
            "kubectl is not on PATH, which looks at what was deployed: https://kubernetes.io/docs/tasks/tools"
        )
    if program.plan.cluster.mode is ClusterMode.CREATE:
        if program.plan.cluster.project == "my-project":
            missing.append(
                f"the stack names no project of yours: pulumi config set gcp:project YOUR-PROJECT --stack {program.stack}"
            )
        if not shutil.which("gke-gcloud-auth-plugin"):
            missing.append("gke-gcloud-auth-plugin is not on PATH: gcloud components install gke-gcloud-auth-plugin")
        credentials = pathlib.Path.home() / ".config/gcloud/application_default_credentials.json"
        if not (
            os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
            or os.environ.get("GOOGLE_CREDENTIALS")
            or credentials.exists()
        ):
            missing.append("no Google credentials: gcloud auth application-default login")
    return missing


def pulumi_command() -> str:
    """Path of the Pulumi CLI: the one on PATH, else the SDK's own version, installed into this project. Raises DeployError."""
    return shutil.which("pulumi") or str(fetch_pulumi())


def fetch_pulumi() -> pathlib.Path:
    """Install the Pulumi CLI in the SDK's version into this project, and return its path. Raises DeployError."""
    import importlib.metadata

    from pulumi.automation import InvalidVersionError, PulumiCommand
    from semver import VersionInfo

    version = VersionInfo.parse(importlib.metadata.version("pulumi"))
    root = TOOLS / "pulumi"
    if not (root / "bin" / "pulumi").exists():
        print(f"fetching the Pulumi CLI {version} into {root}", file=sys.stderr)
    try:
        return pathlib.Path(PulumiCommand.install(root=str(root), version=version).command)
    except (OSError, subprocess.SubprocessError, InvalidVersionError) as error:
        raise DeployError(
            f"the Pulumi CLI is not on PATH and could not be fetched ({error}): https://www.pulumi.com/docs/install"
        ) from None


def run_pulumi(arguments: list[str]) -> int:
    """Run the CLI in the project with this terminal; Ctrl-C reaches it, and it cancels in order. Returns its exit code."""
    command = pulumi_command()
    process = subprocess.Popen([command, *arguments], cwd=PROJECT_ROOT)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # Pulumi got the signal as well: wait until it has put its state in order
            continue


@contextlib.contextmanager
def cluster_access(program: Program, context: str | None) -> Iterator[Kubectl]:
    """kubectl for the stack's cluster: the context if one is named, else the one that the stack itself is deployed with.

    For a cluster that the stack makes that is its own kubeconfig, which Pulumi keeps: the current context may be another
    cluster's. Raises DeployError.
    """
    cluster, namespace = program.plan.cluster, program.plan.namespace
    if context or cluster.mode is not ClusterMode.CREATE:
        yield Kubectl(namespace, context or cluster.context, cluster.kubeconfig)
        return
    with tempfile.TemporaryDirectory(prefix="rayline-") as folder:
        path = pathlib.Path(folder) / "kubeconfig"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(_kubeconfig(program.stack))
        yield Kubectl(namespace, None, str(path))


def _kubeconfig(stack: str) -> str:
    done = subprocess.run(
        [pulumi_command(), "stack", "output", "kubeconfig", "--show-secrets", "--stack", stack],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or not done.stdout.strip():
        raise DeployError(
            f"the cluster's kubeconfig is not among the outputs of stack {stack}: name a context of yours with --context"
            f"\n{done.stderr.strip()[-500:]}"
        )
    return done.stdout
