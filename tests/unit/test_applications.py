"""Further models in the RayCluster of a service: own engine, path, key and price; shared GPUs, pods and rollout."""

from typing import Any

import pytest
import typer

from rayline.endpoint.manifests import service_route
from rayline.models.manifests import bucket_grants
from rayline.platform.plan import make_plan
from rayline.platform.types import Plan
from rayline.service.llm_service import wait_for
from rayline.service.manifest import ray_service
from rayline.service.reading import RayService
from rayline.service.types import ServicePlan
from rayline_cli.cli.key import _service_with_key
from rayline_cli.local import memory, single_node
from rayline_cli.local_secrets import stack_secrets
from rayline_cli.plan_cards import rows, stack_card
from tests.unit.test_manifest import L4

SMALL = {"model": "Qwen/Qwen3-0.6B"}
MOUNTED = {"source": "gcs-fuse"}
ENDPOINT = {"exposure": "internal", "domain": "llm.example.com"}


def planned(bucket: dict[str, Any] | None = None, **service: Any) -> Plan:
    """A platform in a new GKE cluster with one service; `service` is laid over a model on L4s. `bucket`: with weights in it."""
    qwen = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"} | service
    stack = {"project": "my-project", "region": "us-central1", "cluster": {"mode": "create"}, "services": {"qwen": qwen}}
    return make_plan(stack | {"endpoint": ENDPOINT} | ({"weights": bucket} if bucket else {}))


def manifest(plan: Plan) -> dict[str, Any]:
    return ray_service(
        plan.services[0], namespace="n", hugging_face=plan.hugging_face, pool=plan.pools[0], head=plan.head, store_address=None
    )


def service(**keys: Any) -> ServicePlan:
    (found,) = planned(**keys).services
    return found


def test_each_model_is_an_application_with_a_path_of_its_own():
    declared = RayService(manifest(planned(applications={"small": SMALL | {"engine": {"max_num_seqs": 8}}})))
    assert {app.name: app.route_prefix for app in declared.serve.applications} == {"llm": "/", "small": "/small"}
    own, small = declared.serve.llm_configs
    assert (own.model_id, small.model_id) == ("Qwen/Qwen3.5-4B", "Qwen/Qwen3-0.6B")
    assert own.engine_kwargs["max_num_seqs"] != 8 == small.engine_kwargs["max_num_seqs"]


def test_the_manifest_of_the_own_model_is_the_same_beside_others():
    alone, beside = (RayService(manifest(plan)) for plan in (planned(), planned(applications={"small": SMALL})))
    assert beside.serve.only("llm").data == alone.serve.data


def test_each_model_has_a_key_of_its_own_in_a_folder_of_its_own():
    made = manifest(planned(applications={"small": SMALL}))
    worker = RayService(made).workers[0]
    assert worker.secret_mounts == {
        "/etc/rayline/api-keys": "qwen-api-key",
        "/etc/rayline/api-keys-small": "qwen-small-api-key",
    }
    own, small = RayService(made).serve.applications
    assert own.variables == {}
    assert small.variables == {"RAYLINE_KEYS_FOLDER": "/etc/rayline/api-keys-small"}


def test_without_keys_no_model_has_one():
    (small,) = RayService(manifest(planned(api={"key": False}, applications={"small": SMALL}))).serve.applications[1:]
    assert small.variables == {}


def test_models_with_as_many_gpus_share_the_workers():
    found = service(nodes={"machine_type": "g2-standard-96"}, applications={"small": SMALL | {"replicas": 3}})
    assert (found.workers.gpus, found.workers.workers) == (8, 1)
    found = service(nodes={"machine_type": "g2-standard-96"}, applications={"small": SMALL | {"replicas": 8}})
    assert found.workers.workers == 2


def test_a_model_with_more_gpus_has_workers_of_its_own():
    found = service(nodes={"machine_type": "g2-standard-96"}, engine={"tensor_parallel_size": 2}, applications={"small": SMALL})
    assert found.workers.workers == 2


