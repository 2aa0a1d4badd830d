"""The fact tables: every row is complete, has a source and agrees with the others."""

import itertools
import re

import pytest

from rayline.facts import choices, google, prices
from rayline.facts.accelerators import ACCELERATORS, SYSTEM_MACHINES, other_accelerator
from rayline.facts.choices import Accelerator, Capacity
from rayline.facts.defaults import SYSTEM_MACHINE_TYPE
from rayline.facts.runtimes import DEFAULT_RUNTIME, MIN_RAY_VERSION, RUNTIMES
from rayline.facts.serve_flags import SERVE_FLAGS, SWITCHES, THROUGHPUT_SETTINGS, Kind
from rayline.facts.variables import NO_EFFECT, OWNED
from rayline.models.catalog import shipped_models

MODELS = shipped_models()

MACHINES = [machine for spec in ACCELERATORS.values() for machine in spec.machines]


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


# --- sources


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_source_and_a_licence(name):
    assert len(MODELS[name].source.split()) >= 4
    assert MODELS[name].licence


@pytest.mark.parametrize("card", ACCELERATORS)
def test_every_accelerator_has_a_source(card):
    assert re.search(r"\d", ACCELERATORS[card].source)


@pytest.mark.parametrize("name", SERVE_FLAGS)
def test_every_variable_says_what_it_does_and_where_that_was_read(name):
    flag = SERVE_FLAGS[name]
    assert len(flag.effect.split()) >= 3
    assert re.search(r"\.(py|h)(:\d+)?", flag.source)


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_runtime_has_a_source_and_its_own_versions_image(name):
    runtime = RUNTIMES[name]
    assert runtime.ray_version == name
    assert f":{name}-" in runtime.image
    assert len(runtime.source.split()) >= 4
    assert version(runtime.ray_version) >= version(MIN_RAY_VERSION)


def test_prices_say_where_and_when_they_were_read():
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", prices.PRICED_ON)
    assert prices.SOURCE


# --- accelerators, machines, prices


def test_every_accelerator_but_the_cpu_has_a_row():
    assert set(ACCELERATORS) == set(Accelerator) - {Accelerator.CPU}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a100", "it has 40 or 80 GB. Fix: a100-40gb or a100-80gb"),
        ("a100-80", "it has 40 or 80 GB. Fix: a100-40gb or a100-80gb"),
        ("A100-80GB", "did you mean a100-80gb?"),
        ("nvidia-tesla-a100", "did you mean a100-40gb?"),
        ("a2-ultragpu-4g", "did you mean a100-80gb?"),
        ("RTX-PRO-6000", "did you mean rtx-pro-6000?"),
        ("L40S", "no list of Google's machines here has it. Fix: l4 (24 GB), or rtx-pro-6000 (96 GB)"),
        ("h100-mega-80gb", "its machine a3-megagpu-8g has no row here. Fix: h100"),
        ("gb200", "its machines have no row here. Fix: b200"),
        *((name, "a TPU is out of scope") for name in ("tpu-v5e", "v5e", "v6e-8", "v5litepod-4", "TPU7x", "ct6e-standard-4t")),
        *((name, "vLLM 0.29 has bfloat16") for name in ("t4", "nvidia-tesla-t4", "V100", "nvidia-tesla-p4")),
    ],
)
def test_an_accelerator_without_a_row_leads_to_the_nearest_card(name, reason):
    assert (other_accelerator(name) or "").startswith(reason)


@pytest.mark.parametrize("name", ["", "gpu", "l5", "mi300x", "h300", "4"])
def test_an_unknown_name_is_no_accelerator_of_another_kind(name):
    assert other_accelerator(name) is None


@pytest.mark.parametrize("card", ACCELERATORS)
def test_machines_stand_from_few_gpus_to_many_and_zones_belong_to_regions(card):
    spec = ACCELERATORS[card]
    gpus = [machine.gpus for machine in spec.machines]
    assert gpus == sorted(gpus)
    assert len({machine.name for machine in spec.machines}) == len(spec.machines)
    assert all(re.fullmatch(r"[a-z]+-[a-z]+\d+-[a-z]", zone) for zone in spec.zones)
    assert len(set(spec.zones)) == len(spec.zones)
    # without zones a stack has to name them, and the notes say how
    assert spec.zones or "zones" in spec.notes
    assert set(spec.local_ssds) <= {machine.name for machine in spec.machines}


def test_no_machine_carries_two_cards():
    names = [machine.name for machine in MACHINES]
    assert len(set(names)) == len(names)


# Nobody here has seen a price for these. A row in prices.json takes the name off this list.
WITHOUT_A_PRICE: set[str] = set()


@pytest.mark.parametrize("machine", [*MACHINES, *SYSTEM_MACHINES.values()], ids=lambda machine: machine.name)
def test_every_machine_that_is_sold_has_a_price_somewhere_or_is_known_not_to(machine):
    assert bool(prices.PRICES.get(machine.name)) != (machine.name in WITHOUT_A_PRICE)


@pytest.mark.parametrize("name", prices.PRICES)
def test_a_price_belongs_to_a_machine_and_spot_is_the_cheaper_one(name):
    assert name in {machine.name for machine in MACHINES} | set(SYSTEM_MACHINES)
    for region, (on_demand, spot) in prices.PRICES[name].items():
        assert re.fullmatch(r"[a-z]+-[a-z]+\d+", region)
        assert on_demand or spot
        if on_demand and spot:
            assert 0 < spot < on_demand


