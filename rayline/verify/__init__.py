"""Proof that a running service is what was declared: each switch looked up where it takes effect."""

from rayline.verify.checks import Check, HttpAnswer, Outcome, ProcessFacts, Target, check_switches

__all__ = ["Check", "HttpAnswer", "Outcome", "ProcessFacts", "Target", "check_switches"]
