"""What every command shares: the application, its options, the consoles, and how errors end."""

import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console

from rayline_cli.errors import FailedError, UsageError
from rayline_cli.stack_names import PROJECT_ROOT, stack_names

from .plugins import Commands

app = typer.Typer(
    name="rayline",
    cls=Commands,
    help="Ray Serve LLM in high-throughput mode: plan, render, run on this machine, deploy to GKE.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
errors = Console(stderr=True, highlight=False)

STATE = PROJECT_ROOT / ".rayline"


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(f"rayline {importlib.metadata.version('rayline-cli')}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def complete_stacks() -> list[str]:
    """Return what a shell completes after --stack."""
    return stack_names()


_STACK = typer.Option("--stack", "-s", help="Stack: a file stacks/Pulumi.<stack>.yaml.", autocompletion=complete_stacks)
_EVERY_STACK = typer.Option("--stack", "-s", help="One stack; without it, all of them.", autocompletion=complete_stacks)
StackOption = Annotated[str, _STACK]
EveryStackOption = Annotated[str | None, _EVERY_STACK]
ConfigFileOption = Annotated[
    pathlib.Path | None,
    typer.Option("--config-file", exists=True, dir_okay=False, help="The stack's file, if it is not in stacks/."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask. Required without a terminal, for a stack in a cluster.")
]
ServiceOption = Annotated[str | None, typer.Option("--service", help="One service of the stack; without it, all.")]
ContextOption = Annotated[
    str | None, typer.Option("--context", help="kubectl context (default: the stack's own cluster).")
]


@contextmanager
def plain_errors() -> Iterator[None]:
    """End a command with one message and an exit code where it is wrong, fails or is interrupted."""
    try:
        yield
    except (UsageError, FailedError) as error:
        _print_error(error)
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None
    except KeyboardInterrupt:
        errors.print("interrupted: nothing that this command started is still running")
        raise typer.Exit(130) from None


def complain_of_stacks(refused: Sequence[tuple[str, UsageError]]) -> None:
    """Print why each stack was refused, and end the command with exit code 2 if one was."""
    for _, error in refused:
        _print_error(error)
    if refused:
        raise typer.Exit(2)


def _print_error(error: Exception) -> None:
    errors.print("[red]error:[/]", end=" ")
    # the message may hold brackets, which are no markup
    errors.print(str(error), markup=False, soft_wrap=True)


def state_dir(stack: str) -> pathlib.Path:
    """Folder of the session that `up` started on this machine for a stack."""
    return STATE / "local" / stack


def command() -> str:
    """Return this command as the user can type it: by its name where PATH has it, else by its path."""
    here = pathlib.Path(sys.argv[0])
    found = shutil.which(here.name)
    return here.name if found and pathlib.Path(found).samefile(here) else os.path.relpath(here)
