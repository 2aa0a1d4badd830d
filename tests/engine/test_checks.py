"""The stand-ins can say no: an input that the SDK's types do not allow fails the check, by its name."""

import pathlib
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2

from tests.engine.conftest import a_project
from tests.engine.fake_provider import Cloud, Google, Kubernetes, Provider, changed, struct, without_indexes
from tests.engine.replacing import replaces

pytestmark = pytest.mark.engine

POOL = "gcp:container/nodePool:NodePool"
SOUND = {
    "cluster": "one",
    "autoscaling": {"totalMinNodeCount": 0, "totalMaxNodeCount": 4},
    "nodeConfig": {
        "machineType": "g2-standard-8",
        "oauthScopes": ["https://www.googleapis.com/auth/cloud-platform"],
        "labels": {"rayline/pool": "g2"},
        "taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE"}],
    },
}
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "rayline"}}


def failures(provider: type[Provider], folder: pathlib.Path, token: str, inputs: dict[str, Any]) -> list[str]:
    """What Check answers."""
    request = provider_pb2.CheckRequest(urn=f"urn:pulumi:test::rayline::{token}::one", news=struct(inputs))
    return [failure.reason for failure in provider(Cloud(folder)).Check(request, None).failures]


def test_sound_inputs_pass(tmp_path: pathlib.Path) -> None:
    assert failures(Google, tmp_path, POOL, SOUND) == []
    assert failures(Kubernetes, tmp_path, "kubernetes:core/v1:Namespace", NAMESPACE) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nodeCnt": 3}, "nodeCnt: NodePoolArgs has no such property"),
        ({"nodeConfig": {"machinType": "g2-standard-8"}}, "nodeConfig.machinType: NodePoolNodeConfigArgs has no such property"),
        (
            {"nodeConfig": {"taints": [{"key": "a", "value": "b"}]}},
            "nodeConfig.taints[0].effect: missing: NodePoolNodeConfigTaintArgs requires it",
        ),
        ({"autoscaling": {"totalMaxNodeCount": "4"}}, "autoscaling.totalMaxNodeCount: wants int, got a text"),
        ({"nodeConfig": {"spot": "true"}}, "nodeConfig.spot: wants bool, got a text"),
        ({"nodeConfig": {"labels": {"rayline/pool": 2}}}, "nodeConfig.labels.rayline/pool: wants str, got a whole number"),
        ({"nodeLocations": "us-central1-a"}, "nodeLocations: wants a list, got a text"),
        ({"nodeConfig": [{}]}, "nodeConfig: wants the object NodePoolNodeConfigArgs, got a list"),
        ({"cluster": None}, "cluster: missing: NodePoolArgs requires it"),
    ],
)
def test_a_wrong_google_input_fails_by_its_name(tmp_path: pathlib.Path, change: dict, message: str) -> None:
    inputs = {key: value for key, value in (SOUND | change).items() if value is not None}
    assert failures(Google, tmp_path, POOL, inputs) == [message]


def test_a_type_that_the_sdk_does_not_have_fails(tmp_path: pathlib.Path) -> None:
    assert failures(Google, tmp_path, "gcp:container/pool:Pool", {}) == ["gcp:container/pool:Pool is no type of gcp"]


@pytest.mark.parametrize(
    ("token", "inputs", "message"),
    [
        ("kubernetes:core/v1:Namespace", NAMESPACE | {"metadata": {}}, "metadata.name: missing"),
        ("kubernetes:core/v1:Namespace", NAMESPACE | {"kind": "Secret"}, "apiVersion: the object says"),
        (
            "kubernetes:ray.io/v1:RayService",
            {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "a", "label": {}}},
            "metadata.label: ObjectMetaArgs has no such property",
        ),
        (
            "kubernetes:networking.k8s.io/v1:NetworkPolicy",
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "a"},
                "spec": {"podSelectr": {}},
            },
            "spec.podSelectr: NetworkPolicySpecArgs has no such property",
        ),
        ("kubernetes:helm.sh/v3:Release", {"chart": "a", "skipCRDs": True}, "skipCRDs: ReleaseArgs has no such property"),
    ],
)
def test_a_wrong_kubernetes_input_fails_by_its_name(tmp_path: pathlib.Path, token: str, inputs: dict, message: str) -> None:
    found = failures(Kubernetes, tmp_path, token, inputs)
    assert found
    assert found[0].startswith(message)


def test_a_message_does_not_show_the_value(tmp_path: pathlib.Path) -> None:
    inputs = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": "hf_secret"}
    found = failures(Kubernetes, tmp_path, "kubernetes:core/v1:Secret", inputs)
    assert found == ["stringData: wants a map, got a text"]


