"""In which order points are measured, what is left of a run, and which arms fit into memory together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .errors import BenchError


@dataclass(frozen=True, order=True)
class Point:
    """One measurement: an arm under a load, for the `repeat`th time (from 1) in the `batch`th batch of arms (from 1)."""

    batch: int
    repeat: int
    workload: str
    concurrency: int
    arm: str


def batches(memory_gib: Mapping[str, float], available_gib: float, base: str) -> list[list[str]]:
    """Return the arms in groups that fit into `available_gib` at once; the baseline is in each, so that ratios are within one.

    Keeps the order of `memory_gib`. Raises BenchError for an arm that does not fit beside the baseline.
    """
    fix = f"{available_gib:.1f} GiB are free. Fix: fewer --arms, or a machine with more memory"
    if memory_gib[base] > available_gib:
        raise BenchError(f"{base} needs about {memory_gib[base]:.1f} GiB of memory, {fix}")
    waiting = [name for name in memory_gib if name != base]
    groups: list[list[str]] = []
    while waiting or not groups:
        group, used = [base], memory_gib[base]
        for name in waiting:
            if used + memory_gib[name] <= available_gib:
                group.append(name)
                used += memory_gib[name]
        if len(group) == 1 and waiting:
            needed = used + memory_gib[waiting[0]]
            raise BenchError(
                f"{waiting[0]} does not fit beside {base}, with which it is compared: about {needed:.1f} GiB are needed, {fix}"
            )
        waiting = [name for name in waiting if name not in group]
        groups.append([name for name in memory_gib if name in group])
    return groups


def order(groups: Sequence[Sequence[str]], loads: Sequence[tuple[str, int]], repeats: int) -> list[Point]:
    """Return every point, ordered by batch, repeat, load and arm.

    The arms of one load run back to back, so that a slow drift of the machine affects all of them. The first arm rotates with each
    load and repeat.
    """
    points = []
    for batch, arms in enumerate(groups, start=1):
        for repeat in range(1, repeats + 1):
            for index, (workload, concurrency) in enumerate(loads):
                first = (repeat - 1 + index) % len(arms)
                for arm in [*arms[first:], *arms[:first]]:
                    points.append(Point(batch, repeat, workload, concurrency, arm))
    return points


def left(points: Iterable[Point], done: Iterable[Point]) -> list[Point]:
    """Return the points that are not measured yet, in order."""
    finished = set(done)
    return [point for point in points if point not in finished]


def seed(point: Point) -> int:
    """Return the seed of a point's prompts: the same for all arms, another for every load and repeat, so that no cache helps."""
    text = f"{point.repeat}/{point.workload}/{point.concurrency}"
    value = 0
    for character in text:
        value = (value * 31 + ord(character)) % 1_000_003
    return value


def remaining_seconds(points: Sequence[Point], took: Mapping[tuple[str, int], Sequence[float]], default: float) -> float:
    """Return how long `points` will take: as long as the same load took so far, else as any did, else `default` each."""
    every = [seconds for same in took.values() for seconds in same]
    mean = sum(every) / len(every) if every else default
    same_load = (took.get((point.workload, point.concurrency)) for point in points)
    return sum(sum(seconds) / len(seconds) if seconds else mean for seconds in same_load)
