"""The errors of benchmarks and faults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rayline.facts.choices import Task
from rayline_cli.errors import FailedError, UsageError


class BenchUsageError(UsageError):
    """The command, a file or a receipt is wrong; the message has a fix."""


def refuse_pooling(place: str, task: Task) -> None:
    """Refuse a service whose model generates no text: the workloads count tokens. Raises BenchUsageError."""
    if task is not Task.GENERATE:
        raise BenchUsageError(f"{place} has task {task.value}, and the workloads measure generated tokens. Fix: task generate")


class BenchError(FailedError):
    """The benchmark stopped; the message has the reason."""


class Mistakes(list[str]):
    """Everything that is wrong with a command, so that all of it comes at once."""

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep the message of a BenchUsageError inside."""
        try:
            yield
        except BenchUsageError as error:
            self.extend(str(error).splitlines())

    def refuse(self) -> None:
        """Raise BenchUsageError with every mistake on a line of its own, if there is one."""
        if self:
            raise BenchUsageError("\n".join(dict.fromkeys(self)))