def test_price_and_spare_gpus_are_those_of_all_models():
    alone, three = service(), service(applications={"small": SMALL | {"replicas": 2}})
    assert (alone.hourly_usd, alone.workers.spare_workers) != (None, 0)
    assert three.hourly_usd == pytest.approx(3 * (alone.hourly_usd or 0))
    assert three.workers.surge_workers == 3
    assert three.workers.spare_workers == 2
    assert three.gpus == 3


def test_a_scaled_model_counts_with_its_most_replicas():
    found = service(applications={"small": SMALL | {"autoscaling": {"min_replicas": 1, "max_replicas": 4}}})
    assert (found.workers.workers, found.workers.most_workers) == (2, 5)
    assert (found.highest_hourly_usd or 0) / (found.hourly_usd or 1) == pytest.approx(5 / 2)


def test_a_worker_has_room_on_its_disk_for_every_model():
    alone, beside = service(), service(applications={"small": SMALL})
    assert beside.workers.ephemeral_gib > alone.workers.ephemeral_gib
    (cache,) = [
        v for v in RayService(manifest(planned(applications={"small": SMALL}))).workers[0].pod["volumes"] if "emptyDir" in v
    ]
    assert cache["emptyDir"]["sizeLimit"] == f"{beside.workers.ephemeral_gib}Gi"


def test_a_service_runs_when_all_its_applications_run():
    waits = wait_for(["llm", "small"])
    assert [wait for wait in waits if "applicationStatuses" in wait] == [
        "jsonpath={.status.activeServiceStatus.applicationStatuses.llm.status}=RUNNING",
        "jsonpath={.status.activeServiceStatus.applicationStatuses.small.status}=RUNNING",
    ]


def test_the_endpoint_passes_the_path_of_each_model():
    plan = planned(applications={"small": SMALL})
    (rule,) = service_route(plan.endpoint, plan.services[0], plan.namespace)["spec"]["rules"]
    assert [match["path"]["value"] for match in rule["matches"]] == ["/v1", "/small/v1"]
    assert plan.urls == {"qwen": "https://qwen.llm.example.com/v1", "qwen/small": "https://qwen.llm.example.com/small/v1"}


def test_the_task_of_each_model_is_told_apart():
    embedding = {"model": "Qwen/Qwen3-0.6B", "task": "embed"}
    assert {
        name: task.value for name, task in RayService(manifest(planned(applications={"vectors": embedding}))).tasks.items()
    } == {"llm": "generate", "vectors": "embed"}


def test_each_mounted_model_has_a_volume_of_its_own():
    plan = planned({"bucket": "my-models"}, weights=MOUNTED, applications={"small": SMALL | {"weights": MOUNTED}})
    pod = RayService(manifest(plan)).workers[0].pod
    folders = {v["name"]: v["csi"]["volumeAttributes"]["mountOptions"].split(":")[-1] for v in pod["volumes"] if "csi" in v}
    assert folders == {"weights": "Qwen/Qwen3.5-4B/main", "weights-small": "Qwen/Qwen3-0.6B/main"}
    mounts = {m["name"]: m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if m["name"].startswith("weights")}
    assert mounts == {"weights": "/models/Qwen/Qwen3.5-4B", "weights-small": "/models/Qwen/Qwen3-0.6B"}
    assert sorted(mirror.model_id for mirror in plan.mirrors) == ["Qwen/Qwen3-0.6B", "Qwen/Qwen3.5-4B"]
    assert list(bucket_grants(plan.services)) == ["my-models"]


def test_one_model_twice_is_mounted_once():
    twice = {"vectors": SMALL | {"task": "embed", "weights": MOUNTED}}
    plan = planned({"bucket": "my-models"}, **SMALL, weights=MOUNTED, applications=twice)
    mounts = [m["mountPath"] for m in RayService(manifest(plan)).workers[0].pod["containers"][0]["volumeMounts"]]
    assert sorted(mounts) == sorted(set(mounts))


def test_a_further_model_that_spans_machines_gives_the_pool_its_network_cards():
    big = {"model": "Qwen/Qwen3.5-4B", "engine": {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}}
    nodes = {"machine_type": "a3-ultragpu-8g", "capacity": "spot", "zones": ["us-central1-b"]}
    (pool,) = planned(accelerator="h200", nodes=nodes, applications={"big": big}).pools
    assert pool.rdma
    (pool,) = planned(accelerator="h200", nodes=nodes, applications={"big": SMALL}).pools
    assert not pool.rdma


