"""Read a map of arguments into its frozen class, with every mistake in this project's words: path, value, what would be right."""

import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, ValidationError

from rayline.schema.base import Arguments, Secret
from rayline.schema.check import IN_CLEAR_TEXT, Problem, secret_kind
from rayline.schema.secret_values import may_show, secret_key
from rayline.schema.spelling import hint, meant

# What a map or a list looks like, for messages.
EXAMPLES = {
    "cluster": "{mode: create}",
    "services": "{qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}}",
    "kuberay": "{source: helm}",
    "hugging_face": "{source: existing-secret}",
    "endpoint": "{exposure: internal, domain: llm.example.com}",
    "switches": "{direct_streaming: false}",
    "autoscaling": "{min_replicas: 1, max_replicas: 4}",
    "engine": "{max_model_len: 8192}",
    "nodes": "{capacity: spot}",
    "workers": "{gpus: 1}",
    "pods": '{env: {HTTPS_PROXY: "http://proxy.example.com:3128"}}',
    "rollout": "{longest_stream_seconds: 600}",
    "api": "{served_model_name: qwen}",
    "env": '{RAY_SERVE_HAPROXY_NBTHREAD: "8"}',
    "kwargs": "{enforce_eager: true}",
    "system_pool": "{max_nodes: 1}",
    "network": "{nodes_cidr: 10.0.0.0/18}",
    "maintenance": '{recurrence: "FREQ=DAILY"}',
    "monitoring": "{workload_logs: false}",
    "labels": "{team: search}",
    "head": "{store: memorystore}",
    "isolation": "{allow_from_namespaces: [chat]}",
    "zones": "[us-central1-a, us-central1-b]",
    "iap_members": "[group:ml@example.com]",
    "authorized_networks": "[{cidr: 203.0.113.0/24}]",
    "exclusions": '[{name: freeze, start: "2026-11-20T00:00:00Z", end: "2026-12-01T00:00:00Z", scope: no-upgrades}]',
    "allow_from_namespaces": "[chat]",
    "allow_metrics_from_namespaces": "[monitoring]",
    "weights": "{bucket: my-models}",
    "volumes": "[{name: cache, mount_path: /cache, claim: weights}]",
    "model": "Qwen/Qwen3.5-4B",
    "name": "cache",
    "bucket": "my-models",
    "mount_path": "/cache",
    "max_replicas": "4",
}
TOKEN_KEY = "hugging_face_token"
"""Of a stack file: the token, which is a secret of Pulumi, beside the arguments."""
# Keys that a stack file writes with their provider's prefix.
PROVIDER_KEYS: dict[str, str] = {"project": "gcp:project", "region": "gcp:region"}


