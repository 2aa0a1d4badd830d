"""The table of checks: each looks for one thing where it takes effect.

A switch that is declared on must be seen on. A switch that is declared off must be seen off and is reported as off, which
proves nothing. `Expected.all_on` expects every switch on, whatever the stack file has.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rayline.facts.choices import Task
from rayline_cli.clients.serve import State, replica_counts, rollout
from rayline_cli.verify import adapters, direct_streaming, disaggregation, endpoint, haproxy, processes, scaling, zero
from rayline_cli.verify.check import CheckResult, Outcome, Verdict, not_applicable, verdict
from rayline_cli.verify.target import ApplicationTarget, NotSeen, Target, View


@dataclass(frozen=True)
class ServiceCheck:
    """One row of the table."""

    name: str
    judge: Callable[[View], Verdict]
    looks_inside: bool = True
    """Whether the check needs the nodes: from outside it is not applicable."""
    is_about_a_model: bool = True
    """Whether the check needs a declared model. The models of a bare address are unknown, so there the check is made."""
    settles: bool = False
    """Whether a failure is looked at again for Target.settles_seconds."""
    starts_a_replica: bool = False
    """Whether the service may be another after the check."""
    is_declared: Callable[[View], bool] = lambda _: True
    """Whether the stack has what the check looks for; without it the check is left out."""

    def result(self, view: View) -> CheckResult:
        """Return the result; a check that cannot be made is a failure with the reason, never an exception."""
        try:
            outcome, evidence, fix = self._verdict(view)
        except NotSeen as error:
            outcome, evidence, fix = verdict(False, str(error), "")
        except Exception as error:
            outcome, evidence, fix = verdict(False, f"could not be checked: {type(error).__name__}: {error}", "")
        return CheckResult(self.name, outcome, evidence, fix if outcome in (Outcome.FAIL, Outcome.OFF) else "")

    def _verdict(self, view: View) -> Verdict:
        if self.looks_inside and not view.target.nodes:
            return not_applicable("seen only from inside: rayline verify --stack")
        if self.is_about_a_model and view.target.nodes and not view.expected.model_ids:
            return not_applicable("no model is declared")
        return self.judge(view)


def check_switches(target: Target) -> list[CheckResult]:
    """Return the results of all checks, in the order of the table. Those of a model are made for each application."""
    applications = target.expected.applications
    if len(applications) < 2 or not target.nodes:
        return _check(target, CHECKS)
    results = _check(target, [check for check in CHECKS if not check.is_about_a_model])
    for application in applications:
        own = _check(ApplicationTarget(target, application), [check for check in CHECKS if check.is_about_a_model])
        results += [dataclasses.replace(result, name=f"{application.name}: {result.name}") for result in own]
    return results


def _check(target: Target, table: Sequence[ServiceCheck]) -> list[CheckResult]:
    view = View(target)
    checks = [check for check in table if check.is_declared(view)]
    results: dict[str, CheckResult] = {}
    for check in checks:
        results[check.name] = check.result(view)
        if check.starts_a_replica:
            target.look_again()
            view = View(target)
    # from here on: in a cluster the first look may take a minute
    end = time.monotonic() + target.settles_seconds
    while time.monotonic() < end:
        again = [check for check in checks if check.settles and results[check.name].outcome is Outcome.FAIL]
        if not again:
            break
        time.sleep(0.5)
        view = View(target)
        results |= {check.name: check.result(view) for check in again}
    return list(results.values())


def _configuration(view: View) -> Verdict:
    now = rollout(view.details, view.expected.serve_config)
    counts = ", ".join(f"{name} {count}" for name, count in replica_counts(view.details).items())
    ready = now.state is State.READY
    evidence = f"Serve has the declared applications, running: {counts}" if ready else now.detail
    return verdict(ready, evidence, "bring the stack up again, and wait until it serves")


def _generates(view: View) -> bool:
    return view.task is Task.GENERATE


# HAProxy follows Serve a moment later. A router that has just come, or a busy machine, makes HAProxy answer HTTP 503.
CHECKS = (
    # the first: the others need a replica
    ServiceCheck("scale to zero", zero.holds, starts_a_replica=True, is_declared=lambda view: view.expected.scales_to_zero),
    ServiceCheck("declared configuration", _configuration, is_about_a_model=False, settles=True),
    ServiceCheck("HAProxy: managers and processes", haproxy.managers, is_about_a_model=False, settles=True),
    ServiceCheck("HAProxy: replicas as servers", haproxy.servers, settles=True),
    ServiceCheck("direct streaming: deployments", direct_streaming.deployments, looks_inside=False),
    ServiceCheck("direct streaming: router in HAProxy", direct_streaming.lua_router, settles=True),
    ServiceCheck("direct streaming: path of the tokens", direct_streaming.token_path, settles=True),
    ServiceCheck("sessions", direct_streaming.sessions, settles=True, is_declared=lambda view: view.expected.routes_by_session),
    ServiceCheck(
        "scaling by time to first token",
        scaling.latency,
        is_about_a_model=False,
        settles=True,
        is_declared=lambda view: bool(view.expected.latency_policies),
    ),
    ServiceCheck("throughput settings of Serve", processes.throughput, is_about_a_model=False),
    ServiceCheck("vLLM's Ray executor V2", processes.executor),
    ServiceCheck("environment parity", processes.parity, is_about_a_model=False),
    ServiceCheck("model list", endpoint.models, looks_inside=False, settles=True),
    ServiceCheck("streamed completion", endpoint.streamed, looks_inside=False, settles=True, is_declared=_generates),
    ServiceCheck(
        "pooled answer", endpoint.pooled, looks_inside=False, settles=True, is_declared=lambda view: not _generates(view)
    ),
    ServiceCheck(
        "speculation",
        endpoint.speculation,
        looks_inside=False,
        settles=True,
        is_declared=lambda view: view.expected.counts_drafts,
    ),
    ServiceCheck(
        "adapters", adapters.adapters, looks_inside=False, settles=True, is_declared=lambda view: bool(view.expected.adapters)
    ),
    ServiceCheck("prefill and decode", disaggregation.transfers, is_declared=lambda view: view.expected.is_disaggregated),
    ServiceCheck("API key", endpoint.api_key, looks_inside=False, settles=True),
    ServiceCheck(
        "reachable from outside", lambda view: view.target.reachability(view), looks_inside=False, is_about_a_model=False
    ),
)
