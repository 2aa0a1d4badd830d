"""From a receipt's points to figures: medians, spreads, ratios. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .cpu import ENGINE
from .receipt import Measured, Receipt

LOAD_GENERATOR = "(load generator)"


@dataclass(frozen=True)
class Spread:
    """Several measurements of one figure."""

    median: float
    low: float
    high: float
    count: int
    by_start: tuple[float, ...] = ()
    """The median of each start of the arms, where they were started more than once: chance in a start shows here."""


def spread(values: Iterable[float | None]) -> Spread | None:
    """Return median and range of the values that are there; None without one."""
    ordered = sorted(value for value in values if value is not None)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], len(ordered)) if ordered else None


@dataclass(frozen=True)
class Metric:
    """A figure of a point."""

    title: str
    unit: str
    of: Callable[[Measured], float | None]
    more_is_better: bool = False


def _load(key: str) -> Callable[[Measured], float | None]:
    return lambda point: point.load.get(key)


def _later_turns(key: str) -> Callable[[Measured], float | None]:
    """Return the mean of a figure over the turns of conversations after the first: no cache has the first turn's prompt."""

    def of(point: Measured) -> float | None:
        later = [turn[key] for turn in point.load.get("by_turn", ()) if turn["turn"] > 1 and turn[key] is not None]
        return statistics.fmean(later) if later else None

    return of


def per_1000_tokens(point: Measured, seconds: float) -> float | None:
    """Return CPU-seconds per 1,000 tokens, or per 1,000 requests where the workload has no tokens."""
    units = point.load.get("output_tokens") or point.load["completed"]
    return seconds / units * 1000 if units else None


def _cpu(role: str) -> Callable[[Measured], float | None]:
    # without any role it was not measured: in a cluster
    return lambda point: per_1000_tokens(point, point.cpu_seconds.get(role, 0.0)) if point.cpu_seconds else None


def outside_engine(point: Measured) -> float | None:
    """Return the CPU of the server without the engine."""
    if not point.cpu_seconds:
        return None
    # sum() rounds otherwise from Python 3.12 on, and a page's last digit would depend on the Python that wrote it
    return per_1000_tokens(point, math.fsum(seconds for role, seconds in point.cpu_seconds.items() if role != ENGINE))


METRICS: dict[str, Metric] = {
    "throughput": Metric("output tokens/s", "tok/s", _load("output_tokens_per_second"), more_is_better=True),
    "requests": Metric("requests/s", "req/s", _load("requests_per_second"), more_is_better=True),
    "ttft_p50": Metric("TTFT p50", "ms", _load("ttft_p50_ms")),
    "ttft_p99": Metric("TTFT p99", "ms", _load("ttft_p99_ms")),
    "ttft_p99_later": Metric("TTFT p99 of later turns", "ms", _later_turns("ttft_p99_ms")),
    "tpot_p50": Metric("TPOT p50", "ms", _load("tpot_p50_ms")),
    "tpot_p99": Metric("TPOT p99", "ms", _load("tpot_p99_ms")),
    "cpu_engine": Metric("CPU engine", "s/1k", _cpu(ENGINE)),
    "cpu_rest": Metric("CPU rest", "s/1k", outside_engine),
}
"""CPU is of the server, in seconds per 1,000 tokens."""


@dataclass(frozen=True)
class Line:
    """One arm under one load."""

    workload: str
    concurrency: int
    arm: str
    repeats: int
    failed_points: int
    """Points left out because too many requests failed."""
    values: Mapping[str, Spread | None]
    """Metric -> over repeats."""
    ratios: Mapping[str, Spread | None]
    """Metric -> over repeats, against the baseline in the same repeat and batch."""
    cpu: Mapping[str, float]
    """Role -> median CPU-seconds per 1,000 tokens."""
    load_cpu: float
    """Of the load generator, the same."""


def lines(receipt: Receipt) -> list[Line]:
    """Return a line for each arm and load, in the configuration's order."""
    every = []
    for load in receipt.configuration.loads:
        place = (load["workload"], load["concurrency"])
        for arm in receipt.configuration.arms:
            points = [p for p in receipt.points if (p.workload, p.concurrency, p.arm) == (*place, arm)]
            if points:
                every.append(_line(receipt, *place, arm, points))
    return every


def _line(receipt: Receipt, workload: str, concurrency: int, arm: str, points: Sequence[Measured]) -> Line:
    good = [point for point in points if not point.failed]
    base = receipt.configuration.base_of(arm)
    by_role = {role: spread(map(_cpu(role), good)) for role in sorted({role for p in good for role in p.cpu_seconds})}
    cpu = {role: seconds.median for role, seconds in by_role.items() if seconds and seconds.median >= 0.00005}
    load_cpu = spread(per_1000_tokens(point, point.load["load_cpu_seconds"]) for point in good)
    return Line(
        workload,
        concurrency,
        arm,
        repeats=len(good),
        failed_points=len(points) - len(good),
        values={key: spread(map(metric.of, good)) for key, metric in METRICS.items()},
        ratios={key: ratios(receipt, workload, concurrency, arm, base, key) for key in METRICS},
        cpu=dict(sorted(cpu.items(), key=lambda item: -item[1])),
        load_cpu=load_cpu.median if load_cpu else 0.0,
    )


def ratios(receipt: Receipt, workload: str, concurrency: int, arm: str, against: str, metric: str) -> Spread | None:
    """Return the ratios of one arm to another, made in each repeat in which both ran side by side."""
    values: dict[str, dict[tuple[int, int, int], float]] = {arm: {}, against: {}}
    for point in receipt.points:
        here = (point.workload, point.concurrency) == (workload, concurrency) and point.arm in values and not point.failed
        if here and (value := METRICS[metric].of(point)) is not None:
            values[point.arm][point.start, point.batch, point.repeat] = value
    mine, theirs = values[arm], values[against]
    by_place = {place: mine[place] / theirs[place] for place in mine.keys() & theirs.keys() if theirs[place]}
    starts = sorted({start for start, *_ in by_place})
    every = spread(by_place.values())
    if every is None or len(starts) == 1:
        return every
    medians = (statistics.median(ratio for place, ratio in by_place.items() if place[0] == start) for start in starts)
    return replace(every, by_start=tuple(medians))


def cpu_by_process(here: Sequence[Line]) -> list[tuple[str, ...]]:
    """Return CPU-seconds per 1,000 as text, a column for each line: most first, the load generator last."""
    most = {role: max(line.cpu.get(role, 0.0) for line in here) for line in here for role in line.cpu}
    rows = [
        (role, *(f"{line.cpu[role]:.4f}" if role in line.cpu else "" for line in here))
        for role in sorted(most, key=lambda name: -most[name])
    ]
    return [*rows, (LOAD_GENERATOR, *(f"{line.load_cpu:.4f}" for line in here))]
