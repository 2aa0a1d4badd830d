"""Collecting mistakes, so that all are reported at once, and the rules that several parts share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .types import Problem

# RayCluster names get a suffix and become part of Service names; KubeRay 1.7 refuses longer RayService names.
MAX_RAY_SERVICE_NAME = 47
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

SECRET_WORDS = ("TOKEN", "KEY", "PASSWORD", "SECRET", "CREDENTIAL")


def version(text: str) -> tuple[int, ...]:
    """The first three numbers of a version, for comparison."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def is_secret(name: str) -> bool:
    return any(word in name.upper() for word in SECRET_WORDS)


def shown(name: str, value: Any) -> Any:
    """A value as a message may show it: not at all where the name says that it is a secret."""
    return None if is_secret(name) else value


@dataclass
class Check:
    """Collects problems, so that all are reported at once."""

    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: str, value: Any, message: str) -> None:
        self.problems.append(Problem(path, value, message))


def at_least_one(check: Check, path: str, given: Mapping[str, Any], key: str, default: int) -> int:
    value = given.get(key)
    if value is None:
        return default
    if value < 1:
        check.refuse(f"{path}.{key}", value, "at least 1")
        return default
    return value
