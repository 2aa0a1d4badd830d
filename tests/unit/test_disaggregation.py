"""Prefill and decode replicas: their counts, GPUs and Serve configuration, and the check that sees the transfers."""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import yaml

from rayline.service.api_key import GATE_FOLDER, KEYS_VARIABLE, SIDES_GATE_MIDDLEWARE, gate_config_map, gate_name
from rayline.service.manifest import ray_service
from rayline.service.reading import RayService
from rayline_bench.arms import Base
from rayline_bench.errors import BenchUsageError
from rayline_cli.local.single_node import read
from rayline_cli.offline import Program
from rayline_cli.plan_cards import rows
from rayline_cli.verify import Outcome, Target, check_switches, disaggregation
from tests.unit.test_isolation import objects
from tests.unit.test_scale import SMALL, manifest, plan, refused
from tests.unit.test_translate import translated
from tests.unit.verify_service import Service

LIMIT = "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S"
SIDES = {"disaggregation": {"prefill": 2, "decode": 3}}
ON_H100 = {"model": "Qwen/Qwen3-30B-A3B-FP8", "accelerator": "h100", **SIDES}


def application(service: Mapping[str, Any]) -> dict[str, Any]:
    (made,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    return made


def card(**service: Any) -> dict[str, str]:
    made = plan(s=service)
    return dict(rows(made, made.services[0], made.pools[0]))


# --- the plan


def test_the_workers_hold_the_replicas_of_both_sides():
    made = plan(s=ON_H100)
    (service,) = made.services
    assert (service.replicas, service.most_replicas, service.gpus) == (5, 5, 5)
    assert service.workers.workers * service.workers.replicas_per_worker >= 5
    assert card(**ON_H100)["replicas"].startswith("5: 2 for prefill, 3 for decode (0.67 to 1)")


def test_no_spare_replica_stands_beside_a_change():
    (service,) = plan(s=ON_H100).services
    assert service.spare_replicas == service.workers.spare_workers == 0


def test_a_plan_warns_of_workers_between_which_no_nvlink_is():
    apart = ON_H100 | {"nodes": {"machine_type": "a3-highgpu-1g", "capacity": "spot"}}
    assert "its replicas run on 5 workers, and between workers the KV cache moves by TCP" in "\n".join(plan(s=apart).warnings)
    together = plan(s=ON_H100)
    assert "by TCP" not in "\n".join(together.warnings)
    assert together.services[0].workers.workers == 1


def test_replicas_of_two_versions_never_meet():
    def engine(**more: Any) -> str | None:
        made = RayService(manifest(**ON_H100 | more))
        values = {group.ray_container.environment["RAYLINE_ENGINE"] for group in made.groups}
        assert len(values) == 1
        return str(values.pop())

    assert engine() == engine(disaggregation={"prefill": 3, "decode": 3})
    assert len({engine(), engine(engine={"max_num_seqs": 8}), engine(weights={"revision": "a" * 40})}) == 3
    assert "RAYLINE_ENGINE" not in RayService(manifest()).head.ray_container.environment
    assert "makes a new RayCluster" in "".join(card(**ON_H100).values())
    warnings = "\n".join(plan(s=ON_H100 | {"rollout": {"strategy": "none"}}).warnings)
    assert "park the service before such a change" in warnings


def test_every_reason_is_told_at_once_on_this_machine_too():
    problems = refused(
        {"mode": "local"}, disaggregation={"prefill": 1, "decode": 1}, replicas=3, traffic={"routing": "sessions"}
    )
    assert len(problems) == 3, problems


# --- Serve


def test_both_sides_have_the_same_engine_and_the_same_ports_of_nobody_else():
    made = application(manifest(**ON_H100))
    assert made["import_path"] == "ray.serve.llm:build_pd_openai_app"
    sides = made["args"]
    assert list(sides) == ["prefill_config", "decode_config"]
    roles = {name: side["engine_kwargs"].pop("kv_transfer_config") for name, side in sides.items()}
    assert sides["prefill_config"] == sides["decode_config"]
    assert {name: role["kv_role"] for name, role in roles.items()} == {
        "prefill_config": "kv_producer",
        "decode_config": "kv_consumer",
    }
    for role in roles.values():
        assert (role["kv_connector"], role["kv_load_failure_policy"]) == ("NixlConnector", "fail")
        assert "kv_buffer_device" not in role
    assert made["deployments"] == [
        {"name": "Prefill:Qwen--Qwen3-30B-A3B-FP8", "num_replicas": 2},
        {"name": "Decode:Qwen--Qwen3-30B-A3B-FP8", "num_replicas": 3},
    ]


def test_the_gate_stands_in_the_engine_that_clients_reach():
    service = manifest(**ON_H100)
    assert application(service)["args"]["decode_config"]["engine_kwargs"]["middleware"] == [SIDES_GATE_MIDDLEWARE]
    volumes = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["volumes"]
    assert gate_name("qwen", sides=True) in str(volumes)
    assert set(gate_config_map("qwen", "n", sides=True)["data"]) == {"rayline_gate.py", "rayline_sides_gate.py"}


def test_the_config_map_that_the_pods_mount_is_deployed(record_file: Callable[..., Program]):
    service = "{model: Qwen/Qwen3-30B-A3B-FP8, accelerator: h100, disaggregation: {prefill: 2, decode: 3}}"
    program = record_file(
        f"gcp:project: my-project\ngcp:region: us-central1\ncluster: {{mode: create}}\nservices:\n  qwen: {service}\n"
    )
    assert gate_name("qwen", sides=True) in objects(program, "ConfigMap")


BODIES: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "a", "logprobs": 1}, ""),
    ({"prompt": "a", "echo": False, "prompt_logprobs": None, "kv_transfer_params": None}, ""),
    ({"messages": [], "tools": [{"function": {"parameters": {"properties": {"echo": {"type": "string"}}}}}]}, ""),
    ({"prompt": "a", "prompt_logprobs": 0}, "prompt_logprobs"),
    ({"prompt": "a", "echo": True, "logprobs": 1}, "echo"),
    ({"messages": [], "kv_transfer_params": {"remote_host": "10.0.0.1"}}, "kv_transfer_params"),
    ({"messages": [], "vllm_xargs": {"kv_transfer_params": "x"}}, "kv_transfer_params"),
]


