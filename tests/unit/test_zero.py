"""A service without replicas: the head holds its requests, nothing of it costs but the head, and what cannot hold one is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from rayline.endpoint.manifests import service_policies
from rayline.facts.defaults import WAKE_SECONDS
from rayline.isolation.manifests import network_policies
from rayline.platform.plan import make_plan
from rayline.platform.types import Plan
from rayline.schema.check import PlanError
from rayline.service.api_key import GATE_PATH, KEYS_PATH, PROXY_GATE, gate_name
from rayline_cli.offline import Program
from rayline_cli.plan_cards import rows
from tests.unit.test_isolation import objects
from tests.unit.test_scale import QWEN, cost, manifest, override, plan

ZERO = {"autoscaling": {"min_replicas": 0, "max_replicas": 4}}
ONE = {"autoscaling": {"min_replicas": 1, "max_replicas": 4}}

STACK = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create}
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4, autoscaling: {min_replicas: 0, max_replicas: 4}}
  other: {model: Qwen/Qwen3.5-4B, accelerator: l4}
"""


def head_pod(service: dict[str, Any]) -> dict[str, Any]:
    return service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]


def workers(service: dict[str, Any]) -> dict[str, Any]:
    (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    return group


def variables(pod: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in pod["containers"][0]["env"]}


# --- Serve


def test_serve_stops_the_last_replica_after_a_delay_of_its_own():
    delays = {"downscale_delay_seconds": 60, "downscale_to_zero_delay_seconds": 1800}
    scaling = override(manifest(autoscaling=ZERO["autoscaling"] | delays))["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["downscale_delay_s"], scaling["downscale_to_zero_delay_s"]) == (0, 60, 1800)
    assert "downscale_to_zero_delay_s" not in override(manifest(**ZERO))["autoscaling_config"]


def test_a_new_cluster_begins_with_one_replica_so_that_the_model_is_tried():
    service = manifest(**ZERO)
    assert override(service)["autoscaling_config"]["initial_replicas"] == 1
    assert (workers(service)["replicas"], workers(service)["minReplicas"]) == (1, 0)
    assert "initial_replicas" not in override(manifest(**ONE))["autoscaling_config"]


def test_a_replica_of_several_workers_begins_with_all_of_them():
    engine = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}
    service = manifest(**ZERO, engine=engine, nodes={"machine_type": "g2-standard-48"})
    assert workers(service)["replicas"] == 2


# --- requests reach the head


def test_the_head_takes_requests_only_where_there_may_be_no_worker():
    assert manifest(**ZERO)["spec"]["excludeHeadPodFromServeSvc"] is False
    assert manifest(**ONE)["spec"]["excludeHeadPodFromServeSvc"] is True


def test_the_head_has_the_gate_and_the_keys_only_where_it_takes_requests():
    mounts = {mount["mountPath"] for mount in head_pod(manifest(**ZERO))["containers"][0]["volumeMounts"]}
    assert {GATE_PATH, KEYS_PATH} <= mounts
    assert PROXY_GATE in variables(head_pod(manifest(**ZERO))).values()
    ordinary = head_pod(manifest(**ONE))
    assert {GATE_PATH, KEYS_PATH}.isdisjoint(mount["mountPath"] for mount in ordinary["containers"][0].get("volumeMounts", []))
    assert PROXY_GATE not in variables(ordinary).values()
    assert PROXY_GATE not in variables(head_pod(manifest(**ZERO, api={"key": False}))).values()


def test_the_head_and_the_workers_mount_the_same_gate():
    service = manifest(**ZERO)
    pods = head_pod(service), workers(service)["template"]["spec"]
    names = {v["configMap"]["name"] for pod in pods for v in pod["volumes"] if v["name"] == "api-key-gate"}
    assert names == {gate_name("qwen", at_proxy=True)}


def with_more(of_stack: dict[str, Any], **services: Any) -> Plan:
    stack = {"project": "my-project", "region": "us-central1", "cluster": {"mode": "create"}, "services": services}
    return make_plan(stack | of_stack, name="dev")


def test_the_config_map_that_the_pods_mount_is_deployed(record_file: Callable[..., Program]):
    program = record_file(STACK)
    assert gate_name("qwen", at_proxy=True) in objects(program, "ConfigMap")
    assert gate_name("other") in objects(program, "ConfigMap")


def test_clients_may_reach_the_head_only_where_it_takes_requests():
    made = with_more({"isolation": {"allow_from_namespaces": ["apps"]}}, zero=QWEN | ZERO, one=QWEN | ONE)
    assert made.isolation
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in network_policies(made, made.isolation)}
    assert "apps" in str(policies["zero-head"]["ingress"])
    assert "apps" not in str(policies["one-head"]["ingress"])


