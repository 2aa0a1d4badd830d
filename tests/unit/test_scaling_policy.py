"""Replicas that are added while the time to first token is too long: the policy in Serve's controller, and what a stack declares."""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from rayline.isolation.plan import ports_outside
from rayline.service.api_key import GATE_FOLDER, GATE_PATH, SCALING_POLICY, gate_name
from rayline.service.reading import RayService
from rayline_cli.offline import Program
from rayline_cli.plan_cards import stack_card
from rayline_cli.verify import Outcome, check_switches
from tests.unit.test_isolation import objects
from tests.unit.test_manifest import L4
from tests.unit.test_scale import manifest, plan
from tests.unit.verify_service import Service, answer

PROMETHEUS = "http://prometheus.monitoring.svc:9090"
SCALING = {"max_replicas": 4, "time_to_first_token_ms": 500, "prometheus": PROMETHEUS}


# --- the policy, with Ray's own classes


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The policy of a model with a bound of 500 ms, whose replicas `a` and `b` have been running for longer than the window."""
    pytest.importorskip("ray.serve.autoscaling_policy")
    monkeypatch.setattr(sys, "path", [str(GATE_FOLDER), *sys.path])
    module = importlib.import_module("rayline_scaling")
    monkeypatch.setattr(module.FirstToken, "prometheus_results", None)
    found = module.FirstToken("tiny", 500, PROMETHEUS, window_seconds=0)
    found(context())
    return found


def context(requests: float = 2, running: int = 2, wanted: int = 2) -> Any:
    """What Serve tells the policy: one request in progress for each replica is what its own policy wants."""
    config = SimpleNamespace(get_target_ongoing_requests=lambda: 1, get_upscaling_factor=lambda: 1)
    return SimpleNamespace(
        config=config,
        current_num_replicas=running,
        target_num_replicas=wanted,
        total_num_requests=requests,
        running_replicas=[SimpleNamespace(unique_id=name) for name in "abcd"[:running]],
        policy_state={},
    )


def knows(policy: Any, **seconds: float) -> None:
    """Prometheus has these times by replica."""
    from ray.serve.autoscaling_policy import PrometheusSample, PrometheusVector

    samples = [PrometheusSample(labels={"ReplicaId": name}, value=value, timestamp=0) for name, value in seconds.items()]
    type(policy).prometheus_results = {policy._query: PrometheusVector(samples=tuple(samples))}


def test_without_a_metric_serves_own_policy_decides(policy):
    assert policy(context(requests=6))[0] == 6
    knows(policy)
    assert policy(context(requests=1))[0] == 1


def test_a_late_first_token_adds_replicas_in_proportion_and_at_most_doubles_them(policy):
    knows(policy, a=0.5, b=0.75)
    assert policy(context())[0] == pytest.approx(2.5)
    knows(policy, a=5, b=5)
    assert policy(context())[0] == 4


def test_replicas_of_other_services_with_the_same_model_do_not_count(policy):
    knows(policy, a=0.1, b=0.1, z=100)
    assert policy(context())[0] == 2


def test_more_requests_than_the_metric_asks_for_decide(policy):
    knows(policy, a=0.6, b=0.6)
    assert policy(context(requests=8))[0] == 8


def test_no_replica_goes_while_the_time_is_near_the_bound(policy):
    knows(policy, a=0.4, b=0.4)
    assert policy(context(requests=1))[0] == 2
    knows(policy, a=0.1, b=0.1)
    assert policy(context(requests=1))[0] == 1


def test_no_more_replicas_come_until_the_last_ones_count(policy):
    knows(policy, a=5, b=5)
    assert policy(context(running=2, wanted=4))[0] == 4, "they are still starting"
    policy._window = 60
    assert policy(context(running=4, wanted=4))[0] == 4, "the metric is still of the load on two"
    policy._since -= 61
    assert policy(context(running=4, wanted=4))[0] == 8


def test_the_state_says_what_was_measured(policy):
    knows(policy, a=0.1, b=0.2)
    assert policy(context())[1]["time_to_first_token_ms"] == 150


# --- what a stack declares


def test_a_stack_declares_the_policy_with_its_bound():
    (entry, *_) = RayService(manifest(autoscaling=SCALING)).serve.applications[0].deployments
    assert entry["autoscaling_config"]["policy"] == {
        "policy_function": SCALING_POLICY,
        "policy_kwargs": {"model": "Qwen/Qwen3.5-4B", "bound_ms": 500, "prometheus": PROMETHEUS},
    }
    (entry, *_) = RayService(manifest(autoscaling={"max_replicas": 4})).serve.applications[0].deployments
    assert "policy" not in entry["autoscaling_config"]


@pytest.mark.parametrize("key", [True, False])
def test_head_and_workers_mount_the_policy_and_only_a_service_with_keys_has_keys(key: bool):
    service = RayService(manifest(autoscaling=SCALING, api={"key": key}))
    for group in service.groups:
        assert group.ray_container.environment["PYTHONPATH"] == GATE_PATH
        assert ("RAYLINE_KEYS_FOLDER" in group.ray_container.environment) is key
        maps = [volume["configMap"]["name"] for volume in group.pod["volumes"] if "configMap" in volume]
        assert maps == [gate_name("qwen", scaling=True)]
    # no replica runs on the head
    assert service.head.secret_mounts == {}
    assert bool(service.workers[0].secret_mounts) is key


def test_the_head_may_reach_prometheus():
    assert 9090 in ports_outside(plan(qwen={"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "autoscaling": SCALING}).services)


STACK = f"""{L4}
    api: {{key: false}}
    autoscaling: {{max_replicas: 4, time_to_first_token_ms: 500, prometheus: "{PROMETHEUS}"}}
