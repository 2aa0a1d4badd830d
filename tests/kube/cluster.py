"""kubectl, and waiting for what it says."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Found = TypeVar("Found")


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
    """Standard output of kubectl. Raises RuntimeError with what it said."""
    done = subprocess.run(["kubectl", *arguments], input=stdin, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def kubectl_apply(manifest: dict[str, Any]) -> None:
    """Make or change one object."""
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))


def objects(kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
    """The objects of a kind in a namespace, with a label selector."""
    return json.loads(kubectl("-n", namespace, "get", kind, "-l", selector, "-o", "json"))["items"]


# What every container may say, so that the one thing a test adds is the one thing that is refused.
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(image: str, name: str, namespace: str, *, command: Sequence[str] = ("sleep", "3600"), **spec: Any) -> dict[str, Any]:
    """A pod that may do no more than Pod Security restricted allows."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": RESTRICTED,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec},
    }


def wait_until(look: Callable[[], Found], what: str, seconds: float, every: float = 2) -> Found:
    """What `look` returns as soon as it is true. Raises AssertionError that names what was waited for."""
    end = time.monotonic() + seconds
    while True:
        try:
            found = look()
            said: object = found
            if found:
                return found
        except RuntimeError as error:
            said = error
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s; last seen: {said}"
        time.sleep(every)
