"""The arms of a benchmark: ways to serve the same model. Rows, and pure functions from the stack's manifest to each.

What the kit sets is whatever its rendered RayService says; nothing of it is repeated here. Other arms are made from that
manifest by taking away or laying over, so a difference between two arms is a difference between two manifests.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml

from rayline.facts.serve_flags import HA_PROXY, SWITCHES
from rayline.service.api_key import GATE_MIDDLEWARE
from rayline.service.reading import RayService, plain_environment
from rayline.service.serve_reading import LlmConfig
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

    @property
    def service(self) -> RayService:
        return RayService(self.manifest)

    def kv_cache_gib(self) -> float:
        return float(env_of(self.service).get("VLLM_CPU_KVCACHE_SPACE") or 4)  # vLLM's own default


@dataclass(frozen=True)
class RayArm:
    """A RayService that rayline_cli.local.runtime brings up."""

    manifest: Mapping[str, Any]

    def facts(self) -> dict[str, Any]:
        """Return what tells arms apart, flat, for people and for the receipt; values of Secrets are not in it."""
        service = RayService(self.manifest)
        config = service.serve.data
        llm = next((one.data for one in service.serve.llm_configs), {})
        # without the place of this clone: a run may be resumed in another one, and a receipt may be shown to others
        here = str(PROJECT_ROOT)
        found = {f"env {name}": value.replace(here, "(project)") for name, value in env_of(service).items()}
        found |= {f"engine {name}": value for name, value in llm.get("engine_kwargs", {}).items()}
        shown = ("engine_kwargs", "model_loading_config", "accelerator_config")
        rest = {name: value for name, value in config.items() if name != "applications"}
        found |= _flat(rest | {name: value for name, value in llm.items() if name not in shown}, "serve")
        if mode := service.cluster.get("authOptions", {}).get("mode"):
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


def sample(base: Base) -> dict[str, Any]:
    """The upstream high-throughput sample for this model: its four switches and nothing else of the kit.

    ray-project/kuberay v1.7.0, ray-service.high-throughput-llm.yaml. Kept besides: what the CPU needs (accelerator kind,
    no CPU for the actor beside the placement group's, CPU_ENVIRONMENT), and the numbers of CPUs of head and workers.
    """
    declared = base.service.serve.llm_configs[0].data
    llm = {name: declared[name] for name in ("model_loading_config", "accelerator_config")} | {
        "engine_kwargs": dict(base.engine),
        "deployment_config": {"num_replicas": base.replicas, "ray_actor_options": {"num_cpus": 0}},
    }
    application = {"name": "llm_app", "import_path": "ray.serve.llm:build_openai_app", "args": {"llm_configs": [llm]}}
    environment = dict.fromkeys(SWITCHES.values(), "1") | vllm_environment(base)
    cluster = base.manifest["spec"]["rayClusterConfig"]
    head, workers = cluster["headGroupSpec"]["rayStartParams"], cluster["workerGroupSpecs"][0]
    worker = {
        "groupName": workers["groupName"],
        "replicas": base.replicas,
        "rayStartParams": {"num-cpus": workers["rayStartParams"]["num-cpus"]},
        "template": _pod("llm", environment),
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": base.manifest["metadata"]["name"]},
        "spec": {
            "serveConfigV2": yaml.safe_dump({"applications": [application]}, sort_keys=False, width=1000),
            "rayClusterConfig": {
                "rayVersion": cluster["rayVersion"],
                "headGroupSpec": {
                    "rayStartParams": {name: head[name] for name in ("dashboard-host", "num-cpus") if name in head},
                    "template": _pod("ray-head", environment),
                },
                "workerGroupSpecs": [worker],
            },
        },
    }


def ray_defaults(base: Base, *, unbatched: bool = False) -> Mapping[str, Any]:
    """The same with all four switches off, as Ray Serve LLM is without them; `unbatched` sends each token by itself."""
    manifest = RayService(sample(base)).with_environment(dict.fromkeys(SWITCHES.values(), "0")).manifest
    group = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    group["rayStartParams"]["num-cpus"] = str(int(group["rayStartParams"]["num-cpus"]) + INGRESS_CPUS)
    each = {"experimental_configs": {"stream_batching_interval_ms": 0}}
    return with_llm(manifest, lambda llm: llm | each) if unbatched else manifest


def haproxy_only(base: Base) -> Mapping[str, Any]:
    """The first switch alone: HAProxy in the Python proxy's place, everything behind it as without switches."""
    return RayService(ray_defaults(base)).with_environment({HA_PROXY: "1"}).manifest


def with_sessions(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy that sends all requests of a session (header x-session-id) to one replica, where its prefixes are cached.

    Ray's router with direct streaming is round robin by default (ray/llm/_internal/serve/core/ingress/builder.py:43).
    """
    router = {"deployment_config": {"request_router_config": {"request_router_class": SESSION_ROUTER}}}
    return with_llm(manifest, lambda llm: laid_over(llm, router))


SESSION_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


def with_equal_engine(manifest: Mapping[str, Any], engine: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a copy whose engine arguments are `engine` and nothing else but the API-key gate, which is not the engine's."""

    def change(llm: dict[str, Any]) -> dict[str, Any]:
        gate = [one for one in LlmConfig(llm).engine_kwargs.get("middleware", []) if one == GATE_MIDDLEWARE]
        return llm | {"engine_kwargs": dict(engine) | ({"middleware": gate} if gate else {})}

    return with_llm(manifest, change)


def with_replicas(manifest: Mapping[str, Any], replicas: int) -> Mapping[str, Any]:
    """Return a copy with `replicas` engines, a worker for each."""

    def change(config: dict[str, Any]) -> None:
        application = config["applications"][0]
        name = LlmConfig(application["args"]["llm_configs"][0]).deployment
        application["deployments"] = [{"name": name, "num_replicas": replicas}]

    changed = RayService(manifest).with_serve(change).manifest
    for group in changed["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        group["replicas"] = replicas
        group["maxReplicas"] = max(replicas, group.get("maxReplicas", 0))
    return changed


def with_llm(manifest: Mapping[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]) -> Mapping[str, Any]:
    """Return a copy that has what `change` makes of its LLMConfig."""

    def in_place(config: dict[str, Any]) -> None:
        models = config["applications"][0]["args"]["llm_configs"]
        models[0] = change(models[0])

    return RayService(manifest).with_serve(in_place).manifest


def env_of(service: RayService) -> dict[str, str]:
    """Return the Ray container's variables; what comes from a Secret as a word about where from."""
    environment = plain_environment(service.head.ray_container)
    return {name: "(from a Secret)" if value is None else value for name, value in environment.items()}


def env_text(value: Any) -> str:
    """Return a variable's text: YAML's true would become "True", which Ray takes for off."""
    return str(int(value)) if isinstance(value, bool) else str(value)


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
    given = env_of(base.service)
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
