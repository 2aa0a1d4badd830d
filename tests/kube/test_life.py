"""What happens to a service in its life: it grows, its keys change, its head dies, it rests, it is replaced under load."""

import json
from typing import Any

import pytest

from tests.kube.cluster import kubectl, objects, wait_until
from tests.kube.conftest import NAMESPACE, SERVICE, Stack, ask, port_forward
from tests.kube.traffic import Client

CLIENTS = "rayline-clients"
OURS = f"rayline/service={SERVICE}"


def pods(role: str) -> list[dict[str, Any]]:
    """Live pods of the service: head or worker."""
    found = objects("pods", NAMESPACE, f"{OURS},ray.io/node-type={role}")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def names(found: list[dict[str, Any]]) -> set[str]:
    return {one["metadata"]["name"] for one in found}


def ray_clusters() -> set[str]:
    return names([one for one in objects("rayclusters", NAMESPACE) if "deletionTimestamp" not in one["metadata"]])


def ready_endpoints() -> int:
    """Addresses behind the serve Service that take requests."""
    slices = objects("endpointslices", NAMESPACE, f"kubernetes.io/service-name={SERVICE}-serve-svc")
    return sum(
        len(endpoint["addresses"])
        for one in slices
        for endpoint in one.get("endpoints") or ()
        if endpoint["conditions"].get("ready")
    )


def answers(key: str, path: str = "/v1/models", **more: Any) -> int:
    """Status of one request through a port-forward of its own."""
    with port_forward() as address:
        return ask(address, path, key=key, **more).status_code


def test_a_replica_more_brings_a_worker_and_a_replica_less_removes_it(stack: Stack) -> None:
    # a change in place may have left an idle worker, which goes after the autoscaler's idle time, 300 s
    replicas = stack.setting("replicas", 1)
    wait_until(lambda: len(pods("worker")) == replicas, "no worker without a replica", 480)
    before, cluster = names(pods("worker")), ray_clusters()
    stack.change(f"services.{SERVICE}.replicas", str(replicas + 1))
    stack.up()
    wait_until(lambda: len(pods("worker")) == replicas + 1, "a worker more", 120)
    wait_until(lambda: ready_endpoints() == replicas + 1, "an endpoint more", 240)
    assert before < names(pods("worker"))
    stack.change(f"services.{SERVICE}.replicas", str(replicas))
    stack.up()
    wait_until(lambda: ready_endpoints() == replicas, "an endpoint less", 240)
    wait_until(lambda: len(pods("worker")) == replicas, "a worker less", 480)
    assert ray_clusters() == cluster


def test_a_new_api_key_works_beside_the_old_one_until_the_next_and_no_pod_restarts(stack: Stack) -> None:
    running = names(pods("head") + pods("worker"))
    first = stack.api_key()
    generation = stack.setting("api.key_generation", 1)
    stack.change(f"services.{SERVICE}.api.key_generation", str(generation + 1))
    stack.up()
    second = stack.api_key()
    assert second != first
    # the kubelet brings a changed Secret into running pods within about a minute
    wait_until(lambda: answers(second) == 200, "the new key is accepted", 180, every=5)
    assert answers(first) == 200
    stack.change(f"services.{SERVICE}.api.key_generation", str(generation + 2))
    stack.up()
    wait_until(lambda: answers(first) == 401, "the oldest key is refused", 180, every=5)
    assert answers(second) == 200
    assert names(pods("head") + pods("worker")) == running


def test_a_parked_service_has_no_pods_and_comes_back_with_its_keys(stack: Stack) -> None:
    key = stack.api_key()
    secrets = names(objects("secrets", NAMESPACE))
    stack.change(f"services.{SERVICE}.park", "true")
    stack.up()
    wait_until(lambda: not pods("head") and not pods("worker"), "no pods", 180)
    assert names(objects("secrets", NAMESPACE)) >= {name for name in secrets if name.startswith(f"{SERVICE}-")}
    stack.up("--expect-no-changes")
    stack.change(f"services.{SERVICE}.park", "false")
    stack.up()
    assert stack.api_key() == key
    wait_until(lambda: answers(key) == 200, "the service answers again", 120, every=5)


def test_a_dead_head_is_replaced_and_the_service_answers_again(stack: Stack) -> None:
    head, key, cluster = names(pods("head")), stack.api_key(), ray_clusters()
    for name in head:
        kubectl("-n", NAMESPACE, "delete", "pod", name, "--grace-period=0", "--force")
    wait_until(lambda: pods("head") and not names(pods("head")) & head, "another head", 180)
    wait_until(lambda: answers(key) == 200, "the service answers again", 600, every=5)
    assert ray_clusters() == cluster


def test_an_upgrade_to_a_new_cluster_under_load_loses_next_to_nothing(
    stack: Stack, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Ray token's rotation is the change: it needs new Ray processes, so it builds a new RayCluster."""
    stack.allow(CLIENTS)
    stack.up()
    old, generation = ray_clusters(), stack.setting("rollout.ray_token_generation", 1)
    address = f"http://{SERVICE}-serve-svc.{NAMESPACE}:8000"
    client = Client(CLIENTS, stack.setting("pods.image", ""), address, stack.model(), stack.api_key())
    try:
        client.start()
        stack.change(f"services.{SERVICE}.rollout.ray_token_generation", str(generation + 1))
        stack.up()
        assert not ray_clusters() <= old, "no new RayCluster was made"
        # the old one outlives the longest stream
        wait_until(lambda: not ray_clusters() & old, "the old RayCluster is gone", 300, every=5)
    finally:
        seen = client.stop()
    record_property("completions", seen.good)
    with capsys.disabled():
        print(
            f"\nupgrade under load: {seen.good} completions, else {json.dumps(seen.bad)}, longest gap {seen.longest_gap:.1f} s"
        )
    assert seen.good > 20
    assert sum(seen.bad.values()) <= seen.good * 0.02
