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
from rayline.service.api_key import ADAPTER_GATE_MIDDLEWARE, GATE_MIDDLEWARE
from rayline.service.reading import RayService, plain_environment
from rayline.service.serve_reading import LlmConfig
from rayline_cli.local import memory, single_node
from rayline_cli.stack_names import PROJECT_ROOT

from .errors import BenchUsageError

SAMPLE_ENGINE: Mapping[str, Any] = {"enforce_eager": True}
"""Engine arguments of the arms that are to be equal: the upstream high-throughput sample sets none, so all stay at vLLM's
defaults. The one exception is for the CPU, where vLLM else needs a C++ compiler and half a minute more to start."""
CPU_ENVIRONMENT = ("VLLM_CPU_KVCACHE_SPACE",)
"""Variables of the kit's manifest that vLLM needs on the CPU; every arm has them."""
INGRESS_CPUS = 4
"""Ray CPUs added where direct streaming is off: each OpenAiIngress replica then requests one. Bookkeeping, not cores."""
MEMORY_PER_VLLM_GIB = 2.0
"""One plain vLLM server with a tiny model on the CPU, without its KV cache: API server and engine."""


@dataclass(frozen=True)
class Base:
    """What all arms of a run share."""

    manifest: Mapping[str, Any]
    """The stack's RayService, as rendered."""
    replicas: int = 1
    engine: Mapping[str, Any] = field(default_factory=lambda: dict(SAMPLE_ENGINE))
    """Engine arguments of the arms that are to be equal."""
    more_engine: Mapping[str, Any] = field(default_factory=dict)
    """Laid over the engine arguments of plain vLLM; None takes one away."""

    def __post_init__(self) -> None:
        if self.service.serve.is_disaggregated:
            raise BenchUsageError("arms are compared engine by engine. Fix: a stack without `disaggregation`")

    @property
    def service(self) -> RayService:
        """Return the stack's RayService."""
        return RayService(self.manifest)

    @property
    def model(self) -> LlmConfig:
        """Return the model: its served name and its source, which is a bundled model, a folder or a Hugging Face id."""
        return self.service.serve.llm_configs[0]


@dataclass(frozen=True)
class RayArm:
    """A RayService that rayline_cli.local.runtime brings up."""

    manifest: Mapping[str, Any]

    @property
    def memory_gib(self) -> float:
        """Return about how much memory the arm takes."""
        return memory.needed_gib(single_node.read(self.manifest), {})

    def facts(self) -> dict[str, Any]:
        """Return the settings in which arms differ, flat, for the terminal and the receipt; values of Secrets are not in it."""
        service = RayService(self.manifest)
        config = service.serve.data
        llm = next((config.data for config in service.serve.llm_configs), {})
        # without the place of this clone: a run may be resumed in another one, and a receipt may be published
        here = str(PROJECT_ROOT)
        facts = {f"env {name}": value.replace(here, "(project)") for name, value in env_of(service).items()}
        facts |= {f"engine {name}": value for name, value in llm.get("engine_kwargs", {}).items()}
        shown = ("engine_kwargs", "model_loading_config", "accelerator_config")
        rest = {name: value for name, value in config.items() if name != "applications"}
        facts |= _flat(rest | {name: value for name, value in llm.items() if name not in shown}, "serve")
        for deployment in (d for application in service.serve.applications for d in application.deployments):
            facts |= _flat(
                {name: value for name, value in deployment.items() if name != "name"}, f"deployment {deployment['name']}"
            )
        if mode := service.cluster.get("authOptions", {}).get("mode"):
            facts["ray auth"] = mode
        return facts


@dataclass(frozen=True)
class Process:
    """One process of an arm. In `argv`, `{NAME}` stands for the port of the process NAME; `{model}` for the model's folder."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    more_ports: Sequence[str] = ()
    """Names of ports beside its own; `{NAME}` in `argv` stands for them too."""


@dataclass(frozen=True)
class ProcessArm:
    """Plain processes, each with a port of its own, started in order, each when the previous process is ready.

    Clients connect to the last one.
    """

    processes: Sequence[Process]
    memory_gib: float

    def facts(self) -> dict[str, Any]:
        """Return the commands and their variables."""
        facts: dict[str, Any] = {}
        for process in self.processes:
            facts[f"command {process.name}"] = " ".join(process.argv)
            facts |= {f"env {name}": value for name, value in process.env.items()}
        return facts


Built = RayArm | ProcessArm
Overlay = Mapping[str, Any]
"""None takes a key away."""
NONE: Overlay = {}


@dataclass(frozen=True)
class Arm:
    """One way to serve the model."""

    name: str
    what: str
    build: Callable[[Base], Built]
    """Raises BenchUsageError where the arm cannot have so many replicas."""
    service: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the stack's service that the arm changes."""


