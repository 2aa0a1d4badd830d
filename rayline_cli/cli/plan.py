"""`rayline plan`."""

from typing import Annotated

import typer

from .common import EveryStackOption, JsonOption, app, console, end_with_refusals, print_stacks


@app.command(epilog="Example: rayline plan --stack dev-l4")
def plan(
    stack: EveryStackOption = None,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a comment on a pull request.")] = False,
    tree: Annotated[bool, typer.Option(help="Show the tree of resources.")] = True,
) -> None:
    """Show what a stack would create: services, hardware, memory fit, concurrency, cost. Creates nothing."""
    from rayline_cli import offline, plan_view

    if as_json and markdown:
        raise typer.BadParameter("--json and --markdown exclude each other. Fix: leave one out")
    programs, refused = offline.record_all(offline.stack_names() if stack is None else [stack])
    if as_json:
        print_stacks("plans", [plan_view.program_json(program) for program in programs], refused)
    elif markdown:
        from rayline_cli import plan_markdown

        print(plan_markdown.markdown(programs))
    else:
        for program in programs:
            console.print(plan_view.program_view(program, tree=tree and stack is not None, plain=not console.is_terminal))
    end_with_refusals(refused)
