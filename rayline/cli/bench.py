"""`rayline bench`."""

import pathlib
from typing import Annotated

import typer

from . import common
from .common import ConfigFileOption, JsonOption, StackOption, app, console


@app.command(epilog="Example: rayline bench --arms sample,kit-equal,vllm --concurrency 64,256 --repeats 5")
def bench(
    context: typer.Context,
    stack: StackOption = "local",
    arms: Annotated[str, typer.Option(help="Arms, with commas; `--list` shows them.")] = "sample,kit-equal,kit,vllm",
    arm: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="One more arm: a YAML file laid over another (docs/benchmark.md)."),
    ] = None,
    base: Annotated[str, typer.Option(help="The arm that ratios are against.")] = "sample",
    workloads: Annotated[str, typer.Option(help="Workloads, with commas; `--list` shows them.")] = "tokens",
    concurrency: Annotated[
        str, typer.Option(help="Requests under way at once, with commas; `workload`: each workload's own.")
    ] = "64",
    requests: Annotated[int, typer.Option(help="Requests of one measurement; 0: each workload's own.")] = 512,
    repeats: Annotated[int, typer.Option(help="How often each point is measured.")] = 3,
    replicas: Annotated[str, typer.Option(help="Engines of each arm, with commas.")] = "1",
    model: Annotated[str, typer.Option(help="The model; empty: the stack's own.")] = "rayline/tiny-random-qwen3",
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An engine argument for all arms that are to be equal."),
    ] = None,
    receipt: Annotated[
        pathlib.Path | None, typer.Option(help="Where the receipt goes; else .rayline/bench/<time>.json.")
    ] = None,
    resume: Annotated[
        pathlib.Path | None, typer.Option(help="Go on with this receipt and its options; --repeats may be more.")
    ] = None,
    service: Annotated[str, typer.Option(help="In a cluster: which service, where the stack has several.")] = "",
    config_file: ConfigFileOption = None,
    goals: Annotated[
        str,
        typer.Option(
            metavar="equal|shipped|replicas",
            help="What some of the kit's goals are stated for, in place of --arms, --base, --workloads, --concurrency, "
            "--requests, --repeats and --replicas.",
        ),
    ] = "",
    report: Annotated[
        pathlib.Path | None, typer.Option(help="Measure nothing: figures and page of this receipt.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Show arms, how they differ, and workloads; start nothing.")
    ] = False,
    render_job: Annotated[
        bool, typer.Option("--render", help="In a cluster: print the Job and what belongs to it; apply nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure ways to serve one model on this machine, side by side and in turns, and write a receipt.

    For a stack in a cluster: the service as it runs, from a Job beside it.
    Exit codes: 0 measured, 1 a point could not be measured or more than 0.1 % of its requests failed, 2 the command or the
    configuration is wrong, 130 interrupted.
    """
    from rayline.bench import command
    from rayline.bench import goals as goal_rows

    sources = ((name, context.get_parameter_source(name)) for name in context.params)
    given = [name for name, source in sources if source and source.name == "COMMANDLINE"]
    if report or resume:
        option, own = ("--report", {"report", "as_json"}) if report else ("--resume", command.BESIDE_RESUME)
        if others := [name for name in given if name not in own]:
            flags = {"show": "--list", "render_job": "--render"}
            others = [flags.get(name, f"--{name.replace('_', '-')}") for name in others]
            raise typer.BadParameter(f"the receipt decides: leave out {', '.join(others)}", param_hint=option)
    if resume and "repeats" not in given:
        repeats = 0
    if goals:
        if goals not in goal_rows.RUNS:
            raise typer.BadParameter(f"{goals!r} is none of {', '.join(goal_rows.RUNS)}", param_hint="--goals")
        fixed = ("arms", "base", "workloads", "concurrency", "requests", "replicas")
        if others := [f"--{name}" for name in fixed if name in given]:
            raise typer.BadParameter(f"it decides on them: leave out {', '.join(others)}", param_hint="--goals")
        run = goal_rows.RUNS[goals]
        arms, base, workloads, replicas = ",".join(run.arms), run.base, goal_rows.WORKLOAD, str(run.replicas)
        concurrency = ",".join(map(str, goal_rows.CONCURRENCIES))
        requests, repeats = goal_rows.REQUESTS, max(repeats, goal_rows.REPEATS)
    values = command.Values(
        stack=stack,
        arms=arms,
        overlays=arm or [],
        base=base,
        workloads=workloads,
        concurrency=concurrency,
        requests=requests,
        repeats=repeats,
        replicas=replicas,
        model=model,
        engine=engine or [],
        receipt=receipt,
        resume=resume,
        as_json=as_json,
        service=service,
        config_file=config_file,
    )
    if report:
        code = command.show_receipt(values, report, console)
    elif render_job:
        code = command.render(values)
    else:
        code = command.show(values, common.STATE, console) if show else command.bench(values, common.STATE, console)
    raise typer.Exit(code)
