"""Result of one check."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from rayline.facts.serve_flags import SWITCHES


class Outcome(str, Enum):
    """Outcome of a check."""

    PASS = "pass"
    FAIL = "fail"
    OFF = "off"
    """The stack file turns the switch off, and it is seen off: nothing is proven."""
    NOT_APPLICABLE = "not-applicable"


@dataclass(frozen=True)
class CheckResult:
    """One claim about the running service, and the evidence."""

    name: str
    outcome: Outcome
    evidence: str
    """What was seen, and where."""
    fix: str = ""
    """How to repair a failure, or to turn on what is off; empty otherwise."""


Verdict = tuple[Outcome, str, str]
"""Outcome, evidence, fix."""


def summary(checks: Sequence[CheckResult]) -> str:
    """Return the number of checks with each outcome, without outcomes that no check has."""
    words = {
        Outcome.PASS: "pass",
        Outcome.FAIL: "FAIL",
        Outcome.OFF: "off, not proven",
        Outcome.NOT_APPLICABLE: "not applicable",
    }
    counts = {word: sum(check.outcome is outcome for check in checks) for outcome, word in words.items()}
    return f"{len(checks)} checks: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def verdict(passed: bool, evidence: str, fix: str) -> Verdict:
    """Return PASS or FAIL with the evidence."""
    return (Outcome.PASS if passed else Outcome.FAIL), evidence, fix


def not_applicable(reason: str) -> Verdict:
    """Return the verdict of a check that has nothing to look at."""
    return Outcome.NOT_APPLICABLE, reason, ""


def declared_off(switch: str, seen_off: bool, evidence: str) -> Verdict:
    """Return the verdict on a switch that the stack file turns off."""
    if seen_off:
        return Outcome.OFF, f"declared off and seen off: {evidence}", f"switches.{switch}: true turns it on"
    fix = f"bring the stack up again: what runs is not what is declared ({SWITCHES[switch]})"
    return Outcome.FAIL, f"declared off, yet {evidence}", fix
