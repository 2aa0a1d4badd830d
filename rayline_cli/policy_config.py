"""The policy pack without Pulumi: check a file for `--policy-config`, whose unknown rules Pulumi ignores, and run the rules on a plan."""

import importlib.util
import json
import pathlib
import sys
from difflib import get_close_matches
from functools import cache
from typing import Any

from .errors import UsageError
from .offline import Program
from .stack_names import PROJECT_ROOT

# Pulumi's own words: beside a rule's settings, and instead of a rule's name.
_LEVEL = "enforcementLevel"
_EVERY_RULE = "all"


class BadPolicyConfig(UsageError):
    """The file names a rule or a setting that the policy pack does not have."""


def read_config(path: pathlib.Path) -> dict[str, Any]:
    """Return the settings in a file. Raises BadPolicyConfig with every rule and setting that the policy pack does not have."""
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BadPolicyConfig(f"--policy-config {path}: it is not JSON: {error}. Fix: see docs/policy.md") from None
    if not isinstance(config, dict):
        raise BadPolicyConfig(f"--policy-config {path}: it holds no map of rules. Fix: see docs/policy.md")
    known = _settings()
    unknown = [f"{rule}: no such rule. Fix: {_nearest(rule, [*known])}" for rule in config if rule not in known]
    for rule, settings in known.items():
        for name in config[rule] if isinstance(config.get(rule), dict) else ():
            if name not in (*settings, _LEVEL):
                unknown.append(f"{rule}.{name}: no such setting. Fix: {_nearest(name, [*settings, _LEVEL])}")
    if unknown:
        raise BadPolicyConfig("\n  ".join([f"--policy-config {path}:", *unknown]))
    return config


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"


def broken_rules(program: Program, path: pathlib.Path | None) -> list[str]:
    """Return the rules that a recorded program breaks, each with the resource and what is wrong.

    `path` is a file for `--policy-config`. Raises BadPolicyConfig. A rule that the file turns off or makes advisory breaks nothing.
    """
    config = read_config(path) if path else {}
    rules = _rules()
    resources = [rules.Resource(r.type, r.name, r.inputs, r.protect) for r in program.resources]
    broken = []
    for rule in rules.RULES:
        own, every = config.get(rule.name, {}), config.get(_EVERY_RULE, "mandatory")
        # the level of all holds for a rule that has none of its own
        usual = every if isinstance(every, str) else every.get(_LEVEL, "mandatory")
        level = own if isinstance(own, str) else own.get(_LEVEL, usual)
        if level != "mandatory":
            continue
        given = {name: own[name] for name in rule.settings if isinstance(own, dict) and name in own}
        settings = rules.TeamSettings(program.stack, **given)
        wrong = rules.violations(resources, settings, only=rule)
        broken += [f"policy {name}: {resource.name}: {message}" for name, resource, message in wrong]
    return broken


def _settings() -> dict[str, tuple[str, ...]]:
    return {_EVERY_RULE: ()} | {rule.name: rule.settings for rule in _rules().RULES}


@cache
def _rules() -> Any:
    """Return the module of the rules. The pack is no package of the kit, so it is read from its file."""
    spec = importlib.util.spec_from_file_location("rayline_policy_rules", PROJECT_ROOT / "policy" / "rules.py")
    assert spec and spec.loader  # noqa: PT018
    rules: Any = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    sys.modules[spec.name] = rules
    spec.loader.exec_module(rules)
    return rules
