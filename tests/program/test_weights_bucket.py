"""A bucket with weights in the resource graph: how it is made, who may read it, and what becomes of it."""

from collections.abc import Callable

import pytest

from rayline.offline import Declared, Program
from tests.program.test_program import needs

FUSE = "qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4, weights: gcs-fuse}"
STREAM = "big: {model: Qwen/Qwen3.5-27B, accelerator: l4, tensor_parallel_size: 4, weights: gcs-stream, image: 'r/streamer:1'}"


@pytest.fixture
def stack(record_file: Callable[..., Program]) -> Callable[..., Program]:
    def record(*services: str, bucket: str = "bucket: my-models", cluster: str = "mode: create") -> Program:
        listed = "".join(f"  {service}\n" for service in services)
        return record_file(
            "gcp:project: my-project\ngcp:region: us-central1\n"
            f"cluster: {{{cluster}}}\nweights: {{{bucket}}}\nservices:\n{listed}"
        )

    return record


def bucket_of(program: Program) -> Declared:
    (found,) = program.of_type("storage/bucket:Bucket")
    return found


def test_a_bucket_lies_in_the_clusters_region_and_is_closed_to_everybody_else(stack):
    made = bucket_of(stack(FUSE)).inputs
    assert (made["name"], made["location"], made["project"]) == ("my-models", "us-central1", "my-project")
    assert made["uniformBucketLevelAccess"] is True
    assert made["publicAccessPrevention"] == "enforced"


def test_a_bucket_stays_unless_the_cluster_itself_may_go(stack):
    kept = bucket_of(stack(FUSE))
    assert kept.protect
    assert kept.retain_on_delete
    assert kept.inputs["forceDestroy"] is False

    goes = bucket_of(stack(FUSE, cluster="mode: create, deletion_protection: false"))
    assert not goes.protect
    assert not goes.retain_on_delete
    assert goes.inputs["forceDestroy"] is True


def test_a_bucket_that_exists_is_read_and_not_made(stack):
    program = stack(FUSE, bucket="bucket: my-models, create: false, mirror: false")
    assert program.of_type("storage/bucket:Bucket") == []
    (grant,) = program.of_type("BucketIAMMember")
    assert grant.inputs["bucket"] == "my-models"


def test_only_the_workers_that_read_a_bucket_may_and_none_may_write(stack):
    hub = "other: {model: Qwen/Qwen3.5-0.8B, accelerator: l4}"
    program = stack(FUSE, STREAM, hub, bucket="bucket: my-models, mirror: false")
    grants = [one.inputs for one in program.of_type("BucketIAMMember")]
    given = sorted(
        (one["member"].partition("/subject/")[2], one["role"].removeprefix("roles/storage.")) for one in grants
    )
    assert given == [
        ("ns/rayline/sa/big-worker", "bucketViewer"),
        ("ns/rayline/sa/big-worker", "objectViewer"),
        ("ns/rayline/sa/qwen-worker", "objectViewer"),
    ]
    pools = {one["member"].partition("/subject/")[0] for one in grants}
    assert pools == {
        "principal://iam.googleapis.com/projects/(number of the project)/locations/global/"
        "workloadIdentityPools/my-project.svc.id.goog"
    }


def test_a_service_waits_for_its_rights_and_the_rights_for_the_clusters_identities(stack):
    program = stack(FUSE)
    (service,) = program.of_type(":RayService")
    (cluster,) = program.of_type("container/cluster:Cluster")
    grants = {one.urn for one in program.of_type("BucketIAMMember")}
    assert grants <= needs(program, service)
    assert all(cluster.urn in needs(program, one) for one in program.of_type("BucketIAMMember"))


def test_the_cluster_has_the_driver_where_a_service_mounts_and_only_there(stack):
    def addons(program: Program) -> dict:
        return program.of_type("container/cluster:Cluster")[0].inputs.get("addonsConfig") or {}

    assert addons(stack(FUSE))["gcsFuseCsiDriverConfig"] == {"enabled": True}
    assert "gcsFuseCsiDriverConfig" not in addons(stack(STREAM))
