"""Read the configuration of a running Pulumi program as the arguments of InferencePlatform.

The component package has the keys and their types. This module has the forms in which Pulumi hands them over.
"""

import json
import math
from collections.abc import Iterable
from typing import Any

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, is_config_secret
from pydantic import BaseModel

from rayline.platform.arguments import InferencePlatformArgs
from rayline.schema.check import PlanError, Problem
from rayline.schema.read import EXAMPLES, PROVIDER_KEYS, TOKEN_KEY, inner
from rayline.schema.secret_values import may_show

IN_CLEAR_TEXT = (
    "it stands in the stack file in clear text. Fix: delete it, revoke it at Hugging Face, and store a new one with "
    "`pulumi config set --secret hugging_face_token`"
)
ENCRYPTED = (
    f"encrypted (`secure:`), itself or below, and only {TOKEN_KEY} may be: manifests and state would show it in clear text. "
    "Fix: write a plain value without `secure:`; delete a secret from the stack file"
)
# Prefixes of the providers that the program uses. `kubernetes:namespace` is the provider's, not this program's.
_PROVIDERS = ("gcp", "kubernetes", "pulumi", "random")


def program_arguments() -> tuple[dict[str, Any], list[Problem]]:
    """Return the arguments in the running program's stack file, and what is wrong with the form of the file.

    Raises PlanError where a value other than the token is encrypted.
    """
    # pulumi.Config reads one key at a time and so cannot see the unknown ones
    everything = get_config_env() | CONFIG.get()
    keys, problems = _own_keys(everything, pulumi.get_project())
    encrypted = {key: full for key, full in (keys | PROVIDER_KEYS).items() if key != TOKEN_KEY and is_config_secret(full)}
    if encrypted:
        # a message about what else is wrong could show one of them
        raise PlanError(problems + [Problem(PROVIDER_KEYS.get(key, key), None, ENCRYPTED) for key in encrypted])
    arguments: dict[str, Any] = {
        key: everything[full] for key, full in PROVIDER_KEYS.items() if everything.get(full) is not None
    }
    for key, full in keys.items():
        if key == TOKEN_KEY:
            continue
        if key in PROVIDER_KEYS:
            problems.append(Problem(key, everything[full], f"no such key; did you mean {PROVIDER_KEYS[key]}?"))
        else:
            _take(arguments, problems, key, everything[full])
    part = arguments.get("hugging_face")
    if isinstance(part, dict) and part.pop("token", None) is not None:
        problems.append(Problem("hugging_face.token", None, f"no such key; did you mean {TOKEN_KEY}? Here {IN_CLEAR_TEXT}"))
    if TOKEN_KEY in keys:
        if not is_config_secret(keys[TOKEN_KEY]):
            problems.append(Problem(TOKEN_KEY, None, IN_CLEAR_TEXT))
        if isinstance(part, dict) and part.get("source") == "pulumi-secret":
            part["token"] = pulumi.Config().get_secret(TOKEN_KEY)
    return arguments, problems


def _take(arguments: dict[str, Any], problems: list[Problem], key: str, value: Any) -> None:
    """Put a value under its key: a map arrives as JSON, everything else as text; a switch is read again."""
    field = InferencePlatformArgs.model_fields.get(key)
    if field and field.annotation is bool and value in ("true", "false"):
        value = value == "true"
    if isinstance(value, str) and _is_map(key):
        try:
            value = _from_json(value)
        except (ValueError, RecursionError):
            # half a map can hold a secret
            shown = None if value.startswith(("{", "[")) or not may_show(key, value) else value
            problems.append(Problem(key, shown, f"a map, such as {EXAMPLES[key]}"))
            return
    arguments[key] = value


def _is_map(key: str) -> bool:
    field = InferencePlatformArgs.model_fields.get(key)
    kind = inner(field.annotation) if field else None
    return kind is not None and (not isinstance(kind, type) or issubclass(kind, BaseModel))


def _from_json(text: str) -> Any:
    """Read JSON, which has no NaN and no infinity. Raises ValueError or RecursionError."""

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is not finite")
        return value

    return json.loads(text, parse_float=number, parse_constant=number)


def _own_keys(keys: Iterable[str], project: str) -> tuple[dict[str, str], list[Problem]]:
    """Return this program's keys as name -> full key; and what is wrong with their prefixes.

    Keys that the project had under a former name count, so that they are not called missing as well.
    """
    known = (*InferencePlatformArgs.model_fields, TOKEN_KEY)
    by_prefix: dict[str, list[str]] = {}
    for key in keys:
        prefix, _, name = key.partition(":")
        by_prefix.setdefault(prefix, []).append(name)
    problems = []
    own: dict[str, str] = {}
    for prefix, names in by_prefix.items():
        if prefix == project or prefix in _PROVIDERS or any(name not in known for name in names):
            continue
        own |= {name: f"{prefix}:{name}" for name in names}
        wrong = f"the project's name in Pulumi.yaml is {project}, not {prefix}"
        fix = f"write {project}: in place of {prefix}:, or no prefix"
        problems.append(Problem(", ".join(f"{prefix}:{name}" for name in names), None, f"{wrong}. Fix: {fix}"))
    return own | {name: f"{project}:{name}" for name in by_prefix.get(project, [])}, problems
