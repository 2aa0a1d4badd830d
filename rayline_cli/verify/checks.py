"""The checks: each looks for one thing where it takes effect.

A switch that is declared on must be seen on. One that is declared off must be seen off and is reported as off, which proves
nothing; `Expected.all_on` expects every switch on, whatever the stack file says.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from rayline.facts.labels import Role
from rayline.facts.serve_flags import (
    DIRECT_STREAMING,
    HA_PROXY,
    RAY_EXECUTOR_V2,
    SERVE_FLAGS,
    SWITCHES,
    THROUGHPUT_OPTIMIZED,
    THROUGHPUT_SETTINGS,
)
from rayline_cli.local.serve_api import State, progress
from rayline_cli.verify.check import Check, Outcome, Verdict, verdict
from rayline_cli.verify.expected import is_on
from rayline_cli.verify.target import NotSeen, Target, View, entrances

ROUTER, INGRESS = "LLMRouter", "OpenAiIngress"
INSIDE_ONLY = "seen only from inside: rayline verify --stack"


def check_switches(target: Target) -> list[Check]:
    """Every check, in a fixed order. A check that cannot be made is a failure with the reason, never an exception.

    HAProxy follows Serve a moment later, so a failure of `_SETTLING` is looked at again for target.settles_seconds.
    """
    view = View(target)
    found = {name: _guarded(name, check, view) for name, check in _CHECKS.items()}
    # from here on: in a cluster the first look may take a minute
    end = time.monotonic() + target.settles_seconds
    while time.monotonic() < end:
        unsettled = [name for name in _SETTLING if found[name].outcome is Outcome.FAIL]
        if not unsettled:
            break
        time.sleep(0.5)
        view = View(target)
        found |= {name: _guarded(name, _CHECKS[name], view) for name in unsettled}
    return list(found.values())


def _guarded(name: str, check: Callable[[View], Verdict], view: View) -> Check:
    try:
        outcome, evidence, fix = check(view)
    except NotSeen as error:
        outcome, evidence, fix = Outcome.FAIL, str(error), ""
    except Exception as error:
        outcome, evidence, fix = Outcome.FAIL, f"could not be checked: {type(error).__name__}: {error}", ""
    return Check(name, outcome, evidence, fix if outcome in (Outcome.FAIL, Outcome.OFF) else "")


def _declared_off(switch: str, seen_off: bool, evidence: str) -> Verdict:
    """The verdict on a switch that the stack file turns off."""
    if seen_off:
        return Outcome.OFF, f"declared off and seen off: {evidence}", f"switches.{switch}: true turns it on"
    return (
        Outcome.FAIL,
        f"declared off, yet {evidence}",
        f"what runs is not what is declared ({SWITCHES[switch]}): bring the stack up again",
    )


def _inside(check: Callable[[View], Verdict]) -> Callable[[View], Verdict]:
    """A check that has to look into the nodes."""

    def found(view: View) -> Verdict:
        return check(view) if view.target.nodes else (Outcome.NOT_APPLICABLE, INSIDE_ONLY, "")

    return found


def _with_model(check: Callable[[View], Verdict]) -> Callable[[View], Verdict]:
    """A check that is about a model; other applications have none. Of a bare address nobody knows."""

    def found(view: View) -> Verdict:
        if view.target.nodes and not view.expected.model_ids:
            return Outcome.NOT_APPLICABLE, "no model is declared", ""
        return check(view)

    return found


# --- what is deployed ------------------------------------------------------------------------------------------------


def _configuration(view: View) -> Verdict:
    now = progress(view.details, view.expected.serve_config)
    counts = [
        f"{name} {sum(replica['state'] == 'RUNNING' for replica in deployment['replicas'])}"
        for application in view.details["applications"].values()
        for name, deployment in application["deployments"].items()
    ]
    return verdict(
        now.state is State.READY,
        f"Serve has the declared applications, running: {', '.join(counts)}"
        if now.state is State.READY
        else now.detail,
        "bring the stack up again, and wait until it is served",
    )


# --- HAProxy ---------------------------------------------------------------------------------------------------------


def _managers(view: View) -> Verdict:
    managers = {one["node_id"]: one for one in view.actors if one["class_name"] == "HAProxyManager"}
    python_proxies = [one for one in view.actors if one["class_name"] == "ProxyActor"]
    # HAProxy's configuration lies in a folder with the node's id
    processes = {
        path.split("/")[-2]: one["pids"] for _, look in view.looks for one in look["haproxy"] for path in [one["path"]]
    }
    seen = (
        f"{len(managers)} HAProxyManager(s), haproxy on {len(processes)} node(s), {len(python_proxies)} Python proxy(s)"
    )
    if not view.expected.switches["ha_proxy"]:
        return _declared_off("ha_proxy", not managers and not processes and bool(python_proxies), seen)
    head = (view.details.get("controller_info") or {}).get("node_id")
    wanted = {replica["node_id"] for replica in view.replicas()} | {head}
    problems = [f"no HAProxyManager on node {node}" for node in _short(wanted - managers.keys())]
    problems += [f"no haproxy process on node {node}" for node in _short(managers.keys() - processes.keys())]
    if [one["node_id"] for one in python_proxies] != [head]:
        where = ", ".join(_short(one["node_id"] for one in python_proxies)) or "nowhere"
        problems.append(f"one fallback ProxyActor belongs on the head; there is: {where}")
    return verdict(
        not problems,
        "; ".join([seen, *problems])
        + (
            "" if problems else f": the head and {len(wanted) - 1} more with replicas; the Python proxy is the fallback"
        ),
        f'set {HA_PROXY} to exactly "1" on the head and every worker, and start new processes',
    )


def _short(nodes: Any) -> list[str]:
    """Node ids have 56 characters; eight tell them apart."""
    return sorted(str(node)[:8] for node in nodes)


def _servers(view: View) -> Verdict:
    """Every replica of the front deployment is a server that is UP, at the port on which that very process listens."""
    haproxies = [(node, look, one) for node, look in view.looks for one in look["haproxy"]]
    if not view.expected.switches["ha_proxy"]:
        return _declared_off("ha_proxy", not haproxies, f"{len(haproxies)} haproxy configuration(s)")
    replicas = view.replicas(*_fronts(view))
    problems = [] if haproxies else ["no haproxy runs"]
    problems += [] if replicas else [f"no running replica of {' or '.join(sorted(_fronts(view)))}"]
    listening = {
        (path.split("/")[-2], listener["pid"], listener["port"])
        for _, look, one in haproxies
        for path in [one["path"]]
        for listener in look["listeners"]
    }
    for node, _, one in haproxies:
        if one["error"]:
            problems.append(f"{node.name}: {one['error']}")
        in_file = dict(re.findall(r"^\s*server (\S+) \S+:(\d+)", one["config"], re.M))
        up = {row["svname"]: row["addr"] for row in one["stat"] if row["status"].split()[:1] == ["UP"]}
        for replica in replicas:
            server = safe_name(replica["actor_name"])
            port = in_file.get(server)
            if port is None:
                problems.append(f"{node.name}: {server} is not in haproxy.cfg")
            elif server not in up:
                problems.append(f"{node.name}: {server} is not UP")
            elif (replica["node_id"], replica["pid"], int(port)) not in listening:
                problems.append(f"{node.name}: {server} has port {port}, on which that replica does not listen")
    ports = sorted({f"{replica['deployment']}" for replica in replicas})
    return verdict(
        not problems,
        "; ".join(problems)
        or f"{len(replicas)} running replica(s) of {', '.join(ports)} are UP servers of {len(haproxies)} haproxy(s), each at a port of its own",
        "look at HAProxyManager's log (serve/proxy_*.log on the node) and at the replica's health",
    )


def safe_name(actor: str) -> str:
    """The name of a server in haproxy.cfg (ray/serve/_private/haproxy.py, HAProxyManager.get_safe_name)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", actor.replace("#", "-").replace("/", "."))


