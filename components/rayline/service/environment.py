"""Plan the variables of a service's Ray containers, and refuse those that the kit owns or that hold a secret."""

import re
from collections.abc import Mapping
from typing import Any

from rayline.facts.capacities import SPOT_GRACE_SECONDS
from rayline.facts.choices import Capacity
from rayline.facts.runtime import runtime_facts
from rayline.facts.runtimes import Runtime
from rayline.facts.serve_flags import (
    DIRECT_STREAMING,
    FORWARD_BODY,
    HA_PROXY,
    HAPROXY_METRICS_PORT,
    HAPROXY_STATS_PORT,
    PORTS_OF_RAY,
    SERVE_FLAGS,
    SWITCHES,
    THROUGHPUT_OPTIMIZED,
    Kind,
    ServeFlag,
)
from rayline.facts.variables import (
    ALSO_READ,
    FOR_DOWNLOADS,
    NO_EFFECT,
    OWNED,
    OWNED_PREFIXES,
    PYTHON_PATH,
    PYTHON_PATH_INSTEAD,
    READERS,
)
from rayline.schema.check import IN_CLEAR_TEXT
from rayline.schema.secret_values import PASSWORD_IN_AN_ADDRESS, has_bare_password, secret_key, secrets_in
from rayline.schema.spelling import meant
from rayline.service.addresses import PORT_OF_AN_ADDRESS, is_address_of_a_proxy, is_proxy, past_the_proxy, port_is_sound
from rayline.service.disaggregation import side_variables
from rayline.service.drain import drain_times
from rayline.service.request import ServiceRequest