@pytest.mark.parametrize(("body", "field"), BODIES)
def test_what_two_engines_cannot_do_together_is_refused_behind_the_key(
    body: dict[str, Any], field: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "api_key").write_text("sk")
    monkeypatch.setenv(KEYS_VARIABLE, str(tmp_path))
    monkeypatch.syspath_prepend(str(GATE_FOLDER))
    name, _, attribute = SIDES_GATE_MIDDLEWARE.rpartition(".")
    got: list[Any] = []

    async def application_behind(scope, receive, send):
        parts = [await receive(), await receive()]
        got.append(json.loads(b"".join(part["body"] for part in parts)))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def status(key: str) -> int:
        text = json.dumps(body).encode()
        parts = [{"type": "http.request", "body": text[:5], "more_body": True}, {"type": "http.request", "body": text[5:]}]
        sent: list[dict[str, Any]] = []

        async def receive():
            return parts.pop(0)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [(b"x-api-key", key.encode())]}
        asyncio.run(_awaited(gate(scope, receive, send)))
        if sent[0]["status"] == 400:
            assert json.loads(sent[1]["body"])["error"]["message"].startswith(f"{field} has no meaning")
        return sent[0]["status"]

    gate = getattr(importlib.import_module(name), attribute)(application_behind)
    assert status("wrong") == 401
    assert status("sk") == (400 if field else 200)
    assert got == ([] if field else [body])


async def _awaited(call: Any) -> None:
    await call


def test_on_the_cpu_the_kv_cache_moves_by_tcp_from_memory_to_memory():
    made = plan({"mode": "existing"}, s=SMALL | {"pods": {"image": "cpu:1"}} | SIDES)
    service = ray_service(
        made.services[0], namespace="n", hugging_face=made.hugging_face, pool=None, head=made.head, store_address=None
    )
    for side in application(service)["args"].values():
        assert side["engine_kwargs"]["kv_transfer_config"]["kv_buffer_device"] == "cpu"
    assert RayService(service).head.ray_container.environment["UCX_TLS"] == "tcp,self,sm"
    assert "UCX_TLS" not in RayService(manifest(**ON_H100)).head.ray_container.environment


def test_a_request_without_a_prefill_replica_waits_no_longer_than_the_longest_answer():
    def limit(**more: Any) -> Any:
        return RayService(manifest(**ON_H100 | more)).head.ray_container.environment.get(LIMIT)

    assert limit() == "300"
    assert limit(rollout={"longest_stream_seconds": 900}) == "900"
    assert limit(pods={"env": {LIMIT: "20"}}) == "20"
    assert LIMIT not in RayService(manifest()).head.ray_container.environment


