"""Read a stack file as Pulumi's CLI reads it: the same texts for the same file (sdk/go/common/resource/config in pulumi v3).

Imports no Pulumi, so that it is quick. tests/engine/test_stack_files.py compares it with the CLI.
"""

import contextlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from .errors import UsageError
from .pulumi_yaml import YamlNode, YamlProblem, key_text, read_text, shown
from .pulumi_yaml import read_document as read_root
from .stack_names import PROJECT_ROOT, stack_names

# Pulumi hands all of the configuration to the program in one environment variable, PULUMI_CONFIG. Linux allows 128 KiB
# for one, with its name and the zero at its end (MAX_ARG_STRLEN, execve(2)).
MOST_HANDED_OVER = (128 << 10) - len("PULUMI_CONFIG=") - 1

# What the CLI reads at the top of a stack file (ProjectStack in sdk/go/common/workspace/project.go).
TOP_KEYS = ("config", "environment", "secretsprovider", "encryptedkey", "encryptionsalt")
# In place of an encrypted value: the reader has no key.
HELD_ELSEWHERE = "held elsewhere"
_EXAMPLE = "such as `config: {cluster: {mode: create}, services: …}`"

# Full keys with their texts, and the keys that are secret: what the SDK's set_all_config takes.
Configuration = tuple[dict[str, str], list[str]]


class ProgramError(UsageError):
    """A stack's configuration is refused, by this reader or by the program. The message says why."""


class UnknownStack(UsageError):
    """There is no stack file of that name. The message lists those that exist."""


def read_stack(stack: str, root: pathlib.Path = PROJECT_ROOT, file: pathlib.Path | None = None) -> Configuration:
    """Return a stack's configuration as the engine hands it over.

    `file` is the stack's file where it is not in stacks/. Raises UnknownStack or ProgramError.
    """
    names = stack_names(root)
    if file is None and stack not in names:
        raise UnknownStack(f"no stack {stack!r}. Fix: one of {', '.join(names)}")
    return read_stack_file(file or root / "stacks" / f"Pulumi.{stack}.yaml", root)


def read_stack_file(path: pathlib.Path, root: pathlib.Path = PROJECT_ROOT) -> Configuration:
    """Return the configuration in a stack file anywhere, like read_stack. Raises ProgramError."""
    project, defaults = _project(root)
    with _refused(path.name):
        values, secret = _configuration(read_root(read_text(path)), project)
        values = defaults | values
        if (size := len(in_json(values).encode())) > MOST_HANDED_OVER:
            large = f"the configuration has {size >> 10} KiB, and a program on Linux gets at most 128 KiB"
            raise YamlProblem(f": {large}. Fix: shorten it")
    return values, secret


def read_document(path: pathlib.Path) -> dict[str, Any]:
    """Return all of a stack file or Pulumi.yaml as the CLI reads it; encrypted values stay so. Raises ProgramError."""
    with _refused(path.name):
        document = read_root(read_text(path)).value
    return document if isinstance(document, dict) else {}


@contextlib.contextmanager
def _refused(name: str) -> Iterator[None]:
    """Raise ProgramError with the file's name for a YamlProblem inside."""
    try:
        yield
    except YamlProblem as problem:
        raise ProgramError(f"{name}{problem}") from None


def project_name(root: pathlib.Path = PROJECT_ROOT) -> str:
    """Return the project's name, the prefix of its keys. Raises ProgramError."""
    return _project(root)[0]


def full_key(name: str, root: pathlib.Path = PROJECT_ROOT) -> str:
    """Return one of this program's keys with the project's prefix. Raises ProgramError."""
    return f"{project_name(root)}:{name}"


