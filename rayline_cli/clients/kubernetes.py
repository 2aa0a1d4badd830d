"""Client of a cluster: kubectl in one namespace, with the caller's kubeconfig and rights.

Why kubectl and no Python client: docs/decisions/0030-kubectl-is-the-client-of-a-cluster.md.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from rayline_cli.errors import FailedError

EXEC_ATTEMPTS = 3
POLL_SECONDS = 3.0
_LOG_LINE = re.compile(r"[IWEF]\d{4} ")
_LOST = ("unexpected EOF", "connection reset by peer", "broken pipe", "client connection lost", "TLS handshake timeout")
"""In what kubectl says when the connection broke and not the command."""


class NotSeen(FailedError):
    """Something could not be looked at; the message says what and why."""


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
        """What it prints. Raises NotSeen with what it says, ConnectionLost where the way to the pod broke."""
        tool = shutil.which("kubectl")
        if tool is None:
            raise NotSeen("kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools")
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
            error = ConnectionLost if any(sign in done.stderr for sign in _LOST) else NotSeen
            raise error(f"kubectl {' '.join(arguments[:3])}: " + "\n".join(said)[-600:])
        return done.stdout

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
