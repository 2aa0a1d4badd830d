"""Checks of the throughput switches. What is expected follows from the declared environment alone.

A switch that is declared off must be seen off: a check that only ever looks for "on" proves nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from components.api_key_manifests import KEYS_VARIABLE


class Outcome(str, Enum):
    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class Check:
    """One claim about the running service, and what was seen."""

    name: str
    outcome: Outcome
    evidence: str
    """What was seen, and where."""
    fix: str = ""
    """What to do about a failure; empty otherwise."""


@dataclass(frozen=True)
class ProcessFacts:
    """A process of the service."""

    pid: int
    title: str
    """Its command line, or the title it gave itself (Ray's workers do)."""
    environ: Mapping[str, str]


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    text: str


class Target(Protocol):
    """A running service that can be looked into."""

    @property
    def declared_env(self) -> Mapping[str, str]:
        """The Ray container's environment as declared, secrets resolved."""
        ...

    @property
    def model_ids(self) -> Sequence[str]: ...

    @property
    def runs_on_gpu(self) -> bool: ...

    def dashboard(self, path: str) -> Any:
        """GET on Ray's dashboard, parsed."""
        ...

    def endpoint(self, path: str, *, with_key: bool, method: str = "GET", body: Any = None) -> HttpAnswer:
        """A request to the service's own address, `body` as JSON."""
        ...

    def processes(self) -> Sequence[ProcessFacts]: ...

    def haproxy_configs(self) -> Mapping[str, str]:
        """Path -> text of each HAProxy configuration of this service."""
        ...

    def controller_log(self) -> str:
        """What the Serve controller wrote to its log and to stderr."""
        ...


HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
THROUGHPUT = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
DIRECT_STREAMING = "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"
EXECUTOR_V2 = "VLLM_USE_RAY_V2_EXECUTOR_BACKEND"

# ray/serve/_private/constants.py, 2.60.0, line 1108: what RAY_SERVE_THROUGHPUT_OPTIMIZED changes; (off, on).
THROUGHPUT_VALUES: Mapping[str, tuple[str, str]] = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": ("1", "0"),
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": ("1", "0"),
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": ("1", "1000"),
    "RAY_SERVE_LOG_TO_STDERR": ("1", "0"),
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": ("0", "1"),
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": ("0", "1"),
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": ("0", "1"),
}

_LUA_LINES = (r"lua-load-per-thread \S*ingress_request_router\.lua", r"use_backend \S*-via-ingress-request-router")


def check_switches(target: Target) -> list[Check]:
    """Every check, in a fixed order. A check that cannot be made is a failure with the reason, never an exception."""
    return [_guarded(name, check, target) for name, check in _CHECKS.items()]


def is_on(env: Mapping[str, str], name: str) -> bool:
    """Whether Serve takes the switch for on: only the exact text "1" counts, "true" is off."""
    return env.get(name, "0") == "1"


def _guarded(name: str, check: Callable[[Target], tuple[Outcome, str, str]], target: Target) -> Check:
    try:
        outcome, evidence, fix = check(target)
    except Exception as error:
        outcome, evidence, fix = Outcome.FAIL, f"could not be checked: {type(error).__name__}: {error}", ""
    return Check(name, outcome, evidence, fix if outcome is Outcome.FAIL else "")


def _verdict(passed: bool, evidence: str, fix: str) -> tuple[Outcome, str, str]:
    return (Outcome.PASS if passed else Outcome.FAIL), evidence, fix


def _actors(target: Target, class_name: str) -> list[Mapping[str, Any]]:
    answer = target.dashboard("/api/v0/actors?limit=1000&detail=false")
    rows = answer["data"]["result"]["result"]
    return [row for row in rows if row["class_name"] == class_name and row["state"] == "ALIVE"]


def _proxy(target: Target) -> tuple[Outcome, str, str]:
    managers = _actors(target, "HAProxyManager")
    processes = [
        process for process in target.processes() if re.search(r"haproxy\b.* -f \S+haproxy\.cfg", process.title)
    ]
    evidence = f"{len(managers)} HAProxyManager actor(s) alive, {len(processes)} haproxy process(es)"
    if processes:
        evidence += f" ({processes[0].title.split(' -dR')[0]})"
    if is_on(target.declared_env, HA_PROXY):
        return _verdict(bool(managers and processes), evidence, f'set {HA_PROXY} to exactly "1" on head and workers')
    python_proxies = len(_actors(target, "ProxyActor"))
    return _verdict(
        not managers and not processes and python_proxies > 0,
        f"{evidence}, {python_proxies} Python ProxyActor(s)",
        f"{HA_PROXY} is declared off but HAProxy runs: restart Ray with the declared environment",
    )


