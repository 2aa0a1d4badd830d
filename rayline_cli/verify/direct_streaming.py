"""Checks of direct streaming: its deployments, the router in HAProxy, and the path of the tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from rayline.facts.choices import Task
from rayline.facts.labels import ROUTER, Role
from rayline.facts.serve_flags import DIRECT_STREAMING, HA_PROXY, SERVE_FLAGS, SESSION_HEADER
from rayline_cli.clients.serve import every_deployment
from rayline_cli.verify.check import Verdict, declared_off, not_applicable, verdict
from rayline_cli.verify.endpoint import KEY_FIX, probe, status_text, why_broken
from rayline_cli.verify.haproxy import INGRESS, safe_name
from rayline_cli.verify.target import View, entrances

SWITCH = "direct_streaming"
_FIX = f'set {DIRECT_STREAMING} and {HA_PROXY} to exactly "1" on the head and on every worker'


def deployments(view: View) -> Verdict:
    """Check that the deployments are those of direct streaming; from outside, that vLLM itself answers."""
    if not view.target.nodes:
        return _application(view)
    names = {name for name, _ in every_deployment(view.details)}
    seen = f"deployments are {', '.join(sorted(names))}"
    if not view.expected.switches[SWITCH]:
        return declared_off(SWITCH, names == view.expected.llm_deployments | {INGRESS}, seen)
    wanted = view.expected.llm_deployments | {ROUTER}
    return verdict(names == wanted, seen + ("" if names == wanted else f", and not {', '.join(sorted(wanted))}"), _FIX)


def _application(view: View) -> Verdict:
    """Check whose application answers: OpenAiIngress has no /invocations, vLLM's own server has."""
    described = view.description
    if described["status"] != 200:
        fix = KEY_FIX if described["status"] == 401 else "check whether this is the endpoint"
        return verdict(False, f"GET /openapi.json: {status_text(described)}", fix)
    if "/invocations" in view.routes:
        return verdict(True, "vLLM answers: its application has the route /invocations", _FIX)
    return verdict(False, "OpenAiIngress answers: its application has no route /invocations", _FIX)


_LUA_LINES = (r"lua-load-per-thread \S*ingress_request_router\.lua", r"use_backend \S*-via-ingress-request-router")
_VIA_ROUTER = "-via-ingress-request-router"


def lua_router(view: View) -> Verdict:
    """Check that every HAProxy queries the router, by its Lua file."""
    routed = {
        node.name: all(re.search(line, haproxy["config"]) for line in _LUA_LINES) and bool(_routers(haproxy))
        for node, haproxy in view.haproxies
    }
    if not view.expected.switches[SWITCH]:
        return declared_off(SWITCH, not any(routed.values()), f"{sum(routed.values())} haproxy(s) load the Lua router")
    missing = [name for name, is_routed in routed.items() if not is_routed]
    addresses = sorted({address for _, haproxy in view.haproxies for address in _routers(haproxy)})
    seen = f"{len(routed)} haproxy(s) query the router at {', '.join(addresses)} for each POST" if routed else "no haproxy runs"
    if missing:
        seen = f"no Lua router in haproxy.cfg of {', '.join(missing)}"
    fix = f'set {DIRECT_STREAMING} to exactly "1" on every node, and check that the LLMRouter deployment runs'
    return verdict(bool(routed) and not missing, seen, fix)


def _routers(haproxy: Mapping[str, Any]) -> list[str]:
    """Return the addresses in the Lua file's table of routers."""
    return [f"{host}:{port}" for host, port in re.findall(r'host = "([^"]+)", port = (\d+)', haproxy["lua"])]


_TRIES = 3


