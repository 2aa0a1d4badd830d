"""Whatever a stack file says, it is refused in words or it plans and renders. Drawn from the classes that declare the keys."""

import contextlib
import copy
import functools
import json
import re
import typing
from enum import Enum
from typing import Any

import hypothesis
import hypothesis.strategies as st
from pydantic import BaseModel

from rayline.facts.runtimes import RUNTIMES
from rayline.models.catalog import shipped_models
from rayline.platform.arguments import InferencePlatformArgs
from rayline.platform.plan import make_plan
from rayline.schema import base
from rayline.schema.base import Arguments, Domain, Secret
from rayline.schema.check import PlanError, Problem
from rayline.schema.read import PROVIDER_KEYS, inner, read
from rayline_cli import offline, render
from rayline_cli.plan_view import program_json

MODELS = shipped_models()

# Texts of which the plan knows a table, and those whose form hypothesis finds slowly.
TEXTS: dict[str, list[str]] = {
    "model": [*["Qwen/Qwen3.5-4B"] * len(MODELS), *MODELS, "acme/none"],
    "runtime": [*RUNTIMES, "1.0.0"],
    "machine_type": ["g2-standard-12", "a3-highgpu-8g", "a4-highgpu-8g", "e2-standard-16", "none"],
    "location": ["us-central1", "us-central1-b", "gs://bucket/folder", "/models/x"],
    "project": ["my-project"],
    "region": ["us-central1"],
    "zones": ["us-central1-a", "us-central1-b"],
    "recurrence": ["FREQ=DAILY", "FREQ=WEEKLY;BYDAY=SA,SU", "FREQ=YEARLY"],
    "start": ["2026-01-03T08:00:00Z", "2026-13-03T08:00:00Z"],
    "end": ["2026-01-03T16:00:00Z", "2026-01-02T16:00:00Z"],
    "address": ["redis:6379", "rediss://redis:6380", "redis"],
    "hostname": ["llm.example.com", "chat.llm.example.com", "chat"],
    "secret": ["hf", "projects/p/secrets/hf"],
}
# Stacks without them are refused for that alone.
USUAL = ("project", "region")
SHAPELESS = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats() | st.text(max_size=12),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=8), inside, max_size=3),
    max_leaves=5,
)


def drawn(examples: int, *strategies: Any) -> Any:
    """Run a test for that many draws, the same ones each time."""
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=tuple(hypothesis.HealthCheck),  # pyright: ignore[reportArgumentType]
    )
    return lambda test: settings(hypothesis.given(*strategies)(test))


def domains_of(kind: Any) -> list[Domain]:
    return [one for one in typing.get_args(kind)[1:] if isinstance(one, Domain)] if is_annotated(kind) else []


def is_annotated(kind: Any) -> bool:
    return typing.get_origin(kind) is typing.Annotated


