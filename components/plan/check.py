"""Collecting mistakes, so that all are reported at once, and the rules that several parts share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..secret_values import PASSWORD_IN_AN_ADDRESS, has_bare_password, may_show, secret_key, secrets_in
from .types import Problem

# RayCluster names get a suffix and become part of Service names; KubeRay 1.7 refuses longer RayService names.
MAX_RAY_SERVICE_NAME = 47
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
DNS_RULE = "lower-case letters, digits and dashes, first a letter, last a letter or digit"


# What a secret does that stands in a stack file.
IN_CLEAR_TEXT = "which would stand in manifests and state in clear text: leave it out"


def version(text: str) -> tuple[int, ...]:
    """The first three numbers of a version, for comparison."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


@dataclass
class Check:
    """Collects problems, so that all are reported at once."""

    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: str, value: Any, message: str) -> None:
        """Add a problem. A value that has the form of a secret is not repeated."""
        self.problems.append(Problem(path, value if may_show("", value) else None, message))


# Where a name says what a value is. Elsewhere the keys are the kit's own, such as `api_key: true`.
_FREE_MAPS = ("labels",)
# Checked where they are planned, argument by argument; and the token, which is a secret of Pulumi.
_CHECKED = ("env", "engine_kwargs", "token")
# Addresses that may have a user and a password before them, also without a scheme.
_ADDRESSES = ("image", "model_source", "repository", "chart", "crds")


def refuse_secrets(check: Check, given: Any, path: str = "", key: str = "", name: str = "") -> None:
    """Refuse every text of a stack that holds a secret, where nothing else is wrong with it."""
    if isinstance(given, Mapping):
        for inner, value in given.items():
            if key in _FREE_MAPS and (kind := secret_key(str(inner))):
                check.refuse(path, None, f"{kind} as a key, {IN_CLEAR_TEXT}")
            elif inner not in _CHECKED:
                named = str(inner) if key in _FREE_MAPS else ""
                refuse_secrets(check, value, f"{path}.{inner}" if path else str(inner), str(inner), named)
    elif isinstance(given, (list, tuple)):
        for index, value in enumerate(given):
            refuse_secrets(check, value, f"{path}[{index}]", key, name)
    elif isinstance(given, str) and path not in {problem.path for problem in check.problems}:
        kind = next((kind for _, kind in secrets_in(given, name)), None)
        if kind is None and key in _ADDRESSES and has_bare_password(given):
            kind = PASSWORD_IN_AN_ADDRESS
        if kind:
            check.refuse(path, None, f"{kind}, {IN_CLEAR_TEXT}")


def at_least_one(check: Check, path: str, given: Mapping[str, Any], key: str, default: int) -> int:
    value = given.get(key)
    if value is None:
        return default
    if value < 1:
        check.refuse(f"{path}.{key}", value, "at least 1")
        return default
    return value
