"""`rayline plan`."""

from typing import Annotated

import typer

from rayline.facts.choices import ClusterMode

from .common import EveryStackOption, JsonOption, PolicyConfigOption, app, console, end_with_refusals, print_stacks


@app.command(epilog="Example: rayline plan --stack dev-l4")
def plan(
    stack: EveryStackOption = None,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a comment on a pull request.")] = False,
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
    if as_json:
        print_stacks(
            "plans", [plan_view.program_json(program) for program in programs if program.stack not in refused], refused
        )
    elif markdown:
        from rayline_cli import plan_markdown

        print(plan_markdown.markdown(programs))
    else:
        for program in programs:
            console.print(plan_view.program_view(program, tree=tree and stack is not None, plain=not console.is_terminal))
    end_with_refusals(refused)
