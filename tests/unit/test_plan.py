"""What the plan decides for services that can work, and what it advises where they cannot."""

import re
from typing import Any

import pytest

from rayline.facts.accelerators import ACCELERATORS, MachineType
from rayline.facts.choices import Accelerator, Capacity
from rayline.models.catalog import shipped_models
from rayline.platform.plan import make_plan
from rayline.platform.types import Plan
from rayline.pools.plan import allocatable
from rayline.pools.types import NodePool
from rayline.schema.check import PlanError
from rayline.service.fit import memory_fit
from rayline.service.types import EngineLimits, LoadedModel, ServicePlan

MODELS = shipped_models()

QWEN = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"}
GEMMA = {"model": "google/gemma-4-E2B-it", "accelerator": "b200", "nodes": {"capacity": "spot"}}
# sold for every card
SPOT = {"capacity": "spot", "zones": ["us-central1-b"]}


def plan(cluster: dict[str, Any] | None = None, *, name: str = "dev", region: str = "us-central1", **services) -> Plan:
    return make_plan(
        {"project": "my-project", "region": region, "cluster": {"mode": "create"} | (cluster or {}), "services": services},
        name=name,
    )


def one(**service) -> tuple[ServicePlan, NodePool]:
    """A service on its own, and its pool."""
    made = plan(qwen=QWEN | service)
    return made.services[0], made.pools[0]


def refused(**service) -> str:
    with pytest.raises(PlanError) as caught:
        plan(qwen=QWEN | service)
    return str(caught.value)


# --- pools


def test_services_that_want_the_same_nodes_share_a_pool():
    made = plan(a=QWEN | {"replicas": 2}, b=QWEN | {"replicas": 3}, c=QWEN | {"nodes": {"capacity": "spot"}}, d=GEMMA)
    assert [(pool.name, pool.nodes) for pool in made.pools] == [
        ("g2-standard-8", 5),
        ("g2-standard-8-spot", 1),
        ("a4-highgpu-8g-spot", 1),
    ]
    assert [service.pool for service in made.services] == [
        "g2-standard-8", "g2-standard-8", "g2-standard-8-spot", "a4-highgpu-8g-spot",
    ]  # fmt: skip


def test_services_can_share_one_machine():
    half = {"workers": {"gpus": 4}, "replicas": 4}
    made = plan(a=GEMMA | half, b=GEMMA | half)
    assert [pool.nodes for pool in made.pools] == [1]
    assert all(service.workers.workers == 1 for service in made.services)
    # two halves, each with its share of CPUs and memory, are not more than the machine
    cpus, memory = allocatable(made.pools[0].machine)
    assert 2 * made.services[0].workers.cpus < cpus
    assert 2 * made.services[0].workers.memory_gib < memory


@pytest.mark.parametrize(
    "nodes",
    [{}, {"capacity": "spot"}, {"zones": ["us-central1-b"]}, {"machine_type": "g2-standard-12"}],
    ids=["the same", "spot", "other zones", "other machine"],
)
@pytest.mark.parametrize("first", ["aa", "zz"])
def test_a_service_that_is_added_renames_no_pool_of_another(nodes, first):
    alone = plan(qwen=QWEN)
    both = plan(**dict(sorted({"qwen": QWEN, first: QWEN | {"nodes": nodes}}.items())))
    pool = next(service.pool for service in both.services if service.name == "qwen")
    assert pool == alone.services[0].pool
    assert len({pool.name for pool in both.pools}) == len(both.pools)


def test_pools_in_other_zones_or_of_other_reservations_have_other_names():
    made = plan(
        a=QWEN,
        b=QWEN | {"nodes": {"zones": ["us-central1-b"]}},
        c=QWEN | {"nodes": {"zones": ["us-central1-c"]}},
        d=GEMMA | {"nodes": {"capacity": "reservation", "reservation": "one"}},
        e=GEMMA | {"nodes": {"capacity": "reservation", "reservation": "two"}},
    )
    names = [pool.name for pool in made.pools]
    assert len(set(names)) == 5
    assert names[0] == "g2-standard-8"


