"""Client of a cluster: kubectl in one namespace, with the caller's kubeconfig and rights.

Why kubectl and no Python client: docs/decisions/0030-kubectl-is-the-client-of-a-cluster.md.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rayline_cli.errors import FailedError

EXEC_ATTEMPTS = 3
POLL_SECONDS = 3.0
_LOG_LINE = re.compile(r"[IWEF]\d{4} .*\n?(?:\t.*\n?| >\n?)*")
"""A line in the log of kubectl's library, which may continue over indented lines."""
_OWN_LINE = re.compile(
    r"^(?:error: |Error from server|Error in configuration|Unable to connect|The connection to the server).*", re.MULTILINE
)
"""A line of kubectl itself: programs that it runs in a pod write to the same stream."""
_LOST = ("unexpected EOF", "connection reset by peer", "broken pipe", "client connection lost", "TLS handshake timeout")
"""Signs that the connection broke and not the command."""
_FIXES = (
    (
        ('context "', "context was not found", "current-context "),
        "name one of `kubectl config get-contexts` with --context, or in cluster.context of the stack file",
    ),
    (("localhost:8080",), "set KUBECONFIG, or cluster.kubeconfig of the stack file: kubectl has no cluster"),
    (
        ("error loading config file", "error: stat "),
        "set KUBECONFIG, or cluster.kubeconfig of the stack file, to a kubeconfig that exists and can be read",
    ),
    (
        ("Error in configuration", "error: invalid configuration"),
        "repair the kubeconfig at KUBECONFIG, or at cluster.kubeconfig of the stack file",
    ),
    (("gke-gcloud-auth-plugin not found",), "gcloud components install gke-gcloud-auth-plugin"),
    (("getting credentials",), "log in to the cluster's cloud again, for GKE: gcloud auth login"),
    (
        ("logged in", "(Unauthorized)"),
        "log in to the cluster again, for GKE with gcloud auth login: the kubeconfig's credentials are not accepted",
    ),
    (("x509: ",), "get the cluster's kubeconfig again: its certificate is another cluster's"),
    (
        ("(Forbidden)",),
        "grant what `rayline permissions --stack STACK` prints; docs/operations.md#status has the rights of each command",
    ),
    (
        ("connection to the server", "Unable to connect"),
        "start the cluster, let this machine reach it (VPN, firewall, cluster.authorized_networks), or name another with --context",
    ),
)
"""Signs in kubectl's own lines that it cannot reach the API server or is refused -> fix. The first match counts."""


class NotSeen(FailedError):
    """A part of the service cannot be looked at; the message names it and the reason."""


class Unreachable(NotSeen):
    """The API server cannot be reached, or refuses the caller; the message has the fix. Waiting seldom helps."""


class ConnectionLost(NotSeen):
    """The connection to the API server or through it to a pod broke."""


class NotFound(NotSeen):
    """The API server answers that there is no such object."""


def _command_name(arguments: Sequence[str]) -> str:
    """Return the beginning of a command for messages, without an option whose value would be cut off."""
    return " ".join(arguments[:3]).removesuffix(" -l").removesuffix(" -c")


def _error(command: str, stderr: str) -> NotSeen:
    """Return the error in kubectl's words, with the fix where one is known."""
    # credential helpers say the same at each of kubectl's attempts
    words = "\n".join(dict.fromkeys(filter(str.strip, _LOG_LINE.sub("", stderr).splitlines()))) or stderr.strip()
    own = "\n".join(_OWN_LINE.findall(words))
    message = f"kubectl {command}: {words[-600:]}"
    if "Error from server (NotFound)" in own:
        return NotFound(message)
    if any(sign in stderr for sign in _LOST):
        return ConnectionLost(message)
    kind, fix = next(((Unreachable, fix) for signs, fix in _FIXES if any(sign in own for sign in signs)), (NotSeen, ""))
    if not fix and "doesn't have a resource type" in own:
        fix = "KubeRay is not installed there: name the stack's cluster with --context, or bring it up"
    return kind(f"{message}{'' if message.endswith(('?', '.')) else '.'} Fix: {fix}" if fix else message)


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str
    context: str | None = None
    """None: the current one."""
    kubeconfig: str | None = None
    """None: $KUBECONFIG, then ~/.kube/config."""

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Return the output of a command. Raises NotSeen or one of its kinds, in kubectl's words."""
        tool = shutil.which("kubectl")
        if tool is None:
            raise Unreachable("kubectl is not on PATH. Fix: https://kubernetes.io/docs/tasks/tools")
        options = ["--namespace", self.namespace]
        options += ["--context", self.context] if self.context else []
        options += ["--kubeconfig", self.kubeconfig] if self.kubeconfig else []
        try:
            done = subprocess.run(
                [tool, *options, *arguments],
                input=stdin,
                capture_output=True,
                encoding="utf-8",
                # logs hold whatever programs write
                errors="replace",
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise NotSeen(
                f"kubectl {_command_name(arguments)}: no answer within {seconds:.0f} s. "
                "Fix: try again; if it stays so, check whether the cluster is well: kubectl get --raw /readyz"
            ) from None
        if done.returncode != 0:
            raise _error(_command_name(arguments), done.stderr)
        return done.stdout

    def by_hand(self, command: str) -> str:
        """Return a command as the user can type it, without the kubeconfig, which may be a temporary file."""
        return " ".join(["kubectl", *([f"--context {self.context}"] if self.context else []), "-n", self.namespace, command])

    def get(self, *what: str) -> dict[str, Any]:
        """Return objects as data."""
        return json.loads(self("get", *what, "-o", "json"))

    def python(self, pod: str, container: str, script: str) -> Any:
        """Run a Python script that changes nothing in a container. Return the JSON of the last line that it prints."""
        output = self._until_connected("exec", "-i", pod, "-c", container, "--", "python", "-", stdin=script)
        try:
            return json.loads(output.splitlines()[-1])
        except (ValueError, IndexError):
            raise NotSeen(f"python in pod {pod} printed no JSON but: {output[-300:]!r}") from None

    def _until_connected(self, *arguments: str, stdin: str) -> str:
        """Run a command that changes nothing, again where the connection breaks: a busy API server drops `exec`."""
        for _ in range(EXEC_ATTEMPTS - 1):
            with suppress(ConnectionLost):
                return self(*arguments, stdin=stdin, seconds=300)
            time.sleep(POLL_SECONDS)
        return self(*arguments, stdin=stdin, seconds=300)
