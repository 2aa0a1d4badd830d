"""What the kit has to reach, as rows, and what a receipt says about it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rayline_bench.receipt import Receipt
from rayline_bench.summary import METRICS, Spread, ratios


@dataclass(frozen=True)
class Goal:
    """A bound for the median of an arm's ratio to another, repeat by repeat."""

    arm: str
    against: str
    metric: str
    """Of rayline_bench.summary.METRICS."""
    bound: float
    """At least, where more is better, else at most."""


@dataclass(frozen=True)
class GoalRun:
    """What one run measures for some goals: arms that stand in one ratio have to be up at the same time."""

    arms: tuple[str, ...]
    """The baseline first."""
    goals: tuple[Goal, ...]
    replicas: int = 1


RUNS: dict[str, GoalRun] = {
    "equal": GoalRun(
        ("sample", "kit-equal", "vllm"),
        (
            Goal("kit-equal", "sample", "throughput", 1.25),
            Goal("kit-equal", "sample", "ttft_p99", 0.75),
            Goal("kit-equal", "sample", "cpu_rest", 0.6),
            Goal("kit-equal", "vllm", "throughput", 0.85),
        ),
    ),
    "shipped": GoalRun(
        ("sample", "kit", "vllm-defaults"),
        (Goal("kit", "sample", "throughput", 1.5), Goal("kit", "vllm-defaults", "throughput", 1.0)),
    ),
    "replicas": GoalRun(
        ("vllm-router-defaults", "kit"), (Goal("kit@2", "vllm-router-defaults@2", "throughput", 1.1),), replicas=2
    ),
}
"""By the name that `rayline bench --preset` takes: the same engine arguments, as shipped, and two replicas."""
GOALS: tuple[Goal, ...] = tuple(goal for run in RUNS.values() for goal in run.goals)
WORKLOAD, CONCURRENCIES, REPEATS, REQUESTS = "tokens", (64, 256), 5, 768
"""What they are stated for: medians of at least five interleaved repeats of 768 requests, three for each of the most streams."""


@dataclass(frozen=True)
class Verdict:
    """One goal at one concurrency."""

    goal: Goal
    concurrency: int
    ratio: Spread
    reached: bool
    enough: bool
    """Whether the receipt has as many repeats and requests as the goal is stated for."""

    def text(self) -> str:
        """The goal in words."""
        goal, metric = self.goal, METRICS[self.goal.metric]
        word = "at least" if metric.more_is_better else "at most"
        return f"{goal.arm}: {metric.title} {word} {goal.bound:g} x {goal.against}"


def verdicts(receipt: Receipt) -> list[Verdict]:
    """For each goal and concurrency that the receipt has both arms of."""
    found = []
    requests = {(load["workload"], load["concurrency"]): load["requests"] for load in receipt.configuration.loads}
    for goal in GOALS:
        for concurrency in CONCURRENCIES:
            ratio = ratios(receipt, WORKLOAD, concurrency, goal.arm, goal.against, goal.metric)
            if ratio is None:
                continue
            more = METRICS[goal.metric].more_is_better
            reached = ratio.median >= goal.bound if more else ratio.median <= goal.bound
            enough = ratio.count >= REPEATS and requests[WORKLOAD, concurrency] >= REQUESTS
            found.append(Verdict(goal, concurrency, ratio, reached, enough))
    return found


def all_reached(found: Sequence[Verdict]) -> bool:
    """Whether every one was."""
    return all(verdict.reached for verdict in found)
