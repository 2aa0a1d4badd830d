"""Wait for a session that comes up, on a machine that may be busy with something else.

How long a step takes depends on how much CPU the session gets, so no wait ends after a number of seconds on the clock.
A wait ends when nothing has moved for `QUIET_SECONDS` in which the session could run: no process started or ended, no
line was logged, and the reason to wait stayed the same. `session_seconds` defines which seconds count.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from rayline_cli.local.failures import LocalRuntimeError
from rayline_cli.progress import Report

QUIET_SECONDS = 180.0
LAST_SECONDS = 3600.0
"""Limit for a session that moves and gets nowhere, such as a process that restarts for ever. Ctrl-C ends it sooner."""
SLOWEST = 0.1
"""Least that a second counts, so that a session that sleeps beside busy programs is noticed too, after ten times as long."""
POLL_SECONDS = 0.5
LOOK_SECONDS = 2.0
"""Between two looks at all processes and log files: each takes some hundredths of a second."""
BUSY_SHARE = 0.5
"""The machine counts as busy from this share of its CPUs in use by other programs."""
BUSY_AFTER_SECONDS = 10.0
TELL_AGAIN_SECONDS = 120.0

T = TypeVar("T")


class Stuck(LocalRuntimeError):
    """Nothing moves any more; the message has the reason of the wait and what was seen."""


@dataclass(frozen=True)
class Observation:
    """A session and its machine at one moment. CPU times are in seconds, counted from any moment before."""

    at: float
    """On a clock that only goes forward."""
    cpu: Mapping[int, float]
    """Process id -> CPU time that it has used. Its keys are the session's living processes."""
    logged: int
    """Bytes in the session's log files."""
    machine_busy: float
    """CPU time that any program has used, the session included, and the host of a virtual machine."""
    machine_idle: float
    """CPU time that no program has used."""


def used(before: Observation, now: Observation) -> float:
    """Return the session's CPU seconds from `before` to `now`, without the last of processes that have ended."""
    return sum(max(0.0, seconds - before.cpu.get(process, 0.0)) for process, seconds in now.cpu.items())


def session_seconds(before: Observation, now: Observation) -> float:
    """Return how many of the seconds from `before` to `now` count as time in which the session could run.

    All of them where the session used a CPU or one was free. Beside busy programs, or while the machine waits for its
    disk, only as many as the session used, and at least `SLOWEST` of them.
    """
    elapsed = now.at - before.at
    idle = now.machine_idle - before.machine_idle
    return min(elapsed, max(used(before, now), idle, SLOWEST * elapsed))


def share_of_others(before: Observation, now: Observation) -> float:
    """Return the share of the machine's CPUs that programs other than the session had from `before` to `now`."""
    busy = now.machine_busy - before.machine_busy
    everything = busy + now.machine_idle - before.machine_idle
    return max(0.0, busy - used(before, now)) / everything if everything > 0 else 0.0


class Watch:
    """Watches whether a session moves.

    `look` makes an observation, `note` prints a line for the user, `alive` raises when the session has ended.
    """

    def __init__(
        self,
        look: Callable[[], Observation],
        note: Callable[[str], None],
        alive: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._note, self._alive, self._clock = look, note, alive, clock
        self._first = self._moved = self._seen = self._busy_from = look()
        self._reason = ""
        self._quiet = self._total = 0.0
        self._noted_at = float("-inf")
        self.busy = ""
        """How busy the machine is; nothing where it is not."""

    def check(self, reason: str) -> None:
        """Look again, if it is time. Raises Stuck when nothing has moved for too long."""
        self._alive()
        if reason != self._reason:
            self._reason, self._quiet, self._moved = reason, 0.0, self._seen
        if self._clock() - self._seen.at < LOOK_SECONDS:
            return
        before, now = self._seen, self._look()
        self._seen = now
        counted = session_seconds(before, now)
        self._total += counted
        self._quiet += counted
        if now.cpu.keys() != before.cpu.keys() or now.logged != before.logged:
            self._quiet, self._moved = 0.0, now
        self._note_if_busy(now)
        if self._quiet > QUIET_SECONDS:
            raise self._stuck(f"nothing has moved for {_minutes(now.at - self._moved.at)}")
        if self._total > LAST_SECONDS:
            raise self._stuck(f"not ready after {_minutes(now.at - self._first.at)}, although something moves")

    def during(self, call: Callable[[], T], reason: str) -> T:
        """Return the result of `call`, which may take as long as something moves. Raises its errors, and Stuck."""
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(call())
            except BaseException as error:
                result.set_exception(error)

        # A thread that does not keep the process alive: on Ctrl-C the call is left behind, and ends with the session.
        threading.Thread(target=run, daemon=True).start()
        while not wait([result], POLL_SECONDS).done:
            self.check(reason)
        return result.result()

    def _note_if_busy(self, now: Observation) -> None:
        before, seconds = self._busy_from, now.at - self._busy_from.at
        if seconds < BUSY_AFTER_SECONDS:
            return
        self._busy_from, self.busy = now, ""
        share, cpus = share_of_others(before, now), len(os.sched_getaffinity(0))
        if share < BUSY_SHARE:
            return
        self.busy = (
            f"the machine is busy (load {os.getloadavg()[0]:.0f} on {cpus} CPUs): other programs use {share * cpus:.1f} of "
            f"them, this service {used(before, now) / seconds:.1f}"
        )
        if now.at - self._noted_at > TELL_AGAIN_SECONDS:
            self._noted_at = now.at
            self._note(f"{self.busy}. This takes longer; it continues as long as something moves")

    def _stuck(self, what: str) -> Stuck:
        fix = "bring it up again when the machine has less to do" if self.busy else "look at the last words"
        return Stuck("\n".join(filter(None, [f"{what}; it was waiting for: {self._reason}", self.busy, f"Fix: {fix}"])))


class Phase:
    """One phase of a bring-up: reports it, times it, and watches the session meanwhile."""

    def __init__(self, report: Report, name: str, watch: Watch | None = None) -> None:
        self._report, self._name, self._watch, self._started = report, name, watch, time.monotonic()

    def waits_for(self, detail: str) -> None:
        """Report the reason to wait. Raises Stuck when nothing moves any more."""
        self._report.phase(self._name, detail)
        if self._watch is not None:
            self._watch.check(detail)

    def until(self, reason: Callable[[], str]) -> None:
        """Wait as long as there is a reason. Raises Stuck when nothing moves any more."""
        while detail := reason():
            self.waits_for(detail)
            time.sleep(POLL_SECONDS)

    def during(self, call: Callable[[], T], detail: str) -> T:
        """Return the result of `call`, which may take as long as something moves. Raises its errors, and Stuck."""
        self.waits_for(detail)
        return call() if self._watch is None else self._watch.during(call, detail)

    def done(self, detail: str) -> None:
        """End the phase with its result."""
        self._report.done(self._name, time.monotonic() - self._started, detail)


def look(processes: Iterable[psutil.Process], logs: Iterable[Path]) -> Observation:
    """Observe these processes, log files and this machine now."""
    cpu, logged, busy, idle = {}, 0, 0.0, 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            cpu[process.pid] = times.user + times.system
    for path in logs:
        with suppress(OSError):
            logged += path.stat().st_size
    every_cpu = psutil.cpu_times(percpu=True)
    for spent in (every_cpu[number]._asdict() for number in os.sched_getaffinity(0)):
        busy += sum(spent.get(kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))
        idle += spent["idle"]
    return Observation(time.monotonic(), cpu, logged, busy, idle)


def slowdown() -> float:
    """Return how many times longer something takes on this machine now than on an idle one, by its load; at least 1."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
