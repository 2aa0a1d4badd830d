"""From a RayService manifest to one Ray node on this machine. Pure: no process, no file, no network.

`DIFFERENCES` is the whole list of what is not as in the cluster. A difference belongs in that table and in
`translate` below it, nowhere else.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shutil
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rayline.service.api_key import API_KEY_KEY, GATE_FOLDER, GATE_PATH, KEYS_PATH, KEYS_VARIABLE
from rayline.service.manifest import llm_deployment
from rayline_cli.local import ray_start

LOOPBACK = "127.0.0.1"
REPLICA_PORTS = 1000
"""How many ports Serve may hand to replicas, counted from the port "replicas"."""


@dataclass(frozen=True)
class Difference:
    """One way in which this machine is not the cluster."""

    what: str
    why: str


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "One Ray node plays the head and every worker; CPUs and custom resources of head and groups are added up.",
        "Two Ray nodes on one host cannot both bind HAProxy's port: http_options.host and port are one value each.",
    ),
    Difference(
        "The image is this Python environment; pods, volumes, probes and limits of memory and CPU do not exist.",
        "There is no kubelet. Numbers of CPUs are Ray's bookkeeping only and may exceed the cores of this machine.",
    ),
    Difference(
        "A bundled model's model_source becomes a folder on this machine, and HF_HUB_OFFLINE=1 is set if all are such.",
        "Starts without a network and always with the same weights. The served model_id stays as declared.",
    ),
    Difference(
        "Everything listens on 127.0.0.1: Ray's node address (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, without which `ray "
        "start` replaces 127.0.0.1 by the machine's address), dashboard-host and http_options.host.",
        "A developer's machine is no private network. Exception: see LISTENS_ON_ALL_INTERFACES.",
    ),
    Difference(
        "HAProxy is started through a wrapper that turns `bind *:PORT` into `bind 127.0.0.1:PORT` in its configuration.",
        "Serve's template binds the metrics and the stats listener to all interfaces and has no setting for it.",
    ),
    Difference(
        "A declared port that is taken moves up by 100s; Ray's workers take any free port instead of 10002-19999.",
        "Other programs, and other sessions of this one, run on the same machine.",
    ),
    Difference(
        "Values of Secrets come from the caller; authOptions becomes RAY_AUTH_MODE and RAY_AUTH_TOKEN.",
        "Those two are what KubeRay injects. Its other variables describe pods and are left out.",
    ),
    Difference(
        "Mounted Secrets are files in a folder of this session, which the next `up` brings up to date; the gate that asks "
        "for keys is the file of this project, not a ConfigMap's.",
        "There is no kubelet. The gate reads changed files as it does in a pod.",
    ),
    Difference(
        "Where authOptions declares no token, Ray gets a random one.",
        "It guards the listeners of LISTENS_ON_ALL_INTERFACES, which unpickle what they are sent.",
    ),
    Difference(
        "RAY_*, RAYLLM_*, VLLM_*, PYTHONPATH and PYTHONDONTWRITEBYTECODE of the calling shell are dropped; the rest is inherited.",
        "Only declared switches may decide; and without bytecode each process compiles its imports anew.",
    ),
    Difference(
        "NO_PROXY and no_proxy also name 127.0.0.1 and localhost, and PATH begins with this environment's programs.",
        "gRPC and urllib send what is for this machine to a proxy as well; some of Ray's helpers look for `python` and `ray`.",
    ),
    Difference(
        "Without a C++ compiler (or Python's headers) TORCH_COMPILE_DISABLE=1 is set.",
        "On the CPU vLLM compiles its sampler at the first request also with enforce_eager, and a fresh machine cannot.",
    ),
    Difference(
        "Ray's session folder and HAProxy's files live in a folder of this session; compiled kernels go to the cache.",
        "The defaults (/tmp/ray, /tmp/haproxy-serve) are shared by every Ray on the machine.",
    ),
    Difference(
        "The autoscaler does not run: the one node has the CPUs of maxReplicas workers from the start.",
        "So Serve's num_replicas can be raised as in a cluster, without machines to add.",
    ),
    Difference(
        "Neither Ray Client's server nor the autoscaler's monitor starts (rayline_cli/local/ray_start.py, --no-monitor).",
        "Nothing here uses them. Ray Client's server gives up after 30 s on a busy machine, and its end ends Ray.",
    ),
    Difference(
        "The raylet does not wait for the port of the dashboard agent, and time-outs of a start (START_TIMEOUTS) are an hour.",
        "Beside compilers a start takes minutes, and no kubelet tries again. `up` ends when nothing moves any more.",
    ),
    Difference(
        "Once it serves, the session's scheduling group has niceness 5 (/proc/PID/autogroup), where the kernel makes such groups.",
        "vLLM's engine waits by yielding in a loop, and Linux then lets other programs, clients among them, wait for seconds.",
    ),
    Difference(
        "`down` ends processes after 2 s instead of draining.",
        "There are no other people's requests to wait for.",
    ),
    Difference(
        "RAY_USAGE_STATS_ENABLED=0 unless declared.",
        "A try-out on a laptop reports to nobody.",
    ),
)

LISTENS_ON_ALL_INTERFACES: Mapping[str, str] = {
    "ray::ServeReplica": (
        "each replica's gRPC server for calls between deployments: the address [::]:0 is hard-coded "
        "(ray/serve/_private/replica.py, _on_initialized). It refuses calls without Ray's token"
    ),
}
"""Processes, by the start of their title, that open a listener Ray cannot be told to keep on loopback.