def _fronts(view: View) -> set[str]:
    """The deployments whose replicas HAProxy talks to."""
    return view.expected.llm_deployments if view.expected.switches["direct_streaming"] else {INGRESS}


# --- direct streaming ------------------------------------------------------------------------------------------------


def _deployments(view: View) -> Verdict:
    if not view.target.nodes:
        return _application(view)
    names = {name for app in view.details["applications"].values() for name in app["deployments"]}
    seen = f"deployments are {', '.join(sorted(names))}"
    if not view.expected.switches["direct_streaming"]:
        return _declared_off("direct_streaming", names == view.expected.llm_deployments | {INGRESS}, seen)
    wanted = view.expected.llm_deployments | {ROUTER}
    return verdict(
        names == wanted,
        seen + ("" if names == wanted else f", and not {', '.join(sorted(wanted))}"),
        f'{DIRECT_STREAMING} and {HA_PROXY} must be exactly "1" on the head and on every worker',
    )


def _application(view: View) -> Verdict:
    """From outside: whose application answers. OpenAiIngress has no /invocations, vLLM's own server has."""
    (described,) = view.endpoint({"path": "/openapi.json"})
    if described["status"] != 200:
        refused = described["status"] == 401
        return Outcome.FAIL, f"GET /openapi.json: {_said(described)}", _KEY_FIX if refused else "is this the endpoint?"
    own = "/invocations" in json.loads(described["text"])["paths"]
    return verdict(
        own,
        f"{'vLLM' if own else 'OpenAiIngress'} answers: its application has {'the' if own else 'no'} route /invocations",
        f'{DIRECT_STREAMING} and {HA_PROXY} must be exactly "1" on the head and on every worker',
    )