def test_a_zonal_cluster_has_its_pools_in_that_zone():
    made = plan({"location": "us-central1-b"}, qwen=QWEN)
    assert made.pools[0].zones == ("us-central1-b",)
    assert made.pools[0].name == "g2-standard-8"


def test_a_regional_cluster_has_its_pools_only_where_the_card_is():
    assert plan(qwen=QWEN, region="us-east4").pools[0].zones == ("us-east4-a", "us-east4-c")


def test_an_upgrade_beside_the_old_cluster_doubles_the_pool():
    _, pool = one(replicas=4)
    assert (pool.nodes, pool.max_nodes) == (4, 8)
    _, pool = one(replicas=4, rollout={"strategy": "none"})
    assert (pool.nodes, pool.max_nodes) == (4, 4)


def test_a_service_on_a_shared_pool_grows_to_its_own_share():
    made = plan(a=QWEN | {"replicas": 2}, b=QWEN | {"rollout": {"strategy": "none"}})
    assert len(made.pools) == 1
    groups = [service.workers for service in made.services]
    assert [group.most_workers + group.surge_workers for group in groups] == [4, 1]
    assert made.pools[0].max_nodes == 5


def test_gpus_that_are_paid_for_and_serve_nothing_are_told():
    half_empty = plan(big={"model": "Qwen/Qwen3.5-27B", "accelerator": "h100", "engine": {"tensor_parallel_size": 2}})
    assert any("6 of 8 GPUs are paid for and serve nothing" in warning for warning in half_empty.warnings)
    full = plan(big={"model": "Qwen/Qwen3.5-27B", "accelerator": "h100", "engine": {"tensor_parallel_size": 2}, "replicas": 4})
    assert not any("serve nothing" in warning for warning in full.warnings)


def test_a_reservation_is_not_doubled_unless_asked():
    reserved = GEMMA | {"nodes": {"capacity": "reservation", "reservation": "r"}}
    assert plan(gemma=reserved).pools[0].max_nodes == 1
    assert plan(gemma=reserved | {"rollout": {"strategy": "new-cluster"}}).pools[0].max_nodes == 2


@pytest.mark.parametrize("gpus_per_worker", [1, 2, 4])
def test_worker_groups_may_grow_to_the_whole_pool(gpus_per_worker):
    service, pool = one(replicas=4, nodes={"machine_type": "g2-standard-48"}, workers={"gpus": gpus_per_worker})
    group = service.workers
    assert (group.most_workers + group.surge_workers) * gpus_per_worker == pool.max_nodes * 4


# --- workers