With RAY_AUTH_MODE=token their gRPC servers answer UNAUTHENTICATED to anybody without the token."""


@dataclass(frozen=True)
class Port:
    """A port that has a fixed number in a pod."""

    name: str
    number: int
    flag: str = ""
    """The flag of `ray start` that sets it."""
    env: str = ""
    """The environment variable that sets it."""
    width: int = 1
    """How many consecutive ports are used."""


PORTS: tuple[Port, ...] = (
    Port("serve", 8000),  # http_options.port
    Port("dashboard", 8265, flag="dashboard-port"),
    Port("gcs", 6379, flag="port"),
    Port("agent", 52365, flag="dashboard-agent-listen-port"),
    # Any free ports in a pod. The raylet waits 15 s for an agent to say its port, and not where it is told before.
    Port("agent-grpc", 52366, flag="dashboard-agent-grpc-port"),
    Port("runtime-env-agent", 52367, flag="runtime-env-agent-port"),
    Port("metrics", 8080, flag="metrics-export-port"),  # KubeRay's default, not Ray's
    Port("haproxy-metrics", 9101, env="RAY_SERVE_HAPROXY_METRICS_PORT"),
    Port("haproxy-stats", 8404, env="RAY_SERVE_HAPROXY_STATS_PORT"),
    Port("fallback", 8500, env="RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"),
    Port("dashboard-metrics", 44227, env="DASHBOARD_METRIC_PORT"),
    Port("replicas", 30000, env="RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", width=REPLICA_PORTS),
)


@dataclass(frozen=True)
class StartTimeout:
    """A time-out of Ray, Serve or vLLM that ends a start that is merely slow."""

    variable: str
    default_seconds: float
    source: str
    """The file that reads the variable, in site-packages."""
    per_second: int = 1
    """What the variable counts in: 1000 for milliseconds."""


START_TIMEOUTS: tuple[StartTimeout, ...] = (
    # until the dashboard answers, and each of its modules
    StartTimeout("RAY_DASHBOARD_STARTUP_TIMEOUT_S", 60, "ray/_private/ray_constants.py"),
    StartTimeout("RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT", 30, "ray/dashboard/consts.py"),
    # until the raylet has registered: the defaults of ray_config_def.h are compiled into both files
    StartTimeout("RAY_raylet_start_wait_time_s", 30, "ray/_raylet.so"),
    StartTimeout("RAY_agent_register_timeout_ms", 30, "ray/core/src/ray/raylet/raylet", per_second=1000),
    # until a worker's process has registered; it is killed and started anew else
    StartTimeout("RAY_worker_register_timeout_seconds", 60, "ray/core/src/ray/raylet/raylet"),
    # until HAProxyManager answers, and HAProxy its manager; three such waits, and the manager is started anew
    StartTimeout("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", 5, "ray/serve/_private/constants.py"),
    StartTimeout("RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S", 30, "ray/serve/_private/constants.py"),
    # until the engine's process is ready
    StartTimeout("VLLM_ENGINE_READY_TIMEOUT_S", 600, "vllm/envs.py"),
)
"""Each of them is an hour here unless the manifest declares it: `up` watches whether something moves (waiting.py)."""
_START_TIMEOUT_SECONDS = 3600

# Written by `translate` itself, or meaningless on one node; everything else in rayStartParams is passed on as declared.
_OWN_START_PARAMS = {
    *("head", "block", "node-ip-address", "dashboard-host", "temp-dir", "num-cpus", "resources"),
    *("no-monitor", "ray-client-server-port"),
    *(port.flag for port in PORTS if port.flag),
}
# `ray start` takes these with a value, other booleans as a bare flag (KubeRay: common/pod.go, convertParamMap).
_START_PARAMS_WITH_BOOLEAN_VALUE = {"log-color", "include-dashboard"}

INHERITED_PREFIXES_DROPPED = ("RAY_", "RAYLLM_", "VLLM_", "RAYLINE_SESSION")
AUTH_TOKEN_KEY = "auth_token"
"""Key in the Secret that authOptions.secretName names (KubeRay's contract)."""


class TranslationError(Exception):
    """The RayService cannot run on this machine; one line per reason."""


@dataclass(frozen=True)
class SecretRef:
    """Where a value comes from that must not be written down."""

    name: str
    key: str
    optional: bool = False


@dataclass(frozen=True)
class Declared:
    """What a RayService says that matters to one Ray node."""

    name: str
    env: Mapping[str, str | SecretRef]
    """Environment of the Ray container: the same on the head and in every worker group."""
    start_params: Mapping[str, str]
    """The head's rayStartParams."""
    num_cpus: int
    """Ray CPUs of the head and of all workers that there may be together."""
    num_cpus_wanted: int
    """Ray CPUs of the head and of the workers that the manifest starts with."""
    resources: Mapping[str, float]
    """Custom Ray resources of the head and of all workers together."""
    serve_config: Mapping[str, Any]
    """serveConfigV2, parsed."""
    auth_token: SecretRef | None
    """Ray's own token, when authOptions.mode is token."""
    secret_mounts: Mapping[str, str] = field(default_factory=dict)
    """Folder in the Ray container -> name of the Secret whose keys are files there."""

    def llm_configs(self) -> list[dict[str, Any]]:
        """Every LLMConfig of every application, as declared."""
        return [
            config
            for application in self.serve_config.get("applications") or []
            for config in (application.get("args") or {}).get("llm_configs") or []
            if isinstance(config, dict)
        ]

    def model_sources(self) -> list[str]:
        """Every model_source that is a string, in order of appearance."""
        sources = []
        for config in self.llm_configs():
            loading = config.get("model_loading_config") or {}
            # Ray's default: without a source the id is the source.
            source = loading.get("model_source") or loading.get("model_id")
            if isinstance(source, str) and source not in sources:
                sources.append(source)
        return sources

    def llm_replicas(self) -> int:
        """How many vLLM engines are declared; with autoscaling the most that there may be."""
        total = 0
        for application in self.serve_config.get("applications") or []:
            # An override in `deployments` wins over the LLMConfig's own deployment_config.
            overrides = {
                one.get("name"): one.get("num_replicas") or one["autoscaling_config"].get("max_replicas", 1)
                for one in application.get("deployments") or []
                if "num_replicas" in one or "autoscaling_config" in one
            }
            for config in (application.get("args") or {}).get("llm_configs") or []:
                model_id = (config.get("model_loading_config") or {}).get("model_id", "")
                wanted = (config.get("deployment_config") or {}).get("num_replicas", 1)
                wanted = overrides.get(llm_deployment(model_id), wanted)
                total += wanted if isinstance(wanted, int) else 1
        return total

    def ports(self) -> dict[str, int]:
        """The number each of PORTS has in the manifest."""
        numbers = {}
        for port in PORTS:
            declared: Any = port.number
            if port.name == "serve":
                declared = (self.serve_config.get("http_options") or {}).get("port", port.number)
            elif port.flag:
                declared = self.start_params.get(port.flag, port.number)
            elif isinstance(self.env.get(port.env), str):
                declared = self.env[port.env]
            try:
                numbers[port.name] = int(declared)
            except ValueError:
                raise TranslationError(
                    f"{port.env or port.flag} is {declared!r}, which is no port. Fix: a number"
                ) from None
        return numbers


@dataclass(frozen=True)
class Translation:
    """What to start and what to send."""

    ray_start_args: Sequence[str]
    """Arguments after `ray start`."""
    env: Mapping[str, str]
    """Variables that the manifest or this module sets, secrets resolved."""
    serve_config: Mapping[str, Any]
    """What to PUT to the dashboard."""
    files: Mapping[str, str]
    """Files of mounted Secrets: path under the session's folder -> content."""
    api_key: str | None
    """The key to send to the endpoint, if it asks for one."""
    auth_token: str
    """The token that Ray's dashboard and gRPC servers ask for."""


def read(ray_service: Mapping[str, Any]) -> Declared:
    """What `ray_service` (a RayService as a dict) declares.

    Raises TranslationError naming everything at once that one machine without GPU cannot do.
    """
    problems: list[str] = []
    spec = ray_service.get("spec") or {}
    cluster = spec.get("rayClusterConfig") or {}
    head = cluster.get("headGroupSpec") or {}
    groups = cluster.get("workerGroupSpecs") or []

    env = _read_env(head, "the head", problems)
    num_cpus = num_cpus_wanted = _num_cpus(head)
    resources = dict(_custom_resources(head, "the head", problems))
    for group in groups:
        label = f"worker group {group.get('groupName', '?')}"
        replicas = _worker_count(group, autoscaled=bool(cluster.get("enableInTreeAutoscaling")))
        _same_env(env, _read_env(group, label, problems), label, problems)
        num_cpus += replicas * _num_cpus(group)
        num_cpus_wanted += _worker_count(group, autoscaled=False) * _num_cpus(group)
        for name, amount in _custom_resources(group, label, problems).items():
            resources[name] = resources.get(name, 0) + replicas * amount
        for name, amount in _container_resources(group).items():
            if name.endswith("/gpu") or name.endswith("/tpu"):
                problems.append(
                    f"{label} asks for {amount} {name}: this machine serves on the CPU. "
                    "Declare a service with accelerator_config {kind: cpu}"
                )

    serve_config = _read_serve_config(spec.get("serveConfigV2"), problems)
    declared = Declared(
        name=(ray_service.get("metadata") or {}).get("name", "ray-service"),
        env=env,
        start_params={key: str(value) for key, value in (head.get("rayStartParams") or {}).items()},
        num_cpus=num_cpus,
        num_cpus_wanted=num_cpus_wanted,
        resources=resources,
        serve_config=serve_config,
        auth_token=_read_auth(cluster.get("authOptions") or {}, problems),
        secret_mounts={path: name for group in (head, *groups) for path, name in _secret_mounts(group).items()},
    )
    for config in declared.llm_configs():
        if (config.get("accelerator_config") or {}).get("kind") != "cpu":
            model_id = (config.get("model_loading_config") or {}).get("model_id", "?")
            problems.append(f"model {model_id}: accelerator_config must be {{kind: cpu}} on this machine")
    if problems:
        raise TranslationError("\n".join(problems))
    return declared


def choose_ports(declared: Mapping[str, int], is_taken: Callable[[int], bool]) -> dict[str, int]:
    """A free port for each of `declared`: the declared one, or the next free one in steps of 100.

    Steps of 100 keep the last two digits, so that 8365 is still recognised as the dashboard. A range (the replicas')
    moves by its own width.
    """
    chosen: dict[str, int] = {}
    used: set[int] = set()
    for port in PORTS:
        step = max(100, port.width)
        first = declared[port.name]
        for start in range(first, 65536 - port.width, step):
            numbers = range(start, start + port.width)
            if not any(number in used or is_taken(number) for number in numbers):
                break
        else:
            raise TranslationError(f"no free port for {port.name}: {first} and every {step}th above it are taken")
        chosen[port.name] = start
        used.update(numbers)
    return chosen


def translate(
    declared: Declared,
    *,
    ports: Mapping[str, int],
    folder: Path,
    cache_dir: Path,
    model_folders: Mapping[str, Path],
    secrets: Mapping[tuple[str, str], str],
    haproxy_binary: Path | None,
    own_token: str,
) -> Translation:
    """Applies DIFFERENCES to `declared`.

    `folder` is this session's short folder, `model_folders` maps a model_source to its folder on this machine,
    `secrets` maps (Secret name, key) to the value, `haproxy_binary` is HAProxy itself (None where it is switched off),
    `own_token` is Ray's token where the manifest declares none.
    Raises TranslationError when a Secret's value is missing.
    """
    problems: list[str] = []
    env: dict[str, str] = {}
    for name, value in declared.env.items():
        resolved = _resolve(value, secrets, f"variable {name}", problems)
        # An empty Secret, such as a Hugging Face token that nobody has, is no value: `Bearer ` is an illegal header.
        if resolved or (resolved is not None and isinstance(value, str)):
            env[name] = resolved
    files, places = {}, {GATE_PATH: str(GATE_FOLDER)}
    for path, name in declared.secret_mounts.items():
        values = {key: value for (secret, key), value in secrets.items() if secret == name}
        if not values:
            problems.append(f"the volume at {path} needs Secret {name}, and no value was given for it")
        files.update({f"{SECRETS_FOLDER}/{name}/{key}": value for key, value in values.items()})
        places[path] = str(folder / SECRETS_FOLDER / name)
    env = {name: places.get(value, value) for name, value in env.items()}
    auth_token: str | None = own_token
    if declared.auth_token is not None:
        auth_token = _resolve(declared.auth_token, secrets, "authOptions", problems)
    if not auth_token and not problems:
        problems.append("Ray's token is empty: give authOptions' Secret a value")
    if problems or not auth_token:
        raise TranslationError("\n".join(problems))

    env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    env.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    env["RAY_START_HOOK"] = ray_start.HOOK
    for one in START_TIMEOUTS:
        env.setdefault(one.variable, str(_START_TIMEOUT_SECONDS * one.per_second))
    env.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir / "torchinductor"))
    env.update({port.env: str(ports[port.name]) for port in PORTS if port.env})
    env["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"] = str(ports["replicas"] + REPLICA_PORTS - 1)
    env.update(haproxy_files(folder))
    if haproxy_binary is not None:
        env["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(folder / HAPROXY_WRAPPER_NAME)
    env.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=auth_token)
    sources = declared.model_sources()
    if sources and all(source in model_folders for source in sources):
        env["HF_HUB_OFFLINE"] = "1"

    return Translation(
        ray_start_args=_ray_start_args(declared, ports, folder),
        env=env,
        serve_config=_local_serve_config(declared, ports, model_folders),
        files=files,
        api_key=api_key(declared, secrets),
        auth_token=auth_token,
    )