_LUA_LINES = (r"lua-load-per-thread \S*ingress_request_router\.lua", r"use_backend \S*-via-ingress-request-router")
_VIA_ROUTER = "-via-ingress-request-router"


def _lua_router(view: View) -> Verdict:
    haproxies = [(node, one) for node, look in view.looks for one in look["haproxy"]]
    wired = {
        node.name: all(re.search(line, one["config"]) for line in _LUA_LINES) and bool(_routers(one))
        for node, one in haproxies
    }
    if not view.expected.switches["direct_streaming"]:
        with_lua = [name for name, wires in wired.items() if wires]
        return _declared_off("direct_streaming", not with_lua, f"{len(with_lua)} haproxy(s) load the Lua router")
    missing = [name for name, wires in wired.items() if not wires]
    addresses = sorted({address for _, one in haproxies for address in _routers(one)})
    return verdict(
        bool(wired) and not missing,
        f"no Lua router in haproxy.cfg of {', '.join(missing)}"
        if missing
        else f"{len(wired)} haproxy(s) ask the router at {', '.join(addresses)} for each POST"
        if wired
        else "no haproxy runs",
        f'{DIRECT_STREAMING} must be exactly "1" on every node; the LLMRouter deployment must run',
    )


def _routers(haproxy: Mapping[str, Any]) -> list[str]:
    """Addresses in the Lua file's table of routers."""
    return [f"{host}:{port}" for host, port in re.findall(r'host = "([^"]+)", port = (\d+)', haproxy["lua"])]


def _token_path(view: View) -> Verdict:
    """One streamed completion through the HAProxy of each node that clients come through, and where HAProxy itself counts its bytes."""
    nodes = entrances([node for node, look in view.looks if look["haproxy"]])
    if not view.expected.switches["direct_streaming"]:
        nodes = nodes[:1]
    if not nodes:
        if not view.expected.switches["direct_streaming"]:
            return _declared_off("direct_streaming", True, "no haproxy runs")
        return Outcome.FAIL, "no haproxy runs, so tokens pass a Python proxy", f'set {HA_PROXY} to "1"'
    servers = {safe_name(replica["actor_name"]) for replica in view.replicas(*view.expected.llm_deployments)}
    job = {"do": "stream", "base": "serve", "path": "/v1/completions", "body": _completion(view), "counters": True}
    seen = []
    for _ in range(_TRIES):
        seen = [(node.name, said, *_bytes(said, servers)) for node, said in view.on_each(nodes, job)]
        # a reload of HAProxy between the two looks starts its counters anew
        if not any(said["status"] == 200 and direct + other < said["bytes"] for _, said, direct, other in seen):
            break
    told = [
        f"{name}: {said['bytes']} bytes of a stream came, HAProxy counts {direct} from the replica's own server on the "
        f"routed way and {other} from others"
        for name, said, direct, other in seen
    ]
    broken = [f"{name}: {_why(said)}" for name, said, _, _ in seen if _why(said)]
    if not view.expected.switches["direct_streaming"]:
        return _declared_off("direct_streaming", not any(direct for _, _, direct, _ in seen), "; ".join(broken or told))
    return verdict(
        not broken and all(direct >= said["bytes"] and said["requests"] for _, said, direct, _ in seen),
        "; ".join(broken or told),
        f'tokens take the long way: {DIRECT_STREAMING} must be "1" everywhere; if the fallback answers, look at the router',
    )


