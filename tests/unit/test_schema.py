"""The keys of a stack file: each declared once and documented, read strictly, and the same for editors and for Pulumi."""

import ast
import inspect
import json
import pathlib
import pkgutil
import typing
from enum import Enum
from importlib import import_module
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

import rayline
from rayline.facts import defaults
from rayline.facts.capacities import FLEX_START_MAX_HOURS
from rayline.facts.choices import Accelerator, ClusterMode, UpgradeStrategy
from rayline.facts.runtimes import DEFAULT_RUNTIME
from rayline.platform.arguments import InferencePlatformArgs
from rayline.platform.plan import make_plan
from rayline.schema.base import Arguments, Secret
from rayline.schema.check import PlanError
from rayline.schema.pulumi_types import typed_dict
from rayline.schema.read import EXAMPLES, PROVIDER_KEYS, read
from rayline.schema.texts import field_texts
from rayline.service.manifest import STEP_SIZE_PERCENT
from rayline_cli import offline
from rayline_docs import editor_schema
from rayline_docs.keys import places
from tests.conftest import STACKS

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACES = list(places())
# a further model has some groups of its service
CLASSES = list(dict.fromkeys(arguments for _, arguments in PLACES))
KEYS = [(arguments, name) for arguments in CLASSES for name in arguments.model_fields]


