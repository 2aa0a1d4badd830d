"""What a check says."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from rayline.facts.serve_flags import SWITCHES


class Outcome(str, Enum):
    PASS = "pass"
    FAIL = "fail"
    OFF = "off"
    """The stack file turns it off, and it is seen off: nothing is proven."""
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class CheckResult:
    """One claim about the running service, and what was seen."""

    name: str
    outcome: Outcome
    evidence: str
    """What was seen, and where."""
    fix: str = ""
    """What to do about a failure, or to turn on what is off; empty otherwise."""


def summary(checks: Sequence[CheckResult]) -> str:
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
    """Return PASS or FAIL with what was seen."""
    return (Outcome.PASS if passed else Outcome.FAIL), evidence, fix


def declared_off(switch: str, seen_off: bool, evidence: str) -> Verdict:
    """Return the verdict on a switch that the stack file turns off."""
    if seen_off:
        return Outcome.OFF, f"declared off and seen off: {evidence}", f"switches.{switch}: true turns it on"
    return (
        Outcome.FAIL,
        f"declared off, yet {evidence}",
        f"what runs is not what is declared ({SWITCHES[switch]}): bring the stack up again",
    )
