"""Checks of HAProxy: its managers and processes, and the replicas as its servers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rayline.facts.serve_flags import HA_PROXY
from rayline_cli.verify.check import Verdict, declared_off, verdict
from rayline_cli.verify.target import View

INGRESS = "OpenAiIngress"
"""The deployment that clients reach without direct streaming."""


def _node_id(path: str) -> str:
    """Return the id of the Ray node whose HAProxy runs with a configuration: it is the name of the file's folder."""
    return path.split("/")[-2]


def managers(view: View) -> Verdict:
    """Check that the head and every node with a replica have a manager and an haproxy process."""
    manager_nodes = {actor["node_id"] for actor in view.actors if actor["class_name"] == "HAProxyManager"}
    fallbacks = [actor["node_id"] for actor in view.actors if actor["class_name"] == "ProxyActor"]
    haproxy_nodes = {_node_id(haproxy["path"]) for _, haproxy in view.haproxies}
    seen = f"{len(manager_nodes)} HAProxyManager(s), haproxy on {len(haproxy_nodes)} node(s), {len(fallbacks)} Python proxy(s)"
    if not view.expected.switches["ha_proxy"]:
        return declared_off("ha_proxy", not manager_nodes and not haproxy_nodes and bool(fallbacks), seen)
    head = (view.details.get("controller_info") or {}).get("node_id")
    wanted = {replica["node_id"] for replica in view.replicas()} | {head}
    problems = [f"no HAProxyManager on node {node}" for node in _short(wanted - manager_nodes)]
    problems += [f"no haproxy process on node {node}" for node in _short(manager_nodes - haproxy_nodes)]
    if fallbacks != [head]:
        problems.append(f"one fallback ProxyActor belongs on the head; there is: {', '.join(_short(fallbacks)) or 'nowhere'}")
    ok = f": the head and {len(wanted) - 1} more with replicas; the Python proxy is the fallback"
    fix = f'set {HA_PROXY} to exactly "1" on the head and every worker, and start new processes'
    return verdict(not problems, "; ".join([seen, *problems]) + ("" if problems else ok), fix)


def _short(nodes: Iterable[object]) -> list[str]:
    """Return the first eight of a node id's 56 characters: enough to tell nodes apart."""
    return sorted(str(node)[:8] for node in nodes)


def servers(view: View) -> Verdict:
    """Check that every replica of the front deployment is a server that is UP, at a port on which its process listens."""
    if not view.expected.switches["ha_proxy"]:
        return declared_off("ha_proxy", not view.haproxies, f"{len(view.haproxies)} haproxy configuration(s)")
    fronts = view.expected.front_deployments if view.expected.switches["direct_streaming"] else {INGRESS}
    replicas = view.replicas(*fronts)
    problems = [] if view.haproxies else ["no haproxy runs"]
    problems += [] if replicas else [f"no running replica of {' or '.join(sorted(fronts))}"]
    listening = {
        (_node_id(haproxy["path"]), listener["pid"], listener["port"])
        for _, look in view.looks
        for haproxy in look["haproxy"]
        for listener in look["listeners"]
    }
    for node, haproxy in view.haproxies:
        if haproxy["error"]:
            problems.append(f"{node.name}: {haproxy['error']}")
        port_of = dict(re.findall(r"^\s*server (\S+) \S+:(\d+)", haproxy["config"], re.M))
        up = servers_up(haproxy)
        for replica in replicas:
            server = safe_name(replica["actor_name"])
            if server not in port_of:
                problems.append(f"{node.name}: {server} is not in haproxy.cfg")
            elif server not in up:
                problems.append(f"{node.name}: {server} is not UP")
            elif (replica["node_id"], replica["pid"], int(port_of[server])) not in listening:
                problems.append(f"{node.name}: {server} has port {port_of[server]}, on which that replica does not listen")
    names = ", ".join(sorted({replica["deployment"] for replica in replicas}))
    ok = f"{len(replicas)} running replica(s) of {names} are UP servers of {len(view.haproxies)} haproxy(s), each at a port of its own"
    fix = "look at HAProxyManager's log (serve/proxy_*.log on the node) and at the replica's health"
    return verdict(not problems, "; ".join(problems) or ok, fix)


def servers_up(haproxy: Mapping[str, Any]) -> set[str]:
    """Return the names of an HAProxy's servers that are UP."""
    return {row["svname"] for row in haproxy["stat"] if row["status"].split()[:1] == ["UP"]}


def safe_name(actor: str) -> str:
    """Return the name of a server in haproxy.cfg (ray/serve/_private/haproxy.py, HAProxyManager.get_safe_name)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", actor.replace("#", "-").replace("/", "."))