def api_key(declared: Declared, secrets: Mapping[tuple[str, str], str]) -> str | None:
    """The key to send to the endpoint, if the service asks for one."""
    if KEYS_VARIABLE not in declared.env:
        return None
    return secrets.get((declared.secret_mounts.get(KEYS_PATH, ""), API_KEY_KEY))


def restart_key(declared: Declared, secrets: Mapping[tuple[str, str], str], salt: str) -> str:
    """Differs when a change needs new processes: all but serveConfigV2's applications and the workers' counts.

    What a mounted Secret holds is not in it either: its files are changed under the running processes.
    KubeRay leaves counts out of its own comparison, too; whether the running node has room is another question.
    Serve ignores changed http_options, grpc_options and proxy_location once its controller runs
    (ray/dashboard/modules/serve/serve_head.py, validate_http_options), so they count too. `salt` is random per session:
    the key is written to a file and must not let anyone guess a Secret.
    """
    once_per_controller = {
        key: declared.serve_config.get(key)
        for key in ("http_options", "grpc_options", "proxy_location", "controller_options")
    }
    values = {
        name: secrets.get((value.name, value.key)) if isinstance(value, SecretRef) else value
        for name, value in {**declared.env, "authOptions": declared.auth_token}.items()
    }
    mounts = sorted(declared.secret_mounts.items())
    # a session of another version of this project has other ports
    ports = [port.name for port in PORTS]
    parts = [salt, values, mounts, declared.start_params, sorted(declared.resources), once_per_controller, ports]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def inherited_env(environ: Mapping[str, str]) -> dict[str, str]:
    """What Ray's processes get of the caller's environment."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(INHERITED_PREFIXES_DROPPED) and name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    }
    # gRPC and urllib honour a proxy variable even for 127.0.0.1.
    for name in ("no_proxy", "NO_PROXY"):
        kept[name] = ",".join(filter(None, [environ.get(name), LOOPBACK, "localhost"]))
    if not can_compile(environ):
        kept.setdefault("TORCH_COMPILE_DISABLE", "1")
    return kept


def process_env(environ: Mapping[str, str], declared: Mapping[str, str], programs: str) -> dict[str, str]:
    """The whole environment of Ray's processes: the caller's, and over it what the manifest and `translate` say.

    `programs` is this Python's folder of programs: some of Ray's helpers look for `python` and `ray` on PATH.
    """
    inherited = inherited_env(environ)
    env = {**inherited, **declared}
    env["PATH"] = os.pathsep.join([programs, env.get("PATH", "/usr/bin:/bin")])
    for name in ("no_proxy", "NO_PROXY"):
        both = f"{declared.get(name, '')},{inherited[name]}".split(",")
        env[name] = ",".join(dict.fromkeys(filter(None, both)))
    return env


def can_compile(environ: Mapping[str, str]) -> bool:
    """Whether torch.compile finds what it needs for the CPU: $CXX or g++, as torch looks for them, and Python's headers."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return shutil.which(environ.get("CXX") or "g++", path=environ.get("PATH", "")) is not None and headers.exists()