def test_the_load_balancer_waits_for_the_model_and_then_for_the_longest_answer():
    def time_limit(scaling: dict[str, Any], stream: int) -> int:
        service = QWEN | scaling | {"rollout": {"longest_stream_seconds": stream}}
        made = with_more({"endpoint": {"exposure": "public", "domain": "llm.example.com"}}, qwen=service)
        _, backend = service_policies(made.endpoint, made.services[0], "n")
        return backend["spec"]["default"]["timeoutSec"]

    assert time_limit(ZERO, 300) == time_limit(ONE, 300) == 3600
    assert time_limit(ZERO, 3000) == 3000 + WAKE_SECONDS
    assert time_limit(ONE, 3000) == 3600


# --- plan


def test_the_plan_has_the_price_without_load_and_the_highest():
    made = plan(qwen=QWEN | ZERO)
    (service,) = made.services
    (pool,) = made.pools
    assert (pool.nodes, pool.most_nodes, service.hourly_usd) == (0, 4, 0)
    assert pool.hourly_usd
    assert service.highest_hourly_usd == pytest.approx(4 * pool.hourly_usd)
    always_on, _ = cost(plan(qwen=QWEN))
    assert made.hourly_usd == pytest.approx(always_on - pool.hourly_usd)
    assert made.highest_hourly_usd == pytest.approx(always_on + 3 * pool.hourly_usd)
    card = dict(rows(made, service, pool))
    assert card["cost"].startswith("$0.00/h, $0/month for this service's share of the nodes, $3.41/h")
    assert "0 to 4, at 36 requests each" in card["replicas"]
    assert "none after 600 s without a request" in card["replicas"]


def test_a_workload_is_compared_with_the_most_replicas():
    load = {"input_tokens": 1000, "output_tokens": 200, "concurrent_users": 40}
    made = plan(qwen=QWEN | ZERO | {"workload": load})
    assert "planned 4: enough" in dict(rows(made, made.services[0], made.pools[0]))["workload"]


def warnings(**service: Any) -> list[str]:
    return [text for text in plan(qwen=QWEN | ZERO | service).warnings if "autoscaling.min_replicas 0" in text]


def test_the_plan_warns_of_what_makes_a_start_long_or_dear():
    assert "downloads 8.5 GiB while requests wait" in warnings()[0]
    assert any("every request without a key starts a replica" in text for text in warnings(api={"key": False}))
    limit = {"RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "60"}
    assert any("RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S 60" in text for text in warnings(pods={"env": limit}))
    assert not any("TIMEOUT_SERVER" in text for text in warnings(pods={"env": {"RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "3600"}}))


def test_a_service_that_scales_to_zero_can_be_parked():
    assert plan(qwen=QWEN | ZERO | {"park": True}).services[0].highest_hourly_usd == 0


# --- refusals (those of a whole stack file: tests/bad_configs/zero_*.yaml)


def test_a_reason_is_given_for_each_setting_that_excludes_it():
    with pytest.raises(PlanError) as caught:
        plan(
            qwen=QWEN
            | ZERO
            | {
                "switches": {"direct_streaming": False},
                "api": {"key": False},
                "pods": {"runtime": "2.56.0"},
                "nodes": {"capacity": "flex-start"},
            }
        )
    problems = "\n".join(str(problem) for problem in caught.value.problems)
    for reason in ("0 needs Ray 2.60.0", "OpenAiIngress keep a worker", "flex-start queues for a machine"):
        assert reason in problems
