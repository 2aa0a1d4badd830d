"""Read a map of arguments into its frozen class, with every mistake in this project's words: path, value, what would be right."""

import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from rayline.schema.base import Arguments
from rayline.schema.check import Problem
from rayline.schema.secret_values import may_show
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
    "volumes": "[{name: cache, mount_path: /cache, claim: weights}]",
    "model": "Qwen/Qwen3.5-4B",
    "mode": "create, existing or local",
    "accelerator": "l4, b200 or cpu",
    "name": "cache",
    "bucket": "my-models",
    "mount_path": "/cache",
    "max_replicas": "4",
}
# In two places, with two meanings.
_WEIGHTS = {1: "{bucket: my-models}", 3: "{source: gcs-fuse}"}
# Keys that a stack file writes with their provider's prefix.
PROVIDER_KEYS: dict[str, str] = {"project": "gcp:project", "region": "gcp:region"}


def read(arguments: type[Arguments], data: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    """Return the arguments that `data` says, and its mistakes.

    With mistakes, what comes back is the part without them, so that the plan can judge it at the same time; None where that part
    says too little.
    """
    try:
        return arguments.model_validate(data), []
    except ValidationError as error:
        problems = [_explain(arguments, one) for one in error.errors()]
        rest = _without(data, error)
    try:
        return rest and arguments.model_validate(rest), problems
    except ValidationError:
        return None, problems


def _without(data: Mapping[str, Any], error: ValidationError) -> dict[str, Any] | None:
    """Return what has no mistake. A service with one is left out whole: half of it would mislead."""
    left = _copy(data)
    for one in error.errors():
        first, *more = one["loc"]
        if first == "cluster" and more and more[0] != "mode":
            left["cluster"].pop(more[0], None)
        elif first == "services" and more:
            left["services"].pop(more[0], None)
        elif first in ("cluster", "services"):
            return None
        else:
            left.pop(str(first), None)
            if first == "endpoint":
                # names below an endpoint that is left out would be a second complaint about the same mistake
                for service in left["services"].values():
                    if isinstance(service, dict) and isinstance(service.get("api"), dict):
                        service["api"].pop("hostname", None)
    return left if left.get("services") else None


def _copy(value: Any) -> Any:
    """Return maps and lists anew; what is in them stays, a secret of Pulumi too."""
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def path_of(parts: typing.Iterable[Any]) -> str:
    """Return a place as messages name it: services.qwen.nodes.zones[0]."""
    named = [part for part in parts if part != "[key]"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")
    return PROVIDER_KEYS.get(path, path)


def _explain(arguments: type[Arguments], error: Any) -> Problem:
    """Return one of pydantic's errors in this project's words."""
    place = error["loc"]
    value, kind, context = error.get("input"), error["type"], error.get("ctx") or {}
    parts = [part for part in place if part != "[key]"]
    last = next(str(part) for part in reversed(parts) if not isinstance(part, int))
    example = _WEIGHTS.get(len(parts), "") if last == "weights" else EXAMPLES.get(last)

    def problem(says: str, *, hidden: bool = False) -> Problem:
        return Problem(path_of(place), None if hidden or not _may_show(last, value) else _short(value), says)

    if kind == "missing":
        return Problem(path_of(place), None, f"required, for example {example}" if example else "required")
    if kind == "extra_forbidden":
        known = keys_at(arguments, place[:-1])
        # hugging_face_tokn: the value is one of the key that was meant
        hidden = value is None or not may_show(meant(last, known) or "", value)
        advice = hint(last, known, f"known: {', '.join(known)}")
        return problem(f"no such key; {advice}", hidden=hidden)
    if kind == "domain":
        return problem(context["says"])
    if kind == "enum":
        return problem(f"one of {context.get('expected', '').replace(chr(39), '').replace(' or ', ', ')}")
    if kind in ("int_type", "int_from_float", "int_parsing"):
        return problem(f"a whole number{_unquoted(value)}")
    if kind in ("float_type", "finite_number"):
        return problem(f"a number{_unquoted(value)}")
    if kind == "bool_type":
        return problem(f"true or false{_unquoted(value)}")
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
    return value is not None and not isinstance(value, dict | list) and may_show(key, value)


def _short(value: Any) -> Any:
    return value[:100] + "…" if isinstance(value, str) and len(value) > 100 else value


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


def keys_at(arguments: type[Arguments], place: typing.Iterable[Any]) -> list[str]:
    """Return the keys that a place in the arguments takes; empty where a map has keys of its own."""
    kind: Any = arguments
    for part in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(part)
            kind = field.annotation if field else None
        else:
            kind = typing.get_args(kind)[-1] if typing.get_args(kind) else None
        kind = inner(kind)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def inner(kind: Any) -> Any:
    """Return a type without Annotated and without None."""
    if typing.get_origin(kind) is typing.Annotated:
        return inner(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return inner(next(one for one in typing.get_args(kind) if one is not type(None)))
    return kind