def _deployments(target: Target) -> tuple[Outcome, str, str]:
    applications = target.dashboard("/api/serve/applications/")["applications"]
    names = sorted(name for app in applications.values() for name in app["deployments"])
    servers = {f"LLMServer:{model.replace('/', '--').replace('.', '_')}" for model in target.model_ids}
    front = "LLMRouter" if is_on(target.declared_env, DIRECT_STREAMING) else "OpenAiIngress"
    expected = sorted(servers | {front})
    return _verdict(
        names == expected,
        f"deployments are {', '.join(names)}; with direct streaming {_said(target, DIRECT_STREAMING)} they must be "
        f"{', '.join(expected)}",
        f'{DIRECT_STREAMING} and {HA_PROXY} must be exactly "1" on the head and on every worker',
    )


def _haproxy_routes(target: Target) -> tuple[Outcome, str, str]:
    if not is_on(target.declared_env, HA_PROXY):
        return Outcome.NOT_APPLICABLE, f"{HA_PROXY} is declared off", ""
    configs = target.haproxy_configs()
    wanted = is_on(target.declared_env, DIRECT_STREAMING)
    found = {path: [bool(re.search(line, text)) for line in _LUA_LINES] for path, text in configs.items()}
    good = bool(found) and all(all(lines) if wanted else not any(lines) for lines in found.values())
    seen = "; ".join(f"{path}: {'has' if all(lines) else 'lacks'} the Lua router" for path, lines in found.items())
    return _verdict(
        good,
        seen or "no haproxy.cfg was found",
        f"with direct streaming {_said(target, DIRECT_STREAMING)} haproxy.cfg must "
        f"{'load ingress_request_router.lua and use its backend' if wanted else 'not mention the Lua router'}",
    )


def _throughput(target: Target) -> tuple[Outcome, str, str]:
    processes = _serve_processes(target)
    wanted = _throughput_values(target.declared_env)
    wrong = [
        f"{process.title.split()[0]} {process.pid}: {name}={value}, expected {wanted[name]}"
        for process in processes
        for name, value in _throughput_values(process.environ).items()
        if value != wanted[name]
    ]
    kinds = {_kind(process) for process in processes}
    missing = {"controller", "replica"} - kinds
    # The controller says it before it opens its log file: the line is in its process's stderr, and with a log level
    # above INFO nowhere. So it may confirm, and its absence proves nothing.
    logged = "Throughput optimized Ray Serve enabled" in target.controller_log()
    contradicts = logged and not is_on(target.declared_env, THROUGHPUT)
    values = ", ".join(f"{name.removeprefix('RAY_SERVE_')}={value}" for name, value in wanted.items())
    evidence = f"environment of {len(processes)} Serve processes ({', '.join(sorted(kinds))}): {values}"
    if wrong:
        evidence = "; ".join(wrong)
    elif missing:
        evidence = f"no process found for: {', '.join(sorted(missing))}"
    elif logged:
        evidence += "; the controller's log confirms it"
    return _verdict(
        not wrong and not missing and not contradicts,
        evidence,
        f"these are read when a process starts: set {THROUGHPUT} on head and workers and start new ones",
    )


def _executor(target: Target) -> tuple[Outcome, str, str]:
    servers = [process for process in _serve_processes(target) if "LLMServer" in process.title]
    values = {process.environ.get(EXECUTOR_V2, "not set") for process in servers}
    declared = target.declared_env.get(EXECUTOR_V2, "not set")
    seen = f"{EXECUTOR_V2} is {', '.join(sorted(values)) or 'nowhere'} in {len(servers)} LLMServer replica(s)"
    if values != {declared}:
        return Outcome.FAIL, f"{seen}, declared {declared}", "start new replicas with the declared environment"
    if not target.runs_on_gpu:
        return Outcome.NOT_APPLICABLE, f"{seen}; on the CPU Serve gives vLLM the mp executor, not Ray's", ""
    return Outcome.PASS, seen, ""


