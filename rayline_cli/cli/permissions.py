"""`rayline permissions`."""

from typing import Annotated

import typer

from .common import JsonOption, app, complete_stacks, plain_errors


@app.command(epilog="Example: rayline permissions --stack prod-l4")
def permissions(
    stack: Annotated[
        str,
        typer.Option("--stack", "-s", help="Stack: a file stacks/Pulumi.<stack>.yaml.", autocompletion=complete_stacks),
    ],
    member: Annotated[
        str | None,
        typer.Option("--member", help="Who deploys, as IAM names it: serviceAccount:..., user:... or principalSet:..."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the IAM roles, or the Kubernetes rights, that a deployer of the stack needs, with the commands that grant them."""
    from rayline_cli import offline, preflight
    from rayline_cli import permissions as rights

    with plain_errors():
        program = offline.record(stack)
        roles = rights.roles_for(
            program,
            state=preflight.backend_url(preflight.Machine.this()),
            secrets_provider=preflight.secrets_provider(stack),
        )
    if as_json:
        import json

        print(json.dumps(rights.as_data(program, roles, member), indent=2))
    else:
        print(rights.as_text(program, roles, member))
