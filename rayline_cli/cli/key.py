"""`rayline key`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .checking import chosen
from .common import ContextOption, StackOption, app, command, is_here, state_dir

if TYPE_CHECKING:
    from rayline.service.types import ServicePlan
    from rayline_cli.offline import Program


@app.command(epilog='Example: curl -H "Authorization: Bearer $(rayline key)" http://127.0.0.1:8000/v1/models')
def key(
    stack: StackOption = "local",
    service: Annotated[
        str | None, typer.Option("--service", help="The service, where the stack has several with a key.")
    ] = None,
    previous: Annotated[bool, typer.Option("--previous", help="Print the previous key (still valid).")] = False,
    context: ContextOption = None,
) -> None:
    """Print the API key of a service: on this machine, or from its Secret in the cluster."""
    from rayline_cli import deploy, in_cluster, offline, place

    program = offline.record(stack)
    plan = _service(program, service)
    if previous and plan.asked.api.key_generation == 1:
        raise deploy.DeployError(f"the service {plan.name} has its first key: there is no previous one")
    if is_here(stack, context=context):
        place.running_session(program, state_dir(stack), command())
        print(_local_key(program, plan, previous))
    else:
        with deploy.cluster_access(program, context) as kubectl:
            print(in_cluster.api_key(kubectl, plan.name, previous=previous))


def _service(program: Program, name: str | None) -> ServicePlan:
    """Return the service whose key is wanted. Raises typer.BadParameter, or DeployError where it has no key."""
    from rayline_cli.deploy import DeployError

    services = chosen(program, name)
    with_key = [plan for plan in services if plan.asked.api.key]
    if not with_key:
        raise DeployError(f"{', '.join(plan.name for plan in services)}: `api: {key: false}`, so there is no key")
    if len(with_key) > 1:
        raise typer.BadParameter(f"the stack has several keys. Fix: --service {with_key[0].name}, or another of them")
    return with_key[0]


def _local_key(program: Program, plan: ServicePlan, previous: bool) -> str:
    from rayline.service.api_key import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret
    from rayline_cli.local_secrets import stack_secrets

    wanted = PREVIOUS_API_KEY_KEY if previous else API_KEY_KEY
    return stack_secrets(program, state_dir(program.stack))[api_key_secret(plan.name), wanted]