def name_of(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


# --- declared once, with its text


@pytest.mark.parametrize(("arguments", "name"), KEYS, ids=name_of)
def test_a_key_is_documented_with_a_sentence(arguments, name):
    text = field_texts(arguments).get(name, "")
    assert text, f"{arguments.__name__}.{name} needs a text under it: it is the documentation of the key"
    assert text.endswith("."), text
    assert len(text) < 250


@pytest.mark.parametrize("arguments", CLASSES, ids=name_of)
def test_a_map_is_documented_and_declares_each_key_once(arguments):
    assert arguments.__doc__
    assert arguments.__doc__.endswith(".")
    (declared,) = ast.parse(inspect.getsource(arguments)).body
    assert isinstance(declared, ast.ClassDef)
    names = [node.target.id for node in declared.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    assert names == list(arguments.model_fields)


def test_every_class_of_arguments_has_a_place_in_a_stack_file_and_stands_in_a_file_of_that_name():
    for module in pkgutil.walk_packages(rayline.__path__, "rayline."):
        if module.name.endswith((".arguments", ".read", ".plan")):
            import_module(module.name)
    # models/model.py is the schema of a file of its own
    others = [arguments for arguments in Arguments.__subclasses__() if not arguments.__module__.endswith(".models.model")]
    assert sorted(CLASSES, key=name_of) == sorted(others, key=name_of)
    assert {arguments.__module__.rpartition(".")[2] for arguments in CLASSES} == {"arguments"}


@pytest.mark.parametrize("name", [name for name in vars(defaults) if name.isupper()])
def test_a_default_in_the_fact_table_is_read_by_somebody(name):
    files = [*(ROOT / "components").rglob("*.py"), *(ROOT / "rayline_cli").rglob("*.py")]
    others = [path.read_text() for path in files if path.name != "defaults.py"]
    assert any(f"defaults.{name}" in text or f"defaults import {name}" in text for text in others)


def mistakes(arguments: type[Arguments], given: dict[str, Any]) -> set[str]:
    """Return the kinds of mistakes in a map."""
    try:
        arguments.model_validate(given)
    except ValidationError as error:
        return {one["type"] for one in error.errors()}
    return set()


@pytest.mark.parametrize(("arguments", "name"), KEYS, ids=name_of)
def test_every_default_is_one_that_a_stack_file_may_say(arguments, name):
    # pydantic takes defaults as they are
    default = arguments.model_fields[name].get_default()
    if not isinstance(default, Arguments) and not arguments.model_fields[name].is_required():
        given = {name: default.value if isinstance(default, Enum) else default}
        assert mistakes(arguments, given) <= {"missing"}


# A default that the plan decides: the key is None until then, so that the plan can tell it from what a stack says.
DECIDED_BY_THE_PLAN: dict[tuple[str, str], Any] = {
    ("AdaptersArgs", "max_active"): defaults.ACTIVE_ADAPTERS,
    ("EngineArgs", "max_model_len"): defaults.MAX_MODEL_LEN,
    ("EngineArgs", "kv_cache_gib"): defaults.CPU_KV_CACHE_GIB,
    ("NodesArgs", "max_run_hours"): FLEX_START_MAX_HOURS,
    ("WorkersArgs", "cpus"): defaults.CPU_WORKER_CPUS,
    ("WorkersArgs", "memory_gib"): defaults.CPU_WORKER_MEMORY_GIB,
    ("RolloutArgs", "strategy"): defaults.UPGRADE.value,
    ("RolloutArgs", "step_size_percent"): STEP_SIZE_PERCENT,
    ("RolloutArgs", "spare_replicas"): defaults.SPARE_REPLICAS,
    ("WeightsArgs", "revision"): defaults.REVISION,
    ("HuggingFaceArgs", "secret_name"): "hf-secret",
    ("IsolationArgs", "operator_namespace"): defaults.OPERATOR_NAMESPACE,
}


def test_the_defaults_that_the_texts_name_are_those_that_the_plan_decides():
    said = {}
    for arguments, name in KEYS:
        _, found, rest = field_texts(arguments)[name].partition("Default ")
        if found:
            assert arguments.model_fields[name].default is None, f"{name}: the class says its default"
            said[arguments.__name__, name] = rest.split(" ")[0].rstrip(".,;")
    assert said == {key: str(value) for key, value in DECIDED_BY_THE_PLAN.items()}


def test_switches_the_api_key_and_cluster_protection_are_on_by_default():
    asked, problems = read(InferencePlatformArgs, {"cluster": {"mode": "create"}, "services": SERVICES})
    assert problems == []
    service = asked.services["qwen"]
    assert set(service.switches.model_dump().values()) == {True}
    assert service.api.key
    assert service.pods.runtime == DEFAULT_RUNTIME
    assert asked.cluster.deletion_protection
    assert asked.cluster.private_nodes


# --- read strictly

SERVICES: dict[str, Any] = {"qwen": {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "replicas": 8}}


def platform(place: str = "", value: Any = None) -> dict[str, Any]:
    """Return the arguments of a platform with one value at a place, such as services.qwen.engine.max_model_len."""
    made: dict[str, Any] = {"cluster": {"mode": "existing"}, "services": {"qwen": dict(SERVICES["qwen"])}}
    *path, last = place.split(".")
    at = made
    for part in path:
        at = at.setdefault(part, {})
    if last:
        at[last] = value
    return made


def refusal(arguments: dict[str, Any]) -> list[str]:
    """Return every mistake of a platform's arguments."""
    with pytest.raises(PlanError) as caught:
        make_plan(arguments)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        # keys that are none
        ("servces", {}, ": no such key; did you mean services?"),
        ("services.qwen.replica", 4, " (got 4): no such key; did you mean replicas?"),
        ("services.qwen.max_model_len", 8192, " (got 8192): no such key; did you mean engine.max_model_len?"),
        ("services.qwen.max_modle_len", 8192, " (got 8192): no such key; did you mean engine.max_model_len?"),
        ("services.qwen.capacity", "spot", " (got 'spot'): no such key; did you mean nodes.capacity?"),
        ("services.qwen.engine.max_modle_len", 8192, " (got 8192): no such key; did you mean max_model_len?"),
        ("services.qwen.workers.gpu", 1, " (got 1): no such key; did you mean gpus?"),
        ("services.qwen.workers.disk", 1, " (got 1): no such key; known: gpus, cpus, memory_gib"),
        (
            "services.qwen.pods.volumes",
            [{"name": "a", "mount_path": "/a", "clam": "a"}],
            "[0].clam (got 'a'): no such key; did you mean claim?",
        ),
        # wrong types
        ("services.qwen", 3, " (got 3): a map, such as {model: Qwen/Qwen3.5-4B, accelerator: l4}"),
        ("services.qwen.engine", "fast", " (got 'fast'): a map, such as {max_model_len: 8192}"),
        (
            "services.qwen.nodes.zones",
            "us-central1-a",
            " (got 'us-central1-a'): a list, such as [us-central1-a, us-central1-b]",
        ),
        ("services.qwen.replicas", "4", " (got '4'): a whole number, without quotes"),
        ("services.qwen.replicas", 4.5, " (got 4.5): a whole number"),
        ("services.qwen.replicas", True, " (got true): a whole number"),
        ("services.qwen.engine.gpu_memory_utilization", "0.9", " (got '0.9'): a number, without quotes"),
        ("services.qwen.engine.gpu_memory_utilization", float("nan"), " (got nan): a number"),
        ("head.cpus", float("-inf"), " (got -inf): a number"),
        ("services.qwen.park", "yes", " (got 'yes'): true or false; Pulumi reads yes as a text"),
        ("services.qwen.park", "true", " (got 'true'): true or false, without quotes"),
        ("services.qwen.park", 1, " (got 1): true or false"),
        ("services.qwen.pods.runtime", 2.6, " (got 2.6): text; put it in quotes"),
        ("services.qwen.pods.env.OMP_NUM_THREADS", 8, " (got 8): text; put it in quotes"),
        # outside of the domain
        ("services.qwen.replicas", 0, " (got 0): 1 to 1000 replicas"),
        ("services.qwen.engine.max_num_seqs", 0, " (got 0): at least 1"),
        ("services.qwen.engine.gpu_memory_utilization", 1.0, " (got 1): 0.1 to 0.98"),
        ("services.qwen.accelerator", "L4", " (got 'L4'): did you mean l4?"),
        ("cluster.mode", "cloud", " (got 'cloud'): one of create, existing, local"),
        ("cluster.context", "two\nlines", " (got 'two\\nlines'): one line of text, not empty, without spaces around it"),
        # nothing
        ("services.qwen.model", None, " (empty): text"),
        ("services.qwen.replicas", None, " (empty): a whole number"),
        ("services.qwen.engine", None, " (empty): a map, such as {max_model_len: 8192}"),
        (
            "namespace",
            "",
            " (empty): lower-case letters, digits and dashes, first a letter, last a letter or digit, at most 63 characters",
        ),
    ],
)
def test_a_mistake_is_said_with_its_place_its_value_and_what_would_be_right(place, value, says):
    assert refusal(platform(place, value)) == [f"{place}{says}"]


