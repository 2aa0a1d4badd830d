"""Translate the requirements on one node into what is started and sent here. Pure: no process, no file, no network.

differences.py is the whole list of differences from a cluster.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayline.service.api_key import API_KEY_KEY, GATE_FOLDER, GATE_PATH, KEYS_PATH, KEYS_VARIABLE
from rayline.service.reading import SecretRef, ServeConfig
from rayline_cli.local import ray_start
from rayline_cli.local.environment import start_timeouts
from rayline_cli.local.failures import TranslationError
from rayline_cli.local.haproxy import HAPROXY_WRAPPER_NAME, haproxy_files
from rayline_cli.local.ports import LOOPBACK, PORTS, REPLICA_PORTS
from rayline_cli.local.session import SECRETS_FOLDER
from rayline_cli.local.single_node import Secrets, SingleNode

# Written by `translate` itself, or meaningless on one node; everything else in rayStartParams is passed on as declared.
_OWN_START_PARAMS = {
    *("head", "block", "node-ip-address", "dashboard-host", "temp-dir", "num-cpus", "resources"),
    *("no-monitor", "ray-client-server-port"),
    *(port.flag for port in PORTS if port.flag),
}
# `ray start` takes these with a value, other booleans as a bare flag (KubeRay: common/pod.go, convertParamMap).
_START_PARAMS_WITH_BOOLEAN_VALUE = {"log-color", "include-dashboard"}


@dataclass(frozen=True)
class Place:
    """Ports, folders and programs of a node on this machine."""

    ports: Mapping[str, int]
    folder: Path
    """The session's short folder."""
    cache_dir: Path
    model_folders: Mapping[str, Path]
    """model_source -> its folder on this machine."""
    haproxy_binary: Path | None
    """HAProxy itself; None where it is switched off."""
    own_token: str
    """Ray's token where the manifest declares none."""


@dataclass(frozen=True)
class Translation:
    """The local form of a node: what to start and what to send."""

    ray_start_args: Sequence[str]
    """Arguments after `ray start`."""
    env: Mapping[str, str]
    """Variables that the manifest or this module sets, secrets resolved."""
    serve_config: Mapping[str, Any]
    """What to PUT to the dashboard."""
    files: Mapping[str, str]
    """Files of mounted Secrets: path under the session's folder -> content."""
    api_keys: Mapping[str, str]
    """The key to send to each application that requires one, by its name."""
    auth_token: str
    """The token that Ray's dashboard and gRPC servers require."""


def translate(node: SingleNode, place: Place, secrets: Secrets) -> Translation:
    """Return `node` in its local form, with all of DIFFERENCES. Raises TranslationError when a Secret's value is missing."""
    problems: list[str] = []
    env = _declared_environment(node, secrets, problems)
    files, folders = _secret_files(node, place, secrets, problems)
    auth_token: str | None = place.own_token
    if node.auth_token is not None:
        auth_token = _resolve(node.auth_token, secrets, "authOptions", problems)
    if not auth_token and not problems:
        problems.append("Ray's token is empty. Fix: give authOptions' Secret a value")
    if problems or not auth_token:
        raise TranslationError("\n".join(problems))
    env = {name: folders.get(value, value) for name, value in env.items()}
    return Translation(
        ray_start_args=_ray_start_args(node, place),
        env=_local_environment(env, node, place) | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": auth_token},
        serve_config=_local_serve_config(node, place, folders),
        files=files,
        api_keys=api_keys(node, secrets),
        auth_token=auth_token,
    )


def _declared_environment(node: SingleNode, secrets: Secrets, problems: list[str]) -> dict[str, str]:
    """Return the declared variables, with the values of Secrets."""
    env: dict[str, str] = {}
    for name, value in node.env.items():
        resolved = _resolve(value, secrets, f"variable {name}", problems)
        # An empty Secret, such as a Hugging Face token that is not set, is no value: `Bearer ` is an illegal header.
        if resolved or (resolved is not None and isinstance(value, str)):
            env[name] = resolved
    return env


def _resolve(value: str | SecretRef, secrets: Secrets, label: str, problems: list[str]) -> str | None:
    if isinstance(value, str):
        return value
    resolved = secrets.get((value.name, value.key))
    if resolved is None and not value.optional:
        problems.append(f"{label} needs the key {value.key} of Secret {value.name}, which has no value. Fix: give it one")
    return resolved


