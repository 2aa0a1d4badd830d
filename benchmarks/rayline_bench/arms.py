"""The arms of a benchmark: ways to serve the same model. Rows, and pure functions from the stack's manifest to each.

What the kit sets is whatever its rendered RayService says; nothing of it is repeated here. Other arms are made from that
manifest by taking away or laying over, so a difference between two arms is a difference between two manifests.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import yaml

from rayline.facts.serve_flags import HA_PROXY, SWITCHES
from rayline.service.api_key import GATE_MIDDLEWARE
from rayline.service.manifest import llm_deployment
from rayline_cli.stack_names import PROJECT_ROOT

SAMPLE_ENGINE: Mapping[str, Any] = {"enforce_eager": True}
"""Engine arguments of the arms that are to be equal: the upstream high-throughput sample sets none, so all stay at vLLM's
defaults. The one exception is for the CPU, where vLLM else needs a C++ compiler and half a minute more to start."""
CPU_ENVIRONMENT = ("VLLM_CPU_KVCACHE_SPACE",)
"""Variables of the kit's manifest that vLLM needs on the CPU whoever runs it; every arm has them."""
INGRESS_CPUS = 4
"""Ray CPUs added where direct streaming is off: each OpenAiIngress replica then asks for one. Bookkeeping, not cores."""


class ArmError(Exception):
    """An arm, or a file that describes one, makes no sense; the message says why."""


@dataclass(frozen=True)
class Base:
    """What all arms of a run share."""

    manifest: Mapping[str, Any]
    """The stack's RayService, as rendered."""
    model_id: str
    """The served name."""
    model_source: str
    """As declared: a bundled model, a folder or a Hugging Face id."""
    replicas: int = 1
    engine: Mapping[str, Any] = field(default_factory=lambda: dict(SAMPLE_ENGINE))
    """Engine arguments of the arms that are to be equal."""
    more_engine: Mapping[str, Any] = field(default_factory=dict)
    """Laid over the engine arguments of plain vLLM; None takes one away."""

    def kv_cache_gib(self) -> float:
        return float(env_of(self.manifest).get("VLLM_CPU_KVCACHE_SPACE") or 4)  # vLLM's own default


@dataclass(frozen=True)
class RayArm:
    """A RayService that rayline_cli.local.runtime brings up."""

    manifest: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """What tells arms apart, flat, for people and for the receipt; values of Secrets are not in it."""
        config = serve_config(self.manifest)
        llm = _llm(config) if config["applications"][0].get("args", {}).get("llm_configs") else {}
        # without the place of this clone: a run may be resumed in another one, and a receipt may be shown to others
        here = str(PROJECT_ROOT)
        found: dict[str, Any] = {
            f"env {name}": value.replace(here, "(project)") for name, value in env_of(self.manifest).items()
        }
        found |= {f"engine {name}": value for name, value in llm.get("engine_kwargs", {}).items()}
        rest = {name: value for name, value in config.items() if name != "applications"}
        rest |= {
            name: value
            for name, value in llm.items()
            if name not in ("engine_kwargs", "model_loading_config", "accelerator_config")
        }
        found |= _flat(rest, "serve")
        if mode := self.manifest["spec"]["rayClusterConfig"].get("authOptions", {}).get("mode"):
            found["ray auth"] = mode
        return found


@dataclass(frozen=True)
class Process:
    """One process of an arm. In `argv`, `{NAME}` stands for the port of the process NAME; `{model}` for the model's folder."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/v1/models"
    """Path that answers 200 once it serves."""
    more_ports: Sequence[str] = ()
    """Names of ports beside its own; `{NAME}` in `argv` stands for them too."""


@dataclass(frozen=True)
class ProcessArm:
    """Plain processes, each with a port of its own; started in order, each when the one before is ready."""

    processes: Sequence[Process]
    endpoint: str
    """The process that clients talk to."""
    engines: int = 1
    """How many vLLM engines are in it, for the memory."""
    kv_cache_gib: float = 0.0

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for process in self.processes:
            found[f"command {process.name}"] = " ".join(process.argv)
            found |= {f"env {name}": value for name, value in process.env.items()}
        return found


Built = RayArm | ProcessArm


@dataclass(frozen=True)
class Arm:
    """One way to serve the model."""

    name: str
    what: str
    build: Callable[[Base], Built]


# --- manifests ---------------------------------------------------------------------------------------------------------


def serve_config(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """serveConfigV2, parsed."""
    return yaml.safe_load(manifest["spec"]["serveConfigV2"])


def env_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The Ray container's variables; what comes from a Secret as a word about where from."""
    container = _containers(manifest)[0]
    return {entry["name"]: entry.get("value", "(from a Secret)") for entry in container.get("env") or []}