def read(arguments: type[Arguments], data: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    """Return the arguments that `data` says, and its mistakes.

    With mistakes, what comes back is `data` without them, so that the plan can judge the rest at the same time; None where the
    rest says too little.
    """
    problems: list[Problem] = []
    left = _copy(data)
    # what is left may lack a required key, so the map around it goes as well; no map is deeper than this
    for _ in range(8):
        try:
            return arguments.model_validate(left), problems
        except ValidationError as error:
            problems = problems or [_explain(arguments, one) for one in error.errors()]
            for one in error.errors():
                if not _remove(left, one["loc"][:-1] if one["type"] == "missing" else one["loc"]):
                    return None, problems
    return None, problems


def _remove(data: Any, place: tuple[Any, ...]) -> bool:
    """Take the map's entry out that a place lies in; of a list the whole. Return whether anything is left around it."""
    parts = [part for part in place if part != "[key]"]
    ends = next((index for index, part in enumerate(parts) if isinstance(part, int)), len(parts))
    *above, last = parts[:ends] or [None]
    for part in above:
        data = data.get(part) if isinstance(data, dict) else None
    if last is None:
        return False
    if isinstance(data, dict):
        data.pop(last, None)
    return True


# A larger one counts nothing, and would fill a message with its digits.
LARGEST_WHOLE = 1e21


def _copy(value: Any) -> Any:
    """Return maps and lists anew, with 4 for 4.0: Pulumi's engine knows floats alone. All else stays, a secret of Pulumi too."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_WHOLE:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def path_of(parts: typing.Iterable[Any]) -> str:
    """Return a place as messages name it: services.qwen.nodes.zones[0]."""
    # a secret that stands in the place of a key is not repeated
    named = ["…" if secret_key(str(part)) else part for part in parts if part != "[key]"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")
    return PROVIDER_KEYS.get(path, path)


def _explain(arguments: type[Arguments], error: Any) -> Problem:
    """Return one of pydantic's errors in this project's words."""
    place = error["loc"]
    value, kind, context = error.get("input"), error["type"], error.get("ctx") or {}
    parts = [part for part in place if part != "[key]"]
    last = next(str(part) for part in reversed(parts) if not isinstance(part, int))
    example = "{source: gcs-fuse}" if last == "weights" and len(parts) > 1 else EXAMPLES.get(last)

    def problem(says: str, *, hidden: bool = False) -> Problem:
        return Problem(path_of(place), None if hidden or not _may_show(last, value) else _short(value), says)

    if type(value).__module__ == "pulumi.output":
        return problem("a plain value, not an Output: the plan needs it before anything is created", hidden=True)
    if kind == "missing":
        choices = _choices(arguments, place)
        says = f": one of {', '.join(choices)}" if choices else f", for example {example}" if example else ""
        return Problem(path_of(place), None, f"required{says}")
    if kind == "extra_forbidden":
        known = keys_at(arguments, place[:-1])
        # hugging_face_tokn: the value is one of the key that was meant
        hidden = not may_show(meant(last, known) or "", value)
        return problem(f"no such key; {_advice(arguments, place[:-1], last, known)}", hidden=hidden)
    if kind == "domain":
        secret = secret_kind(last, "", value) if isinstance(value, str) else None
        return problem(f"{secret}, {IN_CLEAR_TEXT}" if secret else context["says"])
    if kind == "enum":
        return problem(f"one of {context.get('expected', '').replace(chr(39), '').replace(' or ', ', ')}")
    if kind in ("int_type", "int_from_float", "int_parsing"):
        return problem(f"a whole number{_unquoted(value)}")
    if kind in ("float_type", "finite_number"):
        return problem(f"a number{_unquoted(value)}")
    if kind == "bool_type":
        own = "; the key itself is made for you" if parts[-2:] == ["api", "key"] else ""
        return problem(f"true or false{_unquoted(value)}{own}")
    if kind == "string_type":
        return problem("text" if value is None or isinstance(value, dict | list) else "text; put it in quotes")
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        service = len(parts) == 2 and parts[0] == "services"
        return problem(
            f"a map, such as {'{model: Qwen/Qwen3.5-4B, accelerator: l4}' if service else example or '{key: value}'}"
        )
    if kind == "list_type":
        return problem(f"a list, such as {example or '[one, two]'}")
    return problem(error["msg"])


def _may_show(key: str, value: Any) -> bool:
    return not isinstance(value, dict | list) and may_show(key, value)


def _short(value: Any) -> Any:
    return "" if value is None else value[:100] + "…" if isinstance(value, str) and len(value) > 100 else value


def _choices(arguments: type[Arguments], place: tuple[Any, ...]) -> list[str]:
    """Return the values of a key that takes one of a few; else none."""
    kind = kind_at(arguments, place)
    return [choice.value for choice in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _advice(arguments: type[Arguments], place: tuple[Any, ...], key: str, known: list[str]) -> str:
    """Return what an unknown key may have meant: one beside it, one of a map beside it, else all that are known."""
    if key not in known and not meant(key, known):
        for group in known:
            inside = keys_at(arguments, (*place, group))
            nearest = key if key in inside else meant(key, inside)
            if nearest:
                return f"did you mean {group}.{nearest}?"
    return hint(key, known, f"known: {', '.join(known)}")


def _unquoted(value: Any) -> str:
    """Return what made a text of what is to be a number or a switch: quotes, or a word that Pulumi reads as a text."""
    if not isinstance(value, str) or not value:
        return ""
    if value.lower() in ("yes", "no", "on", "off", "y", "n"):
        return f"; Pulumi reads {value} as a text"
    try:
        json.loads(value.lower())
    except (ValueError, RecursionError):
        return ""
    return ", without quotes"


def kind_at(arguments: type[Arguments], place: typing.Iterable[Any]) -> Any:
    """Return the type of a place in the arguments, without Annotated and None; None where there is no such place."""
    kind: Any = arguments
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(part)
            kind = field.annotation if field else None
        else:
            kind = typing.get_args(kind)[-1] if typing.get_args(kind) else None
        kind = inner(kind)
    return kind


def keys_at(arguments: type[Arguments], place: typing.Iterable[Any]) -> list[str]:
    """Return the keys that a place in the arguments takes, as a stack file writes them; none where a map has keys of its own."""
    kind = kind_at(arguments, place)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    secret = {name for name, field in kind.model_fields.items() if any(isinstance(one, Secret) for one in field.metadata)}
    keys = [name for name in kind.model_fields if name not in secret]
    if kind is arguments:
        keys = [PROVIDER_KEYS.get(key, key) for key in keys] + [TOKEN_KEY]
    return keys


def inner(kind: Any) -> Any:
    """Return a type without Annotated and without None."""
    if typing.get_origin(kind) is typing.Annotated:
        return inner(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return inner(next(one for one in typing.get_args(kind) if one is not type(None)))
    return kind
