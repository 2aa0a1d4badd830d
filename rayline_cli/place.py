"""Find out where a stack runs: on this machine or in a cluster."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from rayline.facts.choices import ClusterMode
from rayline_cli import stack_files
from rayline_cli.errors import FailedError

if TYPE_CHECKING:
    from rayline_cli.local.session import Session
    from rayline_cli.offline import Program


class NotRunning(FailedError):
    """Nothing runs on this machine for a stack."""


def is_in_a_cluster(stack: str, file: pathlib.Path | None = None) -> bool:
    """Return whether a stack's file names a cluster; the rest of the file may be wrong. Raises UnknownStack or ProgramError."""
    values, _ = stack_files.read_stack(stack, file=file)
    return stack_files.map_of(values, "cluster").get("mode") != ClusterMode.LOCAL.value


def is_here(stack: str, folder: pathlib.Path, file: pathlib.Path | None = None) -> bool:
    """Return whether a stack runs on this machine: by the session that `folder` records, else by the stack's file.

    The session comes first: a stack file that is gone or no longer parses must not keep one running. The folder alone is no
    sign, because it outlives the session. Raises UnknownStack or ProgramError.
    """
    from rayline_cli.local import session

    return session.load(folder) is not None or not is_in_a_cluster(stack, file)


def running_session(program: Program, folder: pathlib.Path, command: str) -> Session:
    """Return the session of a stack that lives on this machine. Raises NotRunning; `command` is the kit's, as the user types it."""
    from rayline_cli.local import session

    recorded = session.load(folder)
    if recorded is None or recorded.supervisor() is None:
        raise NotRunning(nothing_runs(program.stack, folder, command))
    if program.plan.cluster.mode is not ClusterMode.LOCAL:
        raise NotRunning(
            f"a session of stack {program.stack} runs on this machine, but cluster.mode in the stack's file is not local. "
            f"Fix: {command} down --stack {program.stack}, which ends the session"
        )
    return recorded


def nothing_runs(stack: str, folder: pathlib.Path, command: str) -> str:
    """Return the message of every command where nothing runs on this machine."""
    from rayline_cli.local import session

    ended = session.load(folder) is not None
    return f"nothing runs for stack {stack}{': Ray has ended' if ended else ''}. Fix: {command} up --stack {stack}"
