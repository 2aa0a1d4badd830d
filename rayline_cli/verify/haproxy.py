"""Checks of HAProxy: its managers and processes, and the replicas as its servers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rayline.facts.serve_flags import HA_PROXY
from rayline_cli.verify.check import Verdict, declared_off, verdict
from rayline_cli.verify.target import View

INGRESS = "OpenAiIngress"
"""The deployment that clients reach without direct streaming."""


def managers(view: View) -> Verdict:
    """Check that the head and every node with a replica have a manager and an haproxy process."""
    by_node = {one["node_id"]: one for one in view.actors if one["class_name"] == "HAProxyManager"}
    python_proxies = [one for one in view.actors if one["class_name"] == "ProxyActor"]
    # HAProxy's configuration lies in a folder with the node's id
    processes = {
        path.split("/")[-2]: one["pids"] for _, look in view.looks for one in look["haproxy"] for path in [one["path"]]
    }
    seen = f"{len(by_node)} HAProxyManager(s), haproxy on {len(processes)} node(s), {len(python_proxies)} Python proxy(s)"
    if not view.expected.switches["ha_proxy"]:
        return declared_off("ha_proxy", not by_node and not processes and bool(python_proxies), seen)
    head = (view.details.get("controller_info") or {}).get("node_id")
    wanted = {replica["node_id"] for replica in view.replicas()} | {head}
    problems = [f"no HAProxyManager on node {node}" for node in _short(wanted - by_node.keys())]
    problems += [f"no haproxy process on node {node}" for node in _short(by_node.keys() - processes.keys())]
    if [one["node_id"] for one in python_proxies] != [head]:
        where = ", ".join(_short(one["node_id"] for one in python_proxies)) or "nowhere"
        problems.append(f"one fallback ProxyActor belongs on the head; there is: {where}")
    return verdict(
        not problems,
        "; ".join([seen, *problems])
        + ("" if problems else f": the head and {len(wanted) - 1} more with replicas; the Python proxy is the fallback"),
        f'set {HA_PROXY} to exactly "1" on the head and every worker, and start new processes',
    )


def _short(nodes: Iterable[object]) -> list[str]:
    """Node ids have 56 characters; eight tell them apart."""
    return sorted(str(node)[:8] for node in nodes)


def servers(view: View) -> Verdict:
    """Check that every replica of the front deployment is a server that is UP, at the port on which that process listens."""
    haproxies = [(node, look, one) for node, look in view.looks for one in look["haproxy"]]
    if not view.expected.switches["ha_proxy"]:
        return declared_off("ha_proxy", not haproxies, f"{len(haproxies)} haproxy configuration(s)")
    replicas = view.replicas(*fronts(view))
    problems = [] if haproxies else ["no haproxy runs"]
    problems += [] if replicas else [f"no running replica of {' or '.join(sorted(fronts(view)))}"]
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
    """Return the name of a server in haproxy.cfg (ray/serve/_private/haproxy.py, HAProxyManager.get_safe_name)."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", actor.replace("#", "-").replace("/", "."))


def fronts(view: View) -> set[str]:
    """The deployments whose replicas HAProxy talks to."""
    return view.expected.llm_deployments if view.expected.switches["direct_streaming"] else {INGRESS}
