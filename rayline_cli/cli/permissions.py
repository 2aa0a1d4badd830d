"""`rayline permissions`."""

from typing import Annotated

import typer

from .common import JsonOption, app, complete_stacks, print_json


def _known_to_iam(member: str | None) -> str | None:
    from rayline_cli import permissions as rights

    if member is not None and not rights.is_member(member):
        raise typer.BadParameter(f"{member}: IAM knows no such principal. Fix: {rights.MEMBER_FORMS}")
    return member


@app.command(epilog="Example: rayline permissions --stack prod-l4")
def permissions(
    stack: Annotated[
        str, typer.Option("--stack", "-s", help="Stack: a file stacks/Pulumi.<stack>.yaml.", autocompletion=complete_stacks)
    ],
    member: Annotated[
        str | None,
        typer.Option(
            "--member",
            callback=_known_to_iam,
            help="Who deploys, as IAM names it: serviceAccount:EMAIL, user:EMAIL, group:EMAIL, principalSet://...",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the IAM roles, or the Kubernetes rights, that a deployer of the stack needs, with the commands that grant them."""
    from rayline_cli import offline, preflight
    from rayline_cli import permissions as rights

    program = offline.record(stack)
    roles = rights.roles_for(
        program, state=preflight.backend_url(preflight.Machine.this()), secrets_provider=preflight.secrets_provider(stack)
    )
    if as_json:
        print_json(rights.as_data(program, roles, member))
    else:
        print(rights.as_text(program, roles, member))
