"""What the arguments of every room are made of: one strict frozen model, and the domains that a value may come from.

A key is named, typed, documented, bounded and given its default where its class declares it, in a room's arguments.py. Stack files,
Pulumi's schema, the JSON Schema for editors and the docs are derived from there.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError, core_schema

from rayline.facts.google import ZONE


class Arguments(BaseModel):
    """A map of a stack file: unknown keys are refused, nothing is converted, nothing changes afterwards.

    None is the default of a key that the plan decides. `"key" in arguments.model_fields_set` tells what a stack said from a default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def said(self, key: str) -> bool:
        """Return whether the stack named the key."""
        return key in self.model_fields_set


# An enumeration arrives as text from YAML, so strictness stops here.
FromText = Field(strict=False)


@dataclass(frozen=True)
class Domain:
    """The values that a leaf takes beside its type. `says` ends a message: what would be right."""

    says: str

    def holds(self, value: Any) -> bool:
        """Return whether a value of the right type is in the domain."""
        raise NotImplementedError

    def for_editors(self) -> dict[str, Any]:
        """Return the domain in the words of JSON Schema, as far as it has them."""
        return {}

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        def check(value: Any) -> Any:
            if not self.holds(value):
                raise PydanticCustomError("domain", "{says}", {"says": self.says})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return handler(schema) | self.for_editors()


@dataclass(frozen=True)
class _Range(Domain):
    least: float
    most: float | None

    def holds(self, value: Any) -> bool:
        return value >= self.least and (self.most is None or value <= self.most)

    def for_editors(self) -> dict[str, Any]:
        return {"minimum": self.least} | ({} if self.most is None else {"maximum": self.most})


def between(least: float, most: float | None = None, unit: str = "") -> Domain:
    """Return the domain of numbers from `least` to `most`, both included; without `most` there is no upper end."""
    says = f"at least {least:g}" if most is None else f"{least:g} to {most:g}"
    return _Range(f"{says} {unit}".rstrip(), least, most)


@dataclass(frozen=True)
class _Form(Domain):
    pattern: str
    most: int

    def holds(self, value: Any) -> bool:
        return len(value) <= self.most and re.fullmatch(self.pattern, value) is not None

    def for_editors(self) -> dict[str, Any]:
        # JavaScript names a group in another way than Python
        unnamed = re.sub(r"\(\?P<\w+>", "(", self.pattern)
        return {"pattern": f"^(?:{unnamed})$", "maxLength": self.most}


def form(pattern: str, says: str, most: int = 253) -> Domain:
    """Return the domain of texts that match a pattern as a whole and have at most `most` characters."""
    return _Form(says, pattern, most)


@dataclass(frozen=True)
class _Range4(Domain):
    def holds(self, value: Any) -> bool:
        try:
            ipaddress.IPv4Network(value)
        except ValueError:
            return False
        # a mask after the slash is not Google's way
        return value.partition("/")[2].isdigit()

    def for_editors(self) -> dict[str, Any]:
        byte = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
        return {"pattern": rf"^{byte}(\.{byte}){{3}}/(3[0-2]|[12]?[0-9])$"}


LABEL = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
DNS_LABEL_SAYS = "lower-case letters, digits and dashes, first a letter, last a letter or digit, at most 63 characters"

Cidr = Annotated[str, _Range4("an address range such as 10.0.0.0/18, beginning with its first address")]
Count = Annotated[int, between(1)]
DnsLabel = Annotated[str, form(LABEL, DNS_LABEL_SAYS, 63)]
ObjectName = Annotated[
    str, form(SUBDOMAIN, "a name of a Kubernetes object: lower-case letters, digits, dashes and dots, at most 253 characters")
]
Zone = Annotated[str, form(ZONE, "a zone such as us-central1-b", 63)]
Line = Annotated[
    str,
    form(
        r"[^\s\x00-\x1f\x7f](?:[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?",
        "one line of text, not empty, without spaces around it",
        1024,
    ),
]


@dataclass(frozen=True)
class _Items(Domain):
    most: int

    def holds(self, value: Any) -> bool:
        return len(value) <= self.most


def items(most: int, what: str) -> Domain:
    """Return the domain of maps and lists with at most `most` entries."""
    return _Items(f"at most {most} {what}", most)


@dataclass(frozen=True)
class Secret:
    """Marks a field that only a program sets, with a Pulumi secret: no stack file holds it."""
