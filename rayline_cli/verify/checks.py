"""The checks: each looks for one thing where it takes effect.

A switch that is declared on must be seen on. One that is declared off must be seen off and is reported as off, which proves
nothing; `Expected.all_on` expects every switch on, whatever the stack file says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rayline_cli.clients.serve import State, every_deployment, rollout
from rayline_cli.verify import direct_streaming, endpoint, haproxy, processes
from rayline_cli.verify.check import CheckResult, Outcome, Verdict, verdict
from rayline_cli.verify.target import NotSeen, Target, View

INSIDE_ONLY = "seen only from inside: rayline verify --stack"


def check_switches(target: Target) -> list[CheckResult]:
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


def _guarded(name: str, check: Callable[[View], Verdict], view: View) -> CheckResult:
    try:
        outcome, evidence, fix = check(view)
    except NotSeen as error:
        outcome, evidence, fix = Outcome.FAIL, str(error), ""
    except Exception as error:
        outcome, evidence, fix = Outcome.FAIL, f"could not be checked: {type(error).__name__}: {error}", ""
    return CheckResult(name, outcome, evidence, fix if outcome in (Outcome.FAIL, Outcome.OFF) else "")


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


def _configuration(view: View) -> Verdict:
    now = rollout(view.details, view.expected.serve_config)
    counts = [
        f"{name} {sum(replica['state'] == 'RUNNING' for replica in deployment['replicas'])}"
        for name, deployment in every_deployment(view.details)
    ]
    return verdict(
        now.state is State.READY,
        f"Serve has the declared applications, running: {', '.join(counts)}" if now.state is State.READY else now.detail,
        "bring the stack up again, and wait until it is served",
    )


def _reachability(view: View) -> Verdict:
    return view.target.reachability(view)


_CHECKS: Mapping[str, Callable[[View], Verdict]] = {
    "declared configuration": _inside(_configuration),
    "HAProxy: managers and processes": _inside(haproxy.managers),
    "HAProxy: replicas as servers": _inside(_with_model(haproxy.servers)),
    "direct streaming: deployments": _with_model(direct_streaming.deployments),
    "direct streaming: router in HAProxy": _inside(_with_model(direct_streaming.lua_router)),
    "direct streaming: way of the tokens": _inside(_with_model(direct_streaming.token_path)),
    "throughput settings of Serve": _inside(processes.throughput),
    "vLLM's Ray executor V2": _inside(_with_model(processes.executor)),
    "environment parity": _inside(processes.parity),
    "model list": _with_model(endpoint.models),
    "streamed completion": _with_model(endpoint.streamed),
    "API key": _with_model(endpoint.api_key),
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
