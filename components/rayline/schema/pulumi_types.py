"""The arguments as Pulumi's schema reader knows types: TypedDicts, derived from the models.

The reader takes no Annotated, no defaults and no unions beside None; it finds the text of a field in the source of a class by its
name, so each derived class bears the name and module of its model.
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
        secret = any(isinstance(one, Secret) for one in field.metadata)
        kind = pulumi.Input[str] if secret else _plain(field.annotation)
        fields[name] = kind if field.is_required() else NotRequired[kind]
    made = TypedDict(arguments.__name__, fields)  # type: ignore[misc]  # the names are known when it runs
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
    """Return what other languages give for a type, with max_model_len for maxModelLen. Unknown keys and wrong types stay."""
    kind = inner(kind)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is list and isinstance(value, list):
        return [in_python_names(parts[0], one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if origin is dict:
        return {key: in_python_names(parts[1], one) for key, one in value.items()}
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return value
    renamed = {re.sub("(?<=.)([A-Z])", r"_\1", key).lower(): one for key, one in value.items()}
    fields = kind.model_fields
    return {name: in_python_names(fields[name].annotation, one) if name in fields else one for name, one in renamed.items()}
