"""`rayline status`."""

from __future__ import annotations

from typing import Any

import typer

from .checking import chosen
from .common import (
    ContextOption,
    JsonOption,
    ServiceOption,
    StackOption,
    app,
    command,
    console,
    is_here,
    print_json,
    print_line,
    state_dir,
)


@app.command(
    epilog="Example: rayline status --stack local --json\n\n"
    "Exit codes: 0 it serves, 1 it does not serve, 2 the command or the configuration is wrong, 130 interrupted."
)
def status(
    stack: StackOption = "local", service: ServiceOption = None, context: ContextOption = None, as_json: JsonOption = False
) -> None:
    """Show replicas, pods or processes, and address of a running stack."""
    here = is_here(stack, context=context)
    services = {stack: _session(stack, service)} if here else _services(stack, service, context)
    if as_json:
        # the one session on this machine, or each service in a cluster by its name
        print_json(services[stack] if here else services)
    else:
        for name, state in services.items():
            colour = "green" if state.healthy else "yellow" if state.running else "dim"
            console.print(f"[{colour}]{name}: ", end="")
            console.print(state.detail, style=colour, markup=False, soft_wrap=True)
            for label, value in state.rows():
                print_line(f"  {label:<12} {value}")
    if not all(state.healthy for state in services.values()):
        raise typer.Exit(1)


def _services(stack: str, service: str | None, context: str | None) -> dict[str, Any]:
    """Return the status of each service in the stack's cluster."""
    from rayline_cli import deploy, in_cluster, offline

    program = offline.record(stack)
    services = chosen(program, service)
    with deploy.cluster_access(program, context) as kubectl:
        return {plan.name: in_cluster.status(kubectl, plan.name) for plan in services}


def _session(stack: str, service: str | None) -> Any:
    """Return the status of the session on this machine."""
    from dataclasses import replace

    from rayline_cli import offline, place
    from rayline_cli.local import runtime

    if service:
        chosen(offline.record(stack), service)
    folder = state_dir(stack)
    state = runtime.status(folder)
    if state.running or state.processes:
        return state
    return replace(state, detail=place.nothing_runs(stack, folder, command()))
