"""Arms that a file describes: another arm with something laid over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from rayline.service.reading import RayService

from .arms import ARMS, Arm, Base, Built, ProcessArm, RayArm, env_text, laid_over, with_llm
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
    if isinstance(built, ProcessArm):
        if document["serve"] or document["llm"]:
            raise BenchUsageError(f"arm {name}: base {under} has no Serve configuration. Fix: leave out llm and serve")
        over = {key: None if value is None else env_text(value) for key, value in document["env"].items()}
        return replace(built, processes=[replace(one, env=laid_over(one.env, over)) for one in built.processes])

    def serve(config: dict[str, Any]) -> None:
        merged = laid_over(config, document["serve"])
        config.clear()
        config.update(merged)

    service = RayService(built.manifest).with_environment(document["env"]).with_serve(serve)
    engine = {"engine_kwargs": document["engine_kwargs"]}
    return RayArm(with_llm(service.manifest, lambda llm: laid_over(laid_over(llm, engine), document["llm"])))