# Beside leaving it out: the image or the libraries in it may read a file.
IN_A_FILE = f"{IN_CLEAR_TEXT}, or keep it in a file of a volume (`pods.volumes`) and give the file's path"
BY_A_COLLECTOR = f"{IN_CLEAR_TEXT}, and let a collector in the cluster add the headers"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def plan_environment(request: ServiceRequest, runtime: Runtime | None) -> tuple[dict[str, str], list[str]]:
    """Return the one list of variables for the head and every worker, and the warnings about it."""
    service = request.arguments
    env = {name: flag.value for name, flag in SERVE_FLAGS.items() if flag.value is not None}
    env |= {variable: "1" if getattr(service.switches, switch) else "0" for switch, variable in SWITCHES.items()}
    if service.adapters:
        env[FORWARD_BODY] = "1"
    env |= side_variables(request)
    for name, value in service.pods.env.items():
        if kind := secret_key(name):
            request.refuse("pods.env", f"{kind} as a name, {IN_CLEAR_TEXT}", None)
        elif problem := _problem(request.path, name, value, has_code=service.api.key or request.scales_by_latency):
            request.refuse(f"pods.env.{name}", problem, None if _secret(name, value) else value)
        else:
            env[name] = value
    _check_switches(request, env)
    _check_ports(request, env)
    drain = drain_times(service.rollout.longest_stream_seconds)
    env["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] = str(drain.haproxy)
    # A spot machine is gone then. Serve stops a replica once its own drain time is all that is left of Ray's deadline
    # (ray/serve/_private/deployment_state.py), so with a later one it would continue to send requests to a lost machine.
    ray = min(drain.ray, SPOT_GRACE_SECONDS) if service.nodes.capacity is Capacity.SPOT else drain.ray
    env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(ray)
    unread = [warning for name in service.pods.env if runtime and (warning := _unread(name, runtime))]
    no_proxy, warnings = past_the_proxy(env, request.cluster)
    return env | no_proxy, unread + warnings


def _check_switches(request: ServiceRequest, env: Mapping[str, str]) -> None:
    reasons = {
        THROUGHPUT_OPTIMIZED: "the controller would then run a proxy on the head only and every worker stays NotReady",
        DIRECT_STREAMING: "Ray Serve LLM refuses direct streaming without HAProxy",
    }
    for dependent, why in reasons.items():
        if env[dependent] == "1" and env[HA_PROXY] != "1":
            switch = next(switch for switch, variable in SWITCHES.items() if variable == dependent)
            request.refuse("switches.ha_proxy", f"{switch} needs it: {why}; turn {switch} off as well")


def _check_ports(request: ServiceRequest, env: Mapping[str, str]) -> None:
    taken = {str(port) for port in PORTS_OF_RAY}
    for name in (HAPROXY_METRICS_PORT, HAPROXY_STATS_PORT):
        port = env.get(name, SERVE_FLAGS[name].default)
        if port in taken:
            request.refuse(f"pods.env.{name}", "Ray or HAProxy listens there already: another port", port)
        taken.add(port)


def _problem(path: str, name: str, value: Any, *, has_code: bool) -> str | None:
    """Return why a service must not set a variable to a value, and what is right; None where it may."""
    if not VARIABLE.fullmatch(name):
        return "no name of a variable: letters, digits and underscores, and no digit first"
    if not isinstance(value, str):
        return "text; put it in quotes"
    flag = SERVE_FLAGS.get(name)
    if flag and flag.owned:
        owner = next((f"switches.{s}" for s, v in SWITCHES.items() if v == name), "rollout.longest_stream_seconds")
        return f"set {path}.{owner} instead"
    instead = OWNED.get(name) or next((why for start, why in OWNED_PREFIXES.items() if name.startswith(start)), None)
    if name == PYTHON_PATH and has_code:
        instead = PYTHON_PATH_INSTEAD
    if instead:
        return instead.format(path=path)
    if kind := _secret(name, value):
        return f"{kind}, {BY_A_COLLECTOR if name.startswith('OTEL_') else IN_A_FILE}"
    if is_proxy(name) and value and not is_address_of_a_proxy(value):
        return "no address of a proxy, such as http://proxy.example.com:3128"
    if not port_is_sound(name, value):
        return PORT_OF_AN_ADDRESS
    if "\0" in value:
        return "a NUL byte ends a variable: leave it out"
    return _outside_of_domain(flag, value) if flag else None


def _outside_of_domain(flag: ServeFlag, value: str) -> str | None:
    """Return what a variable's value has to be; None where it is that."""
    if flag.kind is Kind.SWITCH:
        return None if value in ("0", "1") else 'a switch is "0" or "1": Ray reads anything else as off'
    if flag.kind is Kind.TEXT:
        return None if re.fullmatch(flag.form or ".*", value, re.DOTALL) else flag.form_says
    number, unit = ("[0-9]+", "a whole number") if flag.kind is Kind.INTEGER else (r"[0-9]+(\.[0-9]+)?", "seconds")
    if re.fullmatch(number, value) and flag.least <= float(value) <= flag.most:
        return None
    return f"{unit}, {flag.least:g} to {flag.most:.0f}"


def _secret(name: str, value: Any) -> str | None:
    """Return the kind of secret that a variable holds; None where it holds none."""
    # RAY_SERVE_SESSION_ID_HEADER_KEY holds none, whatever its name suggests
    kind = next((kind for _, kind in secrets_in(value, "" if name in SERVE_FLAGS else name)), None)
    if kind is None and is_proxy(name) and isinstance(value, str) and has_bare_password(value):
        return PASSWORD_IN_AN_ADDRESS
    return kind


def _unread(name: str, runtime: Runtime) -> str | None:
    """Return a warning about a variable without effect; None where it may have one, or where the runtime is not known."""
    facts = runtime_facts()
    if runtime.ray_version != facts.ray:
        return None
    if name in NO_EFFECT:
        return f"pods.env.{name} has no effect: {NO_EFFECT[name]}"
    reader = next((reader for start, reader in READERS.items() if name.startswith(start)), None)
    if reader is None or name in facts.variables or any(re.fullmatch(also, name) for also in ALSO_READ):
        return None
    version = runtime.ray_version if reader == "Ray" else runtime.vllm_version
    nearest = meant(name, facts.variables)
    return f"pods.env.{name} has no effect: {reader} {version} does not read it" + (
        f"; did you mean {nearest}?" if nearest else ""
    )


def for_downloads(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that another pod needs to download from where the service does."""
    return {n: value for n, value in env.items() if n in FOR_DOWNLOADS or is_proxy(n) or n.lower() == "no_proxy"}
