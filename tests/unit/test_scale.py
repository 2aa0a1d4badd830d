"""How many replicas a service has, how it grows, how it changes, and what that asks of the node pool."""

from math import ceil
from typing import Any

import pytest
import yaml

from rayline.facts import defaults
from rayline.facts.choices import Capacity
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline.service.manifest import ray_service
from rayline.service.scale import default_target, start_timeout
from rayline_cli.plan_cards import rows

QWEN = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"}
GEMMA = {"model": "google/gemma-4-E2B-it", "accelerator": "b200", "nodes": {"capacity": "spot"}}
SMALL = {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "accelerator": "cpu"}
ONE_TO_FOUR = {"autoscaling": {"min_replicas": 1, "max_replicas": 4}}
INCREMENTAL = {"rollout": {"strategy": "incremental", "gateway_class": "istio"}}
IN_PLACE = {"rollout": {"strategy": "none"}}


def plan(cluster: dict[str, Any] | None = None, kuberay: dict[str, Any] | None = None, **services):
    return make_plan(
        {
            "project": "my-project",
            "region": "us-central1",
            "cluster": cluster or {"mode": "create"},
            "kuberay": kuberay or {},
            "services": services,
        },
        name="dev",
    )


def refused(cluster: dict[str, Any] | None = None, kuberay: dict[str, Any] | None = None, **service) -> list[str]:
    with pytest.raises(PlanError) as caught:
        plan(cluster, kuberay, qwen=(SMALL if cluster else QWEN) | service)
    return [str(problem) for problem in caught.value.problems]


def manifest(cluster: dict[str, Any] | None = None, **service) -> dict[str, Any]:
    made = plan(cluster, qwen=QWEN | service)
    return ray_service(
        made.services[0], namespace="n", hugging_face=made.hugging_face, pool=made.pools[0], head=made.head, store_address=None
    )


def target(**service) -> float:
    """The target of ongoing requests that is planned."""
    (made,) = plan(s=service).services
    assert made.autoscaling
    assert made.autoscaling.target_ongoing_requests
    return made.autoscaling.target_ongoing_requests


def cost(made) -> tuple[float, float]:
    """USD per hour of everything and of its one service."""
    assert made.hourly_usd is not None
    assert made.services[0].hourly_usd is not None
    return made.hourly_usd, made.services[0].hourly_usd


def override(service: dict[str, Any]) -> dict[str, Any]:
    """What stands beside the arguments of the application: the replicas."""
    return {key: value for key, value in deployments(service)[0].items() if key not in ("name", "max_surge_percent")}


