"""Commands of the entry point group `rayline.commands`: other installed packages add them to `rayline`.

An entry point has the command's name and names a module. Importing the module registers the command on `common.app`, as the
modules of this folder do. A module is imported only when its command runs or the help lists it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup
from typer.models import CommandInfo

from rayline_cli.errors import FailedError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "rayline.commands"
# The commands of this repository's other packages: their package and the command that installs it.
ELSEWHERE = {
    "bench": ("rayline-bench", "make bench"),
    "faults": ("rayline-bench", "make bench"),
    "docs": ("rayline-docs", "make docs"),
}
EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 the command or the configuration is wrong, 130 interrupted."


class MissingPackageError(FailedError):
    """The package of a command is not installed."""


@cache
def entry_points() -> dict[str, EntryPoint]:
    """Return the entry points of installed packages by the name of their command."""
    import importlib.metadata

    return {entry_point.name: entry_point for entry_point in importlib.metadata.entry_points(group=GROUP)}


class Commands(TyperGroup):
    """The commands of this package and of the packages that add some."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*self.commands, *(name for name in sorted(entry_points()) if name not in self.commands)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None and (cmd_name in ELSEWHERE or cmd_name in entry_points()):
            command = self.commands[cmd_name] = _loaded(cmd_name)
        if command and EXIT_CODES[:10] not in f"{command.help} {command.epilog}":
            command.epilog = f"{command.epilog or ''}\n\n{EXIT_CODES}"
        return command


def _loaded(name: str) -> Any:
    from .common import app

    try:
        entry_points()[name].load()
    except (KeyError, ImportError):
        anything = {"ignore_unknown_options": True, "allow_extra_args": True}
        info = CommandInfo(name, callback=_missing(name), context_settings=anything)
    else:
        info = next(info for info in app.registered_commands if name in (info.name, getattr(info.callback, "__name__", "")))
    return typer.main.get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode="rich")


def _missing(name: str) -> Any:
    package, install = ELSEWHERE.get(name, (f"that adds `rayline {name}`", "install it"))

    def missing(context: typer.Context) -> None:
        raise MissingPackageError(f"`rayline {name}`: package {package} is not installed. Fix: `{install}`")

    missing.__doc__ = f"Needs the package {package}, which is not installed."
    return missing
