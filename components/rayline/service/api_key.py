"""Pure: how the keys of a service and the gate that asks for them come into its pods. No Pulumi.

The keys are files of a mounted Secret, which kubelet keeps up to date, so a new key needs no new pod and stands in no
environment. The gate is a Python file in a ConfigMap, whose name holds a digest of the text: a changed gate is a changed
pod template, and pods with an old and a new one never share a cluster by accident.
"""

import hashlib
import pathlib
from typing import Any

API_KEY_KEY = "api_key"
PREVIOUS_API_KEY_KEY = "previous_api_key"

GATE_FOLDER = pathlib.Path(__file__).parent / "in_pods"
GATE_SOURCE = (GATE_FOLDER / "rayline_gate.py").read_text()
GATE_MIDDLEWARE = "rayline_gate.ApiKeyGate"
"""For vLLM's argument `middleware`, which imports it and puts it around everything before it in the list."""
GATE_PATH = "/etc/rayline/gate"
KEYS_PATH = "/etc/rayline/api-keys"
KEYS_VARIABLE = "RAYLINE_KEYS_FOLDER"

VOLUME_NAMES = ("api-key-gate", "api-keys")


def api_key_secret(service: str) -> str:
    """Name of the Secret with the keys that clients of the endpoint send."""
    return f"{service}-api-key"


def gate_name(service: str) -> str:
    """Name of the ConfigMap with the gate."""
    return f"{service}-api-key-gate-{hashlib.sha256(GATE_SOURCE.encode()).hexdigest()[:8]}"


def gate_config_map(service: str, namespace: str) -> dict[str, Any]:
    """The ConfigMap with the gate's source."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": gate_name(service), "namespace": namespace},
        "immutable": True,
        "data": {"rayline_gate.py": GATE_SOURCE},
    }


def gate_environment() -> list[dict[str, str]]:
    """Where Python finds the gate, and the gate its keys."""
    return [{"name": "PYTHONPATH", "value": GATE_PATH}, {"name": KEYS_VARIABLE, "value": KEYS_PATH}]


def gate_volumes(service: str) -> list[dict[str, Any]]:
    gate, keys = VOLUME_NAMES
    return [
        {"name": gate, "configMap": {"name": gate_name(service)}},
        # readable by the pod's group (fsGroup) only
        {"name": keys, "secret": {"secretName": api_key_secret(service), "defaultMode": 0o440}},
    ]


def gate_mounts() -> list[dict[str, Any]]:
    # whole folders: kubelet never updates a file that is mounted by itself (subPath)
    return [
        {"name": name, "mountPath": path, "readOnly": True}
        for name, path in zip(VOLUME_NAMES, (GATE_PATH, KEYS_PATH), strict=True)
    ]
