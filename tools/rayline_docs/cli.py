"""`rayline docs`. Cheap to import: `rayline --help` does."""

from typing import Annotated

import typer

from rayline_cli.cli.common import app, console, errors


@app.command(epilog="Example: rayline docs --check")
def docs(check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 where a page is stale.")] = False) -> None:
    """Write the generated parts of docs/, stacks/schema.json and the facts of an updated Ray or vLLM. For contributors."""
    from . import pages

    changed = pages.stale() if check else pages.write()
    for path in changed:
        console.print(f"{'stale' if check else 'written'}: {path.name}", highlight=False)
    if check and changed:
        errors.print("run `make docs` and commit the result")
        raise typer.Exit(1)
