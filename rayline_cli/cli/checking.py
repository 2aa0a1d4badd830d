"""Run the checks of `rayline_cli.verify` on a stack and print them: what `verify` and `up` share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from .common import command, console, errors, state_dir

if TYPE_CHECKING:
    from rayline.service.types import ServicePlan
    from rayline_cli.clients.kubernetes import Kubectl
    from rayline_cli.offline import Program
    from rayline_cli.verify import CheckResult


def check_cluster(
    program: Program, kubectl: Kubectl, *, service: str | None = None, all_on: bool = False, wait: bool = False
) -> dict[str, list[CheckResult]]:
    """Return the checks of each service of the stack. With `wait`, first wait until the declared configuration serves."""
    from rayline_cli import render
    from rayline_cli.progress import terminal_report
    from rayline_cli.verify import CheckResult, Outcome, check_switches, expected, summary
    from rayline_cli.verify.cluster import ClusterTarget, wait_until_served

    manifests = {manifest["metadata"]["name"]: manifest for manifest in render.ray_services(program)}
    policies = render.network_policies(program)
    found = {}
    with terminal_report() as report:
        for plan in chosen(program, service):
            if plan.parked:
                found[plan.name] = [CheckResult("parked", Outcome.NOT_APPLICABLE, "the service is parked: nothing runs")]
                continue
            manifest = manifests[plan.name]
            if wait:
                wait_until_served(kubectl, manifest, report, plan.start_timeout_seconds)
            report.phase(plan.name, "checking its pods")
            wanted = expected(manifest)
            target = ClusterTarget(kubectl, wanted.all_on() if all_on else wanted, policies)
            started = time.monotonic()
            found[plan.name] = check_switches(target)
            report.done(plan.name, time.monotonic() - started, summary(found[plan.name]))
    return found


def check_this_machine(program: Program, all_on: bool) -> dict[str, list[CheckResult]]:
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
        raise typer.BadParameter(f"--service {service}: the stack {program.stack} has {', '.join(names)}")
    return [plan for plan in program.plan.services if service in (None, plan.name)]


def failed(checks: Sequence[CheckResult]) -> list[CheckResult]:
    """Return the checks that failed."""
    from rayline_cli.verify import Outcome

    return [check for check in checks if check.outcome is Outcome.FAIL]


def show_services(found: Mapping[str, Sequence[CheckResult]]) -> int:
    """Print the checks of each service. Return the exit code."""
    from rayline_cli.verify import summary

    for name, checks in found.items():
        console.print(f"\n[bold]{name}[/]")
        show_checks(checks)
        console.print(f"[dim]{summary(checks)}[/]")
    return complain([check for checks in found.values() for check in checks])


def complain(checks: Sequence[CheckResult]) -> int:
    """Print how many checks failed, if one did. Return the exit code."""
    wrong = failed(checks)
    if wrong:
        errors.print(f"[red]{len(wrong)} of {len(checks)} checks failed[/]")
    return 1 if wrong else 0


_MARKS = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "off": "[yellow]off [/]", "not-applicable": "[dim]n/a [/]"}


def show_checks(checks: Sequence[CheckResult]) -> None:
    """Print one line for each check, and its fix below it."""
    for check in checks:
        console.print(f"{_MARKS[check.outcome.value]}  {check.name}: ", end="", markup=True)
        console.print(check.evidence, markup=False, soft_wrap=True)
        if check.fix:
            console.print(f"      {check.fix}", markup=False, soft_wrap=True)


def data(value: Any) -> Any:
    """Return dataclasses and enumerations as what JSON knows."""
    import dataclasses
    from enum import Enum

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {name: data(item) for name, item in value.items()}
    return [data(item) for item in value] if isinstance(value, (list, tuple)) else value