def with_env(manifest: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which every Ray container has `changes`; None takes a variable away."""
    changed = copy.deepcopy(dict(manifest))
    for container in _containers(changed):
        kept = [entry for entry in container.get("env") or [] if entry["name"] not in changes]
        container["env"] = kept + [
            {"name": name, "value": _env_text(value)} for name, value in changes.items() if value is not None
        ]
    return changed


def with_serve(manifest: Mapping[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """A copy whose parsed serveConfigV2 went through `change`."""
    changed = copy.deepcopy(dict(manifest))
    config = serve_config(manifest)
    change(config)
    changed["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False, width=1000)
    return changed


def with_engine(manifest: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose engine has `changes`; None takes an argument away."""

    def change(config: dict[str, Any]) -> None:
        llm = _llm(config)
        llm["engine_kwargs"] = laid_over(llm.get("engine_kwargs") or {}, changes)

    return with_serve(manifest, change)


def with_equal_engine(manifest: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose engine arguments are `engine` and nothing else but the API-key gate, which is not the engine's."""

    def change(config: dict[str, Any]) -> None:
        llm = _llm(config)
        gate = [one for one in (llm.get("engine_kwargs") or {}).get("middleware", []) if one == GATE_MIDDLEWARE]
        llm["engine_kwargs"] = dict(engine) | ({"middleware": gate} if gate else {})

    return with_serve(manifest, change)


def with_replicas(manifest: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """A copy with `replicas` engines, a worker for each."""

    def change(config: dict[str, Any]) -> None:
        application = config["applications"][0]
        name = llm_deployment(_llm(config)["model_loading_config"]["model_id"])
        application["deployments"] = [{"name": name, "num_replicas": replicas}]

    changed = with_serve(manifest, change)
    for group in changed["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        group["replicas"] = replicas
        group["maxReplicas"] = max(replicas, group.get("maxReplicas", 0))
    return changed


def sample(base: Base) -> dict[str, Any]:
    """The upstream high-throughput sample for this model: its four switches and nothing else of the kit.

    ray-project/kuberay v1.7.0, ray-service.high-throughput-llm.yaml. Kept besides: what the CPU needs (accelerator kind,
    no CPU for the actor beside the placement group's, CPU_ENVIRONMENT), and the numbers of CPUs of head and workers.
    """
    declared = _llm(serve_config(base.manifest))
    llm = {
        "model_loading_config": declared["model_loading_config"],
        "accelerator_config": declared["accelerator_config"],
        "engine_kwargs": dict(base.engine),
        "deployment_config": {"num_replicas": base.replicas, "ray_actor_options": {"num_cpus": 0}},
    }
    config = {
        "applications": [
            {"name": "llm_app", "import_path": "ray.serve.llm:build_openai_app", "args": {"llm_configs": [llm]}}
        ]
    }
    given = env_of(base.manifest)
    environment = dict.fromkeys(SWITCHES.values(), "1") | {
        name: given[name] for name in CPU_ENVIRONMENT if name in given
    }
    cluster = base.manifest["spec"]["rayClusterConfig"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": base.manifest["metadata"]["name"]},
        "spec": {
            "serveConfigV2": yaml.safe_dump(config, sort_keys=False, width=1000),
            "rayClusterConfig": {
                "rayVersion": cluster["rayVersion"],
                "headGroupSpec": {
                    "rayStartParams": {
                        name: head["rayStartParams"][name]
                        for name in ("dashboard-host", "num-cpus")
                        if name in head["rayStartParams"]
                    },
                    "template": _pod("ray-head", environment),
                },
                "workerGroupSpecs": [
                    {
                        "groupName": workers["groupName"],
                        "replicas": base.replicas,
                        "rayStartParams": {"num-cpus": workers["rayStartParams"]["num-cpus"]},
                        "template": _pod("llm", environment),
                    }
                ],
            },
        },
    }


def ray_defaults(base: Base, *, unbatched: bool = False) -> dict[str, Any]:
    """The same with all four switches off, as Ray Serve LLM is without them; `unbatched` sends each token by itself."""
    manifest = with_env(sample(base), dict.fromkeys(SWITCHES.values(), "0"))
    group = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    group["rayStartParams"]["num-cpus"] = str(int(group["rayStartParams"]["num-cpus"]) + INGRESS_CPUS)

    def change(config: dict[str, Any]) -> None:
        _llm(config)["experimental_configs"] = {"stream_batching_interval_ms": 0}

    return with_serve(manifest, change) if unbatched else manifest


def haproxy_only(base: Base) -> dict[str, Any]:
    """The first switch alone: HAProxy in the Python proxy's place, everything behind it as without switches."""
    return with_env(ray_defaults(base), {HA_PROXY: "1"})


def with_sessions(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that sends all requests of a session (header x-session-id) to one replica, where its prefixes are cached.

    Ray's router with direct streaming is round robin by default (ray/llm/_internal/serve/core/ingress/builder.py:43).
    """

    def change(config: dict[str, Any]) -> None:
        deployment = _llm(config).setdefault("deployment_config", {})
        deployment["request_router_config"] = {"request_router_class": SESSION_ROUTER}

    return with_serve(manifest, change)


SESSION_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


def _pod(container: str, environment: Mapping[str, str]) -> dict[str, Any]:
    env = [{"name": name, "value": value} for name, value in environment.items()]
    return {"spec": {"containers": [{"name": container, "env": env}]}}


# --- plain vLLM --------------------------------------------------------------------------------------------------------


def vllm_argv(base: Base, name: str, equal: bool) -> list[str]:
    """Command of one `vllm serve`: the module, because the script of that name refuses vllm-cpu's distribution name."""
    argv = ["{python}", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}"]
    argv += ["--served-model-name", base.model_id, "--host", "127.0.0.1", "--port", "{" + name + "}"]
    for key, value in laid_over(base.engine if equal else {}, base.more_engine).items():
        flag = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            argv.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, (dict, list)):
            argv += [flag, json.dumps(value)]
        else:
            argv += [flag, str(value)]
    return argv


def vllm_environment(base: Base) -> dict[str, str]:
    """What CPU_ENVIRONMENT names, as the manifest has it."""
    given = env_of(base.manifest)
    return {name: given[name] for name in CPU_ENVIRONMENT if name in given}


def plain_vllm(base: Base, *, equal: bool = True) -> ProcessArm:
    """Return one `vllm serve`, with vLLM's own defaults unless `equal`. Raises ArmError for more than one replica."""
    if base.replicas != 1:
        raise ArmError("plain `vllm serve` is one server. Fix: compare several replicas with vllm-router")
    argv = vllm_argv(base, "server", equal)
    server = Process("server", argv, vllm_environment(base))
    return ProcessArm([server], "server", engines=1, kv_cache_gib=base.kv_cache_gib())


METRICS_PORT = "router-metrics"
# vllm-router's names (--policy, 0.1.17). The comparison that others published used these two (anyscale/
# llm-direct-streaming-benchmarks, serve/vllm_8x/start.sh): the first for single prompts, the second for sessions.
ROUND_ROBIN, CONSISTENT_HASH = "round_robin", "consistent_hash"


def routed_vllm(base: Base, *, equal: bool = True, policy: str = ROUND_ROBIN) -> ProcessArm:
    """As many `vllm serve` as there are replicas, behind vllm-router: what somebody would run without Ray.

    `policy` is ROUND_ROBIN, as in Ray's router by default, or CONSISTENT_HASH by the header x-session-id.
    """
    names = [f"server{number}" for number in range(1, base.replicas + 1)]
    servers = [Process(name, vllm_argv(base, name, equal), vllm_environment(base)) for name in names]
    argv = ["{python}", "-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", "{router}"]
    argv += ["--prometheus-port", "{" + METRICS_PORT + "}", "--policy", policy]
    argv += ["--worker-urls", *("http://127.0.0.1:{" + name + "}" for name in names)]
    router = Process("router", argv, more_ports=(METRICS_PORT,))
    return ProcessArm([*servers, router], "router", engines=base.replicas, kv_cache_gib=base.kv_cache_gib())


# --- the rows ----------------------------------------------------------------------------------------------------------


def _kit(base: Base) -> RayArm:
    return RayArm(base.manifest if base.replicas == 1 else with_replicas(base.manifest, base.replicas))


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("ray-defaults", "Ray Serve LLM with all switches off", lambda base: RayArm(ray_defaults(base))),
        Arm(
            "ray-unbatched",
            "all switches off, and each token sent by itself (Ray batches for 50 ms by default)",
            lambda base: RayArm(ray_defaults(base, unbatched=True)),
        ),
        Arm(
            "sample",
            "the upstream sample's four switches, vLLM's own arguments, not compiled",
            lambda base: RayArm(sample(base)),
        ),
        Arm(
            "kit-equal",
            "the kit's profile with the sample's engine arguments",
            lambda base: RayArm(with_equal_engine(_kit(base).manifest, base.engine)),
        ),
        Arm("kit", "the kit as shipped: its profile and its own engine arguments", _kit),
        Arm("haproxy", "the first switch alone: HAProxy as proxy", lambda base: RayArm(haproxy_only(base))),
        Arm(
            "kit-sessions",
            "the kit, and a session's turns go to one replica (ConsistentHashRouter)",
            lambda base: RayArm(with_sessions(_kit(base).manifest)),
        ),
        Arm("vllm", "plain `vllm serve` with the sample's engine arguments", plain_vllm),
        Arm("vllm-defaults", "plain `vllm serve` with its own defaults", partial(plain_vllm, equal=False)),
        Arm("vllm-router", "N x `vllm serve` behind vllm-router, with the sample's engine arguments", routed_vllm),
        Arm(
            "vllm-router-defaults",
            "N x `vllm serve` with its own defaults behind vllm-router",
            partial(routed_vllm, equal=False),
        ),
        Arm(
            "vllm-router-sessions",
            "vllm-router, and a session's turns go to one server",
            partial(routed_vllm, policy=CONSISTENT_HASH),
        ),
    )
}


# --- arms from files ---------------------------------------------------------------------------------------------------

_FILE_MAPS = ("service", "env", "engine_kwargs", "llm", "serve")
_FILE_KEYS = {"base", "what", *_FILE_MAPS}


@dataclass(frozen=True)
class Overlay:
    """An arm that a file describes: another arm, with something laid over."""

    name: str
    base: str
    """The arm that it starts from."""
    what: str = ""
    service: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the stack's service, checked as in a stack file."""
    env: Mapping[str, Any] = field(default_factory=dict)
    """Variables for every Ray container, unchecked; None takes one away."""
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Engine arguments, unchecked; None takes one away."""
    llm: Mapping[str, Any] = field(default_factory=dict)
    """Laid over the LLMConfig, unchecked; None takes a key away."""
    serve: Mapping[str, Any] = field(default_factory=dict)
    """Laid over serveConfigV2, unchecked; None takes a key away."""


def read_overlay(name: str, text: str) -> Overlay:
    """The arm that a YAML text describes. Raises ArmError."""
    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ArmError(f"arm {name}: the file is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise ArmError(f"arm {name}: the file is a map with some of {', '.join(sorted(_FILE_KEYS))}")
    if unknown := sorted(document.keys() - _FILE_KEYS):
        raise ArmError(f"arm {name}: unknown {', '.join(unknown)}; there are {', '.join(sorted(_FILE_KEYS))}")
    base = document.get("base", "kit-equal")
    if base not in ARMS:
        raise ArmError(f"arm {name}: base {base!r} is none of {', '.join(ARMS)}")
    for key in _FILE_MAPS:
        if not isinstance(document.get(key, {}), dict):
            raise ArmError(f"arm {name}: {key} is a map")
    return Overlay(name, **({"base": base} | document))


def overlaid(overlay: Overlay) -> Arm:
    """The arm of a file; its `service` has to be in the base's manifest already."""

    def made(base: Base) -> Built:
        built = ARMS[overlay.base].build(replace(base, more_engine=overlay.engine_kwargs))
        if isinstance(built, ProcessArm):
            if overlay.serve or overlay.llm:
                raise ArmError(f"arm {overlay.name}: {overlay.base} has no Serve configuration to lay something over")
            over = {key: None if value is None else _env_text(value) for key, value in overlay.env.items()}
            return replace(built, processes=[replace(one, env=laid_over(one.env, over)) for one in built.processes])
        manifest = with_engine(with_env(built.manifest, overlay.env), overlay.engine_kwargs)

        def change(config: dict[str, Any]) -> None:
            merged = laid_over(config, overlay.serve)
            config.clear()
            config.update(merged)
            config["applications"][0]["args"]["llm_configs"][0] = laid_over(_llm(config), overlay.llm)

        return RayArm(with_serve(manifest, change))

    return Arm(overlay.name, overlay.what or f"{overlay.base} with a file laid over", made)


def laid_over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` merged into `under`, maps in maps; None takes a key away."""
    merged = dict(under)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = laid_over(merged[key], value)
        else:
            merged[key] = value
    return merged


def differences(one: Built, other: Built) -> list[str]:
    """One line for each thing that `one` has differently from `other`."""
    mine, theirs = one.facts(), other.facts()
    lines = []
    for key in sorted(mine.keys() | theirs.keys()):
        if key not in theirs:
            lines.append(f"+ {key}: {mine[key]}")
        elif key not in mine:
            lines.append(f"- {key}: {theirs[key]}")
        elif mine[key] != theirs[key]:
            lines.append(f"~ {key}: {mine[key]} (was {theirs[key]})")
    return lines


def _flat(value: Mapping[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found |= _flat(item, f"{path}.{key}" if path else key)
        else:
            found[f"{path}.{key}"] = item
    return found


def _llm(config: dict[str, Any]) -> dict[str, Any]:
    return config["applications"][0]["args"]["llm_configs"][0]


def _env_text(value: Any) -> str:
    """YAML's true would become "True", which Ray takes for off."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _containers(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    cluster = manifest["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"]["containers"][0] for group in groups]
