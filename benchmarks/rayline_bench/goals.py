"""The goals of the kit, as rows, and whether a receipt reaches them. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .receipt import Receipt
from .summary import METRICS, Spread, ratios


@dataclass(frozen=True)
class Goal:
    """A bound for the median of an arm's ratio to another, repeat by repeat."""

    arm: str
    against: str
    metric: str
    """Of summary.METRICS."""
    number: float

    @property
    def bound(self) -> str:
        """Return the bound in words."""
        return f"{'at least' if METRICS[self.metric].more_is_better else 'at most'} {self.number:g} x"

    def text(self) -> str:
        """Return the goal in words."""
        return f"{self.arm}: {METRICS[self.metric].title} {self.bound} {self.against}"

    def is_reached(self, ratio: float) -> bool:
        """Return whether a ratio keeps the bound."""
        return ratio >= self.number if METRICS[self.metric].more_is_better else ratio <= self.number


@dataclass(frozen=True)
class GoalLoad:
    """The load that goals are stated for."""

    workload: str
    concurrencies: tuple[int, ...]
    requests: int
    """Of one measurement."""


TOKENS = GoalLoad("tokens", (64, 256), 768)
CONVERSATIONS = GoalLoad("conversations", (8, 32), 192)


@dataclass(frozen=True)
class GoalRun:
    """The arms of one run for some goals: arms compared with each other must fit in memory at the same time."""

    arms: tuple[str, ...]
    """The baseline first."""
    goals: tuple[Goal, ...]
    replicas: int = 1
    load: GoalLoad = TOKENS


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
    "sessions": GoalRun(
        ("kit-sessions", "sample", "vllm-router-sessions"),
        (
            Goal("kit-sessions@2", "sample@2", "throughput", 1.5),
            Goal("kit-sessions@2", "sample@2", "ttft_p99", 0.6),
            Goal("kit-sessions@2", "vllm-router-sessions@2", "throughput", 1.0),
        ),
        replicas=2,
        load=CONVERSATIONS,
    ),
}
"""By the name that `rayline bench --preset` takes: the same engine arguments, as shipped, two replicas, and conversations."""
REPEATS = 5
"""A goal is stated for the median of so many interleaved repeats, or more."""


@dataclass(frozen=True)
class Verdict:
    """One goal at one concurrency."""

    goal: Goal
    concurrency: int
    ratio: Spread
    reached: bool
    enough: bool
    """Whether the receipt has as many repeats and requests as the goal is stated for."""


def verdicts(receipt: Receipt) -> list[Verdict]:
    """Return a verdict for each goal and concurrency for which the receipt has both arms."""
    results = []
    requests = {(load["workload"], load["concurrency"]): load["requests"] for load in receipt.configuration.loads}
    for run in RUNS.values():
        for goal, concurrency in itertools.product(run.goals, run.load.concurrencies):
            ratio = ratios(receipt, run.load.workload, concurrency, goal.arm, goal.against, goal.metric)
            if ratio is not None:
                enough = ratio.count >= REPEATS and requests[run.load.workload, concurrency] >= run.load.requests
                results.append(Verdict(goal, concurrency, ratio, goal.is_reached(ratio.median), enough))
    return results
