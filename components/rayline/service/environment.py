"""The variables and engine arguments of a service, and what must not be among them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from rayline.cluster.types import ClusterPlan
from rayline.facts.capacities import SPOT_GRACE_SECONDS
from rayline.facts.choices import Capacity, ClusterMode
from rayline.facts.runtime import runtime_facts
from rayline.facts.runtimes import RUNTIMES, Runtime
from rayline.facts.serve_flags import (
    DIRECT_STREAMING,
    HA_PROXY,
    HAPROXY_THREADS,
    SERVE_FLAGS,
    SWITCHES,
    THROUGHPUT_OPTIMIZED,
    Kind,
)
from rayline.facts.variables import (
    ALSO_READ,
    FOR_DOWNLOADS,
    NEVER_THROUGH_A_PROXY,
    NEVER_THROUGH_A_PROXY_IN_A_CLUSTER,
    NO_EFFECT,
    OWNED,
    OWNED_PREFIXES,
    PROXIES,
    PYTHON_PATH,
    PYTHON_PATH_INSTEAD,
    READERS,
)
from rayline.schema.check import IN_CLEAR_TEXT, Check
from rayline.schema.secret_values import PASSWORD_IN_AN_ADDRESS, has_bare_password, may_show, secret_key, secrets_in
from rayline.schema.spelling import hint, meant
from rayline.service.arguments import EngineArgs, ServiceArgs
from rayline.service.drain import drain_times

# Engine arguments that the plan decides; with the key that a stack sets instead.
PLANNED_ENGINE_KWARGS = {
    **{name: f"engine.{name}" for name in EngineArgs.model_fields if name not in ("kwargs", "kv_cache_gib")},
    "revision": "weights.revision",
}
# Engine arguments that Ray Serve LLM forbids or decides itself, or that would put a secret into the manifest.
REFUSED_ENGINE_KWARGS = {
    "model": "the service's `model` decides it: leave it out",
    "served_model_name": "set the service's `api.served_model_name` instead",
    "distributed_executor_backend": "Ray Serve LLM decides it (ray on GPUs, mp on the CPU): leave it out",
    "api_key": "it would stand in the manifest in clear text; `api: {key: true}` makes a Secret",
    "hf_token": "it would stand in the manifest in clear text; `hugging_face` makes a Secret",
    "disable_log_stats": "it turns the engine's metrics off: leave it out",
}
# Beside leaving it out: the image or the libraries in it may read a file.
IN_A_FILE = f"{IN_CLEAR_TEXT}, or keep it in a file of a volume (`pods.volumes`) and give the file's path"
BY_A_COLLECTOR = f"{IN_CLEAR_TEXT}, and let a collector in the cluster add the headers"
PORT_OF_AN_ADDRESS = "the port of an address is a number from 1 to 65535, such as http://otel.example.com:4317"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# module.Class or module.function: vLLM splits it at the last dot and imports it.
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def plan_environment(
    check: Check, path: str, service: ServiceArgs, cluster: ClusterPlan, runtime: Runtime | None
) -> tuple[dict[str, str], list[str]]:
    """The one list of variables for the head and every worker, and what a reader should know of it."""
    env = {name: flag.value for name, flag in SERVE_FLAGS.items() if flag.value is not None}
    for switch, variable in SWITCHES.items():
        env[variable] = "1" if getattr(service.switches, switch) else "0"
    asked = service.pods.env
    for name, value in asked.items():
        if kind := secret_key(name):
            check.refuse(f"{path}.pods.env", None, f"{kind} as a name, {IN_CLEAR_TEXT}")
        elif problem := _problem(path, name, value, api_key=service.api.key):
            check.refuse(f"{path}.pods.env.{name}", None if _secret(name, value) else value, problem)
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
    drain = drain_times(service.rollout.longest_stream_seconds)
    env["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] = str(drain.haproxy)
    # A spot machine is gone then. Serve stops a replica once its own drain time is all that is left of Ray's deadline
    # (ray/serve/_private/deployment_state.py), so with a later one it would go on sending requests to a lost machine.
    ray = min(drain.ray, SPOT_GRACE_SECONDS) if service.nodes.capacity is Capacity.SPOT else drain.ray
    env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(ray)
    warnings = [warning for name in asked if runtime and (warning := _unread(name, runtime))]
    return env | _past_the_proxy(env, cluster), warnings + _proxy_warnings(env, cluster)


def _problem(path: str, name: str, value: Any, *, api_key: bool) -> str | None:
    """Why a service must not set a variable to a value, and what is right; None where it may."""
    if not VARIABLE.fullmatch(name):
        return "no name of a variable: letters, digits and underscores, and no digit first"
    if not isinstance(value, str):
        return "text; put it in quotes"
    flag = SERVE_FLAGS.get(name)
    if flag and flag.owned:
        owner = next((f"switches.{s}" for s, v in SWITCHES.items() if v == name), "rollout.longest_stream_seconds")
        return f"set {path}.{owner} instead"
    instead = OWNED.get(name) or next((why for start, why in OWNED_PREFIXES.items() if name.startswith(start)), None)
    if name == PYTHON_PATH and api_key:
        instead = PYTHON_PATH_INSTEAD
    if instead:
        return instead.format(path=path)
    if kind := _secret(name, value):
        return f"{kind}, {BY_A_COLLECTOR if name.startswith('OTEL_') else IN_A_FILE}"
    if name.lower() in PROXIES and value and not _is_address_of_a_proxy(value):
        return "no address of a proxy, such as http://proxy.example.com:3128"
    if not _port_is_sound(name, value):
        return PORT_OF_AN_ADDRESS
    if flag is None:
        return "a NUL byte ends a variable: leave it out" if "\0" in value else None
    if flag.kind is Kind.SWITCH and value not in ("0", "1"):
        return 'a switch is "0" or "1": Ray reads anything else as off'
    number = {Kind.INTEGER: r"\d+", Kind.SECONDS: r"\d+(\.\d+)?"}.get(flag.kind)
    if number and not re.fullmatch(number, value):
        return f"{'seconds' if flag.kind is Kind.SECONDS else 'a whole number'}, not negative"
    return None


def _secret(name: str, value: Any) -> str | None:
    """What kind of secret a variable holds, if it does."""
    # RAY_SERVE_SESSION_ID_HEADER_KEY holds none by its name
    kind = next((kind for _, kind in secrets_in(value, "" if name in SERVE_FLAGS else name)), None)
    if kind is None and name.lower() in PROXIES and isinstance(value, str) and has_bare_password(value):
        return PASSWORD_IN_AN_ADDRESS
    return kind


def _unread(name: str, runtime: Runtime) -> str | None:
    """A warning about a variable that does nothing; None where it may do something, or where nothing is known of it."""
    facts = runtime_facts()
    if runtime.ray_version != facts.ray:
        return None
    if name in NO_EFFECT:
        return f"pods.env.{name} has no effect: {NO_EFFECT[name]}"
    reader = next((reader for start, reader in READERS.items() if name.startswith(start)), None)
    known = facts.variables
    if reader is None or name in known or any(re.fullmatch(also, name) for also in ALSO_READ):
        return None
    version = runtime.ray_version if reader == "Ray" else runtime.vllm_version
    nearest = meant(name, known)
    return f"pods.env.{name} has no effect: {reader} {version} does not read it" + (
        f"; did you mean {nearest}?" if nearest else ""
    )


# --- proxies


def _is_address_of_a_proxy(text: str) -> bool:
    """Return whether a text names a host and at most a port, with or without a scheme, as curl takes it."""
    try:
        address = urlsplit(text if "://" in text else f"//{text}")
        port = address.port
    except ValueError:
        return False
    schemes = ("", "http", "https", "socks4", "socks5", "socks5h")
    return bool(address.hostname) and port != 0 and address.scheme in schemes and address.path in ("", "/")


def _has_proxy(env: Mapping[str, str]) -> bool:
    return any(name.lower() in PROXIES and value for name, value in env.items())


def _exceptions(env: Mapping[str, str]) -> list[str]:
    """What the stack itself sends past its proxy."""
    return [one.strip() for name in ("NO_PROXY", "no_proxy") for one in env.get(name, "").split(",") if one.strip()]


def _past_the_proxy(env: Mapping[str, str], cluster: ClusterPlan) -> dict[str, str]:
    """Both spellings of NO_PROXY, with what has to get past a proxy; nothing where there is no proxy."""
    if not _has_proxy(env):
        return {}
    own: list[str] = [*NEVER_THROUGH_A_PROXY]
    if cluster.mode is not ClusterMode.LOCAL:
        own += NEVER_THROUGH_A_PROXY_IN_A_CLUSTER
    if cluster.mode is ClusterMode.CREATE:
        network = cluster.args.network
        own += (network.nodes_cidr, network.pods_cidr, network.services_cidr)
    listed = ",".join(dict.fromkeys((*_exceptions(env), *own)))
    return {"NO_PROXY": listed, "no_proxy": listed}


def _proxy_warnings(env: Mapping[str, str], cluster: ClusterPlan) -> list[str]:
    ranges = [one for one in _exceptions(env) if "/" in one or one == "*"]
    if cluster.mode is not ClusterMode.EXISTING or not _has_proxy(env) or ranges:
        return []
    return ["pods.env.NO_PROXY names no address range: add those of this cluster's pods and Services, which are not known here"]


def outbound_ports(env: Mapping[str, str], engine_kwargs: Mapping[str, Any]) -> set[int]:
    """Ports of the addresses outside that a service's variables and engine arguments name, such as a proxy's."""
    found = set()
    for name, text in _texts({**env, **engine_kwargs}):
        try:
            address = _address(name, text)
            port = address.port or {"http": 80, "https": 443}.get(address.scheme)
        except ValueError:
            continue
        if port and address.hostname and address.hostname not in NEVER_THROUGH_A_PROXY:
            found.add(port)
    return found


def _is_endpoint(name: str) -> bool:
    return name.lower().endswith("endpoint")


def _address(name: str, text: str) -> SplitResult:
    """The address in a text. OTLP's exporters take `otel:4317` for one, and clients such a proxy. Raises ValueError."""
    bare = (name.lower() in PROXIES or _is_endpoint(name)) and "://" not in text
    return urlsplit(f"//{text}" if bare else text)


