"""Read a map of arguments into its frozen class. Each mistake is a Problem: path, value and what would be right."""

import json
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, ValidationError

from rayline.facts.accelerators import other_accelerator
from rayline.facts.choices import Accelerator
from rayline.schema.base import Arguments, Secret
from rayline.schema.check import IN_CLEAR_TEXT, Problem, secret_kind
from rayline.schema.secret_values import may_show, secret_key
from rayline.schema.spelling import hint, meant

# An example of each map and list, for messages.
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
    "budget": "{usd_per_month: 5000}",
    "existing": "{network: projects/my-project/global/networks/vpc, subnetwork: projects/my-project/regions/us-central1/subnetworks/nodes}",
    "selector": "{nvidia.com/gpu.product: NVIDIA-L4}",
    "tolerations": "[{key: dedicated, value: gpu, effect: NoSchedule}]",
    "annotations": '{sidecar.istio.io/inject: "false"}',
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
"""Key of a stack file for the token, a Pulumi secret next to the arguments."""
# Keys that a stack file writes with their provider's prefix.
PROVIDER_KEYS: dict[str, str] = {"project": "gcp:project", "region": "gcp:region"}
# Keys of a service from before the groups that no key of a group resembles, with their place now.
FORMER_KEYS = {
    "api_key": "api.key",
    "api_key_generation": "api.key_generation",
    "cpus_per_worker": "workers.cpus",
    "engine_kwargs": "engine.kwargs",
    "gpus_per_worker": "workers.gpus",
    "incremental_upgrade": "rollout",
    "memory_gib_per_worker": "workers.memory_gib",
    "model_source": "weights.location",
    "upgrade": "rollout.strategy",
}


def read(arguments: type[Arguments], data: Mapping[str, Any]) -> tuple[Any, list[Problem]]:
    """Return the arguments in `data`, and its mistakes.

    With mistakes, the arguments are those of `data` without the mistakes, so that the plan can check the rest at the same time. They
    are None where a required key is wrong everywhere.
    """
    problems: list[Problem] = []
    left = _copy(data)
    # Without a mistake the map around it may lack a required key, so it goes as well. No map is deeper than this.
    for _ in range(8):
        try:
            return arguments.model_validate(left), problems
        except ValidationError as error:
            problems = problems or [_explain(arguments, mistake) for mistake in error.errors()]
            for mistake in error.errors():
                if not _remove(left, mistake["loc"][:-1] if mistake["type"] == "missing" else mistake["loc"]):
                    return None, problems
    return None, problems


def _remove(data: Any, place: tuple[Any, ...]) -> bool:
    """Remove the entry of a map in which a place lies; a list goes as a whole. Return whether anything is left around it."""
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


# A larger number counts nothing, and its digits would fill a message.
_LARGEST_WHOLE = 1e21


def _copy(value: Any) -> Any:
    """Return new maps and lists, with 4 for 4.0 because Pulumi's engine has floats alone. Other values stay, also Pulumi's secrets."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_WHOLE:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _copy(below) for key, below in value.items()}
    return [_copy(below) for below in value] if isinstance(value, list) else value


def _path(place: list[Any]) -> str:
    """Return a place as messages name it: services.qwen.nodes.zones[0]."""
    # A secret instead of a key is not repeated.
    named = ["…" if secret_key(str(part)) else part for part in place]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).removeprefix(".")
    return PROVIDER_KEYS.get(path, path)


# What a value has to be, by pydantic's name of the mistake.
_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "bool_type": "true or false",
}


def _explain(arguments: type[Arguments], mistake: Any) -> Problem:
    """Return the Problem for a mistake that pydantic reports."""
    place = [part for part in mistake["loc"] if part != "[key]"]
    key = next(str(part) for part in reversed(place) if not isinstance(part, int))
    value, kind = mistake.get("input"), mistake["type"]
    hidden = kind == "missing" or isinstance(value, dict | list) or not may_show(key, value)
    if type(value).__module__ == "pulumi.output":
        return Problem(_path(place), None, "a plain value, not an Output: the plan needs it before anything is created")
    if kind == "extra_forbidden":
        # hugging_face_tokn: the value may be one of the key that was meant
        hidden = hidden or not may_show(meant(key, keys_at(arguments, place[:-1])) or "", value)
    return Problem(_path(place), None if hidden else _short(value), _message(arguments, mistake, place, key))


def _message(arguments: type[Arguments], mistake: Any, place: list[Any], key: str) -> str:
    value, kind = mistake.get("input"), mistake["type"]
    example = "{source: gcs-fuse}" if key == "weights" and len(place) > 1 else EXAMPLES.get(key)
    at = kind_at(arguments, place)
    choices = f"one of {', '.join(choice.value for choice in at)}" if isinstance(at, type) and issubclass(at, Enum) else ""
    if kind == "missing":
        return f"required: {choices}" if choices else f"required, for example {example}" if example else "required"
    if kind == "enum":
        return (other_accelerator(str(value)) if at is Accelerator else None) or choices
    if kind == "extra_forbidden":
        return f"no such key; {_advice(arguments, place[:-1], key)}"
    if kind == "domain":
        secret = secret_kind(key, "", value) if isinstance(value, str) else None
        return f"{secret}, {IN_CLEAR_TEXT}" if secret else mistake["ctx"]["says"]
    if kind in _TYPES:
        made = "; the key itself is made for you" if kind == "bool_type" and place[-2:] == ["api", "key"] else ""
        return f"{_TYPES[kind]}{_unquoted(value)}{made}"
    if kind == "string_type":
        return "text" if value is None or isinstance(value, dict | list) else "text; put it in quotes"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        service = "{model: Qwen/Qwen3.5-4B, accelerator: l4}" if len(place) == 2 and place[0] == "services" else None
        return f"a map, such as {service or example or '{key: value}'}"
    return f"a list, such as {example or '[one, two]'}" if kind == "list_type" else mistake["msg"]


def _short(value: Any) -> Any:
    return "" if value is None else value[:100] + "…" if isinstance(value, str) and len(value) > 100 else value


def _advice(arguments: type[Arguments], place: list[Any], key: str) -> str:
    """Return what an unknown key may have meant: one beside it, one of a map beside it, else all keys."""
    known = keys_at(arguments, place)
    if place[:1] == ["services"] and len(place) == 2 and key in FORMER_KEYS:
        return f"it is {FORMER_KEYS[key]} now"
    if key not in known and not meant(key, known):
        for group in known:
            below = keys_at(arguments, (*place, group))
            nearest = key if key in below else meant(key, below)
            if nearest:
                return f"did you mean {group}.{nearest}?"
    return hint(key, known, f"known: {', '.join(known)}")


def _unquoted(value: Any) -> str:
    """Return why a number or a switch is a text: quotes, or a word that Pulumi reads as a text."""
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
    """Return the keys of a place in the arguments, as a stack file writes them; none where a map has keys of its own."""
    kind = kind_at(arguments, place)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    fields = kind.model_fields.items()
    keys = [name for name, field in fields if not any(isinstance(mark, Secret) for mark in field.metadata)]
    return [PROVIDER_KEYS.get(key, key) for key in keys] + [TOKEN_KEY] if kind is arguments else keys


def inner(kind: Any) -> Any:
    """Return a type without Annotated and without None."""
    if typing.get_origin(kind) is typing.Annotated:
        return inner(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return inner(next(part for part in typing.get_args(kind) if part is not type(None)))
    return kind