def sample(base: Base) -> dict[str, Any]:
    """Return the upstream high-throughput sample for this model: its four switches and nothing else of the kit.

    ray-project/kuberay v1.7.0, ray-service.high-throughput-llm.yaml. Kept besides: what the CPU needs (accelerator kind,
    no CPU for the actor beside the placement group's, CPU_ENVIRONMENT), and the numbers of CPUs of head and workers.
    """
    llm = {name: base.model.data[name] for name in ("model_loading_config", "accelerator_config")} | {
        "engine_kwargs": dict(base.engine),
        "deployment_config": {"num_replicas": base.replicas, "ray_actor_options": {"num_cpus": 0}},
    }
    application = {"name": "llm_app", "import_path": "ray.serve.llm:build_openai_app", "args": {"llm_configs": [llm]}}
    environment = dict.fromkeys(SWITCHES.values(), "1") | vllm_environment(base)

    def pod(container: str) -> dict[str, Any]:
        env = [{"name": name, "value": value} for name, value in environment.items()]
        return {"spec": {"containers": [{"name": container, "env": env}]}}

    head, workers = base.service.head.data["rayStartParams"], base.service.workers[0].data
    cluster = {
        "rayVersion": base.service.cluster["rayVersion"],
        "headGroupSpec": {
            "rayStartParams": {name: head[name] for name in ("dashboard-host", "num-cpus") if name in head},
            "template": pod("ray-head"),
        },
        "workerGroupSpecs": [
            {
                "groupName": workers["groupName"],
                "replicas": base.replicas,
                "rayStartParams": {"num-cpus": workers["rayStartParams"]["num-cpus"]},
                "template": pod("llm"),
            }
        ],
    }
    serve = yaml.safe_dump({"applications": [application]}, sort_keys=False, width=1000)
    metadata, spec = {"name": base.service.name}, {"serveConfigV2": serve, "rayClusterConfig": cluster}
    return {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": metadata, "spec": spec}


def ray_defaults(base: Base) -> RayArm:
    """Return the sample with all four switches off, as Ray Serve LLM is without them."""
    manifest = RayService(sample(base)).with_environment(dict.fromkeys(SWITCHES.values(), "0")).manifest
    group = manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    group["rayStartParams"]["num-cpus"] = str(int(group["rayStartParams"]["num-cpus"]) + INGRESS_CPUS)
    return RayArm(manifest)


def kit(base: Base) -> RayArm:
    """Return the kit as its stack renders it."""
    return RayArm(base.manifest if base.replicas == 1 else with_replicas(base.manifest, base.replicas))


def over(
    arm: RayArm, *, env: Overlay = NONE, engine_kwargs: Overlay = NONE, llm: Overlay = NONE, serve: Overlay = NONE
) -> RayArm:
    """Return an arm with variables, engine arguments and parts of the LLMConfig and of serveConfigV2 laid over."""

    def change(config: dict[str, Any]) -> None:
        merged = laid_over(config, serve)
        models = merged["applications"][0]["args"]["llm_configs"]
        models[0] = laid_over(laid_over(models[0], {"engine_kwargs": engine_kwargs}), llm)
        config.clear()
        config.update(merged)

    return RayArm(RayService(arm.manifest).with_environment(env).with_serve(change).manifest)


def with_equal_engine(arm: RayArm, engine: Mapping[str, Any]) -> RayArm:
    """Return an arm whose engine arguments are `engine` and nothing else but the API-key gate, which is not the engine's."""
    declared = RayService(arm.manifest).serve.llm_configs[0].engine_kwargs
    gate = [name for name in declared.get("middleware", []) if name in (GATE_MIDDLEWARE, ADAPTER_GATE_MIDDLEWARE)]
    kept = {**engine, **({"middleware": gate} if gate else {})}
    return over(arm, engine_kwargs=dict.fromkeys(declared) | kept)


def with_replicas(manifest: Mapping[str, Any], replicas: int) -> Mapping[str, Any]:
    """Return a copy with `replicas` engines, a worker for each."""

    def change(config: dict[str, Any]) -> None:
        application = config["applications"][0]
        name = LlmConfig(application["args"]["llm_configs"][0]).deployment
        declared = [entry for entry in application.get("deployments", []) if entry["name"] == name] or [{"name": name}]
        application["deployments"] = [declared[0] | {"num_replicas": replicas}]

    changed = RayService(manifest).with_serve(change).manifest
    for group in changed["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        group["replicas"] = replicas
        group["maxReplicas"] = max(replicas, group.get("maxReplicas", 0))
    return changed


def env_of(service: RayService) -> dict[str, str]:
    """Return the Ray container's variables; a text in place of a Secret's value."""
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


# --- plain vLLM --------------------------------------------------------------------------------------------------------


def vllm_flags(arguments: Mapping[str, Any]) -> list[str]:
    """Return engine arguments as vLLM's command line has them."""
    flags = []
    for key, value in arguments.items():
        flag = "--" + key.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else "--no-" + flag[2:])
        else:
            flags += [flag, json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    return flags


def vllm_environment(base: Base) -> dict[str, str]:
    """Return the variables of CPU_ENVIRONMENT with the manifest's values."""
    declared = env_of(base.service)
    return {name: declared[name] for name in CPU_ENVIRONMENT if name in declared}


METRICS_PORT = "router-metrics"
# vllm-router's names (--policy, 0.1.17). The comparison that others published used these two (anyscale/
# llm-direct-streaming-benchmarks, serve/vllm_8x/start.sh): the first for single prompts, the second for sessions.
ROUND_ROBIN, CONSISTENT_HASH = "round_robin", "consistent_hash"


def plain_vllm(base: Base, *, equal: bool = True, policy: str = "") -> ProcessArm:
    """Return as many `vllm serve` as there are replicas, with vLLM's own defaults unless `equal`.

    With a `policy` they stand behind vllm-router, the usual way without Ray: ROUND_ROBIN, as in Ray's router by
    default, or CONSISTENT_HASH by the header x-session-id. Raises BenchUsageError for several servers without a router.
    """
    if base.replicas != 1 and not policy:
        raise BenchUsageError("plain `vllm serve` is one server. Fix: compare several replicas with vllm-router")
    names = [f"server{number}" for number in range(1, base.replicas + 1)] if policy else ["server"]
    flags, environment = vllm_flags(laid_over(base.engine if equal else {}, base.more_engine)), vllm_environment(base)
    # the module, because the script `vllm` refuses vllm-cpu's distribution name
    argv = ["{python}", "-m", "vllm.entrypoints.openai.api_server", "--model", "{model}"]
    argv += ["--served-model-name", base.model.model_id, "--host", "127.0.0.1"]
    processes = [Process(name, [*argv, "--port", "{" + name + "}", *flags], environment) for name in names]
    if policy:
        router = ["{python}", "-m", "vllm_router.launch_router", "--host", "127.0.0.1", "--port", "{router}"]
        router += ["--prometheus-port", "{" + METRICS_PORT + "}", "--policy", policy]
        router += ["--worker-urls", *("http://127.0.0.1:{" + name + "}" for name in names)]
        processes.append(Process("router", router, more_ports=(METRICS_PORT,)))
    kv_cache_gib = float(environment.get("VLLM_CPU_KVCACHE_SPACE") or 4)  # vLLM's own default
    return ProcessArm(processes, len(names) * (MEMORY_PER_VLLM_GIB + kv_cache_gib))


# --- the rows ----------------------------------------------------------------------------------------------------------


UNBATCHED = {"experimental_configs": {"stream_batching_interval_ms": 0}}

ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("ray-defaults", "Ray Serve LLM with all switches off", ray_defaults),
        Arm("ray-unbatched", "all switches off, and each token sent by itself (Ray batches for 50 ms by default)",
            lambda base: over(ray_defaults(base), llm=UNBATCHED)),
        Arm("sample", "the upstream sample's four switches, vLLM's own arguments, not compiled", lambda base: RayArm(sample(base))),
        Arm("kit-equal", "the kit's profile with the sample's engine arguments",
            lambda base: with_equal_engine(kit(base), base.engine)),
        Arm("kit", "the kit as shipped: its profile and its own engine arguments", kit),
        Arm("haproxy", "the first switch alone: HAProxy as proxy", lambda base: over(ray_defaults(base), env={HA_PROXY: "1"})),
        Arm("kit-sessions", "the kit, and a session's turns go to one replica (ConsistentHashRouter)",
            kit, service={"traffic": {"routing": "sessions"}}),
        Arm("vllm", "plain `vllm serve` with the sample's engine arguments", plain_vllm),
        Arm("vllm-defaults", "plain `vllm serve` with its own defaults", partial(plain_vllm, equal=False)),
        Arm("vllm-router", "N x `vllm serve` behind vllm-router, with the sample's engine arguments",
            partial(plain_vllm, policy=ROUND_ROBIN)),
        Arm("vllm-router-defaults", "N x `vllm serve` with its own defaults behind vllm-router",
            partial(plain_vllm, equal=False, policy=ROUND_ROBIN)),
        Arm("vllm-router-sessions", "vllm-router, and a session's turns go to one server",
            partial(plain_vllm, policy=CONSISTENT_HASH)),
    )
}  # fmt: skip


def differences(arm: Built, baseline: Built) -> list[str]:
    """Return a line for each fact of `arm` that the baseline does not have, or has differently."""
    mine, theirs = arm.facts(), baseline.facts()
    added = {key: f"+ {key}: {mine[key]}" for key in mine.keys() - theirs.keys()}
    removed = {key: f"- {key}: {theirs[key]}" for key in theirs.keys() - mine.keys()}
    both = mine.keys() & theirs.keys()
    changed = {key: f"~ {key}: {mine[key]} (was {theirs[key]})" for key in both if mine[key] != theirs[key]}
    return [line for _, line in sorted((added | removed | changed).items())]


def _flat(value: Mapping[str, Any], path: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{path}.{key}") if isinstance(item, dict) else {f"{path}.{key}": item}
    return flat