def deployments(service: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of deployments in a RayService: the model's, and the router's."""
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    return application["deployments"]


def card(**service) -> dict[str, str]:
    made = plan(qwen=QWEN | service)
    return dict(rows(made, made.services[0], made.pools[0]))


# --- autoscaling


def test_autoscaling_stands_in_the_place_of_the_count():
    assert override(manifest(replicas=3)) == {"num_replicas": 3}
    scaling = {"min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 12.5}
    delays = {"upscale_delay_seconds": 10, "downscale_delay_seconds": 900}
    assert override(manifest(autoscaling=scaling | delays)) == {
        "autoscaling_config": scaling | {"upscale_delay_s": 10, "downscale_delay_s": 900}
    }


def test_the_default_target_leaves_room_to_load_another_replica():
    at_once = plan(qwen=QWEN | ONE_TO_FOUR).services[0].limits.max_num_seqs
    assert target(**QWEN | ONE_TO_FOUR) == 36 == 0.75 * at_once
    assert target(**QWEN | ONE_TO_FOUR | {"engine": {"max_num_seqs": 8}}) == 6


def test_the_default_target_is_no_more_than_the_kv_cache_holds():
    # vLLM takes 4096 sequences, of which the cache holds far fewer at the usual length
    many = GEMMA | {"engine": {"max_num_seqs": 4096, "max_model_len": 131072}} | ONE_TO_FOUR
    held = plan(gemma=many).services[0].fit.sequences(131072 // 8)
    assert held < 4096
    assert target(**many) == pytest.approx(0.75 * held, abs=1)


def test_the_default_target_is_no_more_than_a_replica_gets():
    assert target(**QWEN | ONE_TO_FOUR | {"traffic": {"max_in_progress": 20}}) == 15


def test_the_smallest_target_is_one_request():
    service = plan(qwen=QWEN | {"engine": {"max_num_seqs": 1}}).services[0]
    assert default_target(service.limits, service.fit) == 1


def test_a_target_beyond_what_a_replica_works_on_is_told():
    busy = plan(qwen=QWEN | {"autoscaling": {"max_replicas": 4, "target_ongoing_requests": 100}})
    assert any("target_ongoing_requests 100 is more than the 48 requests" in warning for warning in busy.warnings)
    calm = plan(qwen=QWEN | ONE_TO_FOUR)
    assert not any("target_ongoing_requests" in warning for warning in calm.warnings)


def test_an_autoscaled_service_costs_its_least_and_may_have_the_nodes_of_its_most():
    made = plan(qwen=QWEN | ONE_TO_FOUR)
    assert (made.pools[0].nodes, made.pools[0].max_nodes) == (1, 8)
    assert cost(made) == cost(plan(qwen=QWEN))
    assert card(**ONE_TO_FOUR)["replicas"].startswith("1 to 4, at 36 requests each")
    assert f"${4 * cost(made)[1]:,.2f}/h" in card(**ONE_TO_FOUR)["cost"]


# --- what a live RayCluster has to take without being replaced


@pytest.mark.parametrize(
    "change",
    [{"replicas": 7}, ONE_TO_FOUR, {"park": True}, IN_PLACE, INCREMENTAL],
    ids=["replicas", "autoscaling", "park", "no second cluster", "incremental"],
)
def test_a_change_of_scale_leaves_the_cluster_alone(change):
    def cluster(service: dict[str, Any]) -> dict[str, Any]:
        """What KubeRay compares: the cluster without counts."""
        config = service["spec"]["rayClusterConfig"]
        for group in config["workerGroupSpecs"]:
            group.pop("replicas")
        return config

    # minReplicas and maxReplicas stay in: KubeRay ignores a change of them, so there must be none
    assert cluster(manifest(replicas=2)) == cluster(manifest(**change))


def test_a_worker_group_may_grow_far_beyond_the_plan():
    (group,) = manifest(replicas=2)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (0, 1000)
    large = {"mode": "create", "network": {"pods_cidr": "10.128.0.0/12", "nodes_cidr": "10.64.0.0/16"}}
    (group,) = manifest(large, replicas=900)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["maxReplicas"] == 1800


def test_this_machines_one_ray_node_is_not_sized_for_a_thousand_workers():
    made = plan({"mode": "local"}, chat=SMALL | {"autoscaling": {"max_replicas": 3}})
    assert made.services[0].workers.max_workers == 6


# --- pools that services share


@pytest.mark.parametrize(
    ("services", "nodes", "most"),
    [
        ([{"replicas": 2}, {"replicas": 3}], 5, 10),
        ([{"replicas": 2}, {"replicas": 3} | IN_PLACE], 5, 7),
        ([{"replicas": 2, "park": True}, {"replicas": 3} | IN_PLACE], 3, 7),
        ([ONE_TO_FOUR, {"replicas": 3} | IN_PLACE], 4, 11),
        ([ONE_TO_FOUR | IN_PLACE, {"replicas": 1, "park": True}], 1, 6),
        ([{"replicas": 4} | INCREMENTAL, {"replicas": 1} | IN_PLACE], 5, 9),
    ],
    ids=["both doubled", "one doubled", "one parked", "one autoscaled", "autoscaled and parked", "incremental"],
)
def test_a_shared_pool_has_room_for_the_sum(services, nodes, most):
    made = plan(**{f"s{number}": QWEN | service for number, service in enumerate(services)})
    (pool,) = made.pools
    assert (pool.nodes, pool.max_nodes) == (nodes, most)


def test_services_on_one_machine_share_it_whatever_their_rollout():
    half = GEMMA | {"workers": {"gpus": 4}, "replicas": 4}
    made = plan(a=half | IN_PLACE, b=half | {"park": True}, c=half)
    # two halves run on one machine; all three need two machines, and the second cluster of b and c one each
    assert [(pool.nodes, pool.max_nodes) for pool in made.pools] == [(1, 4)]


@pytest.mark.parametrize(("surge", "more"), [(10, 2), (25, 3), (50, 6), (100, 10)])
def test_an_incremental_upgrade_needs_only_its_surge(surge, more):
    made = plan(qwen=QWEN | {"replicas": 10, "rollout": INCREMENTAL["rollout"] | {"max_surge_percent": surge}})
    # Serve rounds both clusters' shares half up: one replica more than the surge, and never more than a second cluster
    assert made.pools[0].max_nodes == 10 + more


# --- rollout


def test_an_incremental_upgrade_says_how_to_the_operator():
    assert manifest(**INCREMENTAL)["spec"]["upgradeStrategy"] == {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": {
            "maxSurgePercent": 100,
            "stepSizePercent": 10,
            "intervalSeconds": 60,
            "gatewayClassName": "istio",
        },
    }


def test_a_small_surge_has_no_larger_step():
    options = manifest(rollout=INCREMENTAL["rollout"] | {"max_surge_percent": 5})["spec"]["upgradeStrategy"]
    assert options["clusterUpgradeOptions"]["stepSizePercent"] == 5


def test_clients_are_told_of_the_gateway_of_an_incremental_upgrade():
    assert any("qwen-gateway" in warning for warning in plan(qwen=QWEN | INCREMENTAL).warnings)


def test_an_existing_clusters_owner_is_told_what_an_upgrade_needs():
    made = plan({"mode": "existing"}, qwen=QWEN | {"replicas": 3})
    assert any("needs 6 free GPUs at once (3 for the second cluster)" in warning for warning in made.warnings)
    still = plan({"mode": "existing"}, qwen=QWEN | {"replicas": 3} | IN_PLACE)
    assert not any("free GPUs at once" in warning for warning in still.warnings)


def test_a_reservation_is_not_planned_for_a_second_cluster():
    made = plan(gemma=GEMMA | {"nodes": {"capacity": "reservation", "reservation": "r"}, "replicas": 8})
    assert made.services[0].upgrade.value == "none"
    assert (made.pools[0].nodes, made.pools[0].max_nodes) == (1, 1)


# --- park


def test_a_parked_service_is_suspended_and_costs_nothing():
    assert manifest(park=True)["spec"]["suspend"] is True
    assert "suspend" not in manifest()["spec"], "a written false would be the operator's to remove"
    made, running = plan(qwen=QWEN | {"replicas": 4, "park": True}), plan(qwen=QWEN | {"replicas": 4})
    everything, service = cost(running)
    assert cost(made) == (pytest.approx(everything - service), 0)
    assert made.pools[0].max_nodes == running.pools[0].max_nodes, "resuming changes the service alone"
    assert not any("serve nothing" in warning for warning in made.warnings)
    assert card(park=True)["workers"].startswith("none while parked")


@pytest.mark.parametrize("key", [{"park": True}, INCREMENTAL], ids=["park", "incremental"])
def test_an_operator_of_unknown_age_is_told(key):
    made = plan({"mode": "existing"}, {"source": "preinstalled"}, qwen=QWEN | key)
    assert any("needs KubeRay 1.7 or newer" in warning for warning in made.warnings)
    ours = plan({"mode": "existing"}, qwen=QWEN | key)
    assert not any("needs KubeRay 1.7" in warning for warning in ours.warnings)


# --- slow starts


def test_nodes_from_a_queue_have_a_day_to_come():
    assert start_timeout(()) == defaults.INITIALIZING_TIMEOUT_SECONDS == 5400
    assert start_timeout((Capacity.ON_DEMAND, Capacity.SPOT)) == 5400
    assert start_timeout((Capacity.FLEX_START,)) == start_timeout((Capacity.ON_DEMAND, Capacity.FLEX_START)) == 86400


def test_the_autoscaler_waits_as_long_as_the_operator():
    service = manifest()
    env = {one["name"]: one["value"] for one in service["spec"]["rayClusterConfig"]["autoscalerOptions"]["env"]}
    assert env == {
        f"RAY_AUTOSCALER_RECONCILE_{state}_STATUS_TIMEOUT_S": "5400" for state in ("REQUEST", "ALLOCATE", "RAY_INSTALL")
    }
    assert service["metadata"]["annotations"]["ray.io/initializing-timeout"] == "5400s"


# --- refusals


def test_autoscaling_without_a_maximum_is_refused():
    assert refused(autoscaling={"min_replicas": 2}) == ["services.qwen.autoscaling.max_replicas: required, for example 4"]


def test_an_incremental_upgrade_without_a_gateway_class_is_refused():
    (problem,) = refused(rollout={"strategy": "incremental"})
    assert problem.startswith("services.qwen.rollout.gateway_class: required")


def test_an_older_operator_can_neither_park_nor_upgrade_in_steps():
    problems = refused(None, {"version": "1.6.2"}, **INCREMENTAL)
    assert problems == ["services.qwen.rollout.strategy (got 'incremental'): needs KubeRay 1.7, and kuberay.version is 1.6.2"]
    (problem,) = refused(None, {"version": "1.6.2"}, park=True)
    assert problem.startswith("services.qwen.park (got true): needs KubeRay 1.7")
    plan(None, {"version": "1.7.1"}, qwen=QWEN | {"park": True})
    plan(None, {"version": "1.10.0"}, qwen=QWEN | {"park": True})


@pytest.mark.parametrize(
    ("replicas", "spare", "percent"), [(1, 1, 100), (3, 1, 33), (8, 1, 12), (8, 2, 25), (99, 1, 1), (4, 4, 100)]
)
def test_serve_starts_exactly_the_spare_replicas(replicas: int, spare: int, percent: int):
    model, router = deployments(manifest(replicas=replicas, rollout={"spare_replicas": spare}))
    assert model["max_surge_percent"] == percent
    assert ceil(percent * replicas / 100) == spare, "Serve rounds up"
    assert router == {"name": "LLMRouter", "max_surge_percent": 100}, "no request may find no router"


def test_without_spare_replicas_old_ones_stop_first():
    (model,) = deployments(manifest(replicas=2, rollout={"spare_replicas": 0}))
    assert "max_surge_percent" not in model


def test_a_reserved_machine_has_no_spare_replica_unless_the_stack_has_one():
    made = plan(qwen=QWEN | {"replicas": 2} | IN_PLACE)
    assert made.pools[0].max_nodes == made.pools[0].most_nodes == 2
    spare = plan(qwen=QWEN | {"replicas": 2, "rollout": {"strategy": "none", "spare_replicas": 1}})
    assert (spare.pools[0].most_nodes, spare.pools[0].max_nodes) == (2, 3)


def test_a_second_cluster_has_room_for_the_spare_replica():
    made = plan(qwen=QWEN | {"replicas": 2})
    assert made.pools[0].max_nodes == 4, "no more than the second cluster"
    assert "starts 1 spare replica first, with 1 GPU more" in card(replicas=2)["in place"]


def test_sessions_and_limits_stand_beside_the_arguments_of_the_application():
    model = deployments(manifest(traffic={"routing": "sessions", "max_in_progress": 48}))[0]
    assert model["request_router_config"]["request_router_class"].endswith("ConsistentHashRouter")
    assert (model["max_ongoing_requests"], model["max_queued_requests"]) == (48, 48)
    assert model["backpressure_config"] == {"status_code": 429, "retry_after_s": 5}
    assert "max_ongoing_requests" not in deployments(manifest())[0], "no limit unless the stack has one"
