"""`rayline permissions`."""

from typing import Annotated

import typer

from .common import JsonOption, StackOption, app, print_json


def _checked(member: str | None) -> str | None:
    from rayline_cli import permissions as rights

    if member is not None and not rights.is_member(member):
        raise typer.BadParameter(f"{member} is no IAM principal. Fix: {rights.MEMBER_FORMS}")
    return member


@app.command(epilog="Example: rayline permissions --stack prod-l4")
def permissions(
    stack: StackOption,
    member: Annotated[
        str | None,
        typer.Option(
            "--member",
            callback=_checked,
            help="IAM principal of the deployer: serviceAccount:EMAIL, user:EMAIL, group:EMAIL, principalSet://...",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the IAM roles or Kubernetes rights that a deployer of the stack needs, with the commands that grant them."""
    from rayline_cli import offline, preflight
    from rayline_cli import permissions as rights

    program = offline.record(stack)
    state = preflight.backend_url(preflight.Machine.this())
    roles = rights.roles_for(program, state=state, secrets_provider=preflight.secrets_provider(stack))
    if as_json:
        print_json(rights.as_data(program, roles, member))
    else:
        print(rights.as_text(program, roles, member))
