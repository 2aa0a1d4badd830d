"""kubectl in one namespace: how every command reaches a cluster, with the caller's kubeconfig and rights."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayline.verify import inside
from rayline.verify.target import NotSeen

_SCRIPT = pathlib.Path(inside.__file__).read_text()
EXEC_ATTEMPTS = 3
POLL_SECONDS = 3.0
_LOG_LINE = re.compile(r"[IWEF]\d{4} ")
_LOST = ("unexpected EOF", "connection reset by peer", "broken pipe", "client connection lost", "TLS handshake timeout")
"""In what kubectl says when the connection broke and not the command."""


_REACH = "let this machine reach the API server: the kubeconfig's address, VPN, firewall, cluster.authorized_networks"
_LOGIN = "log in with credentials that the cluster knows: for GKE gcloud auth login, and kubectl's plug-in for it"
_RIGHTS = "grant what `rayline permissions --stack STACK` prints"
_KUBECONFIG = (
    "name a context of `kubectl config get-contexts` in cluster.context or --context, and its file in cluster.kubeconfig "
    "or $KUBECONFIG"
)
# Beginnings of kubectl's own lines: what a command in a pod says, or the API server about a pod's node, is another matter.
_UNREACHABLE = (
    (r"error: You must be logged in|Error from server \(Unauthorized\)", _LOGIN),
    (r"Unable to connect to the server: getting credentials", _LOGIN),
    (r"The connection to the server \S+ was refused|Unable to connect to the server:", _REACH),
    (r"Error from server \(Forbidden\)", _RIGHTS),
    (r"error: context |error: current-context |Error in configuration|error: invalid configuration", _KUBECONFIG),
    (r"error: stat |error: error loading config file", _KUBECONFIG),
)


class Unreachable(NotSeen):
    """The API server cannot be reached, or refuses who asks; the message says what to do. Waiting seldom helps."""


class ConnectionLost(NotSeen):
    """The connection to the API server or through it to a pod broke."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one namespace."""

    namespace: str
    context: str | None = None
    """None: the current one."""
    kubeconfig: str | None = None
    """None: $KUBECONFIG, then ~/.kube/config."""

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = 60) -> str:
        """What it prints. Raises NotSeen with what it says: Unreachable, or ConnectionLost where the way to the pod broke."""
        tool = shutil.which("kubectl")
        if tool is None:
            raise Unreachable("kubectl is not on PATH. Fix: https://kubernetes.io/docs/tasks/tools")
        options = ["--namespace", self.namespace]
        options += ["--context", self.context] if self.context else []
        options += ["--kubeconfig", self.kubeconfig] if self.kubeconfig else []
        try:
            done = subprocess.run(
                [tool, *options, *arguments], input=stdin, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise NotSeen(f"kubectl {' '.join(arguments[:3])}: no answer within {seconds:.0f} s") from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            # its library's own log comes before what it has to say
            said = [line for line in lines if not _LOG_LINE.match(line)] or lines
            text = f"kubectl {' '.join(arguments[:3])}: " + "\n".join(said)[-600:]
            if any(sign in done.stderr for sign in _LOST):
                raise ConnectionLost(text)
            if fix := _fix(said):
                raise Unreachable(f"{text}\nFix: {fix}")
            raise NotSeen(text)
        return done.stdout

    def get(self, *what: str) -> dict[str, Any]:
        """Objects as data."""
        return json.loads(self("get", *what, "-o", "json"))

    def python(self, pod: str, container: str, job: Mapping[str, Any], place: Mapping[str, Any]) -> Any:
        """A job of inside.py in a container."""
        given = json.dumps([job, place])
        script = f"{_SCRIPT}\nprint(json.dumps(run(*json.loads({given!r}))))\n"
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


def _fix(said: list[str]) -> str:
    """What to do where kubectl could not reach the API server or was refused, else ""."""
    return next((fix for sign, fix in _UNREACHABLE if any(re.match(sign, line) for line in said)), "")