def test_what_is_not_sold_on_demand_is_not_priced_so_where_google_names_no_price():
    b200 = ACCELERATORS[Accelerator.B200].machines[0]
    assert Capacity.ON_DEMAND not in b200.capacities
    assert all(on_demand is None for on_demand, _ in prices.PRICES[b200.name].values())
    assert prices.FLEX_START[b200.name] > 0


def test_more_gpus_of_a_card_never_cost_less_in_any_region():
    for spec in ACCELERATORS.values():
        for few, many in itertools.pairwise(spec.machines):
            for region in prices.PRICES[few.name].keys() & prices.PRICES[many.name].keys():
                a, b = (prices.PRICES[machine.name][region][0] for machine in (few, many))
                if a and b and many.gpus > few.gpus and many.vcpus > few.vcpus:
                    assert b > a, (few.name, many.name, region)


# Priced from Google's page, which was copied for one region.
ONE_REGION = {"a3-ultragpu-8g", "a4-highgpu-8g"}


@pytest.mark.parametrize("machine", [m for m in MACHINES if m.name not in ONE_REGION], ids=lambda machine: machine.name)
def test_a_machine_has_a_price_in_every_region_that_lists_it(machine):
    spec = next(spec for spec in ACCELERATORS.values() if machine in spec.machines)
    listed = {zone.rsplit("-", 1)[0] for zone in spec.zones}
    # the zones list H100 in Milan, the prices do not
    assert listed - prices.PRICES[machine.name].keys() <= ({"europe-west8"} if machine.name.startswith("a3-highgpu") else set())


def test_the_default_cpu_machine_has_a_row():
    assert SYSTEM_MACHINE_TYPE in SYSTEM_MACHINES
    assert all(machine.gpus == 0 for machine in SYSTEM_MACHINES.values())


# --- models


@pytest.mark.parametrize("name", MODELS)
def test_a_models_numbers_are_possible(name):
    model = MODELS[name]
    assert 1 <= model.weights_bytes / model.parameters <= 2
    assert model.attention
    assert model.max_context >= 2048
    for layer in model.attention:
        assert layer.head_dim % 16 == 0
        assert layer.window is None or layer.window < model.max_context
    if model.recurrent:
        # the published ratio of the family: three linear layers for one of full attention
        assert model.recurrent.layers == 3 * sum(layer.layers for layer in model.attention)


def test_models_of_one_family_have_the_same_parsers():
    for prefix, parser in (("Qwen/Qwen3.5-", "qwen3_coder"), ("google/gemma-4-", "gemma4")):
        family = [model for name, model in MODELS.items() if name.startswith(prefix)]
        assert len(family) >= 4
        assert {model.tool_call_parser for model in family} == {parser}
        assert all(model.reasoning_parser for model in family)


def test_the_default_runtime_is_known_and_runs_every_model():
    for model in MODELS.values():
        assert version(model.min_vllm) <= version(RUNTIMES[DEFAULT_RUNTIME].vllm_version)


# --- Serve variables


@pytest.mark.parametrize("name", SERVE_FLAGS)
def test_a_variables_default_and_value_are_of_its_kind(name):
    flag = SERVE_FLAGS[name]
    form = {Kind.SWITCH: r"[01]", Kind.INTEGER: r"\d+", Kind.SECONDS: r"\d+(\.\d+)?", Kind.TEXT: r"[a-z][a-z-]*"}[flag.kind]
    for value in (flag.default, *([flag.value] if flag.value is not None else [])):
        assert re.fullmatch(form, value), value
    # what looks like a number or a switch is not called text
    assert flag.kind is not Kind.TEXT or not flag.default.isdigit()


def test_the_four_switches_are_variables_that_only_a_switch_sets():
    assert list(SWITCHES) == ["ha_proxy", "throughput_optimized", "direct_streaming", "ray_executor_v2"]
    for variable in SWITCHES.values():
        flag = SERVE_FLAGS[variable]
        assert (flag.kind, flag.value, flag.owned) == (Kind.SWITCH, "1", True)


def test_no_variable_is_in_two_tables():
    assert not set(SERVE_FLAGS) & set(OWNED)
    assert not set(NO_EFFECT) & (set(SERVE_FLAGS) | set(OWNED))
    assert all(len(reason.split()) >= 3 for reason in (*OWNED.values(), *NO_EFFECT.values()))


def test_what_the_throughput_switch_turns_over_is_known_or_refused():
    for variable, value in THROUGHPUT_SETTINGS.items():
        assert variable in SERVE_FLAGS or variable in OWNED
        # on in 2.60 without the switch as well (ray/serve/_private/constants.py:672); the switch still names it
        if variable in SERVE_FLAGS and variable != "RAY_SERVE_FREEZE_GC_ON_STARTUP":
            assert SERVE_FLAGS[variable].default != value


def test_choices_are_written_as_a_stack_file_writes_them():
    for kind in (choices.Accelerator, choices.Capacity, choices.ClusterMode, choices.OperatorSource):
        assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", choice.value) for choice in kind)


def test_node_accounts_get_no_role_that_can_change_anything_but_logs_and_metrics():
    writers = {role for role in google.NODE_ROLES if re.search(r"(?i)writer|admin|editor|owner", role)}
    assert writers == {"roles/logging.logWriter", "roles/monitoring.metricWriter", "roles/stackdriver.resourceMetadata.writer"}