def _secret_files(
    node: SingleNode, place: Place, secrets: Secrets, problems: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the files of mounted Secrets, and the folder here for each folder that is mounted in a pod."""
    files, folders = {}, {GATE_PATH: str(GATE_FOLDER)}
    for path, name in node.secret_mounts.items():
        values = {key: value for (secret, key), value in secrets.items() if secret == name}
        if not values:
            problems.append(f"the volume at {path} needs Secret {name}, which has no value. Fix: give it one")
        files.update({f"{SECRETS_FOLDER}/{name}/{key}": value for key, value in values.items()})
        folders[path] = str(place.folder / SECRETS_FOLDER / name)
    return files, folders


def _local_environment(env: Mapping[str, str], node: SingleNode, place: Place) -> dict[str, str]:
    """Return the declared variables with those that this machine needs."""
    local = {
        **start_timeouts(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TORCHINDUCTOR_CACHE_DIR": str(place.cache_dir / "torchinductor"),
        **env,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_START_HOOK": ray_start.HOOK,
        "UCX_NET_DEVICES": "lo",
        **{port.env: str(place.ports[port.name]) for port in PORTS if port.env},
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(place.ports["replicas"] + REPLICA_PORTS - 1),
        **haproxy_files(place.folder),
    }
    if place.haproxy_binary is not None:
        local["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(place.folder / HAPROXY_WRAPPER_NAME)
    sources = node.serve.model_sources
    if sources and all(source in place.model_folders for source in sources):
        local["HF_HUB_OFFLINE"] = "1"
    return local


def _ray_start_args(node: SingleNode, place: Place) -> list[str]:
    args = ["--head", "--block", f"--node-ip-address={LOOPBACK}", f"--dashboard-host={LOOPBACK}"]
    args += [f"--{port.flag}={place.ports[port.name]}" for port in PORTS if port.flag]
    args += [f"--temp-dir={place.folder}", f"--num-cpus={node.num_cpus}", "--no-monitor"]
    if node.resources:
        args.append(f"--resources={json.dumps(dict(node.resources), sort_keys=True)}")
    if "worker-port-list" not in node.start_params and "min-worker-port" not in node.start_params:
        args += ["--min-worker-port=0", "--max-worker-port=0"]
    for name, value in node.start_params.items():
        if name in _OWN_START_PARAMS:
            continue
        if value.lower() in {"true", "false"} and name not in _START_PARAMS_WITH_BOOLEAN_VALUE:
            args += [f"--{name}"] if value.lower() == "true" else []
        else:
            args.append(f"--{name}={value}")
    return args


def _local_serve_config(node: SingleNode, place: Place, folders: Mapping[str, str]) -> dict[str, Any]:
    config = copy.deepcopy(dict(node.serve.data))
    config["http_options"] = {**(config.get("http_options") or {}), "host": LOOPBACK, "port": place.ports["serve"]}
    for llm in ServeConfig(config).llm_configs:
        if isinstance(llm.model_source, str) and llm.model_source in place.model_folders:
            loading: Any = llm.data["model_loading_config"]
            loading["model_source"] = str(place.model_folders[llm.model_source])
        variables: Any = llm.variables
        variables.update({name: folders.get(value, value) for name, value in variables.items()})
        if llm.side:
            side: Any = llm.data
            side["experimental_configs"] = {"NIXL_SIDE_CHANNEL_PORT_BASE": place.ports[llm.side]}
    return config


def api_keys(node: SingleNode, secrets: Secrets) -> dict[str, str]:
    """Return the key to send to each application that requires one, by its name."""
    folders = {app.name: str(app.variables.get(KEYS_VARIABLE, KEYS_PATH)) for app in node.serve.applications}
    keys = {name: secrets.get((node.secret_mounts.get(folder, ""), API_KEY_KEY)) for name, folder in folders.items()}
    return {name: key for name, key in keys.items() if key is not None} if KEYS_VARIABLE in node.env else {}


def restart_key(node: SingleNode, secrets: Secrets, salt: str) -> str:
    """Return a text that differs when a change needs new processes: all but serveConfigV2's applications and worker counts.

    The values of mounted Secrets are left out too: their files are changed under the running processes. KubeRay also leaves
    worker counts out of its comparison; whether the running node has room is another question.
    Serve ignores changed http_options, grpc_options and proxy_location once its controller runs
    (ray/dashboard/modules/serve/serve_head.py, validate_http_options), so they count too. `salt` is random per session:
    the key is written to a file and must not reveal a Secret.
    """
    once_per_controller = {
        key: node.serve.data.get(key) for key in ("http_options", "grpc_options", "proxy_location", "controller_options")
    }
    values = {
        name: secrets.get((value.name, value.key)) if isinstance(value, SecretRef) else value
        for name, value in {**node.env, "authOptions": node.auth_token}.items()
    }
    mounts = sorted(node.secret_mounts.items())
    # a session of another version of this project has other ports
    ports = [port.name for port in PORTS]
    parts = [salt, values, mounts, node.start_params, sorted(node.resources), once_per_controller, ports]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
