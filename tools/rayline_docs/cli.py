"""`rayline docs`. Cheap to import: `rayline --help` imports it."""

from typing import Annotated

import typer

from rayline_cli.cli.common import app, console, errors


@app.command(epilog="Example: rayline docs --check")
def docs(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 where a page is stale or breaks the rules of words.")
    ] = False,
) -> None:
    """Write the generated parts of docs/, the schemas for editors and the facts of an updated Ray or vLLM. For developers of this repository."""
    from . import pages, words

    if not check:
        for path in pages.write():
            console.print(f"written: {path.name}", highlight=False)
        return
    stale, broken = pages.stale(), words.violations()
    for path in stale:
        console.print(f"stale: {path.name}", highlight=False)
    for line in broken:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if stale:
        errors.print("Generated pages are stale. Fix: run `make docs` and commit the result.")
    if broken:
        errors.print("Texts break the rules of words. Fix: rewrite them as CONTRIBUTING.md says under Words.")
    if stale or broken:
        raise typer.Exit(1)