def test_required_keys_are_named_with_their_choices():
    assert refusal(platform("services.qwen", {})) == [
        "services.qwen.model: required, for example Qwen/Qwen3.5-4B",
        "services.qwen.accelerator: required: one of l4, a100-40gb, a100-80gb, rtx-pro-6000, h100, h200, b200, cpu",
    ]
    assert refusal({}) == [
        "cluster: required, for example {mode: create}",
        "services: required, for example {qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}}",
    ]


def test_a_whole_number_may_arrive_as_a_float():
    # Pulumi's engine knows no other numbers
    made = platform(
        "services.qwen", {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "replicas": 4.0, "engine": {"kwargs": {"seed": 7.0}}}
    )
    service = make_plan(made).services[0]
    assert (repr(service.replicas), repr(service.engine_kwargs["seed"])) == ("4", "7")


def test_mistakes_of_shape_and_of_meaning_are_said_together():
    made: dict[str, Any] = platform("cluster.locaton", "x") | {"kuberay": 3}
    made["services"] |= {
        "shape": {},
        "large": {"model": "google/gemma-4-31B-it", "accelerator": "l4"},
        "unknown": {"model": "acme/none", "accelerator": "l4", "replicas": "two"},
    }
    said = refusal(made)
    places_said = [problem.partition(" ")[0].rstrip(":") for problem in said]
    assert {"cluster.locaton", "kuberay", "services.shape.model", "services.shape.accelerator"} <= set(places_said)
    assert {"services.unknown.replicas", "services.unknown.model"} <= set(places_said)
    assert any(place.startswith("services.large") for place in places_said)
    assert len(places_said) == len(set(places_said)), "once for a place"


def test_a_secret_is_never_repeated():
    token = "hf_abcdefghijkl"
    made = platform("services.qwen", {"model": "Qwen/Qwen3.5-4B", "accelerator": token, "replicas": token, "tokn": token})
    made |= {"hugging_face_tokn": "no-form-of-a-token", "head": token, "hugging_face": {"source": "none", "token": token}}
    assert "abcdef" not in str(refusal(made))
    assert "no-form" not in str(refusal(made))
    address = "alice:hunter2@registry.example.com/ray:1"
    said = refusal(platform("services.qwen.pods", {"image": address}) | {"namespace": address})
    assert "hunter2" not in str(said)


