"""Run the checks of `rayline_cli.verify` on a stack and print them: what `verify` and `up` share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from .common import command, console, errors, print_line, state_dir

if TYPE_CHECKING:
    from rayline.service.types import ServicePlan
    from rayline_cli.clients.kubernetes import Kubectl
    from rayline_cli.offline import Program
    from rayline_cli.verify import CheckResult

Checks = Mapping[str, "Sequence[CheckResult]"]
"""Service -> its checks."""


def check_cluster(
    program: Program, kubectl: Kubectl, *, service: str | None = None, all_on: bool = False, wait: bool = False
) -> Checks:
    """Return the checks of each service of the stack. With `wait`, first wait until the declared configuration serves."""
    from rayline_cli import render
    from rayline_cli.progress import terminal_report
    from rayline_cli.verify import CheckResult, Outcome, check_switches, expected, summary
    from rayline_cli.verify.cluster import ClusterTarget, wait_until_served

    manifests = {manifest["metadata"]["name"]: manifest for manifest in render.ray_services(program)}
    policies = render.network_policies(program)
    checks: dict[str, list[CheckResult]] = {}
    with terminal_report() as report:
        for plan in chosen(program, service):
            if plan.parked:
                parked = "the service is parked: nothing runs"
                checks[plan.name] = [CheckResult("parked", Outcome.NOT_APPLICABLE, parked)]
                continue
            manifest = manifests[plan.name]
            if wait:
                wait_until_served(kubectl, manifest, report, plan.start_timeout_seconds)
            report.phase(plan.name, "checking its pods")
            declared = expected(manifest)
            target = ClusterTarget(kubectl, declared.all_on() if all_on else declared, policies)
            started = time.monotonic()
            checks[plan.name] = check_switches(target)
            report.done(plan.name, time.monotonic() - started, summary(checks[plan.name]))
    return checks


def check_this_machine(program: Program, all_on: bool) -> Checks:
    """Return the checks of the service that runs on this machine. Raises NotRunning where none runs."""
    from rayline_cli import place, render
    from rayline_cli.local import runtime
    from rayline_cli.local_secrets import stack_secrets
    from rayline_cli.verify import check_switches

    folder = state_dir(program.stack)
    # before stack_secrets, which would make the folder
    place.running_session(program, folder, command())
    target = runtime.target(render.ray_services(program)[0], state_dir=folder, secrets=stack_secrets(program, folder))
    if all_on:
        target.expected = target.expected.all_on()
    return {target.expected.service: check_switches(target)}


def chosen(program: Program, service: str | None) -> list[ServicePlan]:
    """Return the service that --service names, or all of the stack. Raises typer.BadParameter where it has no such service."""
    names = [plan.name for plan in program.plan.services]
    if service is not None and service not in names:
        raise typer.BadParameter(f"--service {service}: stack {program.stack} has none. Fix: one of {', '.join(names)}")
    return [plan for plan in program.plan.services if service in (None, plan.name)]


def failed(checks: Sequence[CheckResult]) -> int:
    """Return how many checks failed."""
    from rayline_cli.verify import Outcome

    return sum(check.outcome is Outcome.FAIL for check in checks)


def show_services(services: Checks) -> int:
    """Print the checks of each service. Return the exit code."""
    from rayline_cli.verify import summary

    for name, checks in services.items():
        console.print(f"\n[bold]{name}[/]")
        show_checks(checks)
        console.print(f"[dim]{summary(checks)}[/]")
    return show_failed([check for checks in services.values() for check in checks])


_MARKS = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "off": "[yellow]off [/]", "not-applicable": "[dim]n/a [/]"}


def show_checks(checks: Sequence[CheckResult]) -> None:
    """Print one line for each check, and its fix below it."""
    for check in checks:
        console.print(f"{_MARKS[check.outcome.value]}  {check.name}: ", end="")
        print_line(check.evidence)
        if check.fix:
            print_line(f"      {check.fix}")


def show_failed(checks: Sequence[CheckResult]) -> int:
    """Print how many checks failed, if one did. Return the exit code."""
    if count := failed(checks):
        errors.print(f"[red]{count} of {len(checks)} checks failed[/]")
    return 1 if count else 0
