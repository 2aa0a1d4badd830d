"""What an SDK says about a resource's inputs: names, nesting, scalar types, required fields.

The SDKs are generated from the providers' schemas, so their types are the schema as far as a wheel carries it. What it does
not carry: which values a field allows, which fields exclude each other, and which change replaces (see replacing.py).
"""

import collections.abc
import enum
import functools
import importlib
import inspect
import typing
from typing import Any

import pulumi
from pulumi import _types
from pulumi.runtime import rpc

# What stands for a value that a preview does not know (pulumi/runtime/rpc.py).
UNKNOWN = rpc.UNKNOWN


@functools.cache
def resource_class(token: str) -> type | None:
    """The SDK's class for a type token such as gcp:container/nodePool:NodePool; None for one that the SDK does not have."""
    package, module, _ = token.split(":")
    importlib.import_module(f"pulumi_{package}")
    for known in rpc._RESOURCE_MODULES.get(f"{package}:{module}", []):
        record = known.mod_info  # type: ignore[attr-defined]  # each SDK's own class, all of this shape
        if token in record["classes"]:
            return getattr(importlib.import_module(record["fqn"]), record["classes"][token])
    return None


@functools.cache
def input_class(resource: type) -> type:
    """The input type of a resource: XArgs, or XInitArgs where XArgs is the type of a nested object."""
    module = importlib.import_module(resource.__module__)
    return getattr(module, f"{resource.__name__}InitArgs", None) or getattr(module, f"{resource.__name__}Args")


@functools.cache
def fields(arguments: type) -> dict[str, Any]:
    """Type of each input by its name on the wire."""
    return _types.input_type_types(arguments)


@functools.cache
def required(arguments: type) -> set[str]:
    """The inputs, by their names on the wire, that have no default."""
    names = _types.input_type_py_to_pulumi_names(arguments)
    parameters = inspect.signature(arguments.__init__).parameters
    return {wire for python, wire in names.items() if parameters[python].default is inspect.Parameter.empty}


def mistakes(arguments: type, values: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    """What is wrong with a resource's inputs, as (path, reason) on the wire's names."""
    known = fields(arguments)
    found = []
    for name, value in values.items():
        where = f"{path}{name}"
        if name == "__defaults" or value is None:
            continue
        if name not in known:
            found.append((where, f"{arguments.__name__} has no such property"))
        else:
            found += _mistakes(value, known[name], where)
    missing = sorted(name for name in required(arguments) if values.get(name) is None)
    return found + [(f"{path}{name}", f"missing: {arguments.__name__} requires it") for name in missing]


def _mistakes(value: Any, wanted: Any, where: str) -> list[tuple[str, str]]:
    choices = _alternatives(wanted)
    if value is None or value == UNKNOWN or Any in choices:
        return []
    results = [_against(value, choice, where) for choice in choices]
    if not results or [] in results:
        return []
    # the deepest complaint is the one about the alternative that was meant
    return max(results, key=lambda result: max(len(path) for path, _ in result))


def _against(value: Any, wanted: Any, where: str) -> list[tuple[str, str]]:
    origin, parameters = typing.get_origin(wanted), typing.get_args(wanted)
    if inspect.isclass(wanted) and _types.is_input_type(wanted):
        if isinstance(value, dict):
            return mistakes(wanted, value, f"{where}.")
        return [(where, f"wants the object {wanted.__name__}, got {_shown(value)}")]
    if origin is typing.Literal:
        return [] if value in parameters else [(where, f"wants {' or '.join(map(repr, parameters))}, got {value!r}")]
    if origin is collections.abc.Sequence:
        if not isinstance(value, list):
            return [(where, f"wants a list, got {_shown(value)}")]
        return [fault for i, item in enumerate(value) for fault in _mistakes(item, parameters[0], f"{where}[{i}]")]
    if origin is collections.abc.Mapping or wanted is dict:
        if not isinstance(value, dict):
            return [(where, f"wants a map, got {_shown(value)}")]
        return [
            fault
            for key, item in value.items()
            for fault in _mistakes(item, parameters[1] if parameters else Any, f"{where}.{key}")
        ]
    if inspect.isclass(wanted) and issubclass(wanted, enum.Enum):
        return [] if value in [one.value for one in wanted] else [(where, f"{value!r} is none of {wanted.__name__}")]
    if wanted in (pulumi.Asset, pulumi.Archive):
        return [] if isinstance(value, dict) else [(where, f"wants an asset, got {_shown(value)}")]
    fits = {
        str: isinstance(value, str),
        bool: isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        float: isinstance(value, (int, float)) and not isinstance(value, bool),
    }
    if wanted not in fits:
        raise TypeError(f"{where}: no check for the type {wanted}")
    return [] if fits[wanted] else [(where, f"wants {wanted.__name__}, got {_shown(value)}")]


def _alternatives(wanted: Any) -> list[Any]:
    """A type without the wrapping that says it may also be an Output; a union of types as its members."""
    if typing.get_origin(wanted) is typing.Union:
        found: list[Any] = []
        for one in typing.get_args(wanted):
            wrapped = typing.get_origin(one) in (collections.abc.Awaitable, pulumi.Output) or one is type(None)
            # the dict spelling of an input type says the same as the type
            if not wrapped and not typing.is_typeddict(one):
                found += [choice for choice in _alternatives(one) if choice not in found]
        return found
    return [wanted]


def _shown(value: Any) -> str:
    """A value as a message may show it: its type alone, as it may be a secret."""
    names = {dict: "a map", list: "a list", str: "a text", bool: "a truth value", int: "a whole number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def computed(resource: type) -> dict[str, Any]:
    """Type of each output by its name on the wire."""
    return _types.resource_types(resource)
