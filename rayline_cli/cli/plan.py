"""`rayline plan`."""

from typing import Annotated, Any

import typer

from rayline.facts.choices import ClusterMode

from .common import EveryStackOption, JsonOption, PolicyConfigOption, app, console, end_with_refusals, print_line, print_stacks


@app.command(epilog="Example: rayline plan --stack dev-l4")
def plan(
    stack: EveryStackOption = None,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a comment on a pull request.")] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live-prices",
            help="Show the prices of Google's Cloud Billing Catalog beside the dated ones. Needs a login of gcloud, a token or a key.",
        ),
    ] = False,
    tree: Annotated[bool, typer.Option(help="Show the tree of resources.")] = True,
    policy_config: PolicyConfigOption = None,
) -> None:
    """Show what a stack would create: services, hardware, memory fit, concurrency, cost. Creates nothing."""
    from rayline_cli import offline, plan_view
    from rayline_cli.policy_config import broken_rules

    if as_json and markdown:
        raise typer.BadParameter("--json and --markdown exclude each other. Fix: leave one out")
    programs, refused = offline.record_all(offline.stack_names() if stack is None else [stack])
    for program in programs:
        # `up` runs the policy pack for stacks in a cluster
        in_cluster = program.plan.cluster.mode is not ClusterMode.LOCAL
        if in_cluster and (broken := broken_rules(program, policy_config)):
            refused[program.stack] = offline.ProgramError(f"stack {program.stack}: " + "\n  ".join(broken))
    compared: dict[str, Any] = {}
    if live:
        from rayline_cli.live_prices import compare_all

        compared = compare_all(programs)
    if as_json:
        plans = [plan_view.program_json(program) for program in programs if program.stack not in refused]
        for data in plans:
            data |= {"live_prices": compared[data["stack"]]} if data["stack"] in compared else {}
        print_stacks("plans", plans, refused)
    elif markdown:
        from rayline_cli import plan_markdown

        print(plan_markdown.markdown(programs, notes={stack: found.lines() for stack, found in compared.items()}))
    else:
        for program in programs:
            console.print(plan_view.program_view(program, tree=tree and stack is not None, plain=not console.is_terminal))
            for text in compared[program.stack].lines() if program.stack in compared else ():
                print_line(f"  {text}")
    end_with_refusals(refused)
