"""Check the further engine arguments of a service."""

import re
from typing import Any

from rayline.facts.runtime import runtime_facts
from rayline.facts.runtimes import RUNTIMES
from rayline.schema.check import IN_CLEAR_TEXT
from rayline.schema.secret_values import may_show, secret_key, secrets_in
from rayline.schema.spelling import hint
from rayline.service.addresses import PORT_OF_AN_ADDRESS, port_is_sound
from rayline.service.arguments import EngineArgs
from rayline.service.request import ServiceRequest

# Engine arguments that the plan decides, with the key of a stack for each.
PLANNED_ENGINE_KWARGS = {
    **{name: f"engine.{name}" for name in EngineArgs.model_fields if name not in ("kwargs", "kv_cache_gib", "kv_offload_gib")},
    "kv_offloading_size": "engine.kv_offload_gib",
    "revision": "weights.revision",
    "runner": "task",
    "convert": "task",
    "enable_lora": "adapters",
    "max_loras": "adapters.max_active",
    "max_cpu_loras": "adapters.max_loaded",
    "max_lora_rank": "adapters.max_rank",
    "lora_modules": "adapters.location",
}
# Engine arguments that Ray Serve LLM forbids or decides itself, or that would put a secret into the manifest.
REFUSED_ENGINE_KWARGS = {
    "model": "the service's `model` decides it: leave it out",
    "served_model_name": "set the service's `api.served_model_name` instead",
    "distributed_executor_backend": "Ray Serve LLM decides it (ray on GPUs, mp on the CPU): leave it out",
    "api_key": "it would be in the manifest in clear text; `api: {key: true}` makes a Secret",
    "hf_token": "it would be in the manifest in clear text; `hugging_face` makes a Secret",
    "disable_log_stats": "it turns the engine's metrics off: leave it out",
}
# module.Class or module.function: vLLM splits it at the last dot and imports it.
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
# Types of YAML values that an argument takes, by its kind in facts/runtime.json, and their words in messages.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "text": ((str,), "text"),
    "list": ((list,), "a list"),
    "map": ((dict,), "a map"),
}


def plan_engine_kwargs(request: ServiceRequest) -> dict[str, Any]:
    """Return the further engine arguments, with `middleware` as the list that vLLM takes."""
    kwargs = dict(request.arguments.engine.kwargs)
    for key, value in kwargs.items():
        if kind := secret_key(key):
            request.refuse("engine.kwargs", f"{kind} as a key, {IN_CLEAR_TEXT}", None)
        else:
            _check_argument(request, key, value)
    if "middleware" in kwargs:
        kwargs["middleware"] = _middleware(request, kwargs["middleware"])
    return kwargs


def _check_argument(request: ServiceRequest, key: str, value: Any) -> None:
    where = f"engine.kwargs.{key}"
    if key in PLANNED_ENGINE_KWARGS:
        request.refuse(where, f"set {request.path}.{PLANNED_ENGINE_KWARGS[key]}: the plan computes with it", value)
    elif key in REFUSED_ENGINE_KWARGS:
        request.refuse(where, REFUSED_ENGINE_KWARGS[key], value if may_show(key, value) else None)
    else:
        secrets = list(secrets_in(value, key))
        for below, kind in secrets:
            request.refuse(f"{where}{below}", f"{kind}, {IN_CLEAR_TEXT}", None)
        if not secrets and (problem := _wrong_argument(request, key, value)):
            request.refuse(where, problem, value if isinstance(value, (str, int, float)) else None)
        if isinstance(value, str) and not port_is_sound(key, value):
            request.refuse(where, PORT_OF_AN_ADDRESS, value)


def _wrong_argument(request: ServiceRequest, key: str, value: Any) -> str | None:
    """Return what vLLM's engine takes in place of an argument; None where it takes the argument, or its version is not known."""
    facts, runtime = runtime_facts(), RUNTIMES.get(request.arguments.pods.runtime)
    if key == "middleware" or runtime is None or runtime.vllm_version != facts.vllm:
        return None
    kinds = facts.engine_arguments.get(key)
    if kinds is None:
        advice = hint(key.replace("-", "_"), facts.engine_arguments, "see `vllm serve --help` for what there is")
        return f"vLLM {facts.vllm} has no such argument; {advice}"
    if "any" in kinds or value is None or any(type(value) in _KINDS[kind][0] for kind in kinds):
        return None
    return " or ".join(_KINDS[kind][1] for kind in kinds)


def _middleware(request: ServiceRequest, value: Any) -> list[str]:
    """Return the list of vLLM's argument, which a stack may write as one text; empty where the value is neither."""
    listed = [value] if isinstance(value, str) else value
    if isinstance(listed, list) and all(isinstance(name, str) and DOTTED.fullmatch(name) for name in listed):
        return listed
    why = "a class or function as module.Name, or a list of them, for example [my_module.MyMiddleware]"
    request.refuse("engine.kwargs.middleware", why, value)
    return []
