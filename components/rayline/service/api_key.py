"""Make the manifests for API keys and the gate that checks them. No Pulumi.

The keys are files of a mounted Secret. The kubelet keeps them up to date, so a new key needs no new pod and is in no environment.
The gate is a Python file in a ConfigMap with a digest in its name: a changed gate changes the pod template, so pods with the old and
the new gate never share a cluster.
"""

import hashlib
import pathlib
from collections.abc import Iterable
from typing import Any

from rayline.facts.labels import APPLICATION
from rayline.facts.variables import PROXY_GATE_VARIABLE

API_KEY_KEY = "api_key"
PREVIOUS_API_KEY_KEY = "previous_api_key"

GATE_FOLDER = pathlib.Path(__file__).parent / "in_pods"
GATE_SOURCE = (GATE_FOLDER / "rayline_gate.py").read_text()
PROXY_GATE = "rayline_proxy_gate.middlewares"
SCALING_POLICY = "rayline_scaling:FirstToken"
"""Serve's autoscaling policy of a model with a bound for its time to first token."""
GATE_MIDDLEWARE = "rayline_gate.ApiKeyGate"
"""For vLLM's argument `middleware`. vLLM imports it and puts it around all entries before it in the list."""
ADAPTER_GATE_MIDDLEWARE = "rayline_adapter_gate.AdapterGate"
"""The same for a service with adapters, which Ray loads outside of vLLM's middlewares."""
SIDES_GATE_MIDDLEWARE = "rayline_sides_gate.SidesGate"
"""The same for a service with prefill and decode replicas."""
GATE_PATH = "/etc/rayline/gate"
KEYS_PATH = "/etc/rayline/api-keys"
KEYS_VARIABLE = "RAYLINE_KEYS_FOLDER"

VOLUME_NAMES = ("api-key-gate", "api-keys")


def api_key_secret(service: str, application: str = APPLICATION) -> str:
    """Return the name of the Secret with the API keys of a service, or of a further model in it."""
    return f"{service}-api-key" if application == APPLICATION else f"{service}-{application}-api-key"


def keys_path(application: str) -> str:
    """Return the folder with the keys of a model in a pod."""
    return KEYS_PATH if application == APPLICATION else f"{KEYS_PATH}-{application}"


def gate_middleware(*, adapters: bool, sides: bool) -> str:
    """Return the gate for vLLM's argument `middleware`, of a service with adapters, with prefill and decode, or without."""
    if sides:
        return SIDES_GATE_MIDDLEWARE
    return ADAPTER_GATE_MIDDLEWARE if adapters else GATE_MIDDLEWARE


def _gate_files(
    *, adapters: bool = False, at_proxy: bool = False, scaling: bool = False, sides: bool = False
) -> dict[str, str]:
    """Return the sources by file name.

    `adapters`: with that of adapters. `at_proxy`: with that of Ray's proxy, for no replica. `scaling`: with the autoscaling policy.
    `sides`: with that of prefill and decode.
    """
    kinds = {
        "rayline_adapter_gate.py": adapters,
        "rayline_proxy_gate.py": at_proxy,
        "rayline_scaling.py": scaling,
        "rayline_sides_gate.py": sides,
    }
    more = [name for name, wanted in kinds.items() if wanted]
    return {"rayline_gate.py": GATE_SOURCE} | {name: (GATE_FOLDER / name).read_text() for name in more}


def gate_name(service: str, **kinds: bool) -> str:
    """Return the name of the ConfigMap with the gate; `kinds` are those of `_gate_files`."""
    text = "".join(_gate_files(**kinds).values())
    return f"{service}-api-key-gate-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def gate_config_map(service: str, namespace: str, **kinds: bool) -> dict[str, Any]:
    """Return the ConfigMap with the gate's source."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": gate_name(service, **kinds), "namespace": namespace},
        "immutable": True,
        "data": _gate_files(**kinds),
    }


def gate_environment(*, keys: bool = True, at_proxy: bool = False) -> list[dict[str, str]]:
    """Return the variables with the folders of the code and, with `keys`, of the keys."""
    variables = {"PYTHONPATH": GATE_PATH}
    if keys:
        variables |= {KEYS_VARIABLE: KEYS_PATH} | ({PROXY_GATE_VARIABLE: PROXY_GATE} if at_proxy else {})
    return [{"name": name, "value": value} for name, value in variables.items()]


def gate_volumes(service: str, applications: Iterable[str] = (APPLICATION,), **kinds: bool) -> list[dict[str, Any]]:
    """Return the volumes of the gate, and of the keys of each application; none of keys without applications."""
    gate = {"name": VOLUME_NAMES[0], "configMap": {"name": gate_name(service, **kinds)}}
    # readable by the pod's group (fsGroup) only
    keys = [
        {"name": _keys_volume(name), "secret": {"secretName": api_key_secret(service, name), "defaultMode": 0o440}}
        for name in applications
    ]
    return [gate, *keys]


def gate_mounts(applications: Iterable[str] = (APPLICATION,)) -> list[dict[str, Any]]:
    """Return the mounts of these volumes."""
    # whole folders: kubelet never updates a file that is mounted by itself (subPath)
    folders = {VOLUME_NAMES[0]: GATE_PATH} | {_keys_volume(name): keys_path(name) for name in applications}
    return [{"name": name, "mountPath": path, "readOnly": True} for name, path in folders.items()]


def _keys_volume(application: str) -> str:
    return VOLUME_NAMES[1] if application == APPLICATION else f"{VOLUME_NAMES[1]}-{application}"
