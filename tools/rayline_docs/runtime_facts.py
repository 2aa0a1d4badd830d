"""components/rayline/facts/runtime.json, from the installed Ray and vLLM: variables that they read, arguments of vLLM's engine.

A variable counts when it stands as a whole text in their Python code or in Ray's programs, where RAY_CONFIG of
src/ray/common/ray_config_def.h leaves it. Some such texts are no variables. What matters is the reverse: a name that stands nowhere
is not read. An argument is a field of vLLM's AsyncEngineArgs or FrontendArgs, which is what Ray Serve LLM takes in engine_kwargs
(ray/llm/_internal/serve/engines/vllm/vllm_models.py). LoRA is a base class of a model's class, read without an import: many models
import packages that only their images need.
"""

import ast
import builtins
import dataclasses
import importlib.metadata
import importlib.util
import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rayline.facts.runtime import FILE

NAME = rb"(?:RAY|RAYLLM|VLLM)_[A-Za-z0-9_]*[A-Za-z0-9]"
IN_PYTHON = re.compile(rb"(?<!\w)(?P<quote>[\"'])(?P<name>" + NAME + rb")(?P=quote)")
# A text in a program ends with a zero byte. Only Ray's names stand there; a fixed beginning is found four times as fast.
IN_PROGRAMS = re.compile(rb"RAY_[A-Za-z0-9_]*[A-Za-z0-9](?=\x00)")
PART_OF_A_WORD = re.compile(rb"\w")
PROGRAMS = ("_raylet.so", "core/src/ray/gcs/gcs_server", "core/src/ray/raylet/raylet")
KINDS: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "text", list: "list", tuple: "list", dict: "map"}


def folder(package: str) -> Path:
    """Return where an installed package lies, without importing it. Raises SystemExit where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed. Fix: make .venv/bin/.installed-all")
    return Path(spec.submodule_search_locations[0])


def _found() -> Iterator[bytes]:
    ray = folder("ray")
    for package in (ray, folder("vllm")):
        for path in package.rglob("*.py"):
            yield from (match["name"] for match in IN_PYTHON.finditer(path.read_bytes()))
    for program in PROGRAMS:
        code = (ray / program).read_bytes()
        for match in IN_PROGRAMS.finditer(code):
            if not PART_OF_A_WORD.match(code, match.start() - 1):
                yield match[0]


def variables() -> list[str]:
    """Return every such name in the installed packages, sorted."""
    return sorted({name.decode() for name in _found()})


def kinds(hint: Any) -> set[str]:
    """Return what a type hint takes: bool, int, float, text, list, map; any for whatever else there is."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return kinds(inner[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(kinds(one) for one in inner if one is not type(None)))
    if origin is typing.Literal:
        return {KINDS[type(one)] for one in inner}
    return {"map"} if dataclasses.is_dataclass(hint) else {KINDS.get(origin or hint, "any")}


class _Names(dict[str, Any]):
    """The names of a module, and anything for those that it imports for type checkers alone."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def engine_arguments() -> dict[str, list[str]]:
    """Return the arguments of vLLM's engine and its API server: name -> what it takes."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import FrontendArgs

    found = {}
    for declared in (FrontendArgs, AsyncEngineArgs):
        hints = typing.get_type_hints(declared, localns=_Names(vars(sys.modules[declared.__module__])))
        found |= {field.name: sorted(kinds(hints[field.name])) for field in dataclasses.fields(declared)}
    return dict(sorted(found.items()))


def architectures_without_lora() -> list[str]:
    """Return the architectures of vLLM's registry whose class has no LoRA: SupportsLoRA is not among its bases.

    Classes of one name count as one. A class that is not found counts as one with LoRA.
    """
    vllm = folder("vllm")
    registry = vllm / "model_executor" / "models" / "registry.py"
    bases: dict[str, set[str]] = {}
    for path in (*registry.parent.rglob("*.py"), *(vllm / "models").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                names = {each.id for base in node.bases for each in ast.walk(base) if isinstance(each, ast.Name)}
                bases.setdefault(node.name, set()).update(names)

    def has_lora(name: str, seen: frozenset[str]) -> bool:
        inherited = bases.get(name, set()) - seen
        return "SupportsLoRA" in inherited or any(has_lora(base, seen | {name}) for base in inherited)

    return sorted(
        architecture for architecture, name in _registered(registry) if name in bases and not has_lora(name, frozenset())
    )


def _registered(registry: Path) -> Iterator[tuple[str, str]]:
    """Yield each architecture of vLLM's registry with the name of its class."""
    for table in ast.walk(ast.parse(registry.read_text())):
        for key, value in zip(table.keys, table.values, strict=True) if isinstance(table, ast.Dict) else ():
            if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple) and isinstance(value.elts[-1], ast.Constant):
                yield str(key.value), str(value.elts[-1].value)


def installed() -> dict[str, str]:
    """Return the installed versions of Ray and vLLM; nothing where one of them is missing."""
    # vLLM for the CPU is a distribution of its own with the same code
    distributions = importlib.metadata.packages_distributions()
    if not {"ray", "vllm"} <= distributions.keys():
        return {}
    return {package: importlib.metadata.version(distributions[package][0]) for package in ("ray", "vllm")}


def outdated() -> bool:
    """Return whether Ray or vLLM is installed in another version than the file's. Reading all of them takes 20 s of CPU."""
    versions = installed()
    recorded = json.loads(FILE.read_text()) if FILE.exists() else {}
    return any(recorded.get(package) != version for package, version in versions.items())


def text() -> str:
    """Return the file's content."""
    made = {**installed(), "engine_arguments": engine_arguments(), "architectures_without_lora": architectures_without_lora()}
    made["variables"] = variables()
    return json.dumps(made, indent=0) + "\n"