def test_arguments_cannot_be_changed_after_they_were_read():
    asked, _ = read(InferencePlatformArgs, {"cluster": {"mode": "create"}, "services": SERVICES})
    with pytest.raises(ValueError, match="frozen"):
        asked.cluster.private_nodes = False


def test_a_platform_may_be_read_before_it_is_planned():
    asked, problems = read(InferencePlatformArgs, platform())
    assert problems == []
    assert make_plan(asked) == make_plan(platform())


# --- as Pulumi writes keys


def planned(secret: tuple[str, ...] = (), **values: str) -> Any:
    """Return the plan of the program for texts as Pulumi's CLI hands them over; `gcp_project` is gcp:project."""
    full = {
        key.replace("_", ":", 1) if key.startswith(("gcp_", "old_")) else f"rayline:{key}": text for key, text in values.items()
    }
    return offline.record("test", config=(full, [f"rayline:{key}" for key in secret])).plan


def said_to(secret: tuple[str, ...] = (), **values: str) -> list[str]:
    """Return what the program says to such texts."""
    with pytest.raises(offline.ProgramError) as caught:
        planned(secret, **values)
    return str(caught.value).splitlines()[1:]


CLUSTER = '{"mode":"existing"}'
TEXT = json.dumps(SERVICES)


def test_structures_arrive_as_json_and_everything_else_as_text():
    plan = planned(cluster=CLUSTER, services=TEXT, kuberay='{"source":"preinstalled"}', namespace="chat")
    assert (plan.cluster.mode, plan.namespace) == (ClusterMode.EXISTING, "chat")
    service = plan.services[0]
    assert (service.accelerator, service.replicas, service.upgrade) == (Accelerator.L4, 8, UpgradeStrategy.NEW_CLUSTER)


def test_project_and_region_are_those_of_the_provider():
    plan = planned(cluster='{"mode":"create"}', services=TEXT, gcp_project="my-project", gcp_region="us-central1")
    assert (plan.cluster.project, plan.cluster.region) == ("my-project", "us-central1")
    said = said_to(cluster=CLUSTER, services=TEXT, project="my-project")
    assert said == ["project (got 'my-project'): no such key; did you mean gcp:project?"]
    said = said_to(cluster='{"mode":"create"}', services=TEXT, gcp_project="My Project", gcp_region="us-central1-a")
    assert [one.partition(":")[0] + ":" + one.split(":")[1].partition(" ")[0] for one in said] == ["gcp:project", "gcp:region"]


@pytest.mark.parametrize(
    "text",
    ['{"cpus": NaN}', '{"cpus": -Infinity}', '{"cpus": 1e400}', "[" * 100_000, '{"cpus": ' + "9" * 5000 + "}", "{", "", "none"],
    ids=["NaN", "-Infinity", "1e400", "100,000 levels", "5,000 digits", "half", "empty", "a word"],
)
def test_a_text_that_is_no_map_is_refused(text):
    (said,) = said_to(cluster=CLUSTER, services=TEXT, head=text)
    assert said.startswith("head")
    assert said.endswith(f"a map, such as {EXAMPLES['head']}")
    assert len(said) < 200


def test_keys_under_a_former_name_of_the_project_are_found_and_a_providers_are_not():
    said = said_to(cluster=CLUSTER, old_services=TEXT)
    assert len(said) == 1
    assert said[0].startswith("old:services: the project's name in Pulumi.yaml is rayline, not old. Fix: write rayline:")
    assert planned(cluster=CLUSTER, services=TEXT, gcp_zone="us-central1-a", old_address="x").services


def test_a_token_in_clear_text_is_refused_and_a_secret_one_is_taken():
    given = {"cluster": CLUSTER, "services": TEXT, "hugging_face_token": "hf_abcdefghijkl"}
    (said,) = said_to((), **given)
    assert said.startswith("hugging_face_token: it stands in the stack file in clear text")
    assert "hf_abc" not in said
    source = '{"source":"pulumi-secret"}'
    program = offline.record(
        "test",
        config=(
            {f"rayline:{key}": text for key, text in (given | {"hugging_face": source}).items()},
            ["rayline:hugging_face_token"],
        ),
    )
    assert "hf_abcdefghijkl" not in str([resource.inputs for resource in program.resources])
    assert "hf_abcdefghijkl" not in repr(program.plan)
    said = said_to(cluster=CLUSTER, services=TEXT, hugging_face='{"token":"hf_abcdefghijkl"}')
    assert [one for one in said if "hf_abc" in one] == []
    assert said[0].startswith("hugging_face.token: no such key; did you mean hugging_face_token?")