def _port_is_sound(name: str, text: str) -> bool:
    """Whether an endpoint has a port or none, and not something else after the colon."""
    try:
        return not _is_endpoint(name) or _address(name, text).port != 0
    except ValueError:
        return False


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """(Key, text) of every text in a value, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner, name)
    elif isinstance(value, str):
        yield name, value


def for_downloads(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that another pod needs to download from where the service does."""
    return {name: value for name, value in env.items() if name in FOR_DOWNLOADS or name.lower() in (*PROXIES, "no_proxy")}


# --- the rest


def with_haproxy_threads(env: Mapping[str, str], cpus: float) -> dict[str, str]:
    """`env`, with no more HAProxy threads than a worker has CPUs; what a stack says, and Ray's default where it fits, stays."""
    threads = max(1, int(cpus))
    if HAPROXY_THREADS in env or threads >= int(SERVE_FLAGS[HAPROXY_THREADS].default):
        return dict(env)
    return {**env, HAPROXY_THREADS: str(threads)}


def plan_engine_kwargs(check: Check, path: str, service: ServiceArgs) -> dict[str, Any]:
    """Return the further engine arguments, with `middleware` as the list that vLLM takes."""
    kwargs = dict(service.engine.kwargs)
    for key, value in kwargs.items():
        where = f"{path}.engine.kwargs.{key}"
        if kind := secret_key(key):
            check.refuse(f"{path}.engine.kwargs", None, f"{kind} as a key, {IN_CLEAR_TEXT}")
        elif key in PLANNED_ENGINE_KWARGS:
            check.refuse(where, value, f"set {path}.{PLANNED_ENGINE_KWARGS[key]}: the plan computes with it")
        elif key in REFUSED_ENGINE_KWARGS:
            check.refuse(where, value if may_show(key, value) else None, REFUSED_ENGINE_KWARGS[key])
        else:
            secrets = list(secrets_in(value, key))
            for below, kind in secrets:
                check.refuse(f"{where}{below}", None, f"{kind}, {IN_CLEAR_TEXT}")
            if not secrets and (problem := _wrong_argument(key, value, RUNTIMES.get(service.pods.runtime))):
                check.refuse(where, value if isinstance(value, (str, int, float)) else None, problem)
            if isinstance(value, str) and not _port_is_sound(key, value):
                check.refuse(where, value, PORT_OF_AN_ADDRESS)
    if "middleware" in kwargs:
        kwargs["middleware"] = _middleware(check, f"{path}.engine.kwargs.middleware", kwargs["middleware"])
    return kwargs


