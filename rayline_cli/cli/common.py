"""What every command shares: the application, its options, the consoles, and how errors end."""

import errno
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from rayline_cli.errors import FailedError, UsageError
from rayline_cli.stack_names import PROJECT_ROOT, stack_names

from .plugins import Commands

# Typer has a copy of click of its own, and names of its errors only those that a program raises.
_MistakeOfTheCaller: Any = typer.BadParameter.__mro__[1]


# What is wrong with the machine and not with the kit, and what to do.
_OF_THE_MACHINE = {
    errno.EACCES: "give this user the right to it",
    errno.EPERM: "give this user the right to it",
    errno.EROFS: "use a folder that can be written to",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
}


class _Commands(Commands):
    """Ends every command in the same way: words on stderr, with --json one value on stdout, and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        as_json = "--json" in ctx.args
        try:
            try:
                return super().invoke(ctx)
            finally:
                # here a full disk can still be said in words
                sys.stdout.flush()
        except (UsageError, FailedError) as error:
            _print_error(error)
            code, said = 2 if isinstance(error, UsageError) else 1, str(error)
        except KeyboardInterrupt:
            code, said = 130, "interrupted: nothing that this command started is still running"
            errors.print(said)
        except _MistakeOfTheCaller as error:
            if as_json:
                print_json(failure(error.exit_code, error.format_message()))
            raise
        except OSError as error:
            code, said = 1, _said_by_the_machine(error)
            _print_error(FailedError(said))
        if as_json:
            print_json(failure(code, said))
        raise typer.Exit(code)


def _said_by_the_machine(error: OSError) -> str:
    """Return why the machine refuses a file. Raises the error where it may be the kit's own mistake."""
    if error.errno not in _OF_THE_MACHINE:
        raise error
    if error.filename is None:
        # else Python tries once more when it ends, and prints a traceback
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return f"{error.filename or 'standard output'}: {error.strerror}. Fix: {_OF_THE_MACHINE[error.errno]}"


app = typer.Typer(
    name="rayline",
    cls=_Commands,
    help="Ray Serve LLM in high-throughput mode: plan, render, run on this machine, deploy to GKE.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for _name in ("stdout", "stderr"):
    # closed by the caller, as `>&-` does
    if getattr(sys, _name) is None:
        setattr(sys, _name, open(os.devnull, "w"))  # noqa: SIM115
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
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on stdout, also where the command fails (docs/ci.md).")
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask. Required without a terminal, for a stack in a cluster.")
]
ServiceOption = Annotated[str | None, typer.Option("--service", help="One service of the stack; without it, all.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="kubectl context (default: the stack's own cluster).")]


def failure(exit_code: int, *said: str) -> dict[str, Any]:
    """Return what --json prints of a command that fails. `up` and `down` have the same two keys where they succeed."""
    return {"exit_code": exit_code, "errors": list(said)}


def unless_refused(name: str, found: Any, refused: Sequence[tuple[str, UsageError]]) -> Any:
    """Return what --json prints of several stacks: `found`; where some are refused the failure, with `found` as `name`."""
    if not refused:
        return found
    why = {stack: str(error) for stack, error in refused}
    return failure(2, *why.values()) | {"refused": why, name: found}


def print_json(value: Any) -> None:
    """Print a command's one JSON value."""
    import json

    print(json.dumps(value, indent=2, default=str))


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


def is_here(stack: str, *, context: str | None = None, file: pathlib.Path | None = None) -> bool:
    """Return whether a stack runs on this machine. Raises UnknownStack, ProgramError, and BadParameter for a `context` there."""
    from rayline_cli import place

    here = place.is_here(stack, state_dir(stack), file)
    if here and context:
        raise typer.BadParameter(f"stack {stack} runs on this machine: --context is for a cluster")
    return here


def command() -> str:
    """Return this command as the user can type it: by its name where PATH has it, else by its path."""
    here = pathlib.Path(sys.argv[0])
    found = shutil.which(here.name)
    return here.name if found and pathlib.Path(found).samefile(here) else os.path.relpath(here)
