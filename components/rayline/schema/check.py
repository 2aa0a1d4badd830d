"""Collecting mistakes, so that all are reported at once, and the rules that several parts share."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rayline.schema.base import Arguments
from rayline.schema.secret_values import PASSWORD_IN_AN_ADDRESS, has_bare_password, may_show, secret_key, secrets_in

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


# What a secret does that stands in a stack file.
IN_CLEAR_TEXT = "which would stand in manifests and state in clear text: leave it out"


def version(text: str) -> tuple[int, ...]:
    """The first three numbers of a version, for comparison."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what was given, what is wrong and what would be right."""

    path: str
    value: Any
    message: str

    def __str__(self) -> str:
        value = getattr(self.value, "value", self.value)
        got = json.dumps(value) if isinstance(value, bool) else repr(value)
        shown = "" if value is None else " (empty)" if value == "" else f" (got {got})"
        return f"{self.path}{shown}: {self.message}"


class PlanError(ValueError):
    """The arguments cannot work. `problems` holds every mistake that was found."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass
class Check:
    """Collects problems, so that all are reported at once."""

    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        # where the shape is wrong, the plan sees a default and would complain about that
        self._told = {problem.path for problem in self.problems}

    def told(self, path: str) -> bool:
        """Return whether the shape of a place or of something in it is wrong."""
        return any(one == path or one.startswith((f"{path}.", f"{path}[")) for one in self._told)

    def refuse(self, path: str, value: Any, message: str) -> None:
        """Add a problem, unless the value's shape is wrong already. A value that has the form of a secret is not repeated."""
        if path not in self._told:
            self.problems.append(Problem(path, value if may_show("", value) else None, message))

    def only_with(self, path: str, value: Any, needed: str, actual: Any) -> None:
        """Refuse a key that has no effect beside another key's value: `needed` is `head.store redis`, for example."""
        shown = getattr(actual, "value", actual)
        self.refuse(path, value, f"only with {needed}, and it is {shown}. Fix: leave it out")


# Where a name says what a value is. Elsewhere the keys are the kit's own, such as `key: true`.
_FREE_MAPS = ("labels",)
# Checked where they are planned, argument by argument; and the token, which is a secret of Pulumi.
_CHECKED = ("env", "kwargs", "token")
# Addresses that may have a user and a password before them, also without a scheme.
_ADDRESSES = ("image", "location", "repository", "chart", "crds")


def refuse_secrets(check: Check, asked: Arguments) -> None:
    """Refuse every text of a stack that holds a secret, where nothing else is wrong with it."""
    blamed = {problem.path for problem in check.problems}
    for path, key, name, text in _texts(asked.model_dump(exclude_unset=True)):
        kind = f"{as_key} as a key" if (as_key := secret_key(name)) else secret_kind(key, name, text)
        if kind and path not in blamed:
            check.refuse(path, None, f"{kind}, {IN_CLEAR_TEXT}")


def secret_kind(key: str, name: str, text: str) -> str | None:
    """Return what kind of secret the text under a key is, by its form or the name that says what it is; else None."""
    kind = next((kind for _, kind in secrets_in(text, name)), None)
    return PASSWORD_IN_AN_ADDRESS if kind is None and key in _ADDRESSES and has_bare_password(text) else kind


def _texts(given: Any, path: str = "", key: str = "", name: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (path, key, name that says what it is, text) of every text of a stack."""
    if isinstance(given, Mapping):
        for inner, value in given.items():
            if inner not in _CHECKED:
                named = inner if key in _FREE_MAPS else ""
                # a secret that stands in the place of a key is not repeated
                where = path if secret_key(named) else f"{path}.{inner}" if path else inner
                yield from _texts(value, where, inner, named)
    elif isinstance(given, (list, tuple)):
        for index, value in enumerate(given):
            yield from _texts(value, f"{path}[{index}]", key, name)
    elif isinstance(given, str):
        yield path, key, name, given
