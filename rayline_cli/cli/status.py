"""`rayline status`."""

from __future__ import annotations

from typing import Any

import typer

from .checking import chosen, data
from .common import ContextOption, JsonOption, ServiceOption, StackOption, app, command, console, is_here, print_json, state_dir


@app.command(epilog="Example: rayline status --stack local --json")
def status(
    stack: StackOption = "local", service: ServiceOption = None, context: ContextOption = None, as_json: JsonOption = False
) -> None:
    """Show replicas, pods or processes, and address of what runs. Exit code 1 when it is not serving."""
    found = _find(stack, service, context)
    healthy = all(one.healthy for one in found.values()) if isinstance(found, dict) else found.healthy
    if as_json:
        # of the one session on this machine, or of each service in a cluster by its name
        print_json(data(found))
    else:
        for name, one in found.items() if isinstance(found, dict) else [(stack, found)]:
            colour = "green" if one.healthy else "yellow" if one.running else "dim"
            console.print(f"[{colour}]{name}: ", end="")
            console.print(one.detail, style=colour, markup=False, soft_wrap=True)
            for label, value in one.rows():
                console.print(f"  {label:<12} {value}", markup=False, soft_wrap=True)
    if not healthy:
        raise typer.Exit(1)


def _find(stack: str, service: str | None, context: str | None) -> Any:
    from rayline_cli import deploy, in_cluster, offline, place

    if not is_here(stack, context=context):
        program = offline.record(stack)
        services = chosen(program, service)
        with deploy.cluster_access(program, context) as kubectl:
            return {plan.name: in_cluster.status(kubectl, plan.name) for plan in services}
    if service:
        chosen(offline.record(stack), service)
    from dataclasses import replace

    from rayline_cli.local import runtime

    folder = state_dir(stack)
    found = runtime.status(folder)
    if found.running or found.processes:
        return found
    return replace(found, detail=place.nothing_runs(stack, folder, command()))
