"""Progress of `up` and `down`: the phases, the reason of each wait, and the time that each phase took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class Report(Protocol):
    """Receives progress. `phase` may be called many times for one phase, each time with the present reason to wait."""

    def phase(self, name: str, detail: str) -> None:
        """Report that the phase `name` is under way and waits for `detail`."""
        ...

    def done(self, name: str, seconds: float, detail: str) -> None:
        """Report that the phase `name` ended after `seconds` with the result `detail`."""
        ...

    def note(self, text: str) -> None:
        """Report a fact that is no phase."""
        ...


class PlainReport:
    """Timestamped lines, for pipes and CI logs. A detail is printed once, however often it is repeated."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._last: tuple[str, str] | None = None

    def phase(self, name: str, detail: str) -> None:
        """Print the phase, where it or its detail is new."""
        if (name, detail) != self._last:
            self._last = (name, detail)
            self.note(f"{name:<12} ... {_shorten(detail, 160)}")

    def done(self, name: str, seconds: float, detail: str) -> None:
        """Print the result of a phase."""
        self._last = None
        self.note(f"{name:<12} {seconds:5.1f}s {detail}")

    def note(self, text: str) -> None:
        """Print a line."""
        print(f"{time.strftime('%H:%M:%S', time.localtime(self._clock()))} {text}", file=self._stream, flush=True)


class LiveReport:
    """One live line for the phase under way, one permanent line for each that is done."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._name, self._started = "", 0.0

    def phase(self, name: str, detail: str) -> None:
        """Show the phase in the live line."""
        if name != self._name:
            self._name, self._started = name, time.monotonic()
        elapsed = time.monotonic() - self._started
        # One line only: a wrapped status line leaves its first half behind at every refresh.
        room = max(20, self._console.width - len(name) - 22)
        text = f"[bold]{name:<12}[/] {elapsed:5.1f}s [dim]{escape(_shorten(detail, room))}[/]"
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def done(self, name: str, seconds: float, detail: str) -> None:
        """Print the result of a phase in place of the live line."""
        self.close()
        self._console.print(f"[green]✓[/] [bold]{name:<12}[/] {seconds:5.1f}s {escape(detail)}")

    def note(self, text: str) -> None:
        """Print a line above the live line."""
        self._console.print(f"  {escape(text)}")

    def close(self) -> None:
        """Remove the live line."""
        if self._status is not None:
            self._status.stop()
        self._status, self._name = None, ""


@contextmanager
def terminal_report(stream: TextIO | None = None) -> Iterator[Report]:
    """Yield a LiveReport where `stream` (default stderr) is a terminal, else a PlainReport."""
    target = stream or sys.stderr
    if not target.isatty():
        yield PlainReport(target)
        return
    live = LiveReport(Console(file=target, highlight=False))
    try:
        yield live
    finally:
        live.close()


def _shorten(text: str, room: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"