_TRIES = 3


def _bytes(said: dict[str, Any], servers: set[str]) -> tuple[int, int]:
    """Bytes that came during a stream from the model's servers in a backend behind the router, and from other servers.

    `said["requests"]` becomes the number of requests on the first way. Other clients' streams count in as well.
    """
    before = {(row["pxname"], row["svname"]): row for one in said["before"] for row in one["stat"]}
    direct = other = requests = 0
    for row in (row for one in said["after"] for row in one["stat"]):
        if row["svname"] in ("FRONTEND", "BACKEND", ""):
            continue
        old = before.get((row["pxname"], row["svname"]), {})
        grown = int(row["bout"] or 0) - int(old.get("bout") or 0)
        if row["svname"] in servers and row["pxname"].endswith(_VIA_ROUTER):
            direct += grown
            requests += int(row["req_tot"] or 0) - int(old.get("req_tot") or 0)
        else:
            other += grown
    said["requests"] = max(requests, 0)
    return direct, other


# --- Serve and vLLM --------------------------------------------------------------------------------------------------

_SERVE = ("ray::ServeController", "ray::ServeReplica")
_RAY = (*_SERVE, "ray::HAProxyManager", "ray::ProxyActor")


def _throughput(view: View) -> Verdict:
    answers = view.on_each(view.target.nodes, {"do": "settings", "names": list(THROUGHPUT_SETTINGS)})
    groups = [(node, group) for node, found in answers for group in found]
    wanted = _wanted_settings(view)
    wrong, kinds, count = [], set(), 0
    for node, group in groups:
        kinds |= {_kind(title) for title in group["titles"]}
        count += len(group["pids"])
        for name, value in group["values"].items():
            if name in wanted and _as_text(value) != wanted[name]:
                wrong.append(
                    f"{name}={_as_text(value)}, not {wanted[name]}, in {', '.join(sorted(set(group['titles'])))} on {node.name}"
                )
    missing = {"controller", "replica"} - kinds
    values = ", ".join(f"{name.removeprefix('RAY_SERVE_')}={value}" for name, value in wanted.items())
    versions = ", ".join(sorted({group["ray"] for _, group in groups}))
    seen = f"in {count} Serve processes (controller and replicas), as Ray {versions} reads their environment: {values}"
    if any(look["throughput_said"] for _, look in view.looks):
        seen += "; the controller's log says so too"
    problems = [*wrong, *(f"no process found: {kind}" for kind in sorted(missing))]
    if not view.expected.switches["throughput_optimized"]:
        return _declared_off("throughput_optimized", not problems, "; ".join(problems) or seen)
    return verdict(
        not problems,
        "; ".join(problems) or seen,
        f'read when a process starts: set {THROUGHPUT_OPTIMIZED} to exactly "1" on the head and every worker, and start new ones',
    )


# Without the switch. What has the same value then tells nothing, and other versions of Ray may have another; direct ingress
# has no row, since HAProxy forces it.
_SETTINGS_OFF = {
    name: off
    for name, on in THROUGHPUT_SETTINGS.items()
    if (off := SERVE_FLAGS[name].default if name in SERVE_FLAGS else "0") != on
}


def _wanted_settings(view: View) -> dict[str, str]:
    """The values that must be seen: the switch's, but for those that the stack sets by themselves."""
    declared = view.expected.environment[Role.HEAD]
    by_switch = THROUGHPUT_SETTINGS if view.expected.switches["throughput_optimized"] else _SETTINGS_OFF
    values = {name: declared.get(name) or value for name, value in by_switch.items()}
    if view.expected.switches["ha_proxy"]:
        values["RAY_SERVE_ENABLE_DIRECT_INGRESS"] = "1"  # forced by HAProxy mode, whatever is set
    return values


def _as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, (bool, int)) else str(value)


def _kind(title: str) -> str:
    return "controller" if title.startswith("ray::ServeController") else "replica"


