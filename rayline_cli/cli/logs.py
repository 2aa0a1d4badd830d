"""`rayline logs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from .checking import chosen
from .common import ContextOption, JsonOption, ServiceOption, StackOption, app, command, is_here, print_json, state_dir


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
    as_json: JsonOption = False,
) -> None:
    """Show the last log lines of a running stack, or of one that failed.

    In a cluster: the output of each container of the service, of its last crash too, and Ray's log files in each pod.
    """
    shown = (_lines_here if is_here(stack, context=context) else _lines_in_cluster)(stack, component, lines, service, context)
    if as_json:
        print_json({"stack": stack, "logs": _sections(shown)})
        return
    for line in shown:
        print(line)


def _sections(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return each log as a name and its lines. A name stands as `==> name <==` above them."""
    sections: list[dict[str, Any]] = []
    for line in lines:
        if line.startswith("==> ") and line.endswith(" <=="):
            sections.append({"name": line[4:-4], "lines": []})
        elif sections:
            sections[-1]["lines"].append(line)
    return sections


def _lines_in_cluster(stack: str, component: str | None, lines: int, service: str | None, context: str | None) -> Iterator[str]:
    from rayline_cli import deploy, in_cluster, offline

    program = offline.record(stack)
    services = chosen(program, service)
    with deploy.cluster_access(program, context) as kubectl:
        if component == in_cluster.OPERATOR:
            isolation = program.plan.isolation
            yield from in_cluster.operator_logs(kubectl, isolation and isolation.operator_namespace, lines=lines)
            return
        for plan in services:
            yield from in_cluster.logs(kubectl, plan.name, component=component, lines=lines)


def _lines_here(stack: str, component: str | None, lines: int, service: str | None, _: str | None) -> Iterator[str]:
    from rayline_cli import offline, place
    from rayline_cli.local import runtime, session

    if service:
        chosen(offline.record(stack), service)
    folder, empty = state_dir(stack), True
    for line in runtime.logs(folder, component=component, lines=lines):
        empty = False
        yield line
    if empty and session.load(folder) is None:
        raise place.NotRunning(place.nothing_runs(stack, folder, command()))
    if empty:
        raise place.NotRunning(f"no log of {component or 'the session'} has a line yet. Fix: try again, or another component")
