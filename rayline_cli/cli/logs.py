"""`rayline logs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from .checking import chosen
from .common import ContextOption, ServiceOption, StackOption, app, command, is_here, state_dir


@app.command(epilog="Example: rayline logs --stack local --component replica --lines 100")
def logs(
    stack: StackOption = "local",
    component: Annotated[
        str | None,
        typer.Option("--component", "-c", help="ray, dashboard, controller, replica or haproxy; in a cluster also operator."),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines of each file.")] = 40,
    service: ServiceOption = None,
    context: ContextOption = None,
) -> None:
    """Show the last log lines of what runs, or of what failed last.

    In a cluster: the output of each container of the service, of its last crash too, and Ray's log files in each pod.
    """
    for line in _lines(stack, component, lines, service, context):
        print(line)


def _lines(stack: str, component: str | None, lines: int, service: str | None, context: str | None) -> Iterator[str]:
    from rayline_cli import deploy, in_cluster, offline

    if is_here(stack, context=context):
        if service:
            chosen(offline.record(stack), service)
        yield from _lines_here(stack, component, lines)
        return
    program = offline.record(stack)
    services = chosen(program, service)
    with deploy.cluster_access(program, context) as kubectl:
        if component == in_cluster.OPERATOR:
            isolation = program.plan.isolation
            namespace = isolation.operator_namespace if isolation else None
            yield from in_cluster.operator_logs(kubectl, namespace, lines=lines)
            return
        for plan in services:
            yield from in_cluster.logs(kubectl, plan.name, component=component, lines=lines)


def _lines_here(stack: str, component: str | None, lines: int) -> Iterator[str]:
    from rayline_cli import place
    from rayline_cli.local import runtime, session

    folder, empty = state_dir(stack), True
    for line in runtime.logs(folder, component=component, lines=lines):
        empty = False
        yield line
    if empty and session.load(folder) is None:
        raise place.NotRunning(place.nothing_runs(stack, folder, command()))
    if empty:
        raise place.NotRunning(f"no log of {component or 'the session'} has a line yet")