def test_the_reader_sees_one_model_with_the_engines_of_both_sides():
    serve = RayService(manifest(**ON_H100)).serve
    assert serve.is_disaggregated
    assert serve.model_ids == ["Qwen/Qwen3-30B-A3B-FP8"]
    assert serve.most_engines == 5
    assert [config.side for config in serve.llm_configs] == ["decode", "prefill"]
    assert not RayService(manifest()).serve.is_disaggregated


def test_on_this_machine_the_engines_listen_on_free_ports_of_the_loopback_interface():
    made = plan({"mode": "local"}, s=SMALL | SIDES)
    service = ray_service(
        made.services[0], namespace="n", hugging_face=made.hugging_face, pool=None, head=made.head, store_address=None
    )
    node = read(service)
    result = translated(
        node, {("s-ray-auth", "auth_token"): "t", ("s-api-key", "api_key"): "k"}, ports=node.ports() | {"decode": 22100}
    )
    sides = result.serve_config["applications"][0]["args"]
    bases = {side: config["experimental_configs"] for side, config in sides.items()}
    assert bases == {
        "prefill_config": {"NIXL_SIDE_CHANNEL_PORT_BASE": 20000},
        "decode_config": {"NIXL_SIDE_CHANNEL_PORT_BASE": 22100},
    }
    assert result.env["UCX_NET_DEVICES"] == "lo"
    assert (result.env["VLLM_CPU_OMP_THREADS_BIND"], result.env["OMP_NUM_THREADS"]) == ("nobind", "1")


def test_a_benchmark_of_arms_refuses_such_a_stack():
    with pytest.raises(BenchUsageError, match="without `disaggregation`"):
        Base(manifest(**ON_H100))


# --- verify


@dataclass
class Divided(Service):
    """A recorded service, whose replica of the model becomes the one for decode, and has one for prefill beside it."""

    counts: list[float] = field(default_factory=lambda: [3.0, 4.0])
    """What the metric says, one look after another; the last one stays."""
    prompts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        arguments = self.serve_config["applications"][0]["args"]
        (llm,) = arguments.pop("llm_configs")
        arguments |= {"prefill_config": llm, "decode_config": copy.deepcopy(llm)}
        deployments = self.details["applications"]["llm"]["deployments"]
        decode = deployments["Decode:tiny"] = deployments.pop("LLMServer:tiny")
        deployments["Prefill:tiny"] = copy.deepcopy(decode)

    def run_client(self, job: Mapping[str, Any]) -> Any:
        if job["do"] == "metric":
            assert job["name"] == disaggregation.TRANSFERS
            return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        if job["do"] == "stream":
            self.prompts.append(job["body"]["prompt"])
        return super().run_client(job)


def checks(service: Service):
    return {check.name: check for check in check_switches(cast(Target, service))}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disaggregation, "PATIENCE_SECONDS", 0)


def test_transfers_that_grow_with_a_new_prompt_pass():
    service = Divided()
    passed = checks(service)["prefill and decode"]
    assert passed.outcome is Outcome.PASS, passed.evidence
    assert "1 of Decode:tiny, 1 of Prefill:tiny" in passed.evidence
    assert passed.evidence.endswith("grew from 3 to 4")
    checks(service)
    asked = [prompt for prompt in service.prompts if len(prompt) > 100]
    assert len(set(asked)) == len(asked) == 2


def test_a_declared_switch_without_a_transfer_fails():
    broken = checks(Divided(counts=[7.0]))["prefill and decode"]
    assert broken.outcome is Outcome.FAIL
    assert "stays at 7 after a new prompt" in broken.evidence


def test_a_side_without_a_replica_fails():
    service = Divided()
    service.details["applications"]["llm"]["deployments"]["Prefill:tiny"]["replicas"] = []
    broken = checks(service)["prefill and decode"]
    assert broken.outcome is Outcome.FAIL
    assert "0 of Prefill:tiny" in broken.evidence


def test_an_answer_that_is_refused_fails():
    service = Divided()
    service.stream["status"] = 500
    assert checks(service)["prefill and decode"].outcome is Outcome.FAIL


def test_haproxy_needs_the_decode_replicas_alone():
    service = Divided()
    prefill = service.details["applications"]["llm"]["deployments"]["Prefill:tiny"]["replicas"][0]
    prefill["actor_name"] = "SERVE_REPLICA::llm#Prefill:tiny#1"
    assert checks(service)["HAProxy: replicas as servers"].outcome is Outcome.PASS


def test_another_service_is_not_checked():
    assert "prefill and decode" not in checks(Service())
