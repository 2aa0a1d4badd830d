"""Make the manifests for API keys and the gate that checks them. No Pulumi.

The keys are files of a mounted Secret. The kubelet keeps them up to date, so a new key needs no new pod and is in no environment.
The gate is a Python file in a ConfigMap with a digest in its name: a changed gate changes the pod template, so pods with the old and
the new gate never share a cluster.
"""

import hashlib
import pathlib
from typing import Any

from rayline.facts.variables import PROXY_GATE_VARIABLE

API_KEY_KEY = "api_key"
PREVIOUS_API_KEY_KEY = "previous_api_key"

GATE_FOLDER = pathlib.Path(__file__).parent / "in_pods"
GATE_SOURCE = (GATE_FOLDER / "rayline_gate.py").read_text()
PROXY_GATE_SOURCE = (GATE_FOLDER / "rayline_proxy_gate.py").read_text()
PROXY_GATE = "rayline_proxy_gate.middlewares"
GATE_MIDDLEWARE = "rayline_gate.ApiKeyGate"
"""For vLLM's argument `middleware`. vLLM imports it and puts it around all entries before it in the list."""
GATE_PATH = "/etc/rayline/gate"
KEYS_PATH = "/etc/rayline/api-keys"
KEYS_VARIABLE = "RAYLINE_KEYS_FOLDER"

VOLUME_NAMES = ("api-key-gate", "api-keys")


def api_key_secret(service: str) -> str:
    """Return the name of the Secret with the API keys."""
    return f"{service}-api-key"


def _gate_files(*, at_proxy: bool) -> dict[str, str]:
    return {"rayline_gate.py": GATE_SOURCE} | ({"rayline_proxy_gate.py": PROXY_GATE_SOURCE} if at_proxy else {})


def gate_name(service: str, *, at_proxy: bool = False) -> str:
    """Return the name of the ConfigMap with the gate; `at_proxy`: with that of Ray's proxy too, which a service without replicas needs."""
    source = "".join(_gate_files(at_proxy=at_proxy).values())
    return f"{service}-api-key-gate-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def gate_config_map(service: str, namespace: str, *, at_proxy: bool = False) -> dict[str, Any]:
    """Return the ConfigMap with the gate's source."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": gate_name(service, at_proxy=at_proxy), "namespace": namespace},
        "immutable": True,
        "data": _gate_files(at_proxy=at_proxy),
    }


def gate_environment(*, at_proxy: bool = False) -> list[dict[str, str]]:
    """Return the variables with the folders of the gate and of the keys."""
    variables = [{"name": "PYTHONPATH", "value": GATE_PATH}, {"name": KEYS_VARIABLE, "value": KEYS_PATH}]
    return [*variables, {"name": PROXY_GATE_VARIABLE, "value": PROXY_GATE}] if at_proxy else variables


def gate_volumes(service: str, *, at_proxy: bool = False) -> list[dict[str, Any]]:
    """Return the volumes of the gate and of the keys."""
    gate, keys = VOLUME_NAMES
    return [
        {"name": gate, "configMap": {"name": gate_name(service, at_proxy=at_proxy)}},
        # readable by the pod's group (fsGroup) only
        {"name": keys, "secret": {"secretName": api_key_secret(service), "defaultMode": 0o440}},
    ]


def gate_mounts() -> list[dict[str, Any]]:
    """Return the mounts of both volumes."""
    # whole folders: kubelet never updates a file that is mounted by itself (subPath)
    return [
        {"name": name, "mountPath": path, "readOnly": True}
        for name, path in zip(VOLUME_NAMES, (GATE_PATH, KEYS_PATH), strict=True)
    ]
