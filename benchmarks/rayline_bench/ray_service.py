"""A rendered RayService: what the arms read of it, and copies with something changed. Pure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from rayline.service.api_key import GATE_MIDDLEWARE
from rayline.service.manifest import llm_deployment


def serve_config(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return serveConfigV2, parsed."""
    return yaml.safe_load(manifest["spec"]["serveConfigV2"])


def env_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Ray container's variables; what comes from a Secret as a word about where from."""
    container = _containers(manifest)[0]
    return {entry["name"]: entry.get("value", "(from a Secret)") for entry in container.get("env") or []}


def with_env(manifest: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy in which every Ray container has `changes`; None takes a variable away."""
    changed = copy.deepcopy(dict(manifest))
    for container in _containers(changed):
        kept = [entry for entry in container.get("env") or [] if entry["name"] not in changes]
        container["env"] = kept + [
            {"name": name, "value": env_text(value)} for name, value in changes.items() if value is not None
        ]
    return changed


def with_serve(manifest: Mapping[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return a copy whose parsed serveConfigV2 went through `change`."""
    changed = copy.deepcopy(dict(manifest))
    config = serve_config(manifest)
    change(config)
    changed["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False, width=1000)
    return changed


def with_engine(manifest: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy whose engine has `changes`; None takes an argument away."""

    def change(config: dict[str, Any]) -> None:
        llm = llm_config(config)
        llm["engine_kwargs"] = laid_over(llm.get("engine_kwargs") or {}, changes)

    return with_serve(manifest, change)


def with_equal_engine(manifest: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy whose engine arguments are `engine` and nothing else but the API-key gate, which is not the engine's."""

    def change(config: dict[str, Any]) -> None:
        llm = llm_config(config)
        gate = [one for one in (llm.get("engine_kwargs") or {}).get("middleware", []) if one == GATE_MIDDLEWARE]
        llm["engine_kwargs"] = dict(engine) | ({"middleware": gate} if gate else {})

    return with_serve(manifest, change)


def with_replicas(manifest: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """Return a copy with `replicas` engines, a worker for each."""

    def change(config: dict[str, Any]) -> None:
        application = config["applications"][0]
        name = llm_deployment(llm_config(config)["model_loading_config"]["model_id"])
        application["deployments"] = [{"name": name, "num_replicas": replicas}]

    changed = with_serve(manifest, change)
    for group in changed["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        group["replicas"] = replicas
        group["maxReplicas"] = max(replicas, group.get("maxReplicas", 0))
    return changed


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `over` merged into `under`, maps in maps; None takes a key away."""
    merged = dict(under)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = laid_over(merged[key], value)
        else:
            merged[key] = value
    return merged


def llm_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the LLMConfig of a Serve configuration."""
    return config["applications"][0]["args"]["llm_configs"][0]


def env_text(value: Any) -> str:
    """Return a variable's text: YAML's true would become "True", which Ray takes for off."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _containers(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    cluster = manifest["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"]["containers"][0] for group in groups]
