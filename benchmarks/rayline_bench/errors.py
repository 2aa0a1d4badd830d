"""What can go wrong with a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from rayline_cli.errors import FailedError, UsageError

_Arguments = ParamSpec("_Arguments")
_Read = TypeVar("_Read")


class BenchUsageError(UsageError):
    """What was asked for makes no sense; the message says what is right."""


class BenchError(FailedError):
    """The benchmark stopped; the message says why, and what to do."""


class Mistakes:
    """Collects what is wrong with a command, so that all of it is said at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def of(self, read: Callable[_Arguments, _Read], *arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Read | None:
        """What `read` returns; None where it raises BenchUsageError, whose message is kept."""
        try:
            return read(*arguments, **named)
        except BenchUsageError as error:
            self.found += str(error).splitlines()
            return None

    def add(self, mistake: str) -> None:
        self.found.append(mistake)

    def refuse(self) -> None:
        """Raises BenchUsageError with every mistake on a line of its own, if there is one."""
        if self.found:
            raise BenchUsageError("\n".join(dict.fromkeys(self.found)))
