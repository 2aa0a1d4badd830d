"""The Redis of the Ray heads: what is made, who reads it, and what goes first."""

import json

import pytest

from rayline_cli.offline import MASK, Program
from tests.conftest import recorded
from tests.program.test_program import needs

GOOGLE = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create, deletion_protection: false, labels: {team: search}}
head: {store: memorystore, memorystore_gib: 2}
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}
"""
EXISTING = """
cluster: {mode: existing}
head: %s
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}
"""


def ray_cluster(program: Program) -> dict:
    return program.of_type(":RayService")[0].inputs["spec"]["rayClusterConfig"]


def head_pod(program: Program) -> dict:
    return ray_cluster(program)["headGroupSpec"]["template"]["spec"]


def test_memorystore_has_two_nodes_a_password_and_tls_in_the_platforms_own_network(record_file):
    program = record_file(GOOGLE)
    [instance] = program.of_type("redis/instance:Instance")
    assert instance.inputs == {
        "project": "my-project",
        "region": "us-central1",
        "displayName": "Memorystore instance for Ray GCS fault tolerance",
        "tier": "STANDARD_HA",
        "memorySizeGb": 2,
        "authorizedNetwork": "test-vpc-id",
        "connectMode": "DIRECT_PEERING",
        "authEnabled": True,
        "transitEncryptionMode": "SERVER_AUTHENTICATION",
        "redisConfigs": {"maxmemory-policy": "noeviction"},
        "labels": {"team": "search"},
        "deletionProtection": False,
    }
    services = {one.inputs["service"] for one in program.of_type("projects/service:Service")}
    assert "redis.googleapis.com" in services


def test_the_password_goes_from_google_into_a_secret_and_nowhere_else(record_file):
    program = record_file(GOOGLE)
    [secret] = [one for one in program.of_type("core/v1:Secret") if one.name == "test-head-store"]
    assert secret.inputs["metadata"] == {"name": "head-store", "namespace": "rayline"}
    assert secret.inputs["stringData"]["password"] == MASK
    everything = json.dumps([one.inputs for one in program.resources])
    assert "authString of" not in everything


def test_the_head_finds_its_store_and_trusts_its_authority_and_workers_know_neither(record_file):
    program = record_file(GOOGLE)
    assert ray_cluster(program)["gcsFaultToleranceOptions"] == {
        "redisAddress": "rediss://(host of test-head-store):6378",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": "head-store", "key": "password"}}},
    }
    head, container = head_pod(program), head_pod(program)["containers"][0]
    assert {"name": "RAY_REDIS_CA_CERT", "value": "/etc/rayline/head-store/ca.crt"} in container["env"]
    assert {"name": "head-store", "mountPath": "/etc/rayline/head-store", "readOnly": True} in container["volumeMounts"]
    [volume] = [one for one in head["volumes"] if one["name"] == "head-store"]
    assert volume["secret"] == {"secretName": "head-store", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    assert "head-store" not in json.dumps(ray_cluster(program)["workerGroupSpecs"])
    assert "RAY_REDIS" not in json.dumps(ray_cluster(program)["workerGroupSpecs"])


def test_what_kuberay_refuses_beside_its_options_is_not_set(record_file):
    # kuberay 1.7, ray-operator/controllers/ray/utils/validation.go
    program = record_file(GOOGLE)
    names = {one["name"] for one in head_pod(program)["containers"][0]["env"]}
    assert not names & {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME", "RAY_external_storage_namespace"}
    assert "redis-password" not in ray_cluster(program)["headGroupSpec"]["rayStartParams"]
    # one for all clusters of an upgrade would give the new one the old one's state (kuberay 1286)
    assert "externalStorageNamespace" not in ray_cluster(program)["gcsFaultToleranceOptions"]


def test_the_service_goes_before_its_store_so_that_the_operator_can_clear_it(record_file):
    program = record_file(GOOGLE)
    needed = needs(program, program.of_type(":RayService")[0])
    for one in (*program.of_type("redis/instance:Instance"), *program.of_type(":HeadStoreInstance")):
        assert one.urn in needed
    [secret] = [one for one in program.of_type("core/v1:Secret") if one.name == "test-head-store"]
    assert secret.urn in needed


def test_heads_may_reach_their_store_through_the_network_policies(record_file):
    policies = json.dumps([one.inputs["spec"] for one in record_file(GOOGLE).of_type(":NetworkPolicy")])
    assert '"port": 6378' in policies
    assert '"port": 6378' not in json.dumps(
        [
            one.inputs["spec"]
            for one in record_file(GOOGLE.replace("head: {store: memorystore, memorystore_gib: 2}\n", "")).of_type(
                ":NetworkPolicy"
            )
        ]
    )


def test_a_redis_of_yours_is_referred_to_and_not_made(record_file):
    program = record_file(
        EXISTING % "{store: redis, address: 'rediss://redis.example.com:6378', password_secret: pw, ca_secret: ca}"
    )
    assert program.of_type("redis/instance:Instance") == []
    options = ray_cluster(program)["gcsFaultToleranceOptions"]
    assert options["redisAddress"] == "rediss://redis.example.com:6378"
    assert options["redisPassword"]["valueFrom"]["secretKeyRef"] == {"name": "pw", "key": "password"}
    assert "ca" in [one["secret"]["secretName"] for one in head_pod(program)["volumes"] if "secret" in one]


def test_a_redis_without_tls_needs_no_authority(record_file):
    program = record_file(EXISTING % "{store: redis, address: 'redis.example.com:6379', password_secret: pw}")
    assert ray_cluster(program)["gcsFaultToleranceOptions"]["redisAddress"] == "redis.example.com:6379"
    assert "RAY_REDIS" not in json.dumps(head_pod(program))


def test_without_a_store_nothing_of_it_is_there(record_file):
    program = record_file(EXISTING % "{}")
    assert "gcsFaultToleranceOptions" not in ray_cluster(program)
    assert "head-store" not in json.dumps(ray_cluster(program))


def test_a_head_has_the_size_that_the_stack_asks_for(record_file):
    resources = head_pod(record_file(EXISTING % "{cpus: 6, memory_gib: 32}"))["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "6", "memory": "32Gi", "ephemeral-storage": "2Gi"}
    assert resources["limits"]["memory"] == "32Gi"


@pytest.mark.parametrize("stack", ["prod-l4", "prod-b200"])
def test_production_keeps_serving_when_a_head_is_lost(stack):
    program = recorded(stack)
    assert program.of_type("redis/instance:Instance")
    assert "gcsFaultToleranceOptions" in ray_cluster(program)
