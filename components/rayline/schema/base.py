"""The base class of all arguments: a strict frozen model; and the domains of its values.

A key is named, typed, documented, bounded and given its default where its class declares it, in a room's arguments.py. Stack files,
Pulumi's schema, the JSON Schema for editors and the docs are derived from there.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError, core_schema

from rayline.facts.google import ZONE


class Arguments(BaseModel):
    """A map of a stack file. Unknown keys are refused, no value is converted, and the object is frozen.

    None is the default of a key that the plan decides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def said(self, key: str) -> bool:
        """Return whether the stack file has the key. A default does not count."""
        return key in self.model_fields_set


# YAML has an enumeration's value as text, so a field of one cannot be strict.
FromText = Field(strict=False)


@dataclass(frozen=True, eq=False)
class Domain:
    """The values that a leaf takes beside its type. `says` is the end of a message: what would be right."""

    says: str
    holds: Callable[[Any], bool]
    """Return whether a value of the right type is in the domain."""
    json_schema: Mapping[str, Any] = field(default_factory=dict)
    """The domain in JSON Schema, as far as JSON Schema can express it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        def check(value: Any) -> Any:
            if not self.holds(value):
                raise PydanticCustomError("domain", "{says}", {"says": self.says})
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(schema), **self.json_schema}


def between(least: float, most: float | None = None, unit: str = "") -> Domain:
    """Return the domain of numbers from `least` to `most`, both included; without `most` there is no upper end."""
    if most is None:
        return Domain(f"at least {_plain(least)} {unit}".rstrip(), lambda value: value >= least, {"minimum": least})
    says = f"{_plain(least)} to {_plain(most)} {unit}".rstrip()
    return Domain(says, lambda value: least <= value <= most, {"minimum": least, "maximum": most})


def _plain(number: float) -> str:
    return f"{number:,.0f}" if number >= 1_000_000 else f"{number:g}"


def form(pattern: str, says: str, most: int = 253) -> Domain:
    """Return the domain of texts that match a pattern as a whole and have at most `most` characters."""
    # JavaScript writes the name of a group in another way than Python
    unnamed = re.sub(r"\(\?P<\w+>", "(", pattern)
    schema = {"pattern": f"^(?:{unnamed})$", "maxLength": most}
    return Domain(says, lambda value: len(value) <= most and re.fullmatch(pattern, value) is not None, schema)


def items(most: int, what: str) -> Domain:
    """Return the domain of maps and lists with at most `most` entries."""
    return Domain(f"at most {most} {what}", lambda value: len(value) <= most)


def _is_range(value: str) -> bool:
    try:
        ipaddress.IPv4Network(value)
    except ValueError:
        return False
    # Python also takes a mask after the slash, and Google does not
    return value.partition("/")[2].isdigit()


_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
LABEL = r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
DNS_LABEL_SAYS = "lower-case letters, digits and dashes, first a letter, last a letter or digit, at most 63 characters"

Cidr = Annotated[
    str,
    Domain(
        "an address range such as 10.0.0.0/18, beginning with its first address",
        _is_range,
        {"pattern": rf"^{_BYTE}(\.{_BYTE}){{3}}/(3[0-2]|[12]?[0-9])$"},
    ),
]
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
class Secret:
    """Mark of a field that only a program sets, with a Pulumi secret. No stack file has it."""
