"""How a service's machines are to be had: what the plan decides, what the ComputeClass says, what a reader is told."""

from typing import Any

import pytest

from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.capacities import CAPACITIES, RESERVATION, gke_version
from rayline.facts.choices import Capacity
from rayline.platform.plan import make_plan
from rayline.platform.types import Plan
from rayline.pools.manifests import compute_class, network_claim_template
from rayline.pools.types import NodePool
from rayline.schema.check import PlanError
from rayline.service.manifest import ray_service
from rayline.service.types import ServicePlan
from rayline_cli.plan_cards import rows

QWEN = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"}
WIDE = {
    "model": "Qwen/Qwen3.5-27B",
    "accelerator": "b200",
    "nodes": {"capacity": "spot"},
    "engine": {"tensor_parallel_size": 8, "pipeline_parallel_size": 2},
}


def plan(*, region: str = "us-central1", **services) -> Plan:
    return make_plan(
        {"project": "my-project", "region": region, "cluster": {"mode": "create"}, "services": services}, name="dev"
    )


def one(accelerator: str = "l4", **nodes) -> tuple[ServicePlan, NodePool]:
    """A service on such nodes, and its pool."""
    made = plan(qwen=QWEN | {"accelerator": accelerator, "nodes": nodes})
    return made.services[0], made.pools[0]


def card(**nodes) -> dict[str, str]:
    made = plan(qwen=QWEN | {"nodes": nodes})
    return dict(rows(made, made.services[0], made.pools[0]))


def workers(made: Plan) -> dict[str, Any]:
    manifest = ray_service(
        made.services[0],
        namespace=made.namespace,
        hugging_face=made.hugging_face,
        pool=made.pools[0],
        head=made.head,
        store_address=None,
    )
    return manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]


def rungs(pool: NodePool) -> list[dict[str, Any]]:
    manifest = compute_class(pool, service_account="nodes@p", private_nodes=True, image_streaming=True)
    return manifest["spec"]["priorities"]


# --- the rows


def test_every_capacity_says_what_it_is_and_what_it_asks_for():
    assert set(CAPACITIES) == set(Capacity)
    for row in CAPACITIES.values():
        assert min(len(text.split()) for text in (row.meaning, row.conditions, row.quota)) >= 3


def test_versions_of_gke_are_compared_by_number_and_not_by_letter():
    assert gke_version("1.9.0-gke.1") < gke_version("1.32.2-gke.999") < gke_version("1.32.2-gke.1652000")


@pytest.mark.parametrize(
    ("text", "project", "name", "block"),
    [
        ("my-l4", None, "my-l4", None),
        ("my-l4/reservationBlocks/b-1", None, "my-l4", "b-1"),
        ("projects/shared-one/reservations/my-l4", "shared-one", "my-l4", None),
        ("projects/shared-one/reservations/my-l4/reservationBlocks/b-1", "shared-one", "my-l4", "b-1"),
        ("projects/corp.example:shared-one/reservations/my-l4", "corp.example:shared-one", "my-l4", None),
    ],
)
def test_reservations_are_read_in_googles_forms(text, project, name, block):
    found = RESERVATION.fullmatch(text)
    assert found
    assert (found["project"], found["name"], found["block"]) == (project, name, block)


@pytest.mark.parametrize("text", ["My-l4", "reservations/my-l4", "my-l4/blocks/b", "projects/p/reservations/r", "a/", ""])
def test_other_forms_of_a_reservation_are_refused(text):
    assert not RESERVATION.fullmatch(text)


# --- the plan


def test_a_pool_needs_the_latest_of_all_versions_that_its_parts_need():
    assert one()[1].min_gke_version == "1.30"
    assert one(capacity="flex-start")[1].min_gke_version == "1.32.2-gke.1652000"
    assert one(capacity="ladder")[1].min_gke_version == "1.36.3-gke.1244000"
    assert plan(wide=WIDE).pools[0].min_gke_version == "1.34.1-gke.1829001"
    image = "projects/my-project/global/images/ray-llm"
    assert one(secondary_boot_disk=image)[1].min_gke_version == "1.30.1-gke.1329000"


