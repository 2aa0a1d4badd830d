"""What a real engine does with each stack: every step is one that the change asks for, and the end leaves nothing."""

import json

import pytest

from rayline.facts.choices import ClusterMode
from tests.conftest import recorded
from tests.engine.conftest import Life
from tests.engine.fake_provider import CRD, began
from tests.unit.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1500)]

POOL = "gcp:container/nodePool:NodePool"
CLUSTER = "gcp:container/cluster:Cluster"
NETWORK = "gcp:compute/network:Network"
OPERATOR = "kubernetes:helm.sh/v3:Release"
RAY_SERVICE = "kubernetes:ray.io/v1:RayService"
MIRROR_JOB = "kubernetes:batch/v1:Job"
BUCKET_GRANT = "gcp:storage/bucketIAMMember:BucketIAMMember"
BUDGET = "kubernetes:policy/v1:PodDisruptionBudget"
SECRET = "kubernetes:core/v1:Secret"
# What may follow the size of a service: its pool's maximum, what bounds its namespace, how many of its pods may be missing.
SIZED = {RAY_SERVICE, POOL, "kubernetes:core/v1:ResourceQuota", BUDGET}


def times(life: Life, command: str, op: str, kind: str) -> list[tuple[float, float]]:
    """Begin and end of each operation of a command on one kind of object, earliest first."""
    return sorted((one["begin"], one["end"]) for one in life.operations[command] if (one["op"], one["type"]) == (op, kind))


def ends_before(life: Life, command: str, op: str, first: str, then: str) -> bool:
    """Whether a command was done with all objects of one kind before it began with any of the other; both have to occur."""
    earlier, later = times(life, command, op, first), times(life, command, op, then)
    assert earlier, f"no {op} of {first} in {command}"
    assert later, f"no {op} of {then} in {command}"
    return max(end for _, end in earlier) <= min(begin for begin, _ in later)


# --- a deployment


def test_a_preview_only_creates_and_touches_nothing(life: Life) -> None:
    assert life.runs["preview"].code == 0, life.runs["preview"].output
    assert {step.op for step in life.runs["preview"].steps} == {"create"}
    assert life.operations["preview"] == []
    assert life.left["preview"] == []


def test_up_creates_what_the_preview_announced(life: Life) -> None:
    announced = {(step.type, step.name) for step in life.custom_steps("preview")}
    created = {(step.type, step.name) for step in life.custom_steps("up")}
    assert announced <= created
    # the engine does not ask a provider for a component's children while its cluster is yet to be made
    unseen = {CRD} if recorded(life.stack).plan.cluster.mode is ClusterMode.CREATE else set()
    assert {kind for kind, _ in created - announced} == unseen
    assert {step.op for step in life.custom_steps("up")} == {"create"}


def test_a_refresh_finds_what_was_deployed(life: Life) -> None:
    assert life.runs["refresh"].code == 0, life.runs["refresh"].output


def test_up_again_changes_nothing(life: Life) -> None:
    assert life.runs["up again"].code == 0, life.runs["up again"].output
    assert life.operations["up again"] == []


# --- changes


@pytest.mark.parametrize("change", ["other replicas", "other model"])
def test_a_change_of_a_service_updates_its_ray_service_in_place_and_replaces_nothing(life: Life, change: str) -> None:
    assert life.runs[change].code == 0, life.runs[change].output
    steps = life.custom_steps(change)
    # the second replica brings a budget, which one alone has no use for; another model's copy is another Job
    changes = [step for step in steps if (step.op, step.type) != ("create", BUDGET) and step.type != MIRROR_JOB]
    assert {step.op for step in changes} == {"update"}
    assert RAY_SERVICE in {step.type for step in changes}
    assert {step.type for step in changes} <= SIZED


def test_a_change_of_a_service_leaves_its_keys(life: Life) -> None:
    for change in ("other replicas", "other model"):
        assert not [one for one in life.operations[change] if one["type"] == SECRET or one["type"].startswith("random:")]


# --- order


def test_the_operator_and_the_nodes_are_there_before_a_ray_service(life: Life) -> None:
    assert ends_before(life, "up", "create", OPERATOR, RAY_SERVICE)
    if times(life, "up", "create", POOL):
        assert ends_before(life, "up", "create", POOL, RAY_SERVICE)
        assert ends_before(life, "up", "create", CLUSTER, OPERATOR)
        assert ends_before(life, "up", "create", NETWORK, CLUSTER)


def test_ray_services_go_before_the_operator_the_nodes_the_cluster_and_the_network(life: Life) -> None:
    assert life.runs["destroy"].code == 0, life.runs["destroy"].output
    assert ends_before(life, "destroy", "delete", RAY_SERVICE, OPERATOR)
    if times(life, "destroy", "delete", POOL):
        assert ends_before(life, "destroy", "delete", RAY_SERVICE, POOL)
        assert ends_before(life, "destroy", "delete", OPERATOR, CLUSTER)
        assert ends_before(life, "destroy", "delete", POOL, CLUSTER)
        assert ends_before(life, "destroy", "delete", CLUSTER, NETWORK)


