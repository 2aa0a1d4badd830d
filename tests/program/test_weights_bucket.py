"""A bucket with weights in the resource graph: how it is made and filled, who may read it, and what becomes of it."""

import pathlib
import re
from collections.abc import Callable

import pytest

from rayline.models.in_pods import mirror_model
from rayline.models.mirror_manifests import job_name
from rayline.models.types import Mirror
from rayline_cli.offline import Declared, Program
from rayline_cli.permissions import roles_for
from rayline_cli.plan_cards import stack_card
from tests.program.test_program import needs

FUSE = "qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4, weights: {source: gcs-fuse}}"
STREAM = (
    "big: {model: Qwen/Qwen3.5-27B, accelerator: l4, engine: {tensor_parallel_size: 4}, "
    "weights: {source: gcs-stream}, pods: {image: 'r/streamer:1'}}"
)


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
    given = sorted((one["member"].partition("/subject/")[2], one["role"].removeprefix("roles/storage.")) for one in grants)
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


# --- buckets of others


def location(uri: str, name: str = "qwen", **more: str) -> str:
    engine = f", engine: {{kwargs: {{load_format: {more['load_format']}}}}}" if more else ""
    return f"{name}: {{model: Qwen/Qwen3.5-4B, accelerator: l4, weights: {{location: '{uri}'}}{engine}}}"


@pytest.fixture
def elsewhere(record_file: Callable[..., Program]) -> Callable[..., Program]:
    """The program of services without a bucket of the stack's own."""

    def record(*services: str, more: str = "", cluster: str = "mode: create") -> Program:
        listed = "".join(f"  {service}\n" for service in services)
        return record_file(
            f"gcp:project: my-project\ngcp:region: us-central1\ncluster: {{{cluster}}}\n{more}services:\n{listed}"
        )

    return record


def grants_of(program: Program) -> list[tuple[str, str, str]]:
    """(bucket, account, role) of every grant."""
    grants = [grant.inputs for grant in program.of_type("BucketIAMMember")]
    return sorted((grant["bucket"], grant["member"].rpartition("/sa/")[2], grant["role"]) for grant in grants)


def test_each_worker_may_read_the_bucket_that_its_service_names_and_no_other(elsewhere):
    program = elsewhere(
        location("gs://acme/qwen"),
        location("gs://acme/tuned", "tuned"),
        location("gs://others.example.com/q", "third"),
        "hub: {model: Qwen/Qwen3.5-0.8B, accelerator: l4}",
    )
    assert grants_of(program) == [
        ("acme", "qwen-worker", "roles/storage.objectViewer"),
        ("acme", "tuned-worker", "roles/storage.objectViewer"),
        ("others.example.com", "third-worker", "roles/storage.objectViewer"),
    ]
    assert program.of_type("storage/bucket:Bucket") == []
    assert "storage.googleapis.com" in [api.inputs["service"] for api in program.of_type("projects/service:Service")]


def test_a_service_waits_for_its_rights_on_a_bucket_of_others(elsewhere):
    program = elsewhere(location("gs://acme/qwen"))
    (service,) = program.of_type(":RayService")
    assert {grant.urn for grant in program.of_type("BucketIAMMember")} <= needs(program, service)


def test_a_model_that_is_an_address_has_its_bucket_granted(elsewhere, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "a.yaml").write_text("model: gs://acme/qwen\nlike: Qwen/Qwen3.5-4B\n")
    program = elsewhere("qwen: {model: 'gs://acme/qwen', accelerator: l4}", more=f"models: {models}\n")
    assert grants_of(program) == [("acme", "qwen-worker", "roles/storage.objectViewer")]


def test_the_stacks_own_bucket_is_not_granted_twice(stack):
    program = stack(FUSE, location("gs://my-models/mine", "mine"), bucket="bucket: my-models, mirror: false")
    assert grants_of(program) == [
        ("my-models", "mine-worker", "roles/storage.objectViewer"),
        ("my-models", "qwen-worker", "roles/storage.objectViewer"),
    ]


ADAPTERS = "    adapters: {location: gs://tuned/adapters}"


def test_the_workers_may_read_the_bucket_with_adapters_as_well(elsewhere):
    grant = ("tuned", "qwen-worker", "roles/storage.objectViewer")
    hub = f"qwen:\n    model: Qwen/Qwen3.5-4B\n    accelerator: l4\n{ADAPTERS}"
    program = elsewhere(hub)
    assert grants_of(program) == [grant]
    assert "storage.googleapis.com" in [api.inputs["service"] for api in program.of_type("projects/service:Service")]
    (service,) = program.of_type(":RayService")
    assert {grant.urn for grant in program.of_type("BucketIAMMember")} <= needs(program, service)
    assert "from gs://tuned/adapters; the stack lets the workers read the bucket" in str(stack_card(program).services[0].rows)
    both = elsewhere(f"{hub}\n    weights: {{location: gs://acme/qwen}}")
    assert grants_of(both) == [("acme", "qwen-worker", "roles/storage.objectViewer"), grant]


