"""Write the tables of every key of a stack file, from the classes that declare them."""

import types
import typing
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rayline.platform.arguments import InferencePlatformArgs
from rayline.schema.base import Arguments, Domain, Secret
from rayline.schema.read import PROVIDER_KEYS, inner
from rayline.schema.texts import field_texts
from rayline_bench.tables import code, table
from rayline_cli.settings import TOKEN_KEY


def places(arguments: type[Arguments] = InferencePlatformArgs, path: str = "") -> Iterator[tuple[str, type[Arguments]]]:
    """Yield (path, class) of every map of a stack file, each before those in it."""
    yield path, arguments
    for name, field in arguments.model_fields.items():
        kind, here = inner(field.annotation), f"{path}.{name}".removeprefix(".")
        if typing.get_origin(kind) is dict:
            kind, here = inner(typing.get_args(kind)[1]), f"{here}.<name>"
        elif typing.get_origin(kind) is list:
            kind, here = inner(typing.get_args(kind)[0]), f"{here}[]"
        if isinstance(kind, type) and issubclass(kind, Arguments):
            yield from places(kind, here)


def keys_part() -> str:
    """Return the tables in Markdown, one for each map."""
    parts, first = [], dict[type[Arguments], str]()
    for path, arguments in places():
        if first.setdefault(arguments, path) != path:
            parts.append(f"### {code(path)}\n\nThe same keys as in {code(first[arguments])}.")
            continue
        rows: list[Sequence[object]] = []
        for name, field in arguments.model_fields.items():
            if any(isinstance(mark, Secret) for mark in field.metadata):
                continue
            key = name if path else PROVIDER_KEYS.get(name, name)
            rows.append((code(key), _kind(field), _default(field), field_texts(arguments)[name]))
        if not path:
            text = (
                "The Hugging Face token, with `hugging_face.source: pulumi-secret`. "
                f"Never write it by hand: `pulumi config set --secret {TOKEN_KEY}`."
            )
            rows.append((code(TOKEN_KEY), "text, encrypted", "-", text))
        heading = f"### {code(path)}" if path else "### At the top"
        parts.append(f"{heading}\n\n{arguments.__doc__}\n\n" + table(("Key", "Type", "Default", "Meaning"), rows))
    return "\n\n".join(parts)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "-"
    if isinstance(value, BaseModel):
        return "see below"
    if value in ({}, []):
        return "empty"
    value = value.value if isinstance(value, Enum) else value
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(field: FieldInfo) -> str:
    """Return the type in a reader's words, with its domain."""
    domains = [mark for mark in field.metadata if isinstance(mark, Domain)]
    return _type(field.annotation) + "".join(f", {domain.says}" for domain in domains)


def _type(kind: Any) -> str:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        domain = next((f", {mark.says}" for mark in parts[1:] if isinstance(mark, Domain)), "")
        return _type(parts[0]) + domain
    if origin in (typing.Union, types.UnionType):
        return _type(next(part for part in parts if part is not type(None)))
    if origin is list:
        return f"list of {_type(parts[0])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " · ".join(f"`{choice.value}`" for choice in kind)
    if origin is dict or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return "map"
    return {str: "text", int: "whole number", float: "number", bool: "true · false"}[kind]
