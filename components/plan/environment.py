"""The Serve variables and engine arguments of a service, and what must not be among them."""

import re
from collections.abc import Mapping
from typing import Any

from ..facts import defaults
from ..facts.capacities import SPOT_GRACE_SECONDS
from ..facts.choices import Capacity
from ..facts.serve_flags import (
    DIRECT_STREAMING,
    HA_PROXY,
    HAPROXY_THREADS,
    REFUSED,
    SERVE_FLAGS,
    SWITCHES,
    THROUGHPUT_OPTIMIZED,
    Kind,
)
from ..secret_values import may_show, secrets_in
from ..spelling import meant
from .check import IN_CLEAR_TEXT, Check
from .drain import drain_times

# Engine arguments that the plan decides; a stack sets the field of the same name instead.
PLANNED_ENGINE_KWARGS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "enable_prefix_caching",
    "stream_interval",
    "revision",
)
# Engine arguments that Ray Serve LLM forbids or decides itself, or that would put a secret into the manifest.
REFUSED_ENGINE_KWARGS = {
    "model": "the service's `model` decides it: leave it out",
    "served_model_name": "set the service's `served_model_name` instead",
    "distributed_executor_backend": "Ray Serve LLM decides it (ray on GPUs, mp on the CPU): leave it out",
    "api_key": "it would stand in the manifest in clear text; `api_key: true` makes a Secret",
    "hf_token": "it would stand in the manifest in clear text; `hugging_face` makes a Secret",
    "disable_log_stats": "it turns the engine's metrics off: leave it out",
}


def plan_environment(check: Check, path: str, given: Mapping[str, Any]) -> dict[str, str]:
    """The one list of Serve variables for the head and every worker."""
    switches = given.get("switches") or {}
    env = {name: flag.value for name, flag in SERVE_FLAGS.items() if flag.value is not None}
    for switch, variable in SWITCHES.items():
        env[variable] = "1" if switches.get(switch, True) else "0"
    for name, value in (given.get("env") or {}).items():
        where = f"{path}.env.{name}"
        flag = SERVE_FLAGS.get(name)
        if name in REFUSED:
            why = REFUSED[name]
            shown = may_show(name, value)
            check.refuse(where, value if shown else None, f"{why}: leave it out" if shown else why)
        elif flag is None:
            near = meant(name, SERVE_FLAGS)
            check.refuse(
                where,
                value if may_show(name, value) else None,
                f"no such Serve variable{f'; did you mean {near}?' if near else ''} (a new one is a row in facts/serve_flags.py)",
            )
        elif flag.owned:
            owner = next((f"switches.{s}" for s, v in SWITCHES.items() if v == name), "longest_stream_seconds")
            check.refuse(where, value, f"set {path}.{owner} instead")
        elif flag.kind is Kind.SWITCH and value not in ("0", "1"):
            check.refuse(where, value, 'a switch is "0" or "1": Ray reads anything else as off')
        elif flag.kind in (Kind.INTEGER, Kind.SECONDS) and not re.fullmatch(
            r"\d+(\.\d+)?" if flag.kind is Kind.SECONDS else r"\d+", value
        ):
            check.refuse(where, value, f"{'seconds' if flag.kind is Kind.SECONDS else 'a whole number'}, not negative")
        else:
            env[name] = value
    for dependent in (THROUGHPUT_OPTIMIZED, DIRECT_STREAMING):
        if env[dependent] == "1" and env[HA_PROXY] != "1":
            switch = next(s for s, v in SWITCHES.items() if v == dependent)
            why = (
                "the controller would then run a proxy on the head only and every worker stays NotReady"
                if dependent == THROUGHPUT_OPTIMIZED
                else "Ray Serve LLM refuses direct streaming without HAProxy"
            )
            check.refuse(f"{path}.switches.ha_proxy", False, f"{switch} needs it: {why}; turn {switch} off as well")
    longest = given.get("longest_stream_seconds", defaults.LONGEST_STREAM_SECONDS)
    drain = drain_times(longest)
    env["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] = str(drain.haproxy)
    # A spot machine is gone then. Serve stops a replica once its own drain time is all that is left of Ray's deadline
    # (ray/serve/_private/deployment_state.py), so with a later one it would go on sending requests to a lost machine.
    ray = min(drain.ray, SPOT_GRACE_SECONDS) if given.get("capacity") == Capacity.SPOT else drain.ray
    env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(ray)
    return env


def with_haproxy_threads(env: Mapping[str, str], cpus: float) -> dict[str, str]:
    """`env`, with no more HAProxy threads than a worker has CPUs; what a stack says, and Ray's default where it fits, stays."""
    threads = max(1, int(cpus))
    if HAPROXY_THREADS in env or threads >= int(SERVE_FLAGS[HAPROXY_THREADS].default):
        return dict(env)
    return {**env, HAPROXY_THREADS: str(threads)}


def plan_engine_kwargs(check: Check, path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    kwargs = dict(given.get("engine_kwargs") or {})
    for key, value in kwargs.items():
        where = f"{path}.engine_kwargs.{key}"
        if key in PLANNED_ENGINE_KWARGS:
            check.refuse(where, value, f"set {path}.{key}: the plan computes with it")
        elif key in REFUSED_ENGINE_KWARGS:
            check.refuse(where, value if may_show(key, value) else None, REFUSED_ENGINE_KWARGS[key])
        else:
            for below, kind in secrets_in(value, str(key)):
                check.refuse(f"{where}{below}", None, f"{kind} {IN_CLEAR_TEXT}")
    return kwargs