def test_a_flex_start_machine_lives_as_long_as_google_lets_it_unless_a_stack_says_less():
    assert one(capacity="flex-start")[1].max_run_hours == 168
    assert one(capacity="flex-start", max_run_hours=24)[1].max_run_hours == 24
    assert one()[1].max_run_hours is None


def test_a_ladder_tries_what_is_paid_for_before_what_waits_and_what_may_go():
    assert one(capacity="ladder")[1].ways == (Capacity.ON_DEMAND, Capacity.FLEX_START, Capacity.SPOT)
    reserved = one(capacity="ladder", reservation="my-l4")[1].ways
    assert reserved == (Capacity.RESERVATION, Capacity.ON_DEMAND, Capacity.FLEX_START, Capacity.SPOT)


def test_a_ladder_takes_a_machine_that_has_every_rung_it_names():
    h100 = {"accelerator": "h100", "capacity": "ladder"}
    assert one(**h100)[1].machine.name == "a3-highgpu-1g"
    assert one(**h100, capacity_order=["on-demand", "spot"])[1].machine.name == "a3-highgpu-8g"
    assert one(**h100, reservation="r")[1].machine.name == "a3-highgpu-8g"


def test_what_makes_two_pools_differ_is_in_their_names():
    image = "projects/my-project/global/images/ray-llm"
    asked = [
        {}, {"secondary_boot_disk": image}, {"secondary_boot_disk": image + "-2"}, {"capacity": "flex-start"},
        {"capacity": "flex-start", "max_run_hours": 24}, {"capacity": "any-reservation"}, {"capacity": "ladder"},
        {"capacity": "ladder", "capacity_order": ["spot", "on-demand"]}, {"capacity": "ladder", "max_run_hours": 24},
        {"capacity": "ladder", "capacity_order": ["on-demand", "spot"]},
    ]  # fmt: skip
    names = [one(**nodes)[1].name for nodes in asked]
    assert len(set(names)) == len(names), names
    assert (names[0], names[3]) == ("g2-standard-8", "g2-standard-8-flex")


def test_only_replicas_that_span_machines_with_rdma_cards_get_networks_between_them():
    assert plan(wide=WIDE).pools[0].rdma
    assert not plan(narrow=WIDE | {"engine": {"tensor_parallel_size": 8}}).pools[0].rdma
    l4 = {"model": "google/gemma-4-31B-it", "accelerator": "l4", "engine": {"pipeline_parallel_size": 4}}
    assert not plan(l4=l4).pools[0].rdma


def test_zones_by_hand_that_no_source_lists_are_allowed_and_told():
    made = plan(qwen=QWEN | {"nodes": {"zones": ["us-central1-f"]}})
    assert made.pools[0].zones == ("us-central1-f",)
    assert "g2-standard-8-" in made.warnings[0]
    assert "no source here lists g2-standard-8 in us-central1-f" in made.warnings[0]
    listed = plan(qwen=QWEN | {"nodes": {"zones": ["us-central1-b"]}})
    assert not any("no source here" in warning for warning in listed.warnings)


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ({"capacity": "spot"}, "leaves its streams 15 to 25 s, not 300"),
        ({"capacity": "flex-start", "max_run_hours": 24}, "ends after 24 hours at most"),
        ({"capacity": "ladder"}, "so spot would come minutes later"),
        ({"capacity": "ladder", "capacity_order": ["any-reservation", "spot"]}, "before spot is tried"),
        ({"secondary_boot_disk": "projects/my-project/global/images/a"}, "another secondary_boot_disk is another pool"),
    ],
)
def test_what_may_surprise_is_told_and_nothing_of_it_on_demand(nodes, told):
    assert any(told in warning for warning in plan(qwen=QWEN | {"nodes": nodes}).warnings)
    assert not any(told in warning for warning in plan(qwen=QWEN).warnings)