@pytest.mark.parametrize(
    ("model", "roles"), [("gs://tuned/qwen", ["objectViewer"]), ("gs://tuned", ["bucketViewer", "objectViewer"])]
)
def test_a_bucket_with_the_model_and_its_adapters_is_granted_once(elsewhere, model, roles):
    service = f"qwen:\n    model: Qwen/Qwen3.5-4B\n    accelerator: l4\n    weights: {{location: '{model}'}}\n{ADAPTERS}"
    assert grants_of(elsewhere(service)) == [("tuned", "qwen-worker", f"roles/storage.{role}") for role in roles]


def test_adapters_without_a_grant_are_warned_of_unless_they_are_public(record_file):
    def warnings(address: str) -> str:
        service = f"qwen: {{model: Qwen/Qwen3.5-4B, accelerator: l4, adapters: {{location: '{address}'}}}}"
        return str(record_file(f"cluster: {{mode: existing}}\nservices:\n  {service}\n").plan.warnings)

    assert "gs://tuned/adapters: the kit grants the workers no rights on this bucket" in warnings("gs://tuned/adapters")
    assert "grants the workers no rights" not in warnings("gs://anonymous@tuned/adapters")


@pytest.mark.parametrize(
    "service",
    [location("gs://acme"), location("gs://acme/"), location("gs://acme/qwen", load_format="runai_streamer")],
    ids=["no folder", "a slash", "streamer"],
)
def test_who_reads_the_bucket_itself_may_see_it_as_well(elsewhere, service):
    roles = [role for _, _, role in grants_of(elsewhere(service))]
    assert roles == ["roles/storage.bucketViewer", "roles/storage.objectViewer"]


def test_the_plan_names_the_bucket_and_says_who_lets_the_workers_read_it(elsewhere):
    def weights(program: Program) -> str:
        return dict(stack_card(program).services[0].rows)["weights"]

    read = "8.5 GiB from gs://acme/qwen, by each worker; the stack lets them read the bucket"
    assert weights(elsewhere(location("gs://acme/qwen"))) == read
    assert weights(elsewhere(location("gs://anonymous@acme/qwen"))) == "8.5 GiB from gs://anonymous@acme/qwen"


@pytest.mark.parametrize("uri", ["gs://anonymous@public/qwen", "s3://acme/qwen", "acme/qwen"])
def test_public_data_and_other_clouds_have_no_grant(elsewhere, uri):
    assert grants_of(elsewhere(location(uri))) == []


def test_a_cluster_of_others_gets_no_grant(record_file):
    assert grants_of(record_file(f"cluster: {{mode: existing}}\nservices:\n  {location('gs://acme/qwen')}\n")) == []


def test_the_deployer_needs_the_right_to_grant_on_each_bucket(elsewhere):
    roles = roles_for(elsewhere(location("gs://acme/qwen"), location("gs://others/q", "other")))
    admin = [role for role in roles if role.role == "roles/storage.admin"]
    assert [(role.scope.kind, role.scope.name) for role in admin] == [("bucket", "acme"), ("bucket", "others")]
    assert admin[0].permissions == ("storage.buckets.getIamPolicy", "storage.buckets.setIamPolicy")


# --- copies


def jobs(program: Program) -> list[Declared]:
    return program.of_type("batch/v1:Job")


def pod_of(job: Declared) -> dict:
    return job.inputs["spec"]["template"]["spec"]


def test_each_model_is_copied_before_any_service_that_reads_it_starts(stack):
    program = stack(FUSE, STREAM)
    assert len(jobs(program)) == 2
    for service in program.of_type(":RayService"):
        assert {one.urn for one in jobs(program)} <= needs(program, service)


def test_a_copy_needs_its_rights_and_no_gpu_node(stack):
    program = stack(FUSE)
    (job,) = jobs(program)
    assert {one.urn for one in program.of_type("BucketIAMMember")} <= needs(program, job)
    pools = {one.urn for one in program.of_type("GpuNodePool")}
    assert pools
    assert not pools & needs(program, job)
    assert pod_of(job)["nodeSelector"] == {"rayline/pool": "system"}


def test_only_the_copies_account_may_write(stack):
    program = stack(FUSE)
    (job,) = jobs(program)
    writers = [one.inputs["member"] for one in program.of_type("BucketIAMMember") if "objectUser" in one.inputs["role"]]
    assert [one.rpartition("/")[2] for one in writers] == [pod_of(job)["serviceAccountName"]]
    accounts = {one.inputs["metadata"]["name"] for one in program.of_type("v1:ServiceAccount")}
    assert pod_of(job)["serviceAccountName"] in accounts


def test_another_model_or_revision_is_another_job_and_what_has_run_stays_as_it_is(stack):
    (first,) = jobs(stack(FUSE))
    (same,) = jobs(stack(FUSE.replace("l4,", "l4, replicas: 3,")))
    (other,) = jobs(stack(FUSE.replace("source: gcs-fuse", "source: gcs-fuse, revision: v2")))
    assert first.inputs == same.inputs
    assert first.name != other.name
    # a Job cannot change: a new image would run it again
    assert first.ignore_changes == ("spec",)
    # Kubernetes would remove it, and Pulumi make it again
    assert "ttlSecondsAfterFinished" not in first.inputs["spec"]


