"""From a receipt's points to figures: medians, spreads, ratios. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rayline_bench.cpu import ENGINE
from rayline_bench.receipt import Measured, Receipt

LOAD_GENERATOR = "(load generator)"


@dataclass(frozen=True)
class Spread:
    """Several measurements of one thing."""

    median: float
    low: float
    high: float
    count: int
    by_start: tuple[float, ...] = ()
    """The median of each start of the arms, where they were started more than once: chance in a start shows here."""


def spread(values: Iterable[float]) -> Spread | None:
    """None where nothing was measured."""
    found = sorted(values)
    return Spread(statistics.median(found), found[0], found[-1], len(found)) if found else None


@dataclass(frozen=True)
class Metric:
    """Something to compare."""

    key: str
    title: str
    unit: str
    of: Callable[[Measured], float | None]
    more_is_better: bool = False


def _load(key: str) -> Callable[[Measured], float | None]:
    return lambda one: one.load.get(key)


def per_1000_tokens(one: Measured, seconds: float) -> float | None:
    """CPU-seconds per 1,000 tokens, or per 1,000 requests where the workload has no tokens."""
    units = one.load.get("output_tokens") or one.load["completed"]
    return seconds / units * 1000 if units else None


def _cpu(role: str) -> Callable[[Measured], float | None]:
    # empty where nobody could look: in a cluster
    return lambda one: per_1000_tokens(one, one.cpu_seconds.get(role, 0.0)) if one.cpu_seconds else None


def outside_engine(one: Measured) -> float | None:
    """Of the server, the engine left out."""
    if not one.cpu_seconds:
        return None
    # sum() rounds otherwise from Python 3.12 on, and a page's last digit would depend on who wrote it
    return per_1000_tokens(one, math.fsum(seconds for role, seconds in one.cpu_seconds.items() if role != ENGINE))


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("throughput", "output tokens/s", "tok/s", _load("output_tokens_per_second"), more_is_better=True),
        Metric("requests", "requests/s", "req/s", _load("requests_per_second"), more_is_better=True),
        Metric("ttft_p50", "TTFT p50", "ms", _load("ttft_p50_ms")),
        Metric("ttft_p99", "TTFT p99", "ms", _load("ttft_p99_ms")),
        Metric("tpot_p50", "TPOT p50", "ms", _load("tpot_p50_ms")),
        Metric("tpot_p99", "TPOT p99", "ms", _load("tpot_p99_ms")),
        Metric("cpu_engine", "CPU engine", "s/1k", _cpu(ENGINE)),
        Metric("cpu_rest", "CPU rest", "s/1k", outside_engine),
    )
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
    """Metric -> over repeats, against the base arm in the same repeat and batch."""
    cpu: Mapping[str, float]
    """Role -> median CPU-seconds per 1,000 tokens."""
    load_cpu: float
    """Of the load generator, the same."""


def lines(receipt: Receipt) -> list[Line]:
    """Return one for each arm and load, in the configuration's order."""
    found = []
    for load in receipt.configuration.loads:
        workload, concurrency = load["workload"], load["concurrency"]
        for arm in receipt.configuration.arms:
            points = [p for p in receipt.points if (p.workload, p.concurrency, p.arm) == (workload, concurrency, arm)]
            if points:
                found.append(_line(receipt, workload, concurrency, arm, points))
    return found


def _line(receipt: Receipt, workload: str, concurrency: int, arm: str, points: Sequence[Measured]) -> Line:
    good = [point for point in points if not point.failed]
    base = base_of(receipt, arm)
    values = {key: spread(v for v in map(metric.of, good) if v is not None) for key, metric in METRICS.items()}
    against_base = {key: ratios(receipt, workload, concurrency, arm, base, key) for key in METRICS}
    cpu = {}
    for role in sorted({role for point in good for role in point.cpu_seconds}):
        seconds = spread(v for v in (_cpu(role)(point) for point in good) if v is not None)
        if seconds and seconds.median >= 0.00005:
            cpu[role] = seconds.median
    by_weight = dict(sorted(cpu.items(), key=lambda item: -item[1]))
    load_cpu = spread(v for v in (per_1000_tokens(p, p.load["load_cpu_seconds"]) for p in good) if v is not None)
    failed = len(points) - len(good)
    generator = load_cpu.median if load_cpu else 0.0
    return Line(workload, concurrency, arm, len(good), failed, values, against_base, by_weight, generator)


def base_of(receipt: Receipt, arm: str) -> str:
    """Return the arm that `arm` is compared with: the baseline with as many replicas."""
    _, at, count = arm.rpartition("@")
    return receipt.configuration.base + (f"@{count}" if at and count.isdigit() else "")


def ratio_of(line: Line, metric: str) -> float | None:
    """The median of an arm's ratio to the base arm."""
    found = line.ratios[metric]
    return found.median if found else None


def ratios(receipt: Receipt, workload: str, concurrency: int, arm: str, against: str, metric: str) -> Spread | None:
    """Of one arm to another, made in each repeat in which both ran side by side."""
    of = METRICS[metric].of
    here = [p for p in receipt.points if (p.workload, p.concurrency) == (workload, concurrency) and not p.failed]
    values: dict[str, dict[tuple[int, int, int], float]] = {arm: {}, against: {}}
    for point in here:
        if point.arm in values and (value := of(point)) is not None:
            values[point.arm][point.start, point.batch, point.repeat] = value
    mine, theirs = values[arm], values[against]
    found = {place: mine[place] / theirs[place] for place in mine.keys() & theirs.keys() if theirs[place]}
    starts = sorted({start for start, *_ in found})
    every = spread(found.values())
    if every is None or len(starts) == 1:
        return every
    medians = (statistics.median(ratio for place, ratio in found.items() if place[0] == start) for start in starts)
    return replace(every, by_start=tuple(medians))


def cpu_unit(here: Sequence[Line]) -> str:
    """What CPU of `here` is counted for: requests, where a workload has no tokens."""
    return "1,000 tokens" if any(line.values["throughput"] for line in here) else "1,000 requests"


def cpu_by_process(here: Sequence[Line]) -> list[tuple[str, ...]]:
    """CPU-seconds per `cpu_unit` as text, a column for each of `here`: most first, the load generator last."""
    weights: dict[str, float] = {}
    for line in here:
        for role, seconds in line.cpu.items():
            weights[role] = max(weights.get(role, 0.0), seconds)
    rows = [
        (role, *(f"{line.cpu[role]:.4f}" if role in line.cpu else "" for line in here))
        for role in sorted(weights, key=lambda name: -weights[name])
    ]
    return [*rows, (LOAD_GENERATOR, *(f"{line.load_cpu:.4f}" for line in here))]
