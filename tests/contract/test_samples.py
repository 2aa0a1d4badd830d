"""The kit's RayServices against KubeRay's two high-throughput samples: every difference has a written reason."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from rayline_cli import render
from tests.conftest import recorded
from tests.contract.upstream import load

REASONS: dict[str, str] = yaml.safe_load((pathlib.Path(__file__).parent / "differences.yaml").read_text())
SAMPLES = {
    "dev-l4": "samples/ray-service.high-throughput-llm.yaml",
    "prod-b200": "samples/ray-service.high-throughput-gemma4.yaml",
}


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) for every leaf. Lists whose order says nothing go by name, and the Serve configuration is parsed."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            item = yaml.safe_load(item) if key == "serveConfigV2" else item
            yield from flatten(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        by_name = path.rpartition(".")[2] in ("env", "ports", "volumes", "volumeMounts")
        for index, item in enumerate(value):
            yield from flatten(item, f"{path}[{item['name'] if by_name else index}]")
    else:
        yield path, value


def differences(ours: dict, theirs: dict) -> set[str]:
    """Paths whose leaf is another one, or is there on one side only."""
    here, there = dict(flatten(ours)), dict(flatten(theirs))
    nothing = object()
    return {path for path in here.keys() | there.keys() if here.get(path, nothing) != there.get(path, nothing)}


def pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."))


def found(stack: str) -> set[str]:
    return differences(render.ray_services(recorded(stack))[0], load(SAMPLES[stack]))


@pytest.mark.parametrize("stack", SAMPLES)
def test_every_difference_from_the_sample_has_one_reason(stack):
    paths = found(stack)
    assert len(paths) > 50
    explained = {path: [text for text in REASONS if pattern(text).fullmatch(path)] for path in paths}
    assert {path for path, reasons in explained.items() if not reasons} == set()
    assert {path: reasons for path, reasons in explained.items() if len(reasons) > 1} == {}


def test_every_reason_explains_a_difference():
    paths = set().union(*(found(stack) for stack in SAMPLES))
    assert [text for text in REASONS if not any(pattern(text).fullmatch(path) for path in paths)] == []


def test_reasons_are_sentences_of_their_own():
    assert len(set(REASONS.values())) == len(REASONS)
    for text, reason in REASONS.items():
        assert len(reason.split()) >= 8, text
        assert reason.endswith("."), text
        assert reason[0].isupper() or reason.startswith("vLLM"), text


def test_a_leaf_that_changes_comes_or_goes_is_a_difference():
    theirs = {"a": [1, {"b": 2}], "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}], "c": {}}
    ours = {"a": [1, {"b": 3}], "env": [{"name": "Y", "value": "2"}], "d": None}
    assert differences(ours, theirs) == {"a[1].b", "env[X].name", "env[X].value", "c", "d"}
    assert differences(theirs, theirs) == set()


@pytest.mark.parametrize("stack", SAMPLES)
def test_the_switches_of_the_sample_are_the_kits(stack):
    ours, theirs = (dict(flatten(one)) for one in (render.ray_services(recorded(stack))[0], load(SAMPLES[stack])))
    same = {path for path, _ in flatten(load(SAMPLES[stack]))} - found(stack)
    for group in ("headGroupSpec", "workerGroupSpecs[0]"):
        for variable in (
            "RAY_SERVE_ENABLE_HA_PROXY",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED",
            "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING",
            "VLLM_USE_RAY_V2_EXECUTOR_BACKEND",
        ):
            assert f"spec.rayClusterConfig.{group}.template.spec.containers[0].env[{variable}].value" in same
    application = "spec.serveConfigV2.applications[0]"
    assert f"{application}.args.llm_configs[0].accelerator_type" in same
    assert f"{application}.import_path" in same
    in_the_sample = f"{application}.args.llm_configs[0].deployment_config.num_replicas"
    assert ours[f"{application}.deployments[0].num_replicas"] == theirs[in_the_sample]
