"""The application, the options that commands share, the consoles, and how errors end."""

import contextlib
import errno
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from rayline_cli.errors import FailedError, UsageError
from rayline_cli.stack_names import PROJECT_ROOT, stack_names

from .plugins import Commands

# Typer has a copy of click of its own, and names of its errors only those that a program raises.
_CallerError: Any = typer.BadParameter.__mro__[1]
# Errors of the machine and not of the kit, with their fix.
_MACHINE_ERRORS = {
    errno.EACCES: "give this user the right to it",
    errno.EPERM: "give this user the right to it",
    errno.EROFS: "use a folder that can be written to",
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
}


class _Commands(Commands):
    """Ends every command in the same way: a message on stderr, with --json one value on stdout, and an exit code."""

    def make_context(self, *arguments: Any, **named: Any) -> Any:
        """Parse the command line, which also prints the help."""
        with _ended():
            return super().make_context(*arguments, **named)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _ended(as_json="--json" in ctx.args):
            return super().invoke(ctx)


@contextlib.contextmanager
def _ended(*, as_json: bool = False) -> Iterator[None]:
    """Turn an error inside into a message and an exit code."""
    try:
        try:
            yield
        finally:
            # a full disk shows here at the latest, else when Python ends, with a traceback
            sys.stdout.flush()
    except (UsageError, FailedError) as error:
        code, message = 2 if isinstance(error, UsageError) else 1, str(error)
        print_error(message)
    except KeyboardInterrupt:
        code, message = 130, "interrupted: nothing that this command started is still running"
        errors.print(message)
    except _CallerError as error:
        if as_json:
            print_json(failure(error.exit_code, error.format_message()))
        raise
    except OSError as error:
        # others may be the kit's own mistake
        if error.errno not in _MACHINE_ERRORS:
            raise
        if error.filename is None:
            # else Python tries once more when it ends, and prints a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
        message = f"{error.filename or 'standard output'}: {error.strerror}. Fix: {_MACHINE_ERRORS[error.errno]}"
        print_error(message)
    else:
        return
    if as_json:
        print_json(failure(code, message))
    raise typer.Exit(code)


app = typer.Typer(
    name="rayline",
    cls=_Commands,
    help="Ray Serve LLM in high-throughput mode: plan, render, run on this machine, deploy to GKE.",
    epilog="Example: rayline up --stack local",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for _name in ("stdout", "stderr"):
    # closed by the caller, as `>&-` does
    if getattr(sys, _name) is None:
        setattr(sys, _name, open(os.devnull, "w"))  # noqa: SIM115
# A line of a file or a pipe is not wrapped: a command in it can be copied.
console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=10_000)
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


def _stack_option(text: str) -> Any:
    return typer.Option("--stack", "-s", help=text, autocompletion=lambda: stack_names())


StackOption = Annotated[str, _stack_option("Stack: a file stacks/Pulumi.<stack>.yaml.")]
EveryStackOption = Annotated[str | None, _stack_option("One stack; without it, all of them.")]
ConfigFileOption = Annotated[
    pathlib.Path | None,
    typer.Option("--config-file", exists=True, dir_okay=False, help="The stack's file, if it is not in stacks/."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on stdout, also where the command fails (docs/ci.md).")
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="Skip the confirmation. Required without a terminal, for a stack in a cluster.")
]
PolicyConfigOption = Annotated[
    pathlib.Path | None,
    typer.Option("--policy-config", exists=True, dir_okay=False, help="Settings of the policy pack (docs/policy.md)."),
]
ServiceOption = Annotated[str | None, typer.Option("--service", help="One service of the stack; without it, all.")]
ContextOption = Annotated[str | None, typer.Option("--context", help="kubectl context (default: the stack's own cluster).")]


def failure(exit_code: int, *messages: str) -> dict[str, Any]:
    """Return what --json prints of a command that fails. `up` and `down` have the same two keys where they succeed."""
    return {"exit_code": exit_code, "errors": list(messages)}


def print_stacks(name: str, results: Any, refused: Mapping[str, UsageError]) -> None:
    """Print the results of several stacks as JSON; where some are refused a failure, with the results under `name`."""
    if not refused:
        return print_json(results)
    reasons = {stack: str(error) for stack, error in refused.items()}
    return print_json(failure(2, *reasons.values()) | {"refused": reasons, name: results})


def print_json(value: Any) -> None:
    """Print a command's one JSON value. Dataclasses become maps, enumerations their values."""
    import json

    from pydantic_core import to_jsonable_python

    print(json.dumps(to_jsonable_python(value, fallback=str), indent=2))


def end_with_refusals(refused: Mapping[str, UsageError]) -> None:
    """Print why each stack is refused. End the command with exit code 2 if one is."""
    for error in refused.values():
        print_error(str(error))
    if refused:
        raise typer.Exit(2)


def print_error(message: str) -> None:
    """Print an error on stderr."""
    errors.print("[red]error:[/]", end=" ")
    # the message may hold brackets, which are no markup
    errors.print(message, markup=False, soft_wrap=True)


def print_line(text: str) -> None:
    """Print one line on stdout as it is: unwrapped, and its brackets are no markup."""
    console.print(text, markup=False, soft_wrap=True)


def state_dir(stack: str) -> pathlib.Path:
    """Return the folder of the session that `up` started on this machine for a stack."""
    return STATE / "local" / stack


def is_here(stack: str, *, context: str | None = None, file: pathlib.Path | None = None) -> bool:
    """Return whether a stack runs on this machine. Raises UnknownStack, ProgramError, and BadParameter for a `context` there."""
    from rayline_cli import place

    here = place.is_here(stack, state_dir(stack), file)
    if here and context:
        raise typer.BadParameter(f"stack {stack} runs on this machine: --context is for a cluster. Fix: leave it out")
    return here


def command() -> str:
    """Return this command as the user can type it: by its name where PATH has it, else by its path."""
    here = pathlib.Path(sys.argv[0])
    on_path = shutil.which(here.name)
    return here.name if on_path and pathlib.Path(on_path).samefile(here) else os.path.relpath(here)
