"""The arguments as Pulumi's schema reader knows types: TypedDicts, derived from the models.

The reader takes no Annotated, no defaults and no unions beside None; it finds the text of a field in the source of a class by its
name, so each derived class bears the name and module of its model.
"""

import types
import typing
from functools import cache
from typing import Any, NotRequired, TypedDict

import pulumi
from pydantic import BaseModel

from rayline.schema.base import Secret


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
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _plain(inner[0])
    if origin in (typing.Union, types.UnionType):
        return _plain(next(one for one in inner if one is not type(None)))
    if origin is list:
        return list[_plain(inner[0])]
    if origin is dict:
        return dict[str, _plain(inner[1])]
    return typed_dict(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else kind