# --- what is derived for others


@pytest.mark.parametrize("arguments", CLASSES, ids=name_of)
def test_pulumi_reads_the_same_keys_and_needs_the_same(arguments):
    derived = typed_dict(arguments)
    assert list(derived.__annotations__) == list(arguments.model_fields)
    assert derived.__required_keys__ == {name for name, field in arguments.model_fields.items() if field.is_required()}
    assert (derived.__name__, derived.__doc__) == (arguments.__name__, arguments.__doc__)
    # Pulumi's reader has no word for what goes beyond a type
    assert typing.Annotated not in {typing.get_origin(kind) for kind in derived.__annotations__.values()}


@pytest.fixture(scope="module")
def editor() -> jsonschema.Draft202012Validator:
    """The check that an editor makes by the shipped schema."""
    schema = json.loads(editor_schema.FILE.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_shipped_schemas_are_what_the_classes_say():
    for path, text in editor_schema.texts().items():
        assert path.read_text() == text, "run `make docs` and commit the result"


@pytest.mark.parametrize("stack", STACKS)
def test_an_editor_accepts_a_shipped_stack_file_which_names_the_schema(editor, stack):
    path = ROOT / "stacks" / f"Pulumi.{stack}.yaml"
    head = path.read_text().partition("config:")[0].splitlines()
    assert f"# yaml-language-server: $schema={editor_schema.FILE.name}" in head[1:]
    file = yaml.safe_load(path.read_text())
    assert list(editor.iter_errors(file)) == []
    prefixed = {key if ":" in key else f"rayline:{key}": value for key, value in file["config"].items()}
    assert list(editor.iter_errors({"config": prefixed, "encryptionsalt": "v1:abc"})) == []


def bad_configs() -> list[Any]:
    """Return (what a stack file of tests/bad_configs holds), for each that YAML can read."""
    found = []
    for path in sorted((ROOT / "tests" / "bad_configs").glob("*.yaml")):
        if not path.stem.startswith(("file_", "prefix_")):
            found.append(pytest.param(yaml.safe_load(path.read_text()), id=path.stem))
    return found


# Wrong in shape, and beyond what JSON Schema can say.
NOT_FOR_EDITORS = {"shape_cidr_with_host_bits"}


@pytest.mark.parametrize("file", bad_configs())
def test_an_editor_refuses_what_is_wrong_in_shape_and_nothing_else(editor, file, request):
    config = {key.removeprefix("rayline:"): value for key, value in file["config"].items()}
    names: dict[str, str] = {full: name for name, full in PROVIDER_KEYS.items()}
    given: dict[str, Any] = {str(names.get(key, key)): value for key, value in config.items()}
    given.pop("hugging_face_token", None)
    _, problems = read(InferencePlatformArgs, {key: value for key, value in given.items() if ":" not in str(key)})
    wrong = bool(problems) or bool(config.keys() & names.values()) or isinstance(config.get("hugging_face_token"), str)
    hugging_face = config.get("hugging_face")
    wrong = wrong or (isinstance(hugging_face, dict) and "token" in hugging_face)
    refused = next(editor.iter_errors(file), None) is not None
    if request.node.callspec.id in NOT_FOR_EDITORS:
        assert (wrong, refused) == (True, False)
    else:
        assert refused == wrong, [str(problem) for problem in problems]


def test_an_editor_shows_the_text_of_a_key_and_offers_no_token(editor):
    engine = editor.schema["$defs"]["EngineArgs"]["properties"]
    assert engine["max_model_len"]["description"].startswith("Longest prompt plus answer")
    assert "token" not in editor.schema["$defs"]["HuggingFaceArgs"]["properties"]
    secret = [name for arguments, name in KEYS if any(isinstance(one, Secret) for one in arguments.model_fields[name].metadata)]
    assert secret == ["token"]