def map_of(values: Mapping[str, str], name: str, root: pathlib.Path = PROJECT_ROOT) -> dict[str, Any]:
    """Return the map under one of this program's keys in a configuration; empty where that is no map."""
    try:
        value = json.loads(values.get(full_key(name, root), "{}"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _project(root: pathlib.Path) -> tuple[str, dict[str, str]]:
    """Return the project's name and the configuration that Pulumi.yaml sets for every stack. Raises ProgramError."""
    document = read_document(root / "Pulumi.yaml")
    with _refused("Pulumi.yaml"):
        name = document.get("name")
        if not isinstance(name, str) or not name:
            raise YamlProblem(": the project has no name. Fix: write one, such as `name: rayline`")
        defaults = {}
        config = document.get("config")
        for key, declared in config.items() if isinstance(config, dict) else ():
            # mergeConfig in pkg/workspace/config.go; a map declares a key, and its value is in there
            value = declared.get("default", declared.get("value")) if isinstance(declared, dict) else declared
            if value is not None:
                defaults[_full(key, name)] = _text(value)
    return name, defaults


def _configuration(root: YamlNode, project: str) -> Configuration:
    """Return what a stack file configures. Raises YamlProblem."""
    document = root.value
    if document is None:
        return {}, []
    if not isinstance(document, dict):
        raise YamlProblem(f": a stack file is a map. Fix: write one, {_EXAMPLE}")
    _check_top(root)
    config = document.get("config")
    if not isinstance(config, dict | None):
        raise YamlProblem(f": config is a map. Fix: write one, {_EXAMPLE}")
    values: dict[str, str] = {}
    written: dict[str, str] = {}
    secret: list[str] = []
    for key, value in (config or {}).items():
        name = _full(key, project)
        if name in values:
            raise YamlProblem(f": {shown(written[name])} and {shown(key)} are the same key. Fix: keep one of them")
        written[name] = key
        masked = _masked(value)
        if masked != value:
            secret.append(name)
        values[name] = _text(masked)
    return values, secret


def _check_top(root: YamlNode) -> None:
    """Refuse a key at the top that the CLI would pass over in silence, unless it holds anchors. Raises YamlProblem."""
    holders = {key_text(key) for key, value in root.pairs() if value.anchored}
    for key in root.value:
        if key in TOP_KEYS or key in holders or key.startswith("x-"):
            continue
        near = get_close_matches(key.lower(), TOP_KEYS, n=1)
        fix = f"write {near[0]}" if near else "put it under config, or begin it with x- where it holds anchors or notes"
        raise YamlProblem(f": Pulumi reads no key {shown(key)} at the top of a stack file. Fix: {fix}")


def _full(key: str, project: str) -> str:
    """Return a key with its prefix (ParseKey in sdk/go/common/resource/config/key.go). Raises YamlProblem."""
    parts = key.split(":")
    if "" in parts:
        raise YamlProblem(f": config has the key {shown(key)}. Fix: write a name, such as gcp:project")
    if len(parts) == 1:
        return f"{project}:{key}"
    if len(parts) == 3 and parts[1] == "config":
        return f"{parts[0]}:{parts[2]}"
    if len(parts) > 2:
        raise YamlProblem(f": config has the key {shown(key)}. Fix: write one colon at most, such as gcp:project")
    return key


def _masked(value: Any) -> Any:
    """Return a value with HELD_ELSEWHERE in place of each encrypted one."""
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get("secure"), str):
            return HELD_ELSEWHERE
        return {key: _masked(item) for key, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    """Return the text that the program gets for a value."""
    if value is None or isinstance(value, str):
        return value or ""
    return str(value) if type(value) is int else in_json(value)


def in_json(value: Any) -> str:
    """Return JSON as Go's encoding/json writes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{in_json(key)}:{in_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(in_json, value)) + "]"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found.group()):04x}", text)
    if type(value) is int:
        # the CLI reads back what it wrote, and has no unsigned numbers then
        return str(value) if value < 1 << 63 else in_json(float(value))
    if isinstance(value, float):
        digits = repr(value)
        if value == 0 or 1e-6 <= abs(value) < 1e21:
            return str(int(Decimal(digits))) if value.is_integer() else f"{Decimal(digits):f}"
        return digits.replace("e-0", "e-")
    return json.dumps(value)
