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
from dataclasses import dataclass
from typing import Any

from rayline_cli.errors import FailedError

EXEC_ATTEMPTS = 3
POLL_SECONDS = 3.0
_LOG_LINE = re.compile(r"[IWEF]\d{4} .*\n?(?:\t.*\n?| >\n?)*")
"""A line of its library's own log, which may go on over indented lines."""
_OWN_LINE = re.compile(
    r"^(?:error: |Error from server|Error in configuration|Unable to connect|The connection to the server).*", re.MULTILINE
)
"""A line of kubectl itself: what it runs in a pod writes to the same stream."""
_LOST = ("unexpected EOF", "connection reset by peer", "broken pipe", "client connection lost", "TLS handshake timeout")
"""In what kubectl says when the connection broke and not the command."""
_NOT_FOUND = "Error from server (NotFound)"
_CONTEXT = "name one of `kubectl config get-contexts` with --context, or in cluster.context of the stack file"
_LOGIN = "log in to the cluster again, for GKE with gcloud auth login: the kubeconfig's credentials are not accepted"
_REACH = (
    "start the cluster, let this machine reach it (VPN, firewall, cluster.authorized_networks), or name another with --context"
)
_KUBECONFIG = "mend the kubeconfig that KUBECONFIG, or cluster.kubeconfig of the stack file, names"
_REMEDIES = (
    ('context "', _CONTEXT),
    ("context was not found", _CONTEXT),
    ("current-context ", _CONTEXT),
    ("localhost:8080", "kubectl knows no cluster: set KUBECONFIG, or cluster.kubeconfig of the stack file"),
    ("error loading config file", "KUBECONFIG, or cluster.kubeconfig of the stack file, has to name a kubeconfig"),
    ("error: stat ", "cluster.kubeconfig of the stack file, or KUBECONFIG, has to name a kubeconfig that exists"),
    ("Error in configuration", _KUBECONFIG),
    ("error: invalid configuration", _KUBECONFIG),
    ("gke-gcloud-auth-plugin not found", "gcloud components install gke-gcloud-auth-plugin"),
    ("getting credentials", "log in to the cluster's cloud again, for GKE: gcloud auth login"),
    ("logged in", _LOGIN),
    ("(Unauthorized)", _LOGIN),
    ("x509: ", "get the cluster's kubeconfig again: its certificate is another's"),
    (
        "(Forbidden)",
        "grant what `rayline permissions --stack STACK` prints; docs/operations.md#status has the rights of each command",
    ),
    ("connection to the server", _REACH),
    ("Unable to connect", _REACH),
)
"""In what kubectl says where it cannot reach the API server or is refused -> what to do about it. The first one that fits counts."""
_NO_KUBERAY = "doesn't have a resource type"


class NotSeen(FailedError):
    """Something could not be looked at; the message says what and why."""


class Unreachable(NotSeen):
    """The API server cannot be reached, or refuses who asks; the message says what to do. Waiting seldom helps."""


class ConnectionLost(NotSeen):
    """The connection to the API server or through it to a pod broke."""


class NotFound(NotSeen):
    """The API server answers that there is no such object."""


def _named(arguments: Sequence[str]) -> str:
    """Return what a command is called in a message: its beginning, without an option whose value would be cut off."""
    return " ".join(arguments[:3]).removesuffix(" -l").removesuffix(" -c")


def _error(command: str, stderr: str) -> NotSeen:
    """Return what went wrong in kubectl's words, with what to do about it where that is known."""
    # credential helpers say the same at each of its attempts
    words = "\n".join(dict.fromkeys(filter(str.strip, _LOG_LINE.sub("", stderr).splitlines()))) or stderr.strip()
    own = "\n".join(_OWN_LINE.findall(words))
    said = f"kubectl {command}: {words[-600:]}"
    if _NOT_FOUND in own:
        return NotFound(said)
    if any(sign in stderr for sign in _LOST):
        return ConnectionLost(said)
    fix = next((remedy for sign, remedy in _REMEDIES if sign in own), "")
    kind = Unreachable if fix else NotSeen
    if not fix and _NO_KUBERAY in own:
        fix = "KubeRay is not installed there: name the stack's cluster with --context, or bring it up"
    return kind(f"{said}{'' if said.endswith(('?', '.')) else '.'} Fix: {fix}" if fix else said)


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str
    context: str | None = None
    """None: the current one."""
    kubeconfig: str | None = None
    """None: $KUBECONFIG, then ~/.kube/config."""

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """What it prints. Raises NotSeen with what it says: Unreachable, NotFound, or ConnectionLost where the way to the pod broke."""
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
                # logs hold what programs write, which may be anything
                errors="replace",
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise NotSeen(
                f"kubectl {_named(arguments)}: no answer within {seconds:.0f} s. "
                "Fix: try again; if it stays so, look whether the cluster is well: kubectl get --raw /readyz"
            ) from None
        if done.returncode != 0:
            raise _error(_named(arguments), done.stderr)
        return done.stdout

    def by_hand(self, command: str) -> str:
        """Return a command as the user can type it, without the kubeconfig, which may be a passing file."""
        return " ".join(["kubectl", *([f"--context {self.context}"] if self.context else []), "-n", self.namespace, command])

    def get(self, *what: str) -> dict[str, Any]:
        """Objects as data."""
        return json.loads(self("get", *what, "-o", "json"))

    def python(self, pod: str, container: str, script: str) -> Any:
        """Run a Python script that only looks in a container. Return the JSON of the last line that it prints."""
        said = self._until_connected("exec", "-i", pod, "-c", container, "--", "python", "-", stdin=script)
        try:
            return json.loads(said.splitlines()[-1])
        except (ValueError, IndexError):
            raise NotSeen(f"python in pod {pod} said no data but: {said[-300:]!r}") from None

    def _until_connected(self, *arguments: str, stdin: str) -> str:
        """A job that only looks may be sent again: a busy API server drops the streams of `exec`."""
        for _ in range(EXEC_ATTEMPTS - 1):
            try:
                return self(*arguments, stdin=stdin, seconds=300)
            except ConnectionLost:
                time.sleep(POLL_SECONDS)
        return self(*arguments, stdin=stdin, seconds=300)
