"""Proof that a running service is what was declared: each switch looked up where it takes effect."""

from rayline_cli.verify.check import CheckResult, Outcome, summary
from rayline_cli.verify.checks import check_switches
from rayline_cli.verify.expected import Expected, expected
from rayline_cli.verify.target import Node, NotSeen, Target, View

__all__ = ["CheckResult", "Expected", "Node", "NotSeen", "Outcome", "Target", "View", "check_switches", "expected", "summary"]