@pytest.mark.parametrize(
    ("machine", "cpus", "memory"),
    [
        # GKE's allocatable as computed in the project's research from GKE's reservation tiers
        (MachineType("g2-standard-4", 1, 4, 16), 3.92, 12.9),
        (MachineType("g2-standard-8", 1, 8, 32), 7.91, 27.7),
        (MachineType("g2-standard-12", 1, 12, 48), 11.90, 42.5),
        (MachineType("g2-standard-16", 1, 16, 64), 15.89, 57.2),
        (MachineType("g2-standard-24", 2, 24, 96), 23.87, 86.8),
        (MachineType("g2-standard-32", 1, 32, 128), 31.85, 116.3),
        (MachineType("g2-standard-48", 4, 48, 192), 47.81, 178.0),
        (MachineType("g2-standard-96", 8, 96, 384), 95.69, 363.1),
        (MachineType("a4-highgpu-8g", 8, 224, 3968), 223.37, 3820),
        (MachineType("a3-highgpu-1g", 1, 26, 234), 25.86, 218),
        (MachineType("a3-highgpu-8g", 8, 208, 1872), 207.41, 1798),
        (MachineType("a3-ultragpu-8g", 8, 224, 2952), 223.37, 2840),
        (MachineType("g4-standard-48", 1, 48, 180), 47.8, 166),
        (MachineType("g4-standard-384", 8, 384, 1440), 383, 1381),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_allocatable_is_what_gke_leaves(machine, cpus, memory):
    assert allocatable(machine) == (pytest.approx(cpus, rel=0.01), pytest.approx(memory, rel=0.01))


@pytest.mark.parametrize(
    "machine", [m for spec in ACCELERATORS.values() for m in spec.machines], ids=lambda machine: machine.name
)
def test_a_worker_that_takes_a_machine_fits_it_beside_the_daemonsets(machine):
    accelerator = next(card for card, spec in ACCELERATORS.items() if machine in spec.machines)
    made = plan(
        a={
            "model": "Qwen/Qwen3.5-0.8B",
            "accelerator": accelerator,
            "nodes": {"machine_type": machine.name, "capacity": "spot", "zones": ["us-central1-b"]},
        }
    )
    group, (cpus, memory) = made.services[0].workers, allocatable(machine)
    assert group.gpus == machine.gpus
    assert 0.75 * cpus < group.cpus <= cpus - 0.5
    assert 0.75 * memory < group.memory_gib <= memory - 1


def test_a_worker_on_the_smallest_l4_machine_asks_what_is_known_to_schedule():
    service, _ = one()
    assert (service.workers.cpus, service.workers.memory_gib) == (6, 24)


def test_the_smallest_machine_that_holds_a_replica_is_taken():
    assert one()[1].machine.name == "g2-standard-8"
    assert one(engine={"tensor_parallel_size": 2})[1].machine.name == "g2-standard-24"
    assert one(engine={"tensor_parallel_size": 4})[1].machine.name == "g2-standard-48"


def test_h100_on_demand_takes_the_one_machine_that_is_sold_so():
    assert one(accelerator="h100")[1].machine.name == "a3-highgpu-8g"
    assert one(accelerator="h100", nodes={"capacity": "spot"})[1].machine.name == "a3-highgpu-1g"


def test_a_pipeline_spans_machines():
    service, pool = one(model="google/gemma-4-31B-it", engine={"pipeline_parallel_size": 4}, replicas=2)
    assert service.gpus == 8
    assert (service.workers.workers, service.workers.gpus, pool.nodes) == (8, 1, 8)
    assert service.workers.replicas_per_worker == 0.25


def test_the_boot_disk_holds_the_image_and_every_workers_weights():
    service, pool = one(model="google/gemma-4-31B-it", engine={"tensor_parallel_size": 4})
    assert service.workers.ephemeral_gib > 59
    assert pool.boot_disk_gib > 40 + 59


# --- limits


def test_limits_are_the_cards_defaults_where_the_memory_allows():
    service, _ = one(accelerator="h100", nodes={"capacity": "spot"}, model="Qwen/Qwen3.5-0.8B")
    assert (service.limits.max_model_len, service.limits.max_num_batched_tokens) == (16384, 8192)
    assert service.limits.max_num_seqs == 1024


@pytest.mark.parametrize(("card", "machine"), [("a100-40gb", "a2-highgpu-1g"), ("a100-80gb", "a2-ultragpu-1g")])
def test_an_a100_gets_vllms_smaller_limits_whatever_its_memory(card, machine):
    service, pool = one(accelerator=card, model="Qwen/Qwen3.5-0.8B")
    assert (service.limits.max_num_batched_tokens, service.limits.max_num_seqs) == (2048, 256)
    assert pool.machine.name == machine
    assert pool.hourly_usd


def test_an_fp8_checkpoint_on_an_a100_saves_memory_and_no_time():
    made = plan(qwen=QWEN | {"model": "Qwen/Qwen3-0.6B-FP8", "accelerator": "a100-40gb"})
    assert any("fp8 on a100-40gb" in warning and "Marlin" in warning for warning in made.warnings)


def test_a_context_that_nobody_asked_for_shrinks_to_what_fits():
    service, _ = one(model="Qwen/Qwen3.5-9B")
    assert 1024 < service.limits.max_model_len < 16384
    assert service.limits.max_model_len % 256 == 0
    assert service.fit.fits


CONTEXT = "no more fit beside"


def told_of_little_context(made: Plan) -> bool:
    return any(CONTEXT in warning for warning in made.warnings)


def test_a_context_that_is_small_for_want_of_memory_is_told():
    made = plan(qwen=QWEN | {"model": "Qwen/Qwen3.5-9B"})
    (warning,) = (warning for warning in made.warnings if CONTEXT in warning)
    tokens, sequences = made.services[0].limits.max_model_len, made.services[0].limits.max_num_seqs
    assert warning.startswith(
        f"qwen: {tokens:,} tokens of context, less than the usual 16,384: no more fit beside {sequences} requests"
    )


@pytest.mark.parametrize("tokens", [512, 8192, 16383])
def test_the_stacks_own_limit_of_the_context_is_no_want_of_memory(tokens):
    assert not told_of_little_context(plan(qwen=QWEN | {"engine": {"max_model_len": tokens}}))
    assert not told_of_little_context(
        plan(qwen=QWEN | {"model": "Qwen/Qwen3.5-9B", "engine": {"max_model_len": min(tokens, 4096)}})
    )


def test_a_small_context_on_the_cpu_is_no_want_of_memory():
    cpu = {"model": "Qwen/Qwen3.5-0.8B", "accelerator": "cpu", "pods": {"image": "mine/cpu:1"}}
    made = make_plan({"cluster": {"mode": "existing"}, "services": {"qwen": cpu}})
    assert made.services[0].limits.max_model_len == 2048
    assert not told_of_little_context(made)


@pytest.mark.parametrize("accelerator", [card for card in Accelerator if card is not Accelerator.CPU])
@pytest.mark.parametrize("model", [name for name, model in MODELS.items() if model.at_hugging_face])
@pytest.mark.parametrize("engine", [{}, {"max_num_seqs": 16}, {"max_num_seqs": 256}], ids=str)
def test_no_more_is_said_to_fit_only_where_that_is_so(model, accelerator, engine):
    service = {"model": model, "accelerator": accelerator, "nodes": SPOT, "engine": engine}
    try:
        made = plan(a=service)
    except PlanError:
        return
    limits, fit = made.services[0].limits, made.services[0].fit
    if told_of_little_context(made):
        # lengths are whole blocks of 256
        assert fit.longest_context - limits.max_model_len < 256
    else:
        assert limits.max_model_len == min(16384, MODELS[model].max_context)


def test_sequences_are_no_more_than_the_cache_holds_at_an_eighth_of_the_context():
    service, _ = one()
    assert service.limits.max_num_seqs % 8 == 0
    assert service.limits.max_num_seqs <= service.fit.sequences(16384 // 8) < service.limits.max_num_seqs + 16


def test_what_the_stack_says_is_taken_as_it_is():
    service, _ = one(
        engine={"max_model_len": 5000, "max_num_seqs": 37, "max_num_batched_tokens": 3000, "gpu_memory_utilization": 0.8}
    )
    limits = service.limits
    assert (limits.max_model_len, limits.max_num_seqs, limits.max_num_batched_tokens) == (5000, 37, 3000)
    assert limits.gpu_memory_utilization == 0.8


@pytest.mark.parametrize("accelerator", [card for card in Accelerator if card is not Accelerator.CPU])
@pytest.mark.parametrize("model", [name for name, model in MODELS.items() if model.at_hugging_face])
def test_every_model_on_every_gpu_fits_or_is_refused_with_a_fix(model, accelerator):
    service = {"model": model, "accelerator": accelerator, "nodes": SPOT}
    try:
        chosen = plan(a=service).services[0]
    except PlanError:
        with pytest.raises(
            PlanError, match=r"GiB short; what fits: (engine\.tensor_parallel_size|engine\.max_model_len|accelerator) "
        ):
            plan(a=service)
        return
    assert chosen.fit.concurrency >= 1
    assert chosen.limits.max_num_seqs <= chosen.limits.max_num_batched_tokens
    if chosen.model.recurrent:
        assert chosen.limits.max_num_seqs <= chosen.fit.blocks


@pytest.mark.parametrize(
    "service",
    [
        {"model": "google/gemma-4-31B-it"},
        {"model": "Qwen/Qwen3.5-9B", "engine": {"max_model_len": 262144}},
        {"model": "Qwen/Qwen3.5-27B", "engine": {"max_model_len": 100000}},
        {"model": "google/gemma-4-26B-A4B-it", "engine": {"max_model_len": 131072}},
    ],
    ids=lambda service: service["model"],
)
def test_every_way_out_that_a_refusal_names_is_one(service):
    message = refused(**service)
    ways = message.partition("what fits: ")[2].split(" or ")
    assert ways
    for way in ways:
        key, value = way.split(" ")
        if key == "accelerator":
            change: dict[str, Any] = {"accelerator": value}
        else:
            change = {"engine": service.get("engine", {}) | {key.removeprefix("engine."): int(value)}}
        assert plan(a=QWEN | service | {"nodes": SPOT} | change).services


def test_a_card_that_has_as_much_more_as_a_refusal_says_would_do():
    short = float(re.search(r"([\d.]+) GiB short", refused(model="google/gemma-4-31B-it"))[1])  # type: ignore[index]

    def fits(more: float) -> bool:
        return memory_fit(
            LoadedModel(MODELS["google/gemma-4-31B-it"]),
            EngineLimits(16384, 1, 2048, 0.92),
            memory_gib=ACCELERATORS[Accelerator.L4].memory_gib + more / 0.92,
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            prefix_caching=True,
        ).fits

    assert fits(short + 0.1)
    assert not fits(short - 0.1)


# --- money


def test_the_bill_is_the_cluster_the_cpu_pool_and_the_gpu_nodes():
    # us-central1, 2026-08-03: e2-standard-16 $0.5361, g2-standard-8 $0.8536; GKE's fee $0.10
    made = plan({"system_pool": {"min_nodes": 2}}, qwen=QWEN | {"replicas": 4})
    assert made.hourly_usd == pytest.approx(0.10 + 2 * 0.5361 + 4 * 0.8536)
    assert made.services[0].hourly_usd == pytest.approx(4 * 0.8536)


def test_services_that_share_a_machine_share_its_price():
    half = {"workers": {"gpus": 4}, "replicas": 4}
    made = plan(a=GEMMA | half, b=GEMMA | half)
    assert [service.hourly_usd for service in made.services] == [pytest.approx(39.63 / 2)] * 2


def test_each_way_of_getting_a_node_has_its_own_price():
    reserved = plan(g=GEMMA | {"nodes": {"capacity": "reservation", "reservation": "r"}}).pools[0].hourly_usd
    assert (reserved, plan(g=GEMMA).pools[0].hourly_usd) == (64.44, 39.63)
    assert one(nodes={"capacity": "spot"})[1].hourly_usd < one()[1].hourly_usd  # type: ignore[operator]


def test_a_price_that_is_not_known_is_named_beside_the_sum_of_the_others():
    made = plan(qwen=QWEN, gemma=GEMMA, region="us-east4")
    assert made.pools[0].hourly_usd is not None
    assert made.pools[1].hourly_usd is None
    assert made.unpriced == ("a4-highgpu-8g",)
    assert made.hourly_usd == pytest.approx(0.10 + 0.6038 + 0.8508, rel=1e-4)
    assert plan(qwen=QWEN).unpriced == ()


# --- rules that no model of today breaks


def made(monkeypatch: pytest.MonkeyPatch, name: str, **values) -> None:
    row = MODELS["Qwen/Qwen3.5-4B"].model_copy(update={"model": name, **values})
    monkeypatch.setattr("rayline.platform.plan.read_models", lambda folder: {**MODELS, name: row})


def test_a_gated_model_needs_a_token(monkeypatch):
    made(monkeypatch, "made/gated", gated=True)
    assert "services.qwen.model (got 'made/gated'): a gated model needs a token: set hugging_face.source" in refused(
        model="made/gated"
    )
    arguments = {
        "project": "my-project", "region": "us-central1", "cluster": {"mode": "create"},
        "services": {"qwen": QWEN | {"model": "made/gated"}}, "hugging_face": {"source": "existing-secret"},
    }  # fmt: skip
    assert make_plan(arguments).hugging_face.secret_name == "hf-secret"


def test_a_gated_model_that_drafts_needs_a_token_too(monkeypatch):
    made(monkeypatch, "made/gated", gated=True)
    speculation = {"method": "draft", "tokens": 3, "model": "made/gated"}
    assert (
        "services.qwen.engine.speculation.model (got 'made/gated'): a gated model needs a token: set hugging_face.source"
        in refused(engine={"speculation": speculation})
    )


def test_a_model_that_is_newer_than_the_runtime_is_refused(monkeypatch):
    made(monkeypatch, "made/new", min_vllm="0.30.0")
    assert "services.qwen.pods.runtime (got '2.60.0'): made/new needs vLLM 0.30.0, this runtime has 0.29.0" in refused(
        model="made/new"
    )


# --- warnings


def test_a_plan_warns_of_what_a_person_has_to_know():
    made = make_plan(
        {
            "project": "my-project", "region": "us-central1", "cluster": {"mode": "create"},
            "kuberay": {"source": "gke-addon"}, "services": {"qwen": QWEN | {"rollout": {"strategy": "none"}}},
        }
    )  # fmt: skip
    text = "\n".join(made.warnings)
    assert "1.6 or newer" in text
    assert "image tag rayproject/ray-llm:2.60.0-py312-cu130 is not verified" in text
    assert "only when the RayCluster is deleted" in text


@pytest.mark.parametrize(
    ("mode", "source", "warned"),
    [("create", "existing-secret", True), ("existing", "existing-secret", False), ("create", "none", False)],
)
def test_a_secret_that_nobody_can_have_made_before_the_first_up_is_told(mode: str, source: str, warned: bool):
    made = make_plan(
        {
            "project": "my-project",
            "region": "us-central1",
            "cluster": {"mode": mode},
            "hugging_face": {"source": source},
            "services": {"qwen": QWEN},
        }
    )
    said = [warning for warning in made.warnings if "create Secret hf-secret there while it waits" in warning]
    assert bool(said) == warned


def test_a_plan_without_anything_unusual_does_not_warn():
    assert plan(qwen=QWEN | {"pods": {"runtime": "2.56.0"}}).warnings == ()


def test_capacities_of_the_plan_are_those_that_the_machine_is_sold_in():
    for card, spec in ACCELERATORS.items():
        for machine in spec.machines:
            for capacity in set(Capacity) - {Capacity.LADDER}:
                nodes = {"machine_type": machine.name, "capacity": capacity, "zones": ["us-central1-b"]}
                if capacity is Capacity.RESERVATION:
                    nodes["reservation"] = "r"
                service = {"model": "Qwen/Qwen3.5-0.8B", "accelerator": card, "nodes": nodes}
                if capacity in machine.capacities:
                    assert plan(a=service).pools[0].capacity is capacity
                else:
                    with pytest.raises(PlanError, match=f"{machine.name} is not sold {capacity.value}"):
                        plan(a=service)
