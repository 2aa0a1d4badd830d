"""The shape of a stack file: it mirrors the components' arguments, and both say the same about defaults."""

import ast
import copy
import functools
import json
import pathlib
import types
import typing
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from rayline.facts import defaults
from rayline.facts.capacities import FLEX_START_MAX_HOURS
from rayline.facts.choices import Accelerator, ClusterMode, UpgradeStrategy
from rayline.facts.runtimes import DEFAULT_RUNTIME, KUBERAY_CHART, KUBERAY_VERSION
from rayline.schema import arguments
from rayline_cli import settings
from rayline_cli.settings import SettingsError, read_settings

# the model of a stack file -> the arguments of the component
PAIRS: dict[type[BaseModel], Any] = {
    settings.Switches: arguments.SwitchesArgs,
    settings.Volume: arguments.VolumeArgs,
    settings.Autoscaling: arguments.AutoscalingArgs,
    settings.IncrementalUpgrade: arguments.IncrementalUpgradeArgs,
    settings.Service: arguments.LlmServiceArgs,
    settings.SystemPool: arguments.SystemPoolArgs,
    settings.Network: arguments.NetworkArgs,
    settings.AuthorizedNetwork: arguments.AuthorizedNetworkArgs,
    settings.MaintenanceExclusion: arguments.MaintenanceExclusionArgs,
    settings.Maintenance: arguments.MaintenanceArgs,
    settings.Monitoring: arguments.MonitoringArgs,
    settings.Cluster: arguments.ClusterArgs,
    settings.Endpoint: arguments.EndpointArgs,
    settings.Head: arguments.HeadArgs,
    settings.Kuberay: arguments.KuberayArgs,
    settings.HuggingFace: arguments.HuggingFaceArgs,
    settings.Isolation: arguments.IsolationArgs,
    settings.Weights: arguments.WeightsArgs,
    settings.Settings: arguments.InferencePlatformArgs,
}
# a secret, which passes the settings by
NOT_IN_A_STACK_FILE = {(arguments.HuggingFaceArgs, "token")}