def test_flex_start_at_the_end_of_a_ladder_delays_nothing():
    order = {"capacity": "ladder", "capacity_order": ["on-demand", "spot", "flex-start"]}
    assert not any("minutes later" in warning for warning in plan(qwen=QWEN | {"nodes": order}).warnings)


def test_ray_is_promised_no_more_time_on_spot_than_google_gives():
    variable = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert one(capacity="spot")[0].env[variable] == "15"
    assert one()[0].env[variable] == one(capacity="ladder")[0].env[variable] == "330"


def test_the_card_says_how_machines_come_and_what_gke_has_to_be():
    assert (
        "ladder: reservation my-l4, then on-demand, then flex-start for up to 24 h, then spot"
        in card(capacity="ladder", reservation="my-l4", max_run_hours=24)["node pool"]
    )
    assert "flex-start for up to 168 h" in card(capacity="flex-start")["node pool"]
    assert "GKE 1.32.2-gke.1652000 or newer" in card(capacity="flex-start")["node pool"]
    assert "price not known" in card(capacity="flex-start")["cost"]
    assert "dearest rung" in card(capacity="ladder")["cost"]


def test_a_ladder_costs_at_most_its_dearest_rung():
    assert one(capacity="ladder")[1].hourly_usd == one()[1].hourly_usd
    assert one(capacity="ladder", capacity_order=["flex-start", "spot"])[1].hourly_usd == one(capacity="spot")[1].hourly_usd


# --- the ComputeClass


def test_each_rung_is_of_the_pools_machine_and_gets_its_nodes_in_its_own_way():
    _, pool = one(capacity="ladder", reservation="my-l4", max_run_hours=24)
    reservation, on_demand, flex_start, spot = rungs(pool)
    for rung in (reservation, on_demand, flex_start, spot):
        assert rung["machineType"] == "g2-standard-8"
        assert rung["gpu"] == {"type": "nvidia-l4", "count": 1, "driverVersion": "latest"}
        assert rung["storage"] == {"bootDiskType": "pd-balanced", "bootDiskSize": pool.boot_disk_gib}
    assert reservation["reservations"] == {"affinity": "Specific", "specific": [{"name": "my-l4"}]}
    assert (on_demand["spot"], on_demand["reservations"]) == (False, {"affinity": "None"})
    assert (flex_start["flexStart"]["enabled"], flex_start["maxRunDurationSeconds"]) == (True, 24 * 3600)
    # the CRD refuses flexStart beside spot
    assert "spot" not in flex_start
    assert (spot["spot"], spot["reservations"]) == (True, {"affinity": "None"})


def test_zones_stand_at_every_rung_but_that_of_a_reservation_which_brings_its_own():
    reservation, *others = rungs(one(capacity="ladder", reservation="my-l4")[1])
    assert "location" not in reservation
    assert all(rung["location"] == {"zones": ["us-central1-a", "us-central1-b", "us-central1-c"]} for rung in others)
    zonal = rungs(one(capacity="ladder", reservation="my-l4", zones=["us-central1-b"])[1])[0]
    assert zonal["reservations"]["specific"] == [{"name": "my-l4", "zones": ["us-central1-b"]}]


def test_a_block_of_another_projects_reservation_is_taken_apart_for_the_class():
    text = "projects/shared-one/reservations/my-l4/reservationBlocks/b-1"
    assert rungs(one(capacity="ladder", reservation=text)[1])[0]["reservations"]["specific"] == [
        {"name": "my-l4", "project": "shared-one", "reservationBlock": {"name": "b-1"}}
    ]


def test_a_short_life_leaves_no_time_to_ask_for_a_replacement():
    flex = {"capacity": "ladder", "capacity_order": ["spot", "flex-start"]}
    assert rungs(one(**flex)[1])[1]["flexStart"]["nodeRecycling"] == {"leadTimeSeconds": 3600}
    assert rungs(one(**flex, max_run_hours=2)[1])[1]["flexStart"] == {"enabled": True}


