"""Files of models: read what a model says about itself, and write it for the plan."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rayline.models.catalog import SCHEMA, file_name, read_models
from rayline.models.model import Model
from rayline.schema.check import PlanError, Problem
from rayline.schema.read import read
from rayline_cli.errors import UsageError
from rayline_cli.stack_names import PROJECT_ROOT

from .describe import describe
from .sources import read_source


@dataclass(frozen=True)
class AddedModel:
    """A model's file that was written: its path, its text, and the `model` of a service."""

    model: str
    file: pathlib.Path
    text: str


def known(folder: pathlib.Path) -> Mapping[str, Model]:
    """Return all models that have a file. Raises UsageError for a file that has mistakes."""
    try:
        return read_models(folder)
    except PlanError as error:
        raise UsageError(str(error)) from None


# A fine-tune may have some tokens more than its base.
LIKE = 0.03


def add(
    source: str,
    folder: pathlib.Path,
    *,
    name: str | None,
    like: str | None,
    revision: str | None,
    given: Iterable[str],
    replace: bool,
) -> AddedModel:
    """Write a model's file. `name` is the service's `model`, the source where it is None.

    Raises UsageError for a model that cannot be described, or a file that exists.
    """
    model = name or source
    file = folder / file_name(model)
    if file.exists() and not replace:
        raise UsageError(f"{file} exists. Fix: --replace to overwrite it, or edit it")
    if like is not None:
        _check_likeness(source, like, folder)
        values: dict[str, Any] = {"model": model, "like": like}
    else:
        if name is None and pathlib.Path(source).is_dir():
            fix = "--as with the service's model, such as gs://my-bucket/my-model, or the folder's own path for a stack on this machine"
            raise UsageError(f"{source} is a folder here. Fix: {fix}")
        values = describe(model, read_source(source, revision))
    values |= _given(given)
    if like is None:
        _check(file.name, values)
    text = _schema_line(folder) + _text(values)
    folder.mkdir(parents=True, exist_ok=True)
    before = file.read_bytes() if file.exists() else None
    file.write_text(text)
    try:
        read_models(folder)
    except PlanError as error:
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
        raise UsageError(str(error)) from None
    return AddedModel(model, file, text)


def _check_likeness(source: str, like: str, folder: pathlib.Path) -> None:
    """Raise UsageError for a folder of this machine that is no fine-tune of the base: it has another number of parameters."""
    base = read_models(folder if folder.is_dir() else None).get(like)
    if base is None or not pathlib.Path(source).is_dir():
        return
    parameters = describe(source, read_source(source, None))["parameters"]
    if abs(parameters / base.parameters - 1) > LIKE:
        says = f"{source} has {parameters / 1e9:.2f} billion parameters, and {like} has {base.parameters / 1e9:.2f}"
        raise UsageError(f"--like {like}: {says}. Fix: leave --like out")


def _check(name: str, values: Mapping[str, Any]) -> None:
    """Raise UsageError with every mistake; a missing number names the option that sets it."""
    _, problems = read(Model, values)
    missing = {field for field, info in Model.model_fields.items() if info.is_required() and field not in values}
    problems = [
        Problem(problem.path, None, f"its files do not say it. Fix: --set {problem.path}=NUMBER")
        if problem.path in missing
        else problem
        for problem in problems
    ]
    if problems:
        raise UsageError("\n".join(f"{name}: {problem}" for problem in problems))


def _given(given: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for one in given:
        key, sign, value = one.partition("=")
        if not sign or key not in Model.model_fields or key in ("model", "attention", "recurrent"):
            plain = [name for name in Model.model_fields if name not in ("model", "attention", "recurrent")]
            raise UsageError(f"--set {one}: KEY=VALUE with one of {', '.join(plain)}. Fix: edit other keys in the file")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(
                f"--set {one}: the value is not YAML. Fix: quote it, such as --set 'licence=\"my licence\"'"
            ) from None
    return values


def _schema_line(folder: pathlib.Path) -> str:
    """Return the comment by which editors find the schema; nothing for a folder outside of this project."""
    here = folder.resolve()
    if not here.is_relative_to(PROJECT_ROOT):
        return ""
    return f"# yaml-language-server: $schema={pathlib.PurePath(os.path.relpath(SCHEMA, here)).as_posix()}\n"


def _text(values: Mapping[str, Any]) -> str:
    """Return the YAML of a model's file, one key a line, a map of a list in one line."""
    lines = []
    for key, value in values.items():
        if key == "attention":
            lines += ["attention:", *(f"- {_inline(layer)}" for layer in value)]
        elif isinstance(value, dict):
            lines.append(f"{key}: {_inline(value)}")
        else:
            lines.append(yaml.safe_dump({key: value}, width=1000, allow_unicode=True).rstrip())
    return "\n".join(lines) + "\n"


def _inline(value: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(value), default_flow_style=True, width=1000, sort_keys=False).strip()
