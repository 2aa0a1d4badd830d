"""Where weights come from: what a service of each kind asks for, and who may read the bucket."""

from typing import Any

import pytest

from rayline.facts.choices import WeightsSource
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline.service.manifest import ray_service
from rayline.service.serve_config import serve_config

CREATE: dict[str, Any] = {"project": "my-project", "region": "us-central1", "cluster": {"mode": "create"}}
QWEN = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "api": {"key": False}}
FUSE = QWEN | {"weights": {"source": "gcs-fuse"}}
STREAM = QWEN | {"weights": {"source": "gcs-stream"}, "pods": {"image": "registry/ray-llm-streamer:1"}}
BUCKET = {"weights": {"bucket": "models"}}


def planned(service: dict[str, Any], **more: Any):
    return make_plan(CREATE | {"services": {"qwen": service}} | more)


def rendered(service: dict[str, Any], **more: Any) -> dict[str, Any]:
    plan = planned(service, **more)
    (only,) = plan.services
    return ray_service(
        only, namespace="ml", hugging_face=plan.hugging_face, pool=plan.pools[0], head=plan.head, store_address=None
    )


def worker(service: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The template of the worker pods."""
    return rendered(service, **more)["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["template"]


def head(service: dict[str, Any], **more: Any) -> dict[str, Any]:
    return rendered(service, **more)["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]


def container(template: dict[str, Any]) -> dict[str, Any]:
    return template["spec"]["containers"][0]


def variables(template: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in container(template)["env"]}


def llm(service: dict[str, Any], **more: Any) -> dict[str, Any]:
    (only,) = planned(service, **more).services
    return serve_config(only)["applications"][0]["args"]["llm_configs"][0]


# --- hub


def test_replicas_of_a_worker_share_one_download_on_the_nodes_ephemeral_storage():
    template = worker(QWEN)
    (volume,) = template["spec"]["volumes"]
    (mount,) = container(template)["volumeMounts"]
    assert variables(template)["HF_HOME"] == mount["mountPath"]
    assert mount["name"] == volume["name"]
    # the limit that evicts is the container's, so the volume promises no more than it
    assert volume["emptyDir"]["sizeLimit"] == container(template)["resources"]["limits"]["ephemeral-storage"]


def test_head_and_workers_have_the_same_variables_and_only_workers_the_volume():
    assert container(head(QWEN))["env"] == container(worker(QWEN))["env"]
    assert not {one["name"] for one in head(QWEN)["spec"].get("volumes", [])} & {"hub-cache"}


@pytest.mark.parametrize(
    "more",
    [
        {"weights": {"location": "/mnt/qwen"}, "pods": {"volumes": [{"name": "mine", "mount_path": "/mnt", "claim": "c"}]}},
        {"pods": {"volumes": [{"name": "cache", "mount_path": "/home/ray/.cache/huggingface", "claim": "c"}]}},
    ],
)
def test_a_cache_of_the_stacks_own_is_left_in_its_place(more):
    template = worker(QWEN | more)
    assert "HF_HOME" not in variables(template)
    assert [one["name"] for one in template["spec"]["volumes"]] == [more["pods"]["volumes"][0]["name"]]


def test_a_revision_is_what_vllm_asks_hugging_face_for():
    assert llm(QWEN | {"weights": {"revision": "851bf6e8"}})["engine_kwargs"]["revision"] == "851bf6e8"
    assert "revision" not in llm(QWEN)["engine_kwargs"]


@pytest.mark.parametrize(
    ("uri", "warned"),
    [
        ("gs://acme/qwen", False),
        ("s3://acme/qwen", True),
        ("abfss://qwen@acme.dfs.core.windows.net/qwen", True),
        ("gs://anonymous@public/qwen", False),
        ("acme/qwen-tuned", False),
        ("/models/qwen", False),
    ],
)
def test_the_plan_says_that_a_bucket_of_ones_own_has_to_grant_its_workers_rights(uri, warned):
    said = [one for one in planned(QWEN | {"weights": {"location": uri}}).warnings if "grants the workers no rights" in one]
    assert [uri in one for one in said] == [True] * warned


def test_in_a_cluster_of_others_a_bucket_has_to_grant_its_readers_rights_itself():
    for service in (QWEN | {"weights": {"location": "gs://acme/qwen"}}, QWEN | {"weights": {"location": "s3://acme/qwen"}}):
        (warning,) = [
            one
            for one in make_plan({"cluster": {"mode": "existing"}, "services": {"qwen": service}}).warnings
            if "grants the workers no rights" in one
        ]
        assert "Fix: let the ServiceAccount qwen-worker read it" in warning


@pytest.mark.parametrize("uri", ["gs:///qwen", "gs://Acme/qwen", "gs://me@acme/qwen", "gs://anonymous@/qwen"])
def test_an_address_without_the_name_of_a_bucket_is_refused(uri):
    with pytest.raises(PlanError, match=r"services\.qwen\.weights\.location .*no bucket of Cloud Storage has this name"):
        planned(QWEN | {"weights": {"location": uri}})


def test_an_address_has_no_revision(tmp_path):
    (tmp_path / "a.yaml").write_text("model: gs://acme/qwen\nlike: Qwen/Qwen3.5-4B\n")
    with pytest.raises(PlanError, match=r"weights\.revision .*the model is an address: leave it out"):
        planned(QWEN | {"model": "gs://acme/qwen", "weights": {"revision": "v1"}}, models=str(tmp_path))


def test_the_plan_has_nothing_to_say_about_the_bucket_that_the_stack_names():
    assert not [one for one in planned(STREAM, **BUCKET).warnings if "grants the workers no rights" in one]


# --- gcs-fuse


def test_a_mounted_bucket_is_the_models_folder_read_only_where_vllm_looks():
    template = worker(FUSE | {"weights": {"source": "gcs-fuse", "revision": "851bf6e8"}}, **BUCKET)
    (volume,) = template["spec"]["volumes"]
    (mount,) = container(template)["volumeMounts"]
    attributes = volume["csi"]["volumeAttributes"]
    assert volume["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert (volume["csi"]["readOnly"], mount["readOnly"]) == (True, True)
    assert attributes["bucketName"] == "models"
    assert "only-dir:Qwen/Qwen3.5-4B/851bf6e8" in attributes["mountOptions"].split(",")
    assert mount["mountPath"] == llm(FUSE, **BUCKET)["model_loading_config"]["model_source"]


def test_a_mounted_bucket_is_fetched_in_parallel_and_read_ahead():
    options = worker(FUSE, **BUCKET)["spec"]["volumes"][0]["csi"]["volumeAttributes"]["mountOptions"].split(",")
    assert "file-cache:enable-parallel-downloads:true" in options
    # without a cache there are no parallel downloads
    assert "file-cache:max-size-mb:-1" in options
    assert llm(FUSE, **BUCKET)["engine_kwargs"]["safetensors_load_strategy"] == "prefetch"


def test_gke_adds_the_mounts_sidecar_to_workers_alone():
    annotations = worker(FUSE, **BUCKET)["metadata"]["annotations"]
    assert annotations["gke-gcsfuse/volumes"] == "true"
    assert "gke-gcsfuse/volumes" not in head(FUSE, **BUCKET)["metadata"].get("annotations", {})
    assert "gke-gcsfuse/volumes" not in worker(STREAM, **BUCKET)["metadata"].get("annotations", {})


def test_the_mounts_sidecar_fits_the_machine_beside_the_workers():
    shared = QWEN | {"replicas": 8, "nodes": {"machine_type": "g2-standard-96"}, "workers": {"gpus": 1}}
    (alone,), (beside,) = (planned(one, **BUCKET).services for one in (shared, shared | {"weights": {"source": "gcs-fuse"}}))
    assert beside.workers.cpus + 0.25 <= alone.workers.cpus + 1
    assert 8 * (beside.workers.cpus + 0.25) <= 96
    assert beside.workers.cpus < alone.workers.cpus or beside.workers.memory_gib <= alone.workers.memory_gib


# --- gcs-stream


def test_a_streamed_model_comes_from_its_revisions_folder():
    config = llm(STREAM | {"weights": {"source": "gcs-stream", "revision": "851bf6e8"}}, **BUCKET)
    assert config["model_loading_config"]["model_source"] == "gs://models/Qwen/Qwen3.5-4B/851bf6e8"
    assert config["engine_kwargs"]["load_format"] == "runai_streamer"
    # the folder is the revision; Hugging Face is not asked
    assert "revision" not in config["engine_kwargs"]


def test_gpus_that_share_a_model_share_the_reading_of_it():
    one, two = llm(STREAM, **BUCKET), llm(STREAM | {"engine": {"tensor_parallel_size": 2}}, **BUCKET)
    assert "distributed" not in one["engine_kwargs"]["model_loader_extra_config"]
    assert two["engine_kwargs"]["model_loader_extra_config"]["distributed"] is True


def test_the_streamers_buffers_leave_the_worker_three_quarters_of_its_memory():
    for more in ({}, {"replicas": 8, "nodes": {"machine_type": "g2-standard-96"}}):
        (service,) = planned(STREAM | more, **BUCKET).services
        limit = llm(STREAM | more, **BUCKET)["engine_kwargs"]["model_loader_extra_config"]["memory_limit"]
        assert limit * service.workers.gpus <= service.workers.memory_gib * 2**30 / 4


def test_a_stream_needs_no_disk_for_the_weights():
    stream, fuse = planned(STREAM, **BUCKET), planned(FUSE, **BUCKET)
    assert stream.services[0].workers.ephemeral_gib < fuse.services[0].workers.ephemeral_gib
    assert stream.pools[0].boot_disk_gib <= fuse.pools[0].boot_disk_gib


def test_what_a_stack_says_of_the_engine_wins():
    given = STREAM | {"engine": {"kwargs": {"model_loader_extra_config": {"concurrency": 32}}}}
    assert llm(given, **BUCKET)["engine_kwargs"]["model_loader_extra_config"] == {"concurrency": 32}


# --- both


@pytest.mark.parametrize("service", [FUSE, STREAM])
def test_pods_that_read_a_bucket_hold_no_hugging_face_token(service):
    token = {"hugging_face": {"source": "existing-secret"}}
    assert "HF_TOKEN" in variables(worker(QWEN, **BUCKET, **token))
    assert "HF_TOKEN" not in variables(worker(service, **BUCKET, **token))


def test_each_model_and_revision_is_copied_once_whoever_reads_it():
    services = {"a": FUSE, "b": STREAM, "c": FUSE | {"weights": {"source": "gcs-fuse", "revision": "v2"}}, "d": QWEN}
    plan = make_plan(CREATE | BUCKET | {"services": services})
    assert [one.folder for one in plan.mirrors] == ["Qwen/Qwen3.5-4B/main", "Qwen/Qwen3.5-4B/v2"]
    assert make_plan(CREATE | {"services": services, "weights": {"bucket": "models", "mirror": False}}).mirrors == ()


def test_a_bucket_that_nobody_reads_is_told_and_kept():
    plan = planned(QWEN, **BUCKET)
    assert any("no service reads the bucket models" in warning for warning in plan.warnings)
    assert plan.bucket is not None
    assert plan.services[0].weights.source is WeightsSource.HUB


def test_a_bucket_that_goes_with_its_stack_is_told():
    def warnings(cluster: dict[str, Any], bucket: dict[str, Any]) -> str:
        return " ".join(planned(FUSE, cluster=cluster, weights=bucket).warnings)

    words = "everything in it go with the stack"
    trial = {"mode": "create", "deletion_protection": False}
    assert words in warnings(trial, {"bucket": "models"})
    assert words not in warnings({"mode": "create"}, {"bucket": "models"})
    assert words not in warnings(trial, {"bucket": "models", "create": False})