# What JSON calls a value that an argument of each kind takes.
_KINDS = {"bool": (bool,), "int": (int,), "float": (int, float), "text": (str,), "list": (list,), "map": (dict,)}
_SAID = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "text": "text",
    "list": "a list",
    "map": "a map",
}


def _wrong_argument(key: str, value: Any, runtime: Runtime | None) -> str | None:
    """Return why vLLM's engine would not take an argument; None where it does, or where its version is not known here."""
    facts = runtime_facts()
    if key != "middleware" and runtime and runtime.vllm_version == facts.vllm:
        known = facts.engine_arguments
        kinds = known.get(key)
        if kinds is None:
            advice = hint(key.replace("-", "_"), known, "see `vllm serve --help` for what there is")
            return f"vLLM {facts.vllm} has no such argument; {advice}"
        takes = {kind for name in kinds if name in _KINDS for kind in _KINDS[name]}
        if "any" not in kinds and value is not None and type(value) not in takes:
            return " or ".join(_SAID[kind] for kind in kinds)
    return None


def _middleware(check: Check, where: str, value: Any) -> list[str]:
    """The list of vLLM's argument, which a stack may write as one text; empty where it is neither."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) and DOTTED.fullmatch(one) for one in listed):
        check.refuse(
            where, value, "a class or function as module.Name, or a list of them, for example [my_module.MyMiddleware]"
        )
        return []
    return listed