def values(kind: Any, key: str, domains: tuple[Domain, ...] = ()) -> Any:
    """Return the strategy of a type's values, in its domain."""
    if is_annotated(kind):
        return values(typing.get_args(kind)[0], key, (*domains, *domains_of(kind)))
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if inner(kind) is not kind:
        return values(next(one for one in parts if one is not type(None)), key, domains)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return maps(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from([one.value for one in kind])
    if origin is list:
        return st.lists(values(parts[0], key), max_size=2)
    if origin is dict:
        names = st.sampled_from(["chat", "batch"]) if key == "services" else values(parts[0], "")
        return st.dictionaries(names, values(parts[1], key), min_size=key == "services", max_size=2)
    if key in TEXTS and kind is str:
        return st.sampled_from([text for text in TEXTS[key] if all(one.holds(text) for one in domains)])
    return leaves(kind, domains)


def leaves(kind: Any, domains: tuple[Domain, ...]) -> Any:
    (domain,) = domains or (None,)
    schema = domain.json_schema if domain else {}
    if "minimum" in schema:
        least, most = schema["minimum"], schema.get("maximum", 10_000)
        if kind is int:
            # most stacks are small, and so are most that fit
            return st.integers(int(least), int(min(most, 64))) | st.integers(int(least), int(most))
        return st.floats(least, most)
    if domain in typing.get_args(base.Cidr):
        return st.sampled_from(["10.0.0.0/18", "10.4.0.0/14", "203.0.113.0/24", "10.0.80.0/23", "0.0.0.0/0"])
    if domain and "pattern" in schema:
        return st.from_regex(re.compile(schema["pattern"], re.ASCII), fullmatch=True).filter(domain.holds)
    return {bool: st.booleans(), str: st.text(max_size=12), int: st.integers(), float: st.floats(), Any: st.integers(0, 9)}[
        kind
    ]


@functools.cache
def maps(arguments: type[Arguments]) -> Any:
    """Return the strategy of what a stack file may say in a map: what is required, and a few keys more."""
    required, optional = {}, {}
    for name, field in arguments.model_fields.items():
        if any(isinstance(one, Secret) for one in field.metadata):
            continue
        domains = tuple(one for one in field.metadata if isinstance(one, Domain))
        (required if field.is_required() or name in USUAL else optional)[name] = values(field.annotation, name, domains)

    @st.composite
    def some(draw: Any) -> dict[str, Any]:
        most = draw(st.sampled_from([0, 0, 0, 1, 2, 3]))
        few = draw(st.sets(st.sampled_from(sorted(optional)), max_size=most)) if optional else set()
        return {name: draw(strategy) for name, strategy in (required | {name: optional[name] for name in few}).items()}

    return some()


PLATFORMS = maps(InferencePlatformArgs)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every place below a map."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inside for place in [(*path, key), *places_in(one, (*path, key))]]


# Which place (of as many as there are), whether its key or its value changes, and into what.
CHANGE = st.tuples(st.integers(0, 10**6), st.booleans(), st.text(max_size=8), SHAPELESS)
# To draw a stack takes hypothesis ten times as long as to change one.
CHANGES = st.lists(st.lists(CHANGE, min_size=1, max_size=3), min_size=10, max_size=10)


def changed(arguments: dict[str, Any], changes: list[Any]) -> dict[str, Any]:
    """Return a stack with something else in one to three of its places."""
    made = copy.deepcopy(arguments)
    for number, is_key, text, value in changes:
        places = places_in(made) or [("cluster",)]
        *above, last = places[number % len(places)]
        at = made
        for part in above:
            at = at[part]
        if isinstance(at, dict) and is_key:
            del at[last]
            at[text if number % 2 else f"{last}s"] = value
        else:
            at[last] = value
    return made


def judged(arguments: dict[str, Any]) -> list[Problem]:
    """Return the mistakes of a stack."""
    try:
        make_plan(copy.deepcopy(arguments), name="any")
    except PlanError as error:
        return error.problems
    return []


def deployed(arguments: dict[str, Any]) -> list[Problem]:
    """Return the mistakes of a stack. Where there are none, run the program and render what it declares."""
    if problems := judged(arguments):
        return problems
    texts = {
        PROVIDER_KEYS.get(key, f"rayline:{key}"): json.dumps(value) if isinstance(value, dict) else value
        for key, value in arguments.items()
        if value is not None
    }
    program = offline.record("any", config=(texts, []))
    assert json.dumps(program_json(program))
    assert render.files(program)
    return []


def check_words(problems: list[Problem], arguments: dict[str, Any]) -> None:
    """Check that a message names a place of the stack and says something of it, once."""
    tops = {*InferencePlatformArgs.model_fields, *PROVIDER_KEYS.values(), *map(str, arguments)}
    for problem in problems:
        said = str(problem)
        assert any(problem.path.startswith(top) for top in tops), said
        assert problem.message.strip()
        assert "Traceback" not in said
        assert not re.search("pydantic|Input should|validation error", problem.message), said
        assert len(said) < 2000
    assert len({(problem.path, problem.message) for problem in problems}) == len(problems)


@drawn(25, PLATFORMS)
def test_a_stack_that_is_right_in_shape_deploys_or_is_refused_for_what_it_means(arguments):
    _, problems = read(InferencePlatformArgs, arguments)
    assert [str(problem) for problem in problems] == []
    check_words(deployed(arguments), arguments)


@drawn(170, PLATFORMS, CHANGES)
def test_a_stack_with_anything_anywhere_plans_or_is_refused_in_words(arguments, changes):
    for one in (changed(arguments, few) for few in changes):
        check_words(judged(one), one)


@drawn(200, st.dictionaries(st.sampled_from(["cluster", "services", "head", "x"]), SHAPELESS))
def test_what_is_no_stack_at_all_is_refused_in_words(arguments):
    problems = judged(arguments)
    assert problems
    check_words(problems, arguments)


@drawn(40, PLATFORMS)
def test_a_stack_that_is_judged_stays_as_it_was(arguments):
    before = copy.deepcopy(arguments)
    with contextlib.suppress(PlanError):
        make_plan(arguments, name="any")
    assert arguments == before
