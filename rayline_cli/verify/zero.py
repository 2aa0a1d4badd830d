"""The check of a service without replicas: Serve holds its requests until one runs. It loads the model for the other checks."""

from __future__ import annotations

import re
import time

from rayline.facts.defaults import WAKE_SECONDS
from rayline_cli.clients.serve import every_deployment
from rayline_cli.verify.check import Verdict, verdict
from rayline_cli.verify.endpoint import probe, why_broken
from rayline_cli.verify.haproxy import servers_up
from rayline_cli.verify.target import View

_FALLBACK = re.compile(r"^\s*server (\S+) \S+ check backup", re.M)


def holds(view: View) -> Verdict:
    """Check that Serve may stop every replica, that HAProxy passes requests to Serve's proxy then, and that one loads the model."""
    problems = [*_bounds(view), *_fallback(view)]
    starts = "a replica runs"
    if not problems and not view.replicas(*view.expected.llm_deployments):
        starts, reason = _start(view)
        problems += [reason] if reason else []
    fix = "bring the stack up again; the head has to be in the Service, and its HAProxy and proxy have to run"
    evidence = f"Serve may stop every replica, and HAProxy passes requests to Serve's proxy then; {starts}"
    return verdict(not problems, "; ".join(problems) or evidence, fix)


def _bounds(view: View) -> list[str]:
    """Return a problem for each model whose replicas Serve keeps."""
    deployments = dict(every_deployment(view.details))
    least = {
        name: ((deployments.get(name) or {}).get("deployment_config") or {}).get("autoscaling_config") or {}
        for name in view.expected.llm_deployments
    }
    return [
        f"Serve keeps {bounds.get('min_replicas', 'a fixed number of')} replica(s) of {name}"
        for name, bounds in sorted(least.items())
        if bounds.get("min_replicas") != 0
    ]


def _fallback(view: View) -> list[str]:
    """Return a problem for each HAProxy that could not pass a request to Serve's proxy."""
    problems = [] if view.haproxies else ["no haproxy runs"]
    for node, haproxy in view.haproxies:
        if not set(_FALLBACK.findall(haproxy["config"])) & servers_up(haproxy):
            problems.append(f"{node.name}: Serve's proxy is no server of HAProxy that is UP")
    return problems


def _start(view: View) -> tuple[str, str]:
    """Send a request to a service without replicas. Return what was seen, and the reason where nothing answered."""
    target, seen = view.target, ""
    if view.expected.api_key:
        (answer,) = view.endpoint({"path": "/v1/models", "auth": False})
        if answer["status"] != 401:
            return (
                "",
                f"without a replica a request without the key is not refused: HTTP {answer['status']} {answer['text'][:200]}",
            )
        seen = "without a replica a request without the key got HTTP 401; "
    job = {"do": "stream", "base": target.endpoint, **probe(view)}
    began = time.monotonic()
    while True:
        said = target.run_client(job)
        reason, seconds = why_broken(said, view.task), time.monotonic() - began
        if not reason:
            return f"{seen}one with it was answered after {seconds:.0f} s", ""
        # 0: the client's own time limit ended the wait, and the replica still starts. 503: HAProxy still has the last replica.
        patience = {0: WAKE_SECONDS, 503: target.settles_seconds}.get(said["status"], 0)
        if seconds >= patience:
            return "", f"no answer after {seconds:.0f} s: {reason}"
