"""What a check says."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Outcome(str, Enum):
    PASS = "pass"
    FAIL = "fail"
    OFF = "off"
    """The stack file turns it off, and it is seen off: nothing is proven."""
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class Check:
    """One claim about the running service, and what was seen."""

    name: str
    outcome: Outcome
    evidence: str
    """What was seen, and where."""
    fix: str = ""
    """What to do about a failure, or to turn on what is off; empty otherwise."""


def summary(checks: Sequence[Check]) -> str:
    """How many have which outcome, those without any left out."""
    words = {
        Outcome.PASS: "pass",
        Outcome.FAIL: "FAIL",
        Outcome.OFF: "off, not proven",
        Outcome.NOT_APPLICABLE: "not applicable",
    }
    counts = {word: sum(check.outcome is outcome for check in checks) for outcome, word in words.items()}
    return f"{len(checks)} checks: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)


Verdict = tuple[Outcome, str, str]
"""Outcome, evidence, fix."""


def verdict(passed: bool, evidence: str, fix: str) -> Verdict:
    return (Outcome.PASS if passed else Outcome.FAIL), evidence, fix