def _executor(view: View) -> Verdict:
    replicas = view.replicas(*view.expected.llm_deployments)
    logs = {name: executor for _, look in view.looks for name, executor in look["executors"].items()}
    # a replica's log file has its id in the name
    said = {
        executor.rpartition(".")[2]
        for replica in replicas
        for name, executor in logs.items()
        if replica["replica_id"] in name
    }
    workers = {
        kind: sum(one["class_name"] == kind for one in view.actors) for kind in ("RayWorkerProc", "RayWorkerWrapper")
    }
    values = {
        process["environ"].get(RAY_EXECUTOR_V2, "not set")
        for _, look in view.looks
        for process in look["processes"]
        if process["title"].startswith("ray::ServeReplica")
        and any(name in process["title"] for name in view.expected.llm_deployments)
    }
    seen = f"{RAY_EXECUTOR_V2} is {', '.join(sorted(values)) or 'nowhere'} in {len(replicas)} replica(s)"
    seen += f", whose log names {', '.join(sorted(said))}" if said else ", whose log does not name the executor (yet)"
    fix = f'set {RAY_EXECUTOR_V2} to "1" on the head and every worker, and start new replicas'
    if not view.expected.switches["ray_executor_v2"]:
        return _declared_off("ray_executor_v2", values == {"0"} and "RayExecutorV2" not in said, seen)
    if values != {"1"}:
        return Outcome.FAIL, seen, fix
    if not view.expected.on_gpu:
        return Outcome.NOT_APPLICABLE, f"{seen}: on the CPU Serve gives vLLM the mp executor, not Ray's", ""
    seen += f"; {workers['RayWorkerProc']} RayWorkerProc and {workers['RayWorkerWrapper']} RayWorkerWrapper (V1) actors"
    good = workers["RayWorkerProc"] > 0 and not workers["RayWorkerWrapper"] and said <= {"RayExecutorV2"}
    return verdict(good, seen, fix)


def _parity(view: View) -> Verdict:
    differing, digests, count = set(), {}, 0
    for node, look in view.looks:
        declared = view.expected.environment[Role.HEAD if node.is_head else Role.WORKER]
        for process in look["processes"]:
            title = process["title"]
            # the raylet has what its pod has, also where no actor of Serve runs
            if not (title.startswith(_RAY) or title.endswith("/raylet")):
                continue
            count += 1
            where = f"{title.split('/')[-1].split()[0]} on {node.name}"
            for name in view.expected.variables():
                value = process["environ"].get(name)
                if name in view.expected.secret_variables():
                    digests.setdefault(name, {}).setdefault(value, where)
                # a deployment's runtime_env may overlay variables; that is declared too, but not here
                elif value != declared.get(name):
                    wanted = "undeclared" if name not in declared else f"declared {declared[name]!r}"
                    differing.add(f"{name}={value!r} ({wanted}) in {where}")
    differing |= {
        f"{name} (a secret) differs between {' and '.join(found.values())}"
        for name, found in digests.items()
        if len(found) > 1
    }
    shown = sorted(differing)[:8]
    return verdict(
        not differing and count > 0,
        "; ".join([*shown, *([f"and {len(differing) - 8} more"] if len(differing) > 8 else [])])
        or f"{len(view.expected.variables())} variables are as declared in {count} Ray processes on {len(view.looks)} node(s)",
        "declare a variable once, for the head and every worker group, and start new processes",
    )


# --- the endpoint ----------------------------------------------------------------------------------------------------


def _served_models(view: View) -> list[str]:
    """What the stack declares, or for a bare address what it says of itself."""
    if view.expected.model_ids:
        return view.expected.model_ids
    (answer,) = view.endpoint({"path": "/v1/models"})
    if answer["status"] != 200:
        raise NotSeen(f"GET /v1/models: {_said(answer)}")
    return [model["id"] for model in json.loads(answer["text"])["data"]]


def _said(answer: Mapping[str, Any]) -> str:
    return f"HTTP {answer['status']}" if answer["status"] else answer["text"]


def _models(view: View) -> Verdict:
    (answer,) = view.endpoint({"path": "/v1/models"})
    listed = [model["id"] for model in json.loads(answer["text"])["data"]] if answer["status"] == 200 else []
    missing = [model for model in view.expected.model_ids if model not in listed]
    return verdict(
        bool(listed) and not missing,
        f"GET /v1/models: {_said(answer)}"
        + (f", lists {', '.join(listed)}" if listed else "")
        + (f", lacks {', '.join(missing)}" if missing else ""),
        _KEY_FIX if answer["status"] == 401 else "look at the replica's log",
    )


