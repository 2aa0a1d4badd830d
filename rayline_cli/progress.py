"""What `up` and `down` tell the person who waits: the phases, what each waits for, and how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.status import Status


class Report(Protocol):
    """Receives progress. `phase` may be called many times for one phase, each time with what it waits for now."""

    def phase(self, name: str, detail: str) -> None:
        """The phase `name` is under way; `detail` says what it waits for."""
        ...

    def done(self, name: str, seconds: float, detail: str) -> None:
        """The phase `name` ended after `seconds`; `detail` says with what result."""
        ...

    def note(self, text: str) -> None:
        """Something worth knowing that is no phase."""
        ...


class PlainReport:
    """Timestamped lines, for pipes and CI logs. A detail is printed once, however often it is repeated."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.time) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._last: tuple[str, str] | None = None

    def phase(self, name: str, detail: str) -> None:
        if (name, detail) != self._last:
            self._last = (name, detail)
            self._line(f"{name:<12} ... {_shorten(detail, 160)}")

    def done(self, name: str, seconds: float, detail: str) -> None:
        self._last = None
        self._line(f"{name:<12} {seconds:5.1f}s {detail}")

    def note(self, text: str) -> None:
        self._line(text)

    def _line(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S", time.localtime(self._clock()))
        print(f"{stamp} {text}", file=self._stream, flush=True)


class LiveReport:
    """One live line for the phase under way, one permanent line for each that is done."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._name = ""
        self._started = 0.0

    def phase(self, name: str, detail: str) -> None:
        if name != self._name:
            self._name, self._started = name, time.monotonic()
        elapsed = time.monotonic() - self._started
        # One line only: a wrapped status line leaves its first half behind at every refresh.
        room = max(20, self._console.width - len(name) - 22)
        text = f"[bold]{name:<12}[/] {elapsed:5.1f}s [dim]{_escape(_shorten(detail, room))}[/]"
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def done(self, name: str, seconds: float, detail: str) -> None:
        self._stop()
        self._console.print(f"[green]✓[/] [bold]{name:<12}[/] {seconds:5.1f}s {_escape(detail)}")

    def note(self, text: str) -> None:
        self._console.print(f"  {_escape(text)}")

    def close(self) -> None:
        """Removes the live line; called when `up` ends early."""
        self._stop()

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        self._name = ""


@contextmanager
def terminal_report(stream: TextIO | None = None) -> Iterator[Report]:
    """A LiveReport where `stream` (default stderr) is a terminal, else a PlainReport."""
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


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