def test_the_engine_stops_at_what_a_check_refuses(tmp_path: pathlib.Path, stand_ins: pathlib.Path) -> None:
    project = a_project(tmp_path, "dev-l4", stand_ins)
    (project.folder / "__main__.py").write_text(
        f"import pulumi\npulumi.CustomResource({POOL!r}, 'pool', {{'clutser': 'one'}}, "
        "pulumi.ResourceOptions(version='10.2.0'))\n"
    )
    run = project.operate("up")
    assert run.code != 0
    assert "clutser: NodePoolArgs has no such property" in run.output
    assert "cluster: missing: NodePoolArgs requires it" in run.output
    assert Cloud(tmp_path / "cloud").operations() == []


# --- what replaces


@pytest.mark.parametrize(
    ("token", "old", "new", "replaced"),
    [
        (POOL, {"autoscaling": {"totalMaxNodeCount": 4}}, {"autoscaling": {"totalMaxNodeCount": 3}}, False),
        (POOL, {"nodeConfig": {"machineType": "a"}}, {"nodeConfig": {"machineType": "b"}}, False),
        (POOL, {"location": "us-central1-b"}, {"location": "us-central1-c"}, True),
        (POOL, {"nodeConfig": {"oauthScopes": ["a"]}}, {"nodeConfig": {"oauthScopes": ["a", "b"]}}, True),
        (POOL, {"nodeConfig": {}}, {"nodeConfig": {"spot": True}}, True),
        ("gcp:container/cluster:Cluster", {"network": "a"}, {"network": "b"}, True),
        ("gcp:container/cluster:Cluster", {"deletionProtection": True}, {"deletionProtection": False}, False),
        ("kubernetes:core/v1:Secret", {"stringData": {"a.b": "1"}}, {"stringData": {"a.b": "2"}}, True),
        ("kubernetes:ray.io/v1:RayService", {"spec": {"a": 1}}, {"spec": {"a": 2}}, False),
        ("kubernetes:ray.io/v1:RayService", {"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}, True),
        ("random:index/randomPassword:RandomPassword", {"length": 48}, {"length": 64}, True),
    ],
)
def test_a_change_replaces_where_the_provider_would(token: str, old: dict, new: dict, replaced: bool) -> None:
    found = changed(old, new)
    assert found
    assert any(replaces(token, without_indexes(path)) for path in found) is replaced


# --- what the cloud refuses


class Aborted(Exception):
    """What a call's context raises to end the call."""


class Context:
    def abort(self, code: grpc.StatusCode, message: str) -> None:
        raise Aborted(message)


def create(provider: Provider, token: str, inputs: dict[str, Any]) -> Any:
    urn = f"urn:pulumi:test::rayline::{token}::one"
    return provider.Create(provider_pb2.CreateRequest(urn=urn, properties=struct(inputs)), Context())


def delete(provider: Provider, token: str, identity: str) -> None:
    urn = f"urn:pulumi:test::rayline::{token}::one"
    provider.Delete(provider_pb2.DeleteRequest(urn=urn, id=identity), Context())


def test_a_cluster_with_deletion_protection_stays(tmp_path: pathlib.Path) -> None:
    google, token = Google(Cloud(tmp_path)), "gcp:container/cluster:Cluster"
    made = create(google, token, {"name": "one", "location": "us-central1"})
    with pytest.raises(Aborted, match="deletionProtection"):
        delete(google, token, made.id)


def test_a_network_in_use_stays(tmp_path: pathlib.Path) -> None:
    google, token = Google(Cloud(tmp_path)), "gcp:compute/network:Network"
    network = create(google, token, {"name": "one"})
    create(google, "gcp:compute/router:Router", {"name": "one", "network": network.id})
    with pytest.raises(Aborted, match="already being used"):
        delete(google, token, network.id)


def test_an_object_without_its_namespace_is_refused(tmp_path: pathlib.Path) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "rayline"}}
    with pytest.raises(Aborted, match='namespaces "rayline" not found'):
        create(Kubernetes(Cloud(tmp_path)), "kubernetes:core/v1:Secret", secret)


def test_a_ray_service_without_its_crd_is_refused(tmp_path: pathlib.Path) -> None:
    service = {"apiVersion": "ray.io/v1", "kind": "RayService", "metadata": {"name": "a"}}
    with pytest.raises(Aborted, match='no matches for kind "RayService"'):
        create(Kubernetes(Cloud(tmp_path)), "kubernetes:ray.io/v1:RayService", service)
