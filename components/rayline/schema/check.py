"""Collect the mistakes of a stack, so that all are reported at once, and refuse secrets in it."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from rayline.schema.base import Arguments
from rayline.schema.secret_values import PASSWORD_IN_AN_ADDRESS, has_bare_password, may_show, secret_key, secrets_in

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


# Why a secret must not stand in a stack file; the end of a message.
IN_CLEAR_TEXT = "which would stand in manifests and state in clear text: leave it out"


def version(text: str) -> tuple[int, ...]:
    """Return the first three numbers of a version, for comparison."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


@dataclass(frozen=True)
class Problem:
    """One mistake: its path in the stack file, the value, and what would be right."""

    path: str
    value: Any
    message: str

    def __str__(self) -> str:
        value = getattr(self.value, "value", self.value)
        got = json.dumps(value) if isinstance(value, bool) else repr(value)
        shown = "" if value is None else " (empty)" if value == "" else f" (got {got})"
        return f"{self.path}{shown}: {self.message}"


class PlanError(ValueError):
    """Error of arguments that cannot work. `problems` has every mistake."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass
class Check:
    """The problems of a stack. Those that it starts with are mistakes of shape."""

    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Where the shape is wrong, the plan has a default and would refuse that.
        self._misshapen = {problem.path for problem in self.problems}

    def told(self, path: str) -> bool:
        """Return whether the shape of a place or of something in it is wrong."""
        return any(wrong == path or wrong.startswith((f"{path}.", f"{path}[")) for wrong in self._misshapen)

    def refuse(self, path: str, value: Any, message: str) -> None:
        """Add a problem, unless the value's shape is wrong already. A value that has the form of a secret is not repeated."""
        if path not in self._misshapen:
            self.problems.append(Problem(path, value if may_show("", value) else None, message))

    def only_with(self, path: str, value: Any, needed: str, actual: Any) -> None:
        """Refuse a key that has no effect beside another key's value: `needed` is `head.store redis`, for example."""
        shown = getattr(actual, "value", actual)
        self.refuse(path, value, f"only with {needed}, and it is {shown}. Fix: leave it out")


_OWN = object()


@dataclass(frozen=True)
class Section:
    """A map of a stack file with its path, so that a refusal names a key of it alone."""

    check: Check
    path: str
    arguments: Any

    def refuse(self, key: str, message: str, value: Any = _OWN) -> None:
        """Refuse a key, such as engine.max_model_len. `value` is for a key without a value of the arguments."""
        value = attrgetter(key)(self.arguments) if value is _OWN else value
        self.check.refuse(f"{self.path}.{key}", value, message)

    def refuse_if_said(self, part: str, keys: Iterable[str], message: str, **shown: Any) -> None:
        """Refuse each of these keys of a group that the stack file names."""
        group = attrgetter(part)(self.arguments)
        for key in keys:
            if group.said(key):
                self.refuse(f"{part}.{key}", message, **shown)


# Maps whose keys a user names, so that a name such as PASSWORD marks its value. Other keys are the kit's, such as `key: true`.
_FREE_MAPS = ("labels",)
# Checked where they are planned, argument by argument. The token is a secret of Pulumi.
_CHECKED = ("env", "kwargs", "token")
# Addresses that may begin with a user and a password, also without a scheme.
_ADDRESSES = ("image", "location", "repository", "chart", "crds")


def refuse_secrets(check: Check, asked: Arguments) -> None:
    """Refuse every text of a stack that holds a secret, unless it is refused already."""
    blamed = {problem.path for problem in check.problems}
    for path, key, name, text in _texts(asked.model_dump(exclude_unset=True)):
        kind = f"{as_key} as a key" if (as_key := secret_key(name)) else secret_kind(key, name, text)
        if kind and path not in blamed:
            check.refuse(path, None, f"{kind}, {IN_CLEAR_TEXT}")


def secret_kind(key: str, name: str, text: str) -> str | None:
    """Return the kind of secret that the text under a key is, by its form or by its name; None where it is none."""
    kind = next((kind for _, kind in secrets_in(text, name)), None)
    return PASSWORD_IN_AN_ADDRESS if kind is None and key in _ADDRESSES and has_bare_password(text) else kind


def _texts(value: Any, path: str = "", key: str = "", name: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (path, key, name that a user gave, text) of every text of a stack."""
    if isinstance(value, Mapping):
        for inner, below in value.items():
            if inner not in _CHECKED:
                named = inner if key in _FREE_MAPS else ""
                # a secret instead of a key is not repeated
                where = path if secret_key(named) else f"{path}.{inner}" if path else inner
                yield from _texts(below, where, inner, named)
    elif isinstance(value, (list, tuple)):
        for index, below in enumerate(value):
            yield from _texts(below, f"{path}[{index}]", key, name)
    elif isinstance(value, str):
        yield path, key, name, value
