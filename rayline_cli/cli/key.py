"""`rayline key`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .checking import chosen
from .common import ContextOption, JsonOption, StackOption, app, command, is_here, print_json, state_dir

if TYPE_CHECKING:
    from rayline.service.types import ServicePlan
    from rayline_cli.offline import Program


@app.command(epilog='Example: curl -H "Authorization: Bearer $(rayline key)" http://127.0.0.1:8000/v1/models')
def key(
    stack: StackOption = "local",
    service: Annotated[
        str | None,
        typer.Option("--service", help="The service, where the stack has several with a key; SERVICE/NAME of a further model."),
    ] = None,
    previous: Annotated[bool, typer.Option("--previous", help="Print the previous key (still valid).")] = False,
    context: ContextOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the API key of a service: on this machine, or from its Secret in the cluster."""
    from rayline_cli import deploy, in_cluster, offline

    program = offline.record(stack)
    plan = _service_with_key(program, service)
    generation = plan.asked.api.key_generation - previous
    if generation == 0:
        raise deploy.DeployError(f"service {plan.label} has its first key, and no previous one. Fix: leave out --previous")
    if is_here(stack, context=context):
        value = _local_key(program, plan, previous)
    else:
        with deploy.cluster_access(program, context) as kubectl:
            value = in_cluster.api_key(kubectl, plan, previous=previous)
    if as_json:
        print_json({"stack": stack, "service": plan.label, "generation": generation, "key": value})
    else:
        print(value)


def _service_with_key(program: Program, name: str | None) -> ServicePlan:
    """Return the service that --service names, or the only one with a key. Raises typer.BadParameter or DeployError."""
    from rayline_cli.deploy import DeployError

    service, slash, application = (name or "").partition("/")
    services = chosen(program, service if slash else name)
    if slash:
        services = [model for plan in services for model in plan.beside if model.application == application]
        if not services:
            known = [model.label for plan in chosen(program, service) for model in plan.beside]
            says = f"Fix: one of {', '.join(known)}" if known else f"Fix: --service {service}"
            raise typer.BadParameter(f"--service {name}: service {service} has no such further model. {says}")
    with_key = [plan for plan in services if plan.asked.api.key]
    if not with_key:
        names = ", ".join(plan.name for plan in services)
        raise DeployError(f"{names}: `api: {{key: false}}`, so there is no key. Fix: send requests without one")
    if len(with_key) > 1:
        raise typer.BadParameter(f"the stack has several keys. Fix: --service {with_key[0].name}, or another of them")
    return with_key[0]


def _local_key(program: Program, plan: ServicePlan, previous: bool) -> str:
    from rayline.service.api_key import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret
    from rayline_cli import place
    from rayline_cli.local_secrets import stack_secrets

    folder = state_dir(program.stack)
    place.running_session(program, folder, command())
    return stack_secrets(program, folder)[
        api_key_secret(plan.name, plan.application), PREVIOUS_API_KEY_KEY if previous else API_KEY_KEY
    ]
