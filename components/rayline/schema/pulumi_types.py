"""Derive from the models the TypedDicts that Pulumi's schema reader takes.

The reader takes no Annotated, no defaults and no unions beside None. It reads the text of a field from the source of the class, so
each TypedDict has the name and module of its model.
"""

import re
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, NotRequired, TypedDict

import pulumi
from pydantic import BaseModel

from rayline.schema.base import Secret
from rayline.schema.read import inner


@cache
def typed_dict(arguments: type[BaseModel]) -> Any:
    """Return the TypedDict of a class of arguments."""
    fields = {}
    for name, field in arguments.model_fields.items():
        secret = any(isinstance(mark, Secret) for mark in field.metadata)
        kind = pulumi.Input[str] if secret else _plain(field.annotation)
        fields[name] = kind if field.is_required() else NotRequired[kind]
    made = TypedDict(arguments.__name__, fields)  # type: ignore[misc]  # the names come from the model
    made.__doc__, made.__module__, made.__qualname__ = arguments.__doc__, arguments.__module__, arguments.__qualname__
    return made


def _plain(kind: Any) -> Any:
    kind = inner(kind)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return list[_plain(parts[0])]
    if origin is dict:
        return dict[str, _plain(parts[1])]
    return typed_dict(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else kind


def in_python_names(kind: Any, value: Any) -> Any:
    """Return a value of another language with Python's names: max_model_len for maxModelLen. Unknown keys and wrong types stay."""
    kind = inner(kind)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is list and isinstance(value, list):
        return [in_python_names(parts[0], below) for below in value]
    if not isinstance(value, Mapping):
        return value
    if origin is dict:
        return {key: in_python_names(parts[1], below) for key, below in value.items()}
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return value
    renamed = {re.sub("(?<=.)([A-Z])", r"_\1", key).lower(): below for key, below in value.items()}
    fields = kind.model_fields
    return {
        name: in_python_names(fields[name].annotation, below) if name in fields else below for name, below in renamed.items()
    }