"""


def test_the_program_makes_the_policy_without_keys_too_and_the_card_says_what_decides(record_file: Any):
    program: Program = record_file(STACK)
    assert gate_name("qwen", scaling=True) in objects(program, "ConfigMap")
    assert "qwen-api-key" not in objects(program, "Secret")
    (card,) = stack_card(program).services
    assert "more while the time to first token is above 500 ms, by http://prometheus" in dict(card.rows)["replicas"]


# --- verify


@dataclass
class Scaled(Service):
    """A service that scales by its time to first token, and the replicas of which Prometheus has the metric."""

    known: list[str] = field(default_factory=list)
    status: int = 200
    asked_prometheus: list[Mapping[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        policy = {"policy_function": SCALING_POLICY, "policy_kwargs": {"model": "tiny", "prometheus": PROMETHEUS}}
        self.serve_config["applications"][0]["deployments"] = [
            {"name": "LLMServer:tiny", "autoscaling_config": {"policy": policy}}
        ]
        self.known = [self.model_replica["replica_id"]]

    def run_client(self, job: Mapping[str, Any]) -> Any:
        if job.get("base") != PROMETHEUS:
            return super().run_client(job)
        self.asked_prometheus += job["requests"]
        rows = ",".join(f'{{"metric":{{"ReplicaId":"{name}"}},"value":[0,"1"]}}' for name in self.known)
        return [answer(self.status, f'{{"data":{{"result":[{rows}]}}}}')]


def judged(service: Scaled) -> tuple[Outcome, str]:
    (check,) = [check for check in check_switches(service) if check.name == "scaling by time to first token"]  # type: ignore[arg-type]
    return check.outcome, check.evidence


def test_verify_passes_where_prometheus_has_every_replica_and_shows_it_no_key():
    service = Scaled()
    assert judged(service) == (
        Outcome.PASS,
        f"{PROMETHEUS} has ray_vllm_time_to_first_token_seconds_count of 1 replica(s) of tiny",
    )
    assert all(request["auth"] is False for request in service.asked_prometheus)


def test_verify_fails_where_prometheus_lacks_a_replica_or_does_not_answer():
    service = Scaled()
    service.known = []
    assert judged(service)[0] is Outcome.FAIL
    assert f"of replica {service.model_replica['replica_id']}" in judged(service)[1]
    assert judged(Scaled(status=503)) == (Outcome.FAIL, f"{PROMETHEUS} does not answer the head: HTTP 503")