def _parity(target: Target) -> tuple[Outcome, str, str]:
    processes = _serve_processes(target)
    differing = sorted(
        {
            f"{name} in {_kind(process)} {process.pid}"
            for process in processes
            for name, value in target.declared_env.items()
            # A deployment's runtime_env may overlay variables; that is declared too, but not here.
            if process.environ.get(name) != value
        }
    )
    return _verdict(
        not differing and bool(processes),
        f"differs from the declared environment: {', '.join(differing)}"
        if differing
        else f"{len(target.declared_env)} declared variables are equal in {len(processes)} Serve processes",
        "declare the variable once, for the head and every worker group",
    )


def _models(target: Target) -> tuple[Outcome, str, str]:
    answer = target.endpoint("/v1/models", with_key=True)
    missing = [model for model in target.model_ids if f'"{model}"' not in answer.text]
    return _verdict(
        answer.status == 200 and not missing,
        f"GET /v1/models: HTTP {answer.status}, "
        + (f"lacks {missing}" if missing else f"lists {', '.join(target.model_ids)}"),
        "look at the replica's log",
    )


# Requests that reach the model or say something about it, asked for whatever the application says of itself.
_GUARDED = (
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/invocations"),
    ("POST", "/tokenize"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
)


def _api_key(target: Target) -> tuple[Outcome, str, str]:
    if not target.declared_env.get(KEYS_VARIABLE):
        return Outcome.NOT_APPLICABLE, "the service declares no gate: the endpoint is open", ""
    described = target.endpoint("/openapi.json", with_key=True)
    paths = json.loads(described.text)["paths"] if described.status == 200 else {}
    mounted = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    # a path's parameters may be anything: nobody gets as far as to read them
    asked = dict.fromkeys([*_GUARDED, *((method, re.sub(r"{.*?}", "x", path)) for method, path in mounted)])
    open_ones = [
        f"{method} {path}: HTTP {status}"
        for method, path in asked
        if (
            status := target.endpoint(path, with_key=False, method=method, body={} if method == "POST" else None).status
        )
        != 401
    ]
    models = target.endpoint("/v1/models", with_key=True).status
    tokenize = {"model": target.model_ids[0], "prompt": "a"}
    tokens = target.endpoint("/tokenize", with_key=True, method="POST", body=tokenize).status
    return _verdict(
        not open_ones and bool(mounted) and (models, tokens) == (200, 200),
        f"without the key {', '.join(open_ones) or f'HTTP 401 on all of {len(asked)} routes'}; "
        f"with it HTTP {models} on /v1/models, {tokens} on /tokenize"
        + ("" if mounted else f", but {described.status} on /openapi.json, which lists the routes"),
        f"the gate stands in vLLM's own app: {DIRECT_STREAMING} must be on, and the replica's engine_kwargs must name it",
    )


def _serve_processes(target: Target) -> list[ProcessFacts]:
    return [
        process
        for process in target.processes()
        if process.title.startswith(("ray::ServeController", "ray::ServeReplica"))
    ]


def _kind(process: ProcessFacts) -> str:
    return "controller" if process.title.startswith("ray::ServeController") else "replica"


def _throughput_values(env: Mapping[str, str]) -> dict[str, str]:
    """The seven values as Serve computes them from an environment."""
    on = is_on(env, THROUGHPUT)
    values = {name: env.get(name, pair[on]) for name, pair in THROUGHPUT_VALUES.items()}
    if is_on(env, HA_PROXY):
        values["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "1"  # forced by HAProxy mode, whatever is set
    return values


def _said(target: Target, name: str) -> str:
    return "on" if is_on(target.declared_env, name) else "off"


_CHECKS: Mapping[str, Callable[[Target], tuple[Outcome, str, str]]] = {
    "HAProxy ingress": _proxy,
    "direct streaming: deployments": _deployments,
    "direct streaming: HAProxy's routes": _haproxy_routes,
    "throughput-optimized Serve": _throughput,
    "vLLM's Ray executor V2": _executor,
    "environment parity": _parity,
    "model list": _models,
    "API key": _api_key,
}
