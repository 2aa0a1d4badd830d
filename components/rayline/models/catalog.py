"""Read the files of models: those of the kit, and those of a folder that the caller names."""

import os
import pathlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from rayline.models.model import Model
from rayline.schema.check import PlanError, Problem
from rayline.schema.read import read

FILES = pathlib.Path(__file__).with_name("files")
SCHEMA = FILES / "schema.json"
"""JSON Schema of a model's file, for editors."""


@cache
def shipped_models() -> Mapping[str, Model]:
    """Return the models of the kit by their ids."""
    return _models(FILES, {})


def read_models(folder: str | pathlib.Path | None) -> Mapping[str, Model]:
    """Return the models of the kit and of a folder, by their ids. A file of the folder goes before the kit's.

    A folder that does not exist, and None, have none. Raises PlanError with every mistake of the files.
    """
    own = _models(pathlib.Path(folder), shipped_models()) if folder and os.path.isdir(folder) else {}
    return {**shipped_models(), **own}


def file_name(model: str) -> str:
    """Return the name of a model's file: meta-llama--Llama-3.1-8B.yaml for meta-llama/Llama-3.1-8B."""
    return re.sub(r"[^\w.-]+", "--", model.strip("/")) + ".yaml"


def is_hub_id(model: Any) -> bool:
    """Return whether a model's id is one of Hugging Face, OWNER/NAME, and no address or folder."""
    return isinstance(model, str) and re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", model) is not None


def _models(folder: pathlib.Path, known: Mapping[str, Model]) -> dict[str, Model]:
    problems: list[Problem] = []
    raw: dict[str, tuple[str, dict[str, Any]]] = {}
    for file in sorted(folder.glob("*.yaml")):
        where = f"{folder.name}/{file.name}"
        values = _values(file, where, problems)
        name = values.get("model") if values else None
        if isinstance(name, str) and name in raw:
            problems.append(Problem(f"{where}: model", name, f"{raw[name][0]} describes it already. Fix: remove one"))
        elif values:
            raw[name if isinstance(name, str) else where] = (where, values)
    models = {}
    for name, (where, values) in raw.items():
        model, wrong = read(Model, _with_base(where, values, raw, known, problems))
        problems += [Problem(f"{where}: {problem.path}", problem.value, problem.message) for problem in wrong]
        if model and not wrong:
            models[name] = model
    if problems:
        raise PlanError(problems)
    return models


def _values(file: pathlib.Path, where: str, problems: list[Problem]) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        problems.append(Problem(where, None, f"cannot be read: {reason}. Fix: replace it, with `rayline model add --replace`"))
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        problems.append(
            Problem(where, None, "not a map of texts to values. Fix: replace it, with `rayline model add --replace`")
        )
        return {}
    return values


def _with_base(
    where: str,
    values: dict[str, Any],
    raw: Mapping[str, tuple[str, dict[str, Any]]],
    known: Mapping[str, Model],
    problems: list[Problem],
) -> dict[str, Any]:
    """Return a file's values, with those of the model that it is `like` in place of what it leaves out."""
    base = values.get("like")
    if base is None:
        return values
    if isinstance(base, str) and base in raw and "like" not in raw[base][1]:
        inherited = raw[base][1]
    elif isinstance(base, str) and base in known:
        inherited = known[base].model_dump(exclude_unset=True)
    else:
        problems.append(Problem(f"{where}: like", base, "no such model. Fix: the id of one that has a file with all numbers"))
        inherited = {}
    # a copy of another repository is a model of its own
    ours = {"gated": False, "bundled": False, "at_hugging_face": is_hub_id(values.get("model")), "source": f"as {base}"}
    return {**inherited, **ours, **{key: value for key, value in values.items() if key != "like"}}