def shape(kind: Any) -> Any:
    """A type without what only one side has: None, and the model in place of its arguments."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.NotRequired:
        return shape(inner[0])
    if origin in (types.UnionType, typing.Union):
        kinds = {shape(one) for one in inner if one is not type(None)}
        return kinds.pop() if len(kinds) == 1 else frozenset(kinds)
    if origin is not None:
        return (origin, *(shape(one) for one in inner))
    return PAIRS.get(kind, kind)


def docstrings() -> dict[tuple[str, str], str]:
    """(class, field) -> the text under the field in components/rayline/schema/arguments.py; None where there is none."""
    tree = ast.parse(pathlib.Path(arguments.__file__).read_text())
    found: dict[tuple[str, str], str] = {}
    for klass in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for node, after in zip(klass.body, [*klass.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                text = (
                    str(after.value.value)
                    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                    else ""
                )
                found[klass.name, node.target.id] = text
    return found


def test_every_argument_class_has_its_model():
    classes = {kind for name, kind in vars(arguments).items() if name.endswith("Args") and name != "Args"}
    assert classes == set(PAIRS.values())


@pytest.mark.parametrize(("model", "args"), PAIRS.items(), ids=lambda kind: kind.__name__)
def test_a_model_has_the_names_and_the_required_keys_of_the_arguments(model, args):
    names = {name for name in args.__annotations__ if (args, name) not in NOT_IN_A_STACK_FILE}
    assert set(model.model_fields) == names
    assert {name for name, field in model.model_fields.items() if field.is_required()} == args.__required_keys__


@pytest.mark.parametrize(("model", "args"), PAIRS.items(), ids=lambda kind: kind.__name__)
def test_a_model_has_the_types_of_the_arguments(model, args):
    ours, theirs = typing.get_type_hints(model), args.__annotations__
    for name in model.model_fields:
        assert shape(ours[name]) == shape(theirs[name]), name


@pytest.mark.parametrize(("model", "args"), PAIRS.items(), ids=lambda kind: kind.__name__)
def test_the_fields_stand_in_the_same_order_except_for_project_and_region(model, args):
    names = [name for name in args.__annotations__ if (args, name) not in NOT_IN_A_STACK_FILE]
    if model is not settings.Settings:
        assert list(model.model_fields) == names


@pytest.mark.parametrize(("owner", "field"), docstrings(), ids=str)
def test_every_argument_is_documented(owner, field):
    text = docstrings()[owner, field]
    assert text, f"{owner}.{field} needs a docstring: it is the documentation of the key"
    assert text.endswith("."), text


# Defaults that the plan applies: a stack file that does not say is None until then.
DECIDED_BY_THE_PLAN: dict[tuple[str, str], Any] = {
    ("LlmServiceArgs", "tensor_parallel_size"): 1,
    ("LlmServiceArgs", "pipeline_parallel_size"): 1,
    ("LlmServiceArgs", "max_model_len"): defaults.MAX_MODEL_LEN,
    ("LlmServiceArgs", "revision"): defaults.REVISION,
    ("LlmServiceArgs", "gpu_memory_utilization"): defaults.GPU_MEMORY_UTILIZATION,
    ("LlmServiceArgs", "capacity"): defaults.CAPACITY,
    ("LlmServiceArgs", "max_run_hours"): FLEX_START_MAX_HOURS,
    ("LlmServiceArgs", "upgrade"): defaults.UPGRADE,
    ("LlmServiceArgs", "cpus_per_worker"): defaults.CPU_WORKER_CPUS,
    ("LlmServiceArgs", "memory_gib_per_worker"): defaults.CPU_WORKER_MEMORY_GIB,
    ("LlmServiceArgs", "kv_cache_gib"): defaults.CPU_KV_CACHE_GIB,
    ("KuberayArgs", "version"): KUBERAY_VERSION,
    ("KuberayArgs", "chart"): KUBERAY_CHART,
    ("HuggingFaceArgs", "secret_name"): "hf-secret",
    ("IsolationArgs", "operator_namespace"): defaults.OPERATOR_NAMESPACE,
}


def documented_defaults() -> list[tuple[type[BaseModel], str, str]]:
    """(model, field, text) of every field whose docstring says "Default <value>"."""
    found = []
    for model, args in PAIRS.items():
        for field in model.model_fields:
            _, said, rest = docstrings().get((args.__name__, field), "").partition("Default ")
            if said:
                found.append((model, field, rest.split(" ")[0].rstrip(".,;")))
    return found


@pytest.mark.parametrize(("model", "field", "text"), documented_defaults(), ids=str)
def test_the_default_that_is_documented_is_the_default(model, field, text):
    value = model.model_fields[field].default
    if value is None and (text, field) != ("KubeRay's", "repository"):
        value = DECIDED_BY_THE_PLAN[PAIRS[model].__name__, field]
    if text == "KubeRay's":
        assert value is None
        return
    value = value.value if isinstance(value, Enum) else value
    assert text == (str(value).lower() if isinstance(value, bool) else str(value))


@pytest.mark.parametrize(
    ("model", "field", "home"),
    [
        (settings.Service, "replicas", "REPLICAS"),
        (settings.Service, "enable_prefix_caching", "ENABLE_PREFIX_CACHING"),
        (settings.Service, "longest_stream_seconds", "LONGEST_STREAM_SECONDS"),
        (settings.SystemPool, "machine_type", "SYSTEM_MACHINE_TYPE"),
        (settings.SystemPool, "min_nodes", "SYSTEM_MIN_NODES"),
        (settings.SystemPool, "max_nodes", "SYSTEM_MAX_NODES"),
        (settings.Network, "nodes_cidr", "NODES_CIDR"),
        (settings.Network, "pods_cidr", "PODS_CIDR"),
        (settings.Network, "services_cidr", "SERVICES_CIDR"),
        (settings.Cluster, "release_channel", "RELEASE_CHANNEL"),
        (settings.Settings, "namespace", "NAMESPACE"),
    ],
)
def test_a_default_of_a_stack_file_is_the_one_in_the_fact_table(model, field, home):
    assert model.model_fields[field].default == getattr(defaults, home)


def test_all_switches_and_the_api_key_are_on_and_the_cluster_is_protected_unless_a_stack_says_otherwise():
    read = read_settings({"cluster": {"mode": "create"}, "services": {"a": {"model": "m", "accelerator": "l4"}}})
    assert set(read.services["a"].switches.model_dump().values()) == {True}
    assert read.services["a"].api_key
    assert read.services["a"].runtime == DEFAULT_RUNTIME
    assert read.cluster.deletion_protection
    assert read.cluster.private_nodes


# --- reading

SERVICES = {"qwen": {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "replicas": 8, "upgrade": "none"}}


def test_structures_are_read_as_data_and_as_the_json_text_that_pulumi_hands_over():
    as_data = read_settings({"cluster": {"mode": "existing"}, "services": SERVICES, "kuberay": {"version": "1.7.1"}})
    as_text = read_settings(
        {
            "cluster": '{"mode":"existing"}',
            "services": json.dumps(SERVICES),
            "kuberay": '{"version":"1.7.1"}',
            "hugging_face_token": "not looked at",
        }
    )
    assert as_data == as_text
    assert as_text.cluster.mode is ClusterMode.EXISTING
    service = as_text.services["qwen"]
    assert (service.accelerator, service.replicas, service.upgrade) == (Accelerator.L4, 8, UpgradeStrategy.NONE)


def test_the_arguments_of_the_platform_are_the_settings_without_what_is_not_said():
    read = read_settings({"cluster": {"mode": "create"}, "services": SERVICES}, project="p", region="r")
    made = read.arguments()
    assert (made["project"], made["region"]) == ("p", "r")
    assert made["services"]["qwen"]["replicas"] == 8
    # a default that the stack does not state is the plan's to apply, so that it can tell the two apart
    assert "max_model_len" not in made["services"]["qwen"]
    assert set(made) == {"project", "region", "cluster", "services"}
    assert made["cluster"] == {"mode": ClusterMode.CREATE}


def test_settings_cannot_be_changed_after_they_were_read():
    read = read_settings({"cluster": {"mode": "create"}, "services": SERVICES})
    with pytest.raises(ValueError, match="frozen"):
        read.cluster.private_nodes = False  # type: ignore[misc]


def test_an_error_keeps_what_has_no_mistake_so_that_the_plan_can_judge_it():
    with pytest.raises(SettingsError) as caught:
        read_settings({"cluster": {"mode": "create", "locaton": "x"}, "services": SERVICES | {"bad": {}}, "kuberay": 3})
    rest = caught.value.rest
    assert len(caught.value.problems) == 4
    assert rest is not None
    assert set(rest["services"]) == {"qwen"}
    assert "kuberay" not in rest
    assert rest["cluster"] == {"mode": ClusterMode.CREATE}


@pytest.mark.parametrize("broken", [{"services": {"a": 3}}, {"services": 3}, {"services": {}, "namespace": 3}])
def test_an_error_that_leaves_too_little_keeps_nothing(broken):
    with pytest.raises(SettingsError) as caught:
        read_settings({"cluster": {"mode": "create"}} | broken)
    assert caught.value.rest is None


# --- keys and their prefixes

OWN = {"cluster": "rayline:cluster", "services": "rayline:services"}


@pytest.mark.parametrize(
    ("others", "own", "named"),
    [
        ([], OWN, None),
        (["gcp:project", "kubernetes:namespace", "kubernetes:cluster", "pulumi:disable-default-providers"], OWN, None),
        (["vault:namespace", "vault:address"], OWN, None),
        (["old:namespace"], OWN | {"namespace": "old:namespace"}, "old:namespace"),
        (
            ["old:cluster", "old:hugging_face_token"],
            OWN | {"hugging_face_token": "old:hugging_face_token"},
            "old:cluster, old:hugging_face_token",
        ),
    ],
)
def test_a_key_under_a_former_name_of_the_project_is_found_and_a_providers_is_not(others, own, named):
    found, problems = settings._own_keys([*others, *OWN.values()], "rayline")
    assert found == own
    assert [problem.partition(": the project")[0] for problem in problems] == ([named] if named else [])


# --- numbers that are none


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", ["head.cpus", "services.qwen.gpu_memory_utilization"])
def test_a_number_that_is_none_is_refused(place, value):
    data: dict[str, Any] = {"cluster": {"mode": "create"}, "services": copy.deepcopy(SERVICES), "head": {}}
    *path, last = place.split(".")
    functools.reduce(dict.__getitem__, path, data)[last] = value
    with pytest.raises(SettingsError) as caught:
        read_settings(data)
    assert caught.value.problems == [f"{place} (got {value!r}): a number"]


@pytest.mark.parametrize(
    "text",
    ['{"cpus": NaN}', '{"cpus": -Infinity}', '{"cpus": 1e400}', "[" * 100_000, '{"cpus": ' + "9" * 5000 + "}", "{"],
    ids=["NaN", "-Infinity", "1e400", "100,000 levels", "5,000 digits", "half"],
)
def test_a_text_that_is_not_json_is_refused(text):
    with pytest.raises(SettingsError) as caught:
        read_settings({"cluster": {"mode": "create"}, "services": SERVICES, "head": text})
    assert caught.value.problems == ["head (a text that is not JSON): a map, such as {store: memorystore}"]