def test_pulumi_waits_longer_than_the_job_may_take(stack):
    for job in jobs(stack(FUSE, STREAM)):
        assert int(job.create_timeout.removesuffix("m")) * 60 > job.inputs["spec"]["activeDeadlineSeconds"]


def test_a_larger_model_has_more_time(stack):
    small, large = sorted(job.inputs["spec"]["activeDeadlineSeconds"] for job in jobs(stack(FUSE, STREAM)))
    assert large > small >= 30 * 60


def test_a_copy_passes_the_restricted_pod_security_standard(stack):
    (job,) = jobs(stack(FUSE))
    (container,) = pod_of(job)["containers"]
    assert pod_of(job)["securityContext"]["runAsNonRoot"] is True
    assert pod_of(job)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod_of(job)["automountServiceAccountToken"] is False


def test_the_script_that_runs_is_the_one_that_is_tested(stack):
    program = stack(FUSE)
    (job,) = jobs(program)
    mounted = pod_of(job)["volumes"][0]["configMap"]["name"]
    (script,) = [one for one in program.of_type("v1:ConfigMap") if one.inputs["metadata"]["name"] == mounted]
    (container,) = pod_of(job)["containers"]
    folder = container["volumeMounts"][0]["mountPath"]
    assert script.inputs["data"] == {"mirror_model.py": pathlib.Path(mirror_model.__file__).read_text()}
    assert f"{folder}/mirror_model.py" in container["command"]


def test_the_command_is_one_that_the_script_takes(stack, monkeypatch):
    (job,) = jobs(stack(FUSE))
    taken = {}
    monkeypatch.setattr(
        mirror_model,
        "mirror",
        lambda model, revision, bucket, folder: taken.update(model=model, revision=revision, bucket=bucket.name, folder=folder),
    )
    command = pod_of(job)["containers"][0]["command"]
    assert mirror_model.main(command[command.index("-u") + 2 :]) == 0
    assert taken == {"model": "Qwen/Qwen3.5-4B", "revision": "main", "bucket": "my-models", "folder": "Qwen/Qwen3.5-4B/main"}


def test_a_permanent_mirror_failure_ends_the_job_and_a_drained_node_does_not(stack):
    (job,) = jobs(stack(FUSE))
    fail, ignore = job.inputs["spec"]["podFailurePolicy"]["rules"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [2])
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    # Kubernetes takes a podFailurePolicy with this restartPolicy only
    assert pod_of(job)["restartPolicy"] == "Never"


def test_names_of_jobs_are_valid_and_tell_models_apart():
    def name(folder: str) -> str:
        return job_name(Mirror("m", "r", folder, "image", 1.0))

    folders = ["a/b.c/main", "a/b-c/main", "A/b.c/main", f"{'o' * 60}/{'m' * 90}/{'r' * 60}"]
    names = [name(folder) for folder in folders]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", one) for one in names)


def test_without_a_mirror_nothing_is_copied_and_nobody_may_write(stack):
    program = stack(FUSE, bucket="bucket: my-models, mirror: false")
    assert jobs(program) == []
    assert not [one for one in program.of_type("BucketIAMMember") if "objectUser" in one.inputs["role"]]


def test_the_token_goes_to_the_copy_alone(record_file):
    program = record_file(
        "gcp:project: my-project\ngcp:region: us-central1\ncluster: {mode: create}\nweights: {bucket: my-models}\n"
        f"hugging_face: {{source: existing-secret, secret_name: hub}}\nservices:\n  {FUSE}\n"
    )
    (job,) = jobs(program)
    (variable,) = pod_of(job)["containers"][0]["env"]
    assert (variable["name"], variable["valueFrom"]["secretKeyRef"]["name"]) == ("HF_TOKEN", "hub")
    (service,) = program.of_type(":RayService")
    assert "HF_TOKEN" not in str(service.inputs)


def test_a_token_of_secret_manager_reaches_the_copy_as_a_file_and_no_replica(record_file):
    program = record_file(
        "gcp:project: my-project\ngcp:region: us-central1\ncluster: {mode: create}\nweights: {bucket: my-models}\n"
        f"hugging_face: {{source: secret-manager, secret: hub}}\nservices:\n  {FUSE}\n"
    )
    (job,) = jobs(program)
    pod = pod_of(job)
    (container,) = pod["containers"]
    (variable,) = container["env"]
    (volume,) = [one for one in pod["volumes"] if "csi" in one]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == volume["name"]]
    assert variable == {"name": "HF_TOKEN_PATH", "value": f"{mount['mountPath']}/token"}
    (member,) = program.of_type(":SecretIamMember")
    assert member.inputs["member"].endswith(f"/sa/{pod['serviceAccountName']}")
    assert member.urn in needs(program, job)
    (service,) = program.of_type(":RayService")
    assert "HF_TOKEN" not in str(service.inputs)
    assert volume["csi"]["driver"] not in str(service.inputs)
