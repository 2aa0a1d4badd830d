"""The resources of every way to get GPU machines: node pools with Google's conditions, and the ComputeClass of a ladder."""

import pytest

from rayline_cli.offline import Declared, Program
from tests.program.test_program import needs, node_pools, urns

STACK = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create}
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4, nodes: {%s}}
"""
WIDE = "model: Qwen/Qwen3.5-27B, accelerator: b200, engine: {tensor_parallel_size: 8, pipeline_parallel_size: 2}"


def gpu_pool(program: Program) -> Declared:
    (pool,) = node_pools(program)[1]
    return pool


def test_a_flex_start_pool_meets_googles_conditions(record_file):
    pool = gpu_pool(record_file(STACK % "capacity: flex-start, max_run_hours: 24")).inputs
    assert pool["management"]["autoRepair"] is False
    assert pool["nodeConfig"]["flexStart"] is True
    assert pool["nodeConfig"]["maxRunDuration"] == "86400s"
    assert pool["nodeConfig"]["reservationAffinity"] == {"consumeReservationType": "NO_RESERVATION"}
    assert not {"nodeCount", "initialNodeCount"} & set(pool)
    assert "spot" not in pool["nodeConfig"]


@pytest.mark.parametrize(
    ("card", "tensor", "gke_type", "local_ssds"),
    [
        ("a100-40gb", 2, "nvidia-tesla-a100", None),
        ("a100-80gb", 2, "nvidia-a100-80gb", 2),
        ("a100-80gb", 8, "nvidia-a100-80gb", 8),
    ],
)
def test_an_a2_pool_names_its_gpus_and_the_local_ssds_that_come_with_them(record_file, card, tensor, gke_type, local_ssds):
    wide = f"accelerator: {card}, engine: {{tensor_parallel_size: {tensor}}}, nodes"
    config = gpu_pool(record_file(STACK.replace("accelerator: l4, nodes", wide) % "capacity: spot")).inputs["nodeConfig"]
    (accelerator,) = config["guestAccelerators"]
    assert (accelerator["type"], accelerator["count"]) == (gke_type, tensor)
    assert config.get("ephemeralStorageLocalSsdConfig", {}).get("localSsdCount") == local_ssds
    assert config["bootDisk"]["diskType"] == "pd-balanced"


@pytest.mark.parametrize("capacity", ["on-demand", "spot", "any-reservation"])
def test_other_pools_are_repaired_and_end_by_themselves_never(record_file, capacity):
    pool = gpu_pool(record_file(STACK % f"capacity: {capacity}")).inputs
    assert pool["management"]["autoRepair"] is True
    assert not {"flexStart", "maxRunDuration"} & set(pool["nodeConfig"])


@pytest.mark.parametrize(
    ("capacity", "affinity"),
    [
        ("capacity: on-demand", {"consumeReservationType": "NO_RESERVATION"}),
        ("capacity: any-reservation", {"consumeReservationType": "ANY_RESERVATION"}),
        (
            "capacity: reservation, zones: [us-central1-b], reservation: projects/shared-one/reservations/my-l4",
            {
                "consumeReservationType": "SPECIFIC_RESERVATION",
                "key": "compute.googleapis.com/reservation-name",
                "values": ["projects/shared-one/reservations/my-l4"],
            },
        ),
    ],
)
def test_a_pool_takes_the_reservations_that_it_is_told_to(record_file, capacity, affinity):
    assert gpu_pool(record_file(STACK % capacity)).inputs["nodeConfig"]["reservationAffinity"] == affinity


def test_a_pool_that_goes_lets_its_pods_end(record_file):
    program = record_file(STACK.replace("nodes: {%s}", "rollout: {longest_stream_seconds: 600}"))
    (drain,) = gpu_pool(program).inputs["nodeDrainConfigs"]
    assert drain["respectPdbDuringNodePoolDeletion"] is True
    workers = program.of_type(":RayService")[0].inputs["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    grace = workers["template"]["spec"]["terminationGracePeriodSeconds"]
    assert drain["graceTerminationDuration"] == f"{grace:.0f}s"


def test_a_preloaded_disk_is_an_image_cache_of_a_pool_with_image_streaming(record_file):
    image = "projects/my-project/global/images/ray-llm"
    config = gpu_pool(record_file(STACK % f"secondary_boot_disk: {image}")).inputs["nodeConfig"]
    assert config["secondaryBootDisks"] == [{"diskImage": image, "mode": "CONTAINER_IMAGE_CACHE"}]
    assert config["gcfsConfig"] == {"enabled": True}


def test_a_ladder_is_a_class_and_no_pool_and_comes_before_its_service(record_file):
    program = record_file(STACK % "capacity: ladder")
    assert node_pools(program)[1] == []
    (ladder,) = program.of_type("cloud.google.com/v1:ComputeClass")
    service = program.of_type(":RayService")[0]
    assert ladder.urn in needs(program, service)
    assert urns(program.of_type("cluster:Cluster")) <= needs(program, ladder)
    account = program.of_type(":Account")[0]
    assert ladder.inputs["spec"]["nodePoolConfig"]["serviceAccount"] == f"(email of {account.name})"


def test_a_wide_replica_has_its_networks_and_its_claim_before_it_starts(record_file):
    program = record_file((STACK % "capacity: spot").replace("model: Qwen/Qwen3.5-4B, accelerator: l4", WIDE))
    pool = gpu_pool(program).inputs
    assert pool["networkConfig"]["acceleratorNetworkProfile"] == "auto"
    assert pool["nodeConfig"]["labels"]["cloud.google.com/gke-networking-dra-driver"] == "true"
    assert len(pool["nodeLocations"]) == 1
    assert program.of_type("cluster:Cluster")[0].inputs["datapathProvider"] == "ADVANCED_DATAPATH"
    (claim,) = program.of_type("resource.k8s.io/v1:ResourceClaimTemplate")
    assert claim.urn in needs(program, program.of_type(":RayService")[0])
    assert program.named("test-namespace").urn in needs(program, claim)


def test_other_pools_have_no_networks_between_machines_and_no_claim(record_file):
    program = record_file(STACK % "capacity: spot")
    pool = gpu_pool(program).inputs
    assert "acceleratorNetworkProfile" not in pool["networkConfig"]
    assert list(pool["nodeConfig"]["labels"]) == ["rayline/pool"]
    assert program.of_type(":ResourceClaimTemplate") == []
