"""Make the manifests for API keys and the gate that checks them. No Pulumi.

The keys are files of a mounted Secret. The kubelet keeps them up to date, so a new key needs no new pod and is in no environment.
The gate is a Python file in a ConfigMap with a digest in its name: a changed gate changes the pod template, so pods with the old and
the new gate never share a cluster.
"""

import hashlib
import pathlib
from typing import Any

API_KEY_KEY = "api_key"
PREVIOUS_API_KEY_KEY = "previous_api_key"

GATE_FOLDER = pathlib.Path(__file__).parent / "in_pods"
GATE_SOURCE = (GATE_FOLDER / "rayline_gate.py").read_text()
GATE_MIDDLEWARE = "rayline_gate.ApiKeyGate"
"""For vLLM's argument `middleware`. vLLM imports it and puts it around all entries before it in the list."""
ADAPTER_GATE_MIDDLEWARE = "rayline_adapter_gate.AdapterGate"
"""The same for a service with adapters, which Ray loads outside of vLLM's middlewares."""
GATE_PATH = "/etc/rayline/gate"
KEYS_PATH = "/etc/rayline/api-keys"
KEYS_VARIABLE = "RAYLINE_KEYS_FOLDER"

VOLUME_NAMES = ("api-key-gate", "api-keys")


def api_key_secret(service: str) -> str:
    """Return the name of the Secret with the API keys."""
    return f"{service}-api-key"


def gate_middleware(adapters: bool) -> str:
    """Return the gate for vLLM's argument `middleware`, of a service with adapters or without."""
    return ADAPTER_GATE_MIDDLEWARE if adapters else GATE_MIDDLEWARE


def _gate_sources(adapters: bool) -> dict[str, str]:
    sources = {"rayline_gate.py": GATE_SOURCE}
    if adapters:
        sources["rayline_adapter_gate.py"] = (GATE_FOLDER / "rayline_adapter_gate.py").read_text()
    return sources


def gate_name(service: str, *, adapters: bool = False) -> str:
    """Return the name of the ConfigMap with the gate."""
    text = "".join(_gate_sources(adapters).values())
    return f"{service}-api-key-gate-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def gate_config_map(service: str, namespace: str, *, adapters: bool = False) -> dict[str, Any]:
    """Return the ConfigMap with the gate's source."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": gate_name(service, adapters=adapters), "namespace": namespace},
        "immutable": True,
        "data": _gate_sources(adapters),
    }


def gate_environment() -> list[dict[str, str]]:
    """Return the variables with the folders of the gate and of the keys."""
    return [{"name": "PYTHONPATH", "value": GATE_PATH}, {"name": KEYS_VARIABLE, "value": KEYS_PATH}]


def gate_volumes(service: str, *, adapters: bool = False) -> list[dict[str, Any]]:
    """Return the volumes of the gate and of the keys."""
    gate, keys = VOLUME_NAMES
    return [
        {"name": gate, "configMap": {"name": gate_name(service, adapters=adapters)}},
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