def test_gpu_pools_come_and_go_one_after_the_other(life_with_all_of_it: Life) -> None:
    for command, op in (("up", "create"), ("destroy", "delete")):
        assert life_with_all_of_it.runs[command].code == 0, life_with_all_of_it.runs[command].output
        spans = [
            (one["begin"], one["end"])
            for one in life_with_all_of_it.operations[command]
            if (one["op"], one["type"]) == (op, POOL) and not one["name"].endswith("-system")
        ]
        assert len(spans) == 2
        (_, first_end), (second_begin, _) = sorted(spans)
        assert first_end <= second_begin


# --- the end


def test_a_protected_stack_is_destroyed_only_after_the_protection_is_taken_away(life: Life) -> None:
    if "destroy too early" not in life.runs:
        pytest.skip(f"{life.stack} has no deletion protection")
    refused = life.runs["destroy too early"]
    assert refused.code != 0
    assert "protected" in refused.output
    assert life.operations["destroy too early"] == []
    assert life.runs["unprotect"].code == 0, life.runs["unprotect"].output
    assert {step.op for step in life.custom_steps("unprotect")} <= {"update"}


def test_destroy_leaves_nothing_in_the_cloud_nor_in_the_state(life: Life) -> None:
    assert life.runs["destroy"].code == 0, life.runs["destroy"].output
    kept = {CRD} if recorded(life.stack).plan.kuberay.keep_crds else set()
    assert [one.id for one in life.left["destroy"] if one.type not in kept] == []
    state = json.loads((life.project.state / ".pulumi" / "stacks" / "rayline" / f"{life.stack}.json").read_text())
    assert state["checkpoint"]["latest"].get("resources", []) == []


def test_a_stack_with_more_of_the_kit_settles_and_leaves_nothing(life_with_all_of_it: Life) -> None:
    assert life_with_all_of_it.runs["up again"].code == 0, life_with_all_of_it.runs["up again"].output
    assert life_with_all_of_it.operations["up again"] == []
    assert life_with_all_of_it.runs["destroy"].code == 0, life_with_all_of_it.runs["destroy"].output
    assert [one.id for one in life_with_all_of_it.left["destroy"]] == []


def test_the_first_of_two_steps_makes_everything_but_the_pods(life_in_a_gke_cluster: Life) -> None:
    pods = {RAY_SERVICE, MIRROR_JOB, "kubernetes:gateway.networking.k8s.io/v1:HTTPRoute"}
    first = {one.type for one in life_in_a_gke_cluster.left["up without services"]}
    # the redirect of the endpoint is a route as well
    assert not first & (pods - {"kubernetes:gateway.networking.k8s.io/v1:HTTPRoute"})
    assert {"kubernetes:core/v1:Namespace", OPERATOR, "gcp:storage/bucket:Bucket", BUCKET_GRANT} <= first
    assert pods <= {one.type for one in life_in_a_gke_cluster.left["up"]}


def test_a_gke_cluster_that_exists_gets_what_is_around_it_and_keeps_its_own(life_in_a_gke_cluster: Life) -> None:
    life = life_in_a_gke_cluster
    assert not {CLUSTER, NETWORK, POOL} & {one.type for one in life.left["up"]}
    assert life.runs["up again"].code == 0, life.runs["up again"].output
    assert life.operations["up again"] == []
    assert life.runs["destroy"].code == 0, life.runs["destroy"].output
    # CRDs stay for others in the cluster, and Google's APIs are never turned off
    assert {one.type for one in life.left["destroy"]} <= {CRD}


def test_no_plugin_outlives_its_engine(life: Life) -> None:
    started = [line.split() for line in (life.cloud.folder / "processes").read_text().splitlines()]
    assert started
    # a stand-in notices the end of its plugin, and a busy machine lets it wait
    wait_until(lambda: [pid for pid, begin in started if began(pid) == begin] == [], seconds=10)


# --- secrets


def test_no_key_stands_in_clear_text_in_the_state_or_the_output(life: Life) -> None:
    assert len(life.secrets) >= 4
    written = life.written()
    assert any('"ciphertext"' in text for text in written.values())
    assert [(name, "holds a key") for name, text in written.items() if any(key in text for key in life.secrets)] == []


def test_no_token_stands_in_clear_text_in_the_state_or_the_output(life_with_a_token: Life) -> None:
    assert "hf_firstRecognisableToken" in life_with_a_token.secrets
    written = life_with_a_token.written()
    found = [name for name, text in written.items() if any(key in text for key in life_with_a_token.secrets)]
    assert found == []


def test_another_token_changes_its_secret_in_place_and_nothing_else(life_with_a_token: Life) -> None:
    steps = life_with_a_token.custom_steps("other token")
    assert [(step.op, step.type, step.name) for step in steps] == [("update", SECRET, "kind-hugging-face-token")]


def test_a_new_stack_takes_over_the_crds_that_an_earlier_one_kept(life_with_a_token: Life) -> None:
    assert {one.type for one in life_with_a_token.left["destroy"]} == {CRD}
    assert life_with_a_token.runs["up after destroy"].code == 0, life_with_a_token.runs["up after destroy"].output
