"""Checks of direct streaming: its deployments, the router in HAProxy, and the way of the tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rayline.facts.serve_flags import DIRECT_STREAMING, HA_PROXY
from rayline_cli.clients.serve import every_deployment
from rayline_cli.verify.check import Outcome, Verdict, declared_off, verdict
from rayline_cli.verify.endpoint import KEY_FIX, completion, status_text, why_broken
from rayline_cli.verify.haproxy import INGRESS, safe_name
from rayline_cli.verify.target import View, entrances

ROUTER = "LLMRouter"
_FIX = f'{DIRECT_STREAMING} and {HA_PROXY} must be exactly "1" on the head and on every worker'


def deployments(view: View) -> Verdict:
    """Check that the deployments are those of direct streaming; from outside, that vLLM itself answers."""
    if not view.target.nodes:
        return _application(view)
    names = {name for name, _ in every_deployment(view.details)}
    seen = f"deployments are {', '.join(sorted(names))}"
    if not view.expected.switches["direct_streaming"]:
        return declared_off("direct_streaming", names == view.expected.llm_deployments | {INGRESS}, seen)
    wanted = view.expected.llm_deployments | {ROUTER}
    return verdict(names == wanted, seen + ("" if names == wanted else f", and not {', '.join(sorted(wanted))}"), _FIX)


def _application(view: View) -> Verdict:
    """From outside: whose application answers. OpenAiIngress has no /invocations, vLLM's own server has."""
    (described,) = view.endpoint({"path": "/openapi.json"})
    if described["status"] != 200:
        fix = KEY_FIX if described["status"] == 401 else "is this the endpoint?"
        return Outcome.FAIL, f"GET /openapi.json: {status_text(described)}", fix
    own = "/invocations" in json.loads(described["text"])["paths"]
    return verdict(
        own,
        f"{'vLLM' if own else 'OpenAiIngress'} answers: its application has {'the' if own else 'no'} route /invocations",
        _FIX,
    )


_LUA_LINES = (r"lua-load-per-thread \S*ingress_request_router\.lua", r"use_backend \S*-via-ingress-request-router")
_VIA_ROUTER = "-via-ingress-request-router"


def lua_router(view: View) -> Verdict:
    """Check that every HAProxy asks the router, by its Lua file."""
    haproxies = [(node, one) for node, look in view.looks for one in look["haproxy"]]
    wired = {
        node.name: all(re.search(line, one["config"]) for line in _LUA_LINES) and bool(_routers(one)) for node, one in haproxies
    }
    if not view.expected.switches["direct_streaming"]:
        with_lua = [name for name, wires in wired.items() if wires]
        return declared_off("direct_streaming", not with_lua, f"{len(with_lua)} haproxy(s) load the Lua router")
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


def token_path(view: View) -> Verdict:
    """Check where HAProxy counts the bytes of a streamed completion, on each node that clients come through."""
    nodes = entrances([node for node, look in view.looks if look["haproxy"]])
    if not view.expected.switches["direct_streaming"]:
        nodes = nodes[:1]
    if not nodes:
        if not view.expected.switches["direct_streaming"]:
            return declared_off("direct_streaming", True, "no haproxy runs")
        return Outcome.FAIL, "no haproxy runs, so tokens pass a Python proxy", f'set {HA_PROXY} to "1"'
    servers = {safe_name(replica["actor_name"]) for replica in view.replicas(*view.expected.llm_deployments)}
    job = {"do": "stream", "base": "serve", "path": "/v1/completions", "body": completion(view), "counters": True}
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
    broken = [f"{name}: {why_broken(said)}" for name, said, _, _ in seen if why_broken(said)]
    if not view.expected.switches["direct_streaming"]:
        return declared_off("direct_streaming", not any(direct for _, _, direct, _ in seen), "; ".join(broken or told))
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
