"""`rayline verify`."""

from __future__ import annotations

import os
import pathlib
from typing import Annotated

import typer

from .checking import Checks, check_cluster, check_this_machine, chosen, failed, show_services
from .common import ConfigFileOption, ContextOption, JsonOption, ServiceOption, StackOption, app, is_here, print_json


@app.command(
    epilog="Example: rayline verify --stack local, or RAYLINE_API_KEY=KEY rayline verify --url https://llm.example.com"
)
def verify(
    context: typer.Context,
    stack: StackOption = "local",
    url: Annotated[
        str | None,
        typer.Option("--url", help="Check an address as a client, in place of a stack; the key is $RAYLINE_API_KEY."),
    ] = None,
    service: ServiceOption = None,
    kube_context: ContextOption = None,
    config_file: ConfigFileOption = None,
    all_on: Annotated[
        bool, typer.Option("--all-on", help="Expect every switch on, also those that the stack file turns off.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove on the running service that each switch is on.

    HAProxy and direct streaming are checked by their effect, the throughput settings as Ray reads them in each process, vLLM's
    Ray executor on GPUs (n/a on a CPU). Also checked: API key, model list, and addresses that accept connections.

    A switch that the stack file turns off is reported as off. With --all-on it must be on.
    Exit codes: 0 no check failed, 1 one failed, 2 the command or the configuration is wrong, 130 interrupted.
    """
    if url:
        _refuse_beside_url(context)
        services = _check_url(url)
    else:
        services = _check_stack(stack, service, kube_context, config_file, all_on)
    if not as_json:
        raise typer.Exit(show_services(services))
    passed = not any(failed(checks) for checks in services.values())
    print_json({"target": url or f"stack {stack}", "passed": passed, "services": services})
    raise typer.Exit(0 if passed else 1)


def _refuse_beside_url(context: typer.Context) -> None:
    flags = {"stack": "--stack", "service": "--service", "kube_context": "--context", "config_file": "--config-file"}
    for name, flag in flags.items():
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--url needs no stack. Fix: leave out {flag}")


def _check_url(url: str) -> Checks:
    from rayline_cli.verify import check_switches
    from rayline_cli.verify.outside import KEY_VARIABLE, UrlTarget

    target = UrlTarget(url, os.environ.get(KEY_VARIABLE))
    target.reach()
    return {target.expected.service: check_switches(target)}


def _check_stack(
    stack: str, service: str | None, context: str | None, config_file: pathlib.Path | None, all_on: bool
) -> Checks:
    from rayline_cli import deploy, offline

    program = offline.record(stack, config=offline.read_stack(stack, file=config_file))
    chosen(program, service)
    if is_here(stack, context=context, file=config_file):
        return check_this_machine(program, all_on)
    with deploy.cluster_access(program, context) as kubectl:
        return check_cluster(program, kubectl, service=service, all_on=all_on)
