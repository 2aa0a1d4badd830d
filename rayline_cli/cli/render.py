"""`rayline render`."""

from typing import Annotated

import typer

from .common import EveryStackOption, JsonOption, app, console, end_with_refusals, errors, print_stacks


@app.command(epilog="Example: rayline render --stack dev-l4")
def render(
    stack: EveryStackOption = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 where manifests/ is stale.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write manifests/<stack>/ for review and for `kubectl apply`. The values of Secrets are left out."""
    from rayline_cli import offline
    from rayline_cli import render as manifests

    programs, refused = offline.record_all(offline.stack_names() if stack is None else [stack])
    changed = {program.stack: manifests.stale(program) if check else manifests.write(program) for program in programs}
    if as_json:
        print_stacks("files", changed, refused)
    else:
        for name, files in changed.items():
            word = "stale" if check else "written"
            console.print(f"manifests/{name}: " + (f"{word}: {', '.join(files)}" if files else "up to date"))
    end_with_refusals(refused)
    if check and any(changed.values()):
        errors.print("manifests/ is stale. Fix: `make render`, and commit the result")
        raise typer.Exit(1)
