"""A file for `--policy-config`, held against the rules: Pulumi itself says nothing of a rule or setting that is not there."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys
from difflib import get_close_matches
from typing import Any

from .errors import UsageError
from .stack_names import PROJECT_ROOT

# Pulumi's own words: beside a rule's settings, and in the place of a rule's name.
_LEVEL = "enforcementLevel"
_EVERY_RULE = "all"


class BadPolicyConfig(UsageError):
    """The file names a rule or a setting that the policy pack does not have."""


def refuse_unknown(path: pathlib.Path) -> None:
    """Raise BadPolicyConfig with every rule and setting of the file that the policy pack does not know."""
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadPolicyConfig(f"--policy-config {path}: no JSON: {error}. Fix: docs/policy.md has an example") from None
    if not isinstance(config, dict):
        raise BadPolicyConfig(f"--policy-config {path}: a map of rules is needed. Fix: docs/policy.md has an example")
    known = _settings()
    wrong = []
    for rule, given in config.items():
        if rule not in known:
            wrong.append(f"{rule}: no such rule. Fix: {_nearest(rule, list(known))}")
        elif isinstance(given, dict):
            wrong += [
                f"{rule}.{setting}: no such setting. Fix: {_nearest(setting, [*known[rule], _LEVEL])}"
                for setting in given
                if setting not in known[rule] and setting != _LEVEL
            ]
    if wrong:
        raise BadPolicyConfig("\n  ".join([f"--policy-config {path}:", *wrong]))


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"


def _settings() -> dict[str, tuple[str, ...]]:
    """Rule -> its settings. The pack is no package of the kit, so its rules are read from their file."""
    spec = importlib.util.spec_from_file_location("rayline_policy_rules", PROJECT_ROOT / "policy" / "rules.py")
    assert spec is not None
    assert spec.loader is not None
    rules: Any = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    sys.modules[spec.name] = rules
    spec.loader.exec_module(rules)
    return {_EVERY_RULE: ()} | {one.name: one.settings for one in (*rules.RULES.of_one, *rules.RULES.of_all)}