def token_path(view: View) -> Verdict:
    """Check where HAProxy counts the bytes of a streamed completion, or of another answer, on each node that clients come through."""
    switched_on = view.expected.switches[SWITCH]
    nodes = entrances([node for node, look in view.looks if look["haproxy"]])
    if not nodes and switched_on:
        return verdict(False, "no haproxy runs, so tokens pass a Python proxy", f'set {HA_PROXY} to "1"')
    if not nodes:
        return declared_off(SWITCH, True, "no haproxy runs")
    servers = {safe_name(replica["actor_name"]) for replica in view.replicas(*view.expected.front_deployments)}
    job = {"do": "stream", "base": "serve", **probe(view), "counters": True}
    what = "a stream" if view.task is Task.GENERATE else "an answer"
    seen: list[tuple[str, dict[str, Any], int, int, int]] = []
    for _ in range(_TRIES):
        streams = view.on_each(nodes if switched_on else nodes[:1], job)
        seen = [(node.name, said, *_counted(said, servers)) for node, said in streams]
        # a reload of HAProxy between the two looks starts its counters again
        if not any(said["status"] == 200 and direct + other < said["bytes"] for _, said, direct, other, _ in seen):
            break
    counted = [
        f"{name}: {said['bytes']} bytes of {what} came, HAProxy counts {direct} from the replica's own server on the "
        f"routed way and {other} from others"
        for name, said, direct, other, _ in seen
    ]
    broken = [f"{name}: {reason}" for name, said, *_ in seen if (reason := why_broken(said, view.task))]
    evidence = "; ".join(broken or counted)
    if not switched_on:
        return declared_off(SWITCH, not any(direct for _, _, direct, _, _ in seen), evidence)
    return verdict(
        not broken and all(direct >= said["bytes"] and requests > 0 for _, said, direct, _, requests in seen),
        evidence,
        f'set {DIRECT_STREAMING} to "1" everywhere: tokens take the long way; if the fallback answers, look at the router',
    )


def _counted(said: Mapping[str, Any], servers: set[str]) -> tuple[int, int, int]:
    """Return the bytes that came during a stream from the model's servers behind the router, and from other servers.

    The third number is the number of requests to the former. Streams of other clients count too.
    """
    grown = list(_grown(said, servers))
    direct, other = (sum(row.sent for row in grown if row.is_direct is way) for way in (True, False))
    return direct, other, sum(row.requests for row in grown if row.is_direct)


class ServerGrowth(NamedTuple):
    """Bytes from a server of HAProxy, and requests to it, during a stream."""

    server: str
    is_direct: bool
    """Whether it is a replica of the model behind the router."""
    sent: int
    requests: int


def _grown(said: Mapping[str, Any], servers: set[str]) -> Iterator[ServerGrowth]:
    """Yield what came from each server of HAProxy during a stream."""
    before = {(row["pxname"], row["svname"]): row for haproxy in said["before"] for row in haproxy["stat"]}
    for row in (row for haproxy in said["after"] for row in haproxy["stat"]):
        if row["svname"] not in ("FRONTEND", "BACKEND", ""):
            old = before.get((row["pxname"], row["svname"]), {})
            sent, requests = (int(row[key] or 0) - int(old.get(key) or 0) for key in ("bout", "req_tot"))
            is_direct = row["svname"] in servers and row["pxname"].endswith(_VIA_ROUTER)
            yield ServerGrowth(row["svname"], is_direct, sent, requests)


_SESSIONS, _TURNS = 3, 3


def sessions(view: View) -> Verdict:
    """Check that the requests of a session reach one replica, by HAProxy's counters of one node.

    Requests of other clients count too, so a session passes if one replica got a request with each of its turns.
    """
    servers = {safe_name(replica["actor_name"]) for replica in view.replicas(*view.expected.front_deployments)}
    if len(servers) < 2:
        return not_applicable("one replica gets every session")
    nodes = entrances([node for node, look in view.looks if look["haproxy"]])
    if not nodes:
        return verdict(False, "no haproxy runs", f'set {HA_PROXY} to "1"')
    node = nodes[0]
    header = view.expected.environment[Role.WORKER].get(SESSION_HEADER) or SERVE_FLAGS[SESSION_HEADER].default
    job = {"do": "stream", "base": "serve", **probe(view), "counters": True}
    moved, used = [], set()
    for _ in range(_SESSIONS):
        turns = [node.run(job | {"headers": {header: session}}) for session in [uuid4().hex] * _TURNS]
        if broken := next(filter(None, (why_broken(turn, view.task) for turn in turns)), None):
            return verdict(False, f"{node.name}: {broken}", "look at the replica's log")
        got = [{row.server for row in _grown(turn, servers) if row.is_direct and row.requests > 0} for turn in turns]
        used |= (stayed := set.intersection(*got))
        moved += [] if stayed else [" then ".join("/".join(sorted(names)) or "no replica" for names in got)]
    evidence = f"{node.name}: {_SESSIONS} sessions of {_TURNS} turns, each on one of {len(used)} replica(s)"
    evidence = f"{node.name}: the turns of a session went to {moved[0]}" if moved else evidence
    return verdict(not moved, evidence, "bring the stack up again: Serve routes otherwise than declared")
