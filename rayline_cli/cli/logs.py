"""`rayline logs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from .checking import chosen
from .common import ContextOption, ServiceOption, StackOption, app, plain_errors, state_dir


@app.command(epilog="Example: rayline logs --stack local --component replica --lines 100")
def logs(
    stack: StackOption = "local",
    component: Annotated[
        str | None,
        typer.Option(
            "--component", "-c", help="ray, dashboard, controller, replica or haproxy; in a cluster also operator."
        ),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines of each file.")] = 40,
    service: ServiceOption = None,
    context: ContextOption = None,
) -> None:
    """Show the last log lines of what runs, or of what failed last.

    In a cluster: the output of each container of the service, of its last crash too, and Ray's log files in each pod.
    """
    with plain_errors():
        for line in _lines(stack, component, lines, service, context):
            print(line)


def _lines(stack: str, component: str | None, lines: int, service: str | None, context: str | None) -> Iterator[str]:
    if not state_dir(stack).exists():
        from rayline.facts.choices import ClusterMode
        from rayline_cli import deploy, in_cluster, offline

        program = offline.record(stack)
        services = chosen(program, service)
        if program.plan.cluster.mode is not ClusterMode.LOCAL:
            with deploy.cluster_access(program, context) as kubectl:
                if component == in_cluster.OPERATOR:
                    isolation = program.plan.isolation
                    namespace = isolation.operator_namespace if isolation else None
                    yield from in_cluster.operator_logs(kubectl, namespace, lines=lines)
                    return
                for plan in services:
                    yield from in_cluster.logs(kubectl, plan.name, component=component, lines=lines)
            return
    from rayline_cli.local import runtime

    yield from runtime.logs(state_dir(stack), component=component, lines=lines)