def test_a_class_makes_its_pools_as_safe_as_the_kits_own_and_no_cpu_machines():
    _, pool = one(capacity="ladder")
    spec = compute_class(pool, service_account="nodes@p", private_nodes=True, image_streaming=False)["spec"]
    assert spec["whenUnsatisfiable"] == "DoNotScaleUp"
    assert spec["nodePoolAutoCreation"]["shieldedInstanceConfig"]["enableSecureBoot"] is True
    config = spec["nodePoolConfig"]
    assert (config["serviceAccount"], config["workloadMetadata"], config["ipType"]) == ("nodes@p", "GKE_METADATA", "private")
    assert config["nodeLabels"] == {"rayline/pool": pool.name}
    assert config["imageStreaming"] == {"enabled": False}
    assert "dra" not in config


def test_a_preloaded_disk_is_on_every_rung():
    for rung in rungs(one(capacity="ladder", secondary_boot_disk="projects/my-project/global/images/ray-llm")[1]):
        assert rung["storage"]["secondaryBootDisks"] == [
            {"diskImageName": "ray-llm", "project": "my-project", "mode": "CONTAINER_IMAGE_CACHE"}
        ]


# --- the workers


def test_workers_of_a_ladder_select_the_class_and_nothing_that_a_rung_may_lack():
    made = plan(qwen=QWEN | {"nodes": {"capacity": "ladder"}})
    assert workers(made)["nodeSelector"] == {"cloud.google.com/compute-class": made.pools[0].name}
    keys = {toleration["key"]: toleration for toleration in workers(made)["tolerations"]}
    assert keys["cloud.google.com/compute-class"]["value"] == made.pools[0].name
    assert "nvidia.com/gpu" in keys


@pytest.mark.parametrize(("capacity", "label"), [("spot", "gke-spot"), ("flex-start", "gke-flex-start")])
def test_workers_select_the_label_that_gke_puts_on_such_nodes(capacity, label):
    made = plan(qwen=QWEN | {"nodes": {"capacity": capacity}})
    assert workers(made)["nodeSelector"][f"cloud.google.com/{label}"] == "true"
    assert f"cloud.google.com/{label}" not in workers(plan(qwen=QWEN))["nodeSelector"]


def test_workers_of_a_wide_replica_claim_all_network_cards_of_their_machine():
    spec = workers(plan(wide=WIDE))
    template = network_claim_template("rayline")
    assert spec["resourceClaims"] == [{"name": "rdma", "resourceClaimTemplateName": template["metadata"]["name"]}]
    assert spec["containers"][0]["resources"]["claims"] == [{"name": "rdma"}]
    device = template["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    assert device == {"deviceClassName": "mrdma.google.com", "allocationMode": "All"}
    assert "resourceClaims" not in workers(plan(qwen=QWEN))


def test_a_wide_replica_on_a_ladder_gets_its_networks_from_the_class():
    made = plan(wide=WIDE | {"nodes": {"capacity": "ladder"}})
    manifest = compute_class(made.pools[0], service_account="a", private_nodes=True, image_streaming=True)
    assert manifest["spec"]["nodePoolConfig"]["dra"] == {"networking": {"enabled": True}}
    assert all(rung["acceleratorNetworkProfile"] == "auto" for rung in manifest["spec"]["priorities"])


def test_every_machine_with_more_than_one_way_can_be_a_ladder():
    for accelerator, spec in ACCELERATORS.items():
        for machine in spec.machines:
            nodes = {"machine_type": machine.name, "capacity": "ladder", "zones": ["us-central1-b"]}
            service = {"model": "Qwen/Qwen3.5-0.8B", "accelerator": accelerator, "nodes": nodes}
            try:
                order = plan(a=service).pools[0].ways
            except PlanError as error:
                pytest.fail(str(error))
            assert set(order) <= machine.capacities