SECRETS_FOLDER = "secrets"
"""Folder of mounted Secrets under the session's."""

# --- HAProxy ---------------------------------------------------------------------------------------------------------

HAPROXY_WRAPPER_NAME = "haproxy"
HAPROXY_FOLDER = "h"
"""One letter: HAProxy takes socket paths of 97 characters at most, and Serve adds the node id, which has 56."""


def haproxy_files(folder: Path) -> dict[str, str]:
    """Where HAProxyManager writes; Serve inserts the node id before the file name."""
    home = folder / HAPROXY_FOLDER
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(home / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(home / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(home),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(home / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(home / "metrics.sock"),
    }


def haproxy_wrapper(haproxy_binary: Path) -> str:
    """A shell script that keeps every listener of the -f file on loopback, then becomes HAProxy.

    `exec` keeps the process id and the arguments, by which Serve finds and reloads its HAProxy.
    """
    return f"""#!/bin/sh
previous=
for argument in "$@"; do
  [ "$previous" = -f ] && sed -i -E 's/^( *bind )[*]?:([0-9]+)/\\1{LOOPBACK}:\\2/' "$argument"
  previous=$argument
done
exec '{haproxy_binary}' "$@"
"""


# --- reading the manifest --------------------------------------------------------------------------------------------


def _worker_count(group: Mapping[str, Any], *, autoscaled: bool) -> int:
    """How many workers the one node stands for: with an autoscaler, as many as it may add."""
    replicas = int(group.get("replicas") or group.get("minReplicas") or 0)
    return max(replicas, int(group.get("maxReplicas") or 0)) if autoscaled else replicas


def _containers(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return ((group.get("template") or {}).get("spec") or {}).get("containers") or []


def _secret_mounts(group: Mapping[str, Any]) -> dict[str, str]:
    """Folder -> Secret of the Ray container's volumes."""
    volumes = ((group.get("template") or {}).get("spec") or {}).get("volumes") or []
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    mounts = (_containers(group) or [{}])[0].get("volumeMounts") or []
    return {mount["mountPath"]: secrets[mount["name"]] for mount in mounts if mount["name"] in secrets}


def _read_env(group: Mapping[str, Any], label: str, problems: list[str]) -> dict[str, str | SecretRef]:
    """The environment of the Ray container, which is the first one (KubeRay's rule)."""
    containers = _containers(group)
    if not containers:
        return {}
    env: dict[str, str | SecretRef] = {}
    if containers[0].get("envFrom"):
        problems.append(f"{label}: envFrom is not supported here, name each variable in env")
    for entry in containers[0].get("env") or []:
        name = entry["name"]
        source = entry.get("valueFrom")
        if source is None:
            env[name] = str(entry.get("value", ""))
        elif "secretKeyRef" in source:
            ref = source["secretKeyRef"]
            env[name] = SecretRef(ref["name"], ref["key"], bool(ref.get("optional", False)))
        else:
            problems.append(f"{label}: variable {name} comes from {next(iter(source), '?')}, which only a pod has")
    return env


def _same_env(
    head: Mapping[str, str | SecretRef],
    group: Mapping[str, str | SecretRef],
    label: str,
    problems: list[str],
) -> None:
    for name in sorted(head.keys() | group.keys()):
        if head.get(name) != group.get(name):
            problems.append(
                f"variable {name} is {_shown(head.get(name))} on the head and {_shown(group.get(name))} in {label}: "
                "one Ray node has one environment, and Serve reads its switches on every node"
            )


def _shown(value: str | SecretRef | None) -> str:
    if value is None:
        return "not set"
    return f"from Secret {value.name}" if isinstance(value, SecretRef) else repr(value)


def _container_resources(group: Mapping[str, Any]) -> dict[str, Any]:
    """Requests overlaid with limits, as the scheduler sees them."""
    containers = _containers(group)
    resources = (containers[0].get("resources") or {}) if containers else {}
    return {**(resources.get("requests") or {}), **(resources.get("limits") or {})}


def _num_cpus(group: Mapping[str, Any]) -> int:
    """rayStartParams.num-cpus, else the container's CPU limit or request rounded up: KubeRay's order."""
    declared = (group.get("rayStartParams") or {}).get("num-cpus")
    if declared is not None:
        return int(declared)
    quantity = str(_container_resources(group).get("cpu", 0))
    return math.ceil(float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity))


def _custom_resources(group: Mapping[str, Any], label: str, problems: list[str]) -> dict[str, float]:
    """The group's `resources` map and rayStartParams.resources (a JSON text, often quoted for the shell)."""
    merged: dict[str, float] = {}
    text = (group.get("rayStartParams") or {}).get("resources")
    if text:
        try:
            merged.update(json.loads(str(text).strip("'\"").replace('\\"', '"')))
        except ValueError:
            problems.append(f"{label}: rayStartParams.resources is not JSON: {text}")
    for name, amount in (group.get("resources") or {}).items():
        # In that map these three override rayStartParams; they are no custom resources.
        if name.lower() not in {"cpu", "gpu", "memory"}:
            merged[name] = float(amount)
    return merged


def _read_serve_config(text: Any, problems: list[str]) -> dict[str, Any]:
    try:
        config = yaml.safe_load(text) if isinstance(text, str) else text
    except yaml.YAMLError as error:
        problems.append(f"spec.serveConfigV2 is not YAML: {error}")
        return {}
    if not isinstance(config, dict) or not config.get("applications"):
        problems.append("spec.serveConfigV2 declares no applications")
        return {}
    return config


def _read_auth(auth: Mapping[str, Any], problems: list[str]) -> SecretRef | None:
    # `authOptions: {}` leaves authentication off: KubeRay tests mode == "token" and the CRD has no default.
    if auth.get("mode") != "token":
        return None
    if not auth.get("secretName"):
        problems.append("authOptions.mode is token without secretName: name the Secret that holds auth_token")
        return None
    return SecretRef(auth["secretName"], AUTH_TOKEN_KEY)


def _resolve(
    value: str | SecretRef,
    secrets: Mapping[tuple[str, str], str],
    label: str,
    problems: list[str],
) -> str | None:
    if isinstance(value, str):
        return value
    found = secrets.get((value.name, value.key))
    if found is None and not value.optional:
        problems.append(f"{label} needs the key {value.key} of Secret {value.name}, and no value was given for it")
    return found


# --- writing the local form ------------------------------------------------------------------------------------------


def _ray_start_args(declared: Declared, ports: Mapping[str, int], folder: Path) -> list[str]:
    args = ["--head", "--block", f"--node-ip-address={LOOPBACK}", f"--dashboard-host={LOOPBACK}"]
    args += [f"--{port.flag}={ports[port.name]}" for port in PORTS if port.flag]
    args += [f"--temp-dir={folder}", f"--num-cpus={declared.num_cpus}", "--no-monitor"]
    if declared.resources:
        args.append(f"--resources={json.dumps(dict(declared.resources), sort_keys=True)}")
    if "worker-port-list" not in declared.start_params and "min-worker-port" not in declared.start_params:
        args += ["--min-worker-port=0", "--max-worker-port=0"]
    args += _passed_on(declared.start_params.items())
    return args


def _passed_on(params: Iterable[tuple[str, str]]) -> list[str]:
    flags = []
    for name, value in params:
        if name in _OWN_START_PARAMS:
            continue
        if value.lower() in {"true", "false"} and name not in _START_PARAMS_WITH_BOOLEAN_VALUE:
            flags += [f"--{name}"] if value.lower() == "true" else []
        else:
            flags.append(f"--{name}={value}")
    return flags


def _local_serve_config(
    declared: Declared,
    ports: Mapping[str, int],
    model_folders: Mapping[str, Path],
) -> dict[str, Any]:
    config = copy.deepcopy(dict(declared.serve_config))
    config["http_options"] = {**(config.get("http_options") or {}), "host": LOOPBACK, "port": ports["serve"]}
    for application in config["applications"]:
        for llm in (application.get("args") or {}).get("llm_configs") or []:
            loading = llm.get("model_loading_config") if isinstance(llm, dict) else None
            if not loading:
                continue
            source = loading.get("model_source") or loading.get("model_id")
            if isinstance(source, str) and source in model_folders:
                loading["model_source"] = str(model_folders[source])
    return config
