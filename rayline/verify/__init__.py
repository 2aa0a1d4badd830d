"""Proof that a running service is what was declared: each switch looked up where it takes effect."""

from rayline.verify.check import Check, Outcome, summary
from rayline.verify.checks import check_switches
from rayline.verify.expected import Expected, expected
from rayline.verify.target import Node, NotSeen, Target, View

__all__ = ["Check", "Expected", "Node", "NotSeen", "Outcome", "Target", "View", "check_switches", "expected", "summary"]
