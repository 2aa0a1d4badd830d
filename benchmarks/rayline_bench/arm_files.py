"""Arms that a file describes: another arm with something laid over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from .arms import ARMS, Arm, Base, Built, RayArm, env_text, laid_over, over
from .errors import BenchUsageError

# All values but those of `service` are unchecked; None takes a key away.
MAPS: Mapping[str, str] = {
    "service": "settings of the stack's service in its groups, checked as in a stack file",
    "env": "variables of every Ray container",
    "engine_kwargs": "engine arguments",
    "llm": "laid over the LLMConfig",
    "serve": "laid over serveConfigV2",
}
KEYS = ("base", *MAPS, "what")


def arm_of_file(name: str, text: str) -> Arm:
    """Return the arm that a YAML text describes. Raises BenchUsageError."""
    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise BenchUsageError(f"arm {name}: the file is not YAML: {error}. Fix: write a map of YAML") from None
    if not isinstance(document, dict):
        raise BenchUsageError(f"arm {name}: the file is no map. Fix: a map with some of {', '.join(KEYS)}")
    if unknown := sorted(document.keys() - set(KEYS)):
        raise BenchUsageError(f"arm {name}: unknown {', '.join(unknown)}. Fix: some of {', '.join(KEYS)}")
    base = document.get("base", "kit-equal")
    if base not in ARMS:
        raise BenchUsageError(f"arm {name}: base {base!r} is no arm. Fix: one of {', '.join(ARMS)}")
    for key, meaning in MAPS.items():
        if not isinstance(document.setdefault(key, {}), dict):
            raise BenchUsageError(f"arm {name}: {key} is no map. Fix: a map: {meaning}")
    what = document.get("what") or f"{base} with a file laid over"
    return Arm(name, what, lambda stack: _laid_over_arm(name, base, document, stack), document["service"])


def _laid_over_arm(name: str, under: str, document: Mapping[str, Any], stack: Base) -> Built:
    """Return the arm `under` with a file's maps over it; the file's `service` is in `stack` already."""
    built = ARMS[under].build(replace(stack, more_engine=document["engine_kwargs"]))
    if isinstance(built, RayArm):
        return over(built, **{key: document[key] for key in ("env", "engine_kwargs", "llm", "serve")})
    if document["serve"] or document["llm"]:
        raise BenchUsageError(f"arm {name}: base {under} has no Serve configuration. Fix: leave out llm and serve")
    env = {key: None if value is None else env_text(value) for key, value in document["env"].items()}
    return replace(built, processes=[replace(process, env=laid_over(process.env, env)) for process in built.processes])