def test_the_machine_holds_the_widest_model():
    found = service(applications={"wide": SMALL | {"engine": {"tensor_parallel_size": 2}}})
    assert found.machine
    assert found.machine.gpus == 2
    (warning,) = found.warnings
    assert "replicas with 1 and 2 GPUs share workers with 2" in warning


def test_a_warning_about_shared_keys_comes_once():
    plan = planned(pods={"env": {"RAY_SERVE_FOO_BAR": "1"}}, applications={"a": SMALL, "b": SMALL})
    assert sum("RAY_SERVE_FOO_BAR" in warning for warning in plan.warnings) == 1


def test_memory_on_this_machine_is_that_of_each_models_cache():
    tiny = {"model": "rayline/tiny-random-qwen3"}

    def needed(own: int, further: int) -> float:
        asked = tiny | {"accelerator": "cpu", "engine": {"kv_cache_gib": own}, "workers": {"memory_gib": 20}}
        asked["applications"] = {"more": tiny | {"engine": {"kv_cache_gib": further}}}
        plan = make_plan({"cluster": {"mode": "local"}, "services": {"tiny": asked}})
        made = ray_service(
            plan.services[0], namespace="n", hugging_face=plan.hugging_face, pool=None, head=plan.head, store_address=None
        )
        return memory.needed_gib(single_node.read(made), {})

    assert needed(1, 12) == needed(12, 1) == needed(1, 1) + 11


STACK = f"""{L4}
    applications:
      small: {{model: Qwen/Qwen3-0.6B, replicas: 2}}
"""


def test_the_program_declares_and_exports_the_keys_of_both(record_file: Any, tmp_path: Any):
    program = record_file(STACK)
    secrets = {name for name, _ in stack_secrets(program, tmp_path)}
    assert {"qwen-api-key", "qwen-small-api-key"} <= secrets
    assert program.plan.services[0].applications == ("llm", "small")


def test_the_plan_has_a_card_for_each_model(record_file: Any):
    own, small = stack_card(record_file(STACK)).services
    assert own.title == "qwen  Qwen/Qwen3.5-4B on 1 x L4"
    assert small.title == "qwen/small  Qwen/Qwen3-0.6B on 2 x L4"
    assert "cost" in dict(own.rows)
    assert "cost" not in dict(small.rows)
    assert "GPU" not in dict(small.rows)["in place"]
    assert dict(small.rows)["endpoint"] == "http://qwen-serve-svc.rayline:8000/small/v1 in the cluster"


def test_a_shared_key_is_refused_once_for_all_models():
    with pytest.raises(Exception, match=r"services\.qwen\.pods\.runtime") as refused:
        planned(pods={"runtime": "1.0"}, applications={"a": SMALL, "b": SMALL})
    assert str(refused.value).count("pods.runtime") == 1


def test_the_card_has_the_highest_cost_where_a_further_model_scales():
    plan = planned(applications={"small": SMALL | {"autoscaling": {"min_replicas": 1, "max_replicas": 4}}})
    cost = dict(rows(plan, plan.services[0], plan.pools[0]))["cost"]
    assert "at the most replicas of all models" in cost


def test_a_further_models_routes_have_its_path():
    plan = planned(applications={"vectors": SMALL | {"task": "embed"}})
    (vectors,) = plan.services[0].beside
    assert "POST /vectors/v1/embeddings" in dict(rows(plan, vectors, None))["task"]


@pytest.mark.parametrize(
    ("named", "label"), [("qwen", "qwen"), ("qwen/small", "qwen/small"), (None, "qwen")], ids=["own", "further", "default"]
)
def test_a_key_is_that_of_the_named_model(named: str | None, label: str, record_file: Any):
    assert _service_with_key(record_file(STACK), named).label == label


@pytest.mark.parametrize("named", ["qwen/none", "/small", "none/small"])
def test_a_model_that_is_not_there_has_no_key(named: str, record_file: Any):
    with pytest.raises(typer.BadParameter):
        _service_with_key(record_file(STACK), named)
