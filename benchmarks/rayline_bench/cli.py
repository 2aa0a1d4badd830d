"""`rayline bench` and `rayline faults`. Cheap to import: `rayline --help` does."""

import inspect
import pathlib
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_type_hints

import typer

from rayline_cli.cli import common
from rayline_cli.cli.common import ConfigFileOption, JsonOption, StackOption, app, console

TINY_MODEL = "rayline/tiny-random-qwen3"


def _option(help: str, metavar: str | None = None, panel: str | None = None) -> Any:
    return typer.Option(help=help, metavar=metavar, rich_help_panel=panel)


def _of_load(help: str, metavar: str | None = None) -> Any:
    return _option(help, metavar, "Load")


@dataclass(frozen=True)
class Options:
    """The options of `rayline bench`, as they are typed."""

    stack: StackOption = "local"
    config_file: ConfigFileOption = None
    arms: Annotated[
        str,
        _option(
            "Arms, the baseline first: NAME, NAME@REPLICAS, or NAME=FILE for one of your own (docs/benchmark.md). "
            "In a cluster: the service, where the stack has several.",
            "NAME,...",
        ),
    ] = "sample,kit-equal,kit,vllm"
    model: Annotated[str, _option("Model of all arms; empty: the stack's own.")] = TINY_MODEL
    preset: Annotated[str, _of_load("Arms and load that some goals are stated for.", "equal|shipped|replicas")] = ""
    workloads: Annotated[str, _of_load("Workloads.", "NAME,...")] = "tokens"
    concurrency: Annotated[str, _of_load("Requests under way at once; `workload`: each workload's own.", "N,...")] = "64"
    requests: Annotated[int, _of_load("Requests of one measurement; 0: each workload's own.")] = 512
    repeats: Annotated[int, _of_load("Measurements of each point.")] = 3
    receipt: Annotated[
        pathlib.Path | None,
        _option(
            "Receipt; default .rayline/bench/<time>.json. An existing one continues with its own options; --repeats may be more.",
            panel="Receipt",
        ),
    ] = None
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Measure nothing: show the figures of --receipt, or arms and workloads, or the Job for a cluster.",
            rich_help_panel="Receipt",
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

    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    raise typer.Exit(command.bench(Options(**values), given, common.STATE, console))


# the fields of Options are the options: each is named, typed, documented and given its default there alone
_hints = {"context": typer.Context, **get_type_hints(Options, include_extras=True)}
_defaults = {option.name: option.default for option in fields(Options)}
bench.__annotations__ = _hints | {"return": None}
bench.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=_defaults.get(name, inspect.Parameter.empty)
        )
        for name, hint in _hints.items()
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

    Exit codes: 0 every fault was counted, 1 a fault was not counted, 2 wrong usage, 130 interrupted.
    """
    if show:
        from .faults.rows import FAULTS

        for key, fault in FAULTS.items():
            console.print(f"{key:<18} {fault.what}", markup=False)
        return
    from .faults import command

    path = receipt or common.STATE / "faults" / "receipt.json"
    command.measure(only, path, common.STATE / "faults")
    console.print(f"receipt: {path}", soft_wrap=True, markup=False)
