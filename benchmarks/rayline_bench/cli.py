"""`rayline bench` and `rayline faults`. Cheap to import: `rayline --help` does."""

import inspect
import pathlib
from collections.abc import Set
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from rayline_cli.cli import common
from rayline_cli.cli.common import ConfigFileOption, JsonOption, StackOption, app, console

LOAD, RECEIPT = "Load", "Receipt"
TINY_MODEL = "rayline/tiny-random-qwen3"


@dataclass(frozen=True)
class Options:
    """The options of `rayline bench`, as they are typed."""

    stack: StackOption = "local"
    config_file: ConfigFileOption = None
    arms: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Arms, the baseline first: NAME, NAME@REPLICAS, or NAME=FILE for one of your own (docs/benchmark.md). "
            "In a cluster: the service, where the stack has several.",
        ),
    ] = "sample,kit-equal,kit,vllm"
    model: Annotated[str, typer.Option(help="Model of all arms; empty: the stack's own.")] = TINY_MODEL
    preset: Annotated[
        str,
        typer.Option(
            metavar="equal|shipped|replicas", help="Arms and load that some goals are stated for.", rich_help_panel=LOAD
        ),
    ] = ""
    workloads: Annotated[str, typer.Option(metavar="NAME,...", help="Workloads.", rich_help_panel=LOAD)] = "tokens"
    concurrency: Annotated[
        str,
        typer.Option(
            metavar="N,...", help="Requests under way at once; `workload`: each workload's own.", rich_help_panel=LOAD
        ),
    ] = "64"
    requests: Annotated[
        int, typer.Option(help="Requests of one measurement; 0: each workload's own.", rich_help_panel=LOAD)
    ] = 512
    repeats: Annotated[int, typer.Option(help="Measurements of each point.", rich_help_panel=LOAD)] = 3
    receipt: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Receipt; default .rayline/bench/<time>.json. One that is there goes on with its own options; "
            "--repeats may be more.",
            rich_help_panel=RECEIPT,
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Measure nothing: show the figures of --receipt, or arms and workloads, or the Job for a cluster.",
            rich_help_panel=RECEIPT,
        ),
    ] = False
    as_json: JsonOption = False


def bench(context: typer.Context, **values: Any) -> None:
    """Measure ways to serve one model on this machine, side by side and in turns, and write a receipt.

    For a stack in a cluster: the service as it runs, from a Job beside it.
    Exit codes: 0 measured, 1 a point could not be measured or more than 0.1 % of its requests failed, 2 the command or the
    configuration is wrong, 130 interrupted.
    """
    from . import command

    raise typer.Exit(command.bench(Options(**values), _given(context), common.STATE, console))


def _given(context: typer.Context) -> Set[str]:
    """Return the names of the options that the command line has."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


# the fields of Options are the options: each is named, typed, documented and given its default there alone
_hints = get_type_hints(Options, include_extras=True)
bench.__annotations__ = {"context": typer.Context, **_hints, "return": None}
bench.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=_hints[one.name])
            for one in fields(Options)
        ),
    ]
)
app.command(epilog="Example: rayline bench --arms sample,kit-equal,vllm --concurrency 64,256 --repeats 5")(bench)


@app.command(epilog="Example: rayline faults --only router,haproxy")
def faults(
    only: Annotated[
        str, typer.Option(metavar="FAULT,...", help="Some faults; the receipt keeps the others. `--list` shows them.")
    ] = "",
    receipt: Annotated[pathlib.Path | None, typer.Option(help="Receipt; default .rayline/faults/receipt.json.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Show the faults; start nothing.")] = False,
) -> None:
    """Kill parts of a service on this machine under load and count the requests that clients lose. Takes over half an hour.

    Exit codes: 0 every fault was counted, 1 one was not, 2 wrong usage, 130 interrupted.
    """
    from .faults import command

    if show:
        for key, what in command.WHAT.items():
            console.print(f"{key:<18} {what}", markup=False)
        return
    path = receipt or common.STATE / "faults" / "receipt.json"
    command.measure(only, path, common.STATE / "faults")
    console.print(f"receipt: {path}", soft_wrap=True, markup=False)
