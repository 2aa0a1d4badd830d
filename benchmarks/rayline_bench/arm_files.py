"""Arms that a file describes: another arm with something laid over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from rayline.service.reading import RayService

from .arms import ARMS, Arm, ArmError, Base, Built, ProcessArm, RayArm, env_text, laid_over, with_llm

_FILE_MAPS = ("service", "env", "engine_kwargs", "llm", "serve")
_FILE_KEYS = {"base", "what", *_FILE_MAPS}


@dataclass(frozen=True)
class Overlay:
    """An arm that a file describes: another arm, with something laid over."""

    name: str
    base: str
    """The arm that it starts from."""
    what: str = ""
    service: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the stack's service in its groups, checked as in a stack file; None takes one away."""
    env: Mapping[str, Any] = field(default_factory=dict)
    """Variables for every Ray container, unchecked; None takes one away."""
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Engine arguments, unchecked; None takes one away."""
    llm: Mapping[str, Any] = field(default_factory=dict)
    """Laid over the LLMConfig, unchecked; None takes a key away."""
    serve: Mapping[str, Any] = field(default_factory=dict)
    """Laid over serveConfigV2, unchecked; None takes a key away."""


def read_overlay(name: str, text: str) -> Overlay:
    """Return the arm that a YAML text describes. Raises ArmError."""
    try:
        document = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ArmError(f"arm {name}: the file is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise ArmError(f"arm {name}: the file is a map with some of {', '.join(sorted(_FILE_KEYS))}")
    if unknown := sorted(document.keys() - _FILE_KEYS):
        raise ArmError(f"arm {name}: unknown {', '.join(unknown)}; there are {', '.join(sorted(_FILE_KEYS))}")
    base = document.get("base", "kit-equal")
    if base not in ARMS:
        raise ArmError(f"arm {name}: base {base!r} is none of {', '.join(ARMS)}")
    for key in _FILE_MAPS:
        if not isinstance(document.get(key, {}), dict):
            raise ArmError(f"arm {name}: {key} is a map")
    return Overlay(name, **({"base": base} | document))


def overlaid(overlay: Overlay) -> Arm:
    """Return the arm of a file; its `service` has to be in the base's manifest already."""

    def made(base: Base) -> Built:
        built = ARMS[overlay.base].build(replace(base, more_engine=overlay.engine_kwargs))
        if isinstance(built, ProcessArm):
            if overlay.serve or overlay.llm:
                raise ArmError(f"arm {overlay.name}: {overlay.base} has no Serve configuration to lay something over")
            over = {key: None if value is None else env_text(value) for key, value in overlay.env.items()}
            return replace(built, processes=[replace(one, env=laid_over(one.env, over)) for one in built.processes])

        def serve(config: dict[str, Any]) -> None:
            merged = laid_over(config, overlay.serve)
            config.clear()
            config.update(merged)

        service = RayService(built.manifest).with_environment(overlay.env).with_serve(serve)
        engine = {"engine_kwargs": overlay.engine_kwargs}
        return RayArm(with_llm(service.manifest, lambda llm: laid_over(laid_over(llm, engine), overlay.llm)))

    return Arm(overlay.name, overlay.what or f"{overlay.base} with a file laid over", made)