_KEY_FIX = (
    "the endpoint asks for a key and has none, or not its own: put it in RAYLINE_API_KEY "
    "(with --stack it is found where the service runs)"
)


def _completion(view: View) -> dict[str, Any]:
    # min_tokens: a model may end at once, and a stream of one chunk proves nothing
    return {"model": _served_models(view)[0], "prompt": "a", "max_tokens": 16, "min_tokens": 16}


def _why(said: Mapping[str, Any]) -> str:
    """What is wrong with a stream, or ""."""
    if said["status"] != 200:
        return f"POST /v1/completions: HTTP {said['status']} {said['text'][:300]}".strip()
    if said["events"] < 2 or not said["done"] or said["text"]:
        end = "with" if said["done"] else "without"
        return f"the stream had {said['events']} events and ended {end} [DONE] {said['text']}".strip()
    return ""


def _streamed(view: View) -> Verdict:
    job = {"do": "stream", "base": view.target.endpoint, "path": "/v1/completions", "body": _completion(view)}
    said = view.target.run_client(job)
    return verdict(
        not _why(said),
        _why(said) or f"{said['events']} events and [DONE] in {said['seconds']:.2f} s",
        _KEY_FIX if said["status"] == 401 else "look at the replica's log, and at what stands before the endpoint",
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


def _api_key(view: View) -> Verdict:
    if not view.expected.api_key:
        return Outcome.NOT_APPLICABLE, "the service declares no gate (api.key: false): the endpoint is open", ""
    (described,) = view.endpoint({"path": "/openapi.json"})
    paths = json.loads(described["text"])["paths"] if described["status"] == 200 else {}
    mounted = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    # a path's parameters may be anything: nobody gets as far as to read them
    asked = list(dict.fromkeys([*_GUARDED, *((method, re.sub(r"{.*?}", "x", path)) for method, path in mounted)]))
    answers = view.endpoint(
        *(
            {"path": path, "method": method, "auth": False} | ({"body": {}} if method == "POST" else {})
            for method, path in asked
        )
    )
    open_ones = [
        f"{method} {path}: {_said(answer)}"
        for (method, path), answer in zip(asked, answers, strict=True)
        if answer["status"] != 401
    ]
    tokenize = {"model": _served_models(view)[0], "prompt": "a"}
    models, tokens = view.endpoint({"path": "/v1/models"}, {"path": "/tokenize", "method": "POST", "body": tokenize})
    return verdict(
        not open_ones and bool(mounted) and (models["status"], tokens["status"]) == (200, 200),
        f"without the key {', '.join(open_ones) or f'HTTP 401 on all of {len(asked)} routes'}; "
        f"with it {_said(models)} on /v1/models, {_said(tokens)} on /tokenize"
        + ("" if mounted else f", but {_said(described)} on /openapi.json, which lists the routes"),
        f"the gate stands in vLLM's own app: {DIRECT_STREAMING} must be on, and the replica's engine_kwargs must name it",
    )


def _reachability(view: View) -> Verdict:
    return view.target.reachability(view)


_CHECKS: Mapping[str, Callable[[View], Verdict]] = {
    "declared configuration": _inside(_configuration),
    "HAProxy: managers and processes": _inside(_managers),
    "HAProxy: replicas as servers": _inside(_with_model(_servers)),
    "direct streaming: deployments": _with_model(_deployments),
    "direct streaming: router in HAProxy": _inside(_with_model(_lua_router)),
    "direct streaming: way of the tokens": _inside(_with_model(_token_path)),
    "throughput settings of Serve": _inside(_throughput),
    "vLLM's Ray executor V2": _inside(_with_model(_executor)),
    "environment parity": _inside(_parity),
    "model list": _with_model(_models),
    "streamed completion": _with_model(_streamed),
    "API key": _with_model(_api_key),
    "reachable from outside": _reachability,
}
_SETTLING = (
    "declared configuration",
    "HAProxy: managers and processes",
    "HAProxy: replicas as servers",
    "direct streaming: router in HAProxy",
    "direct streaming: way of the tokens",
    # a router that has just come, or a busy machine: HTTP 503 from HAProxy
    "model list",
    "streamed completion",
    "API key",
)
__all__ = ["Check", "Outcome", "check_switches", "is_on"]
