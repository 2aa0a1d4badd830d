"""One reading of a RayService: the kit's own, upstream's samples, and manifests that lack something."""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from rayline.facts.labels import Role
from rayline.service.reading import Container, PodSource, RayService, SecretRef, plain_environment, ray_container
from rayline_cli import render
from tests.conftest import STACKS, recorded
from tests.contract.upstream import UPSTREAM, load

SAMPLES = sorted(str(path.relative_to(UPSTREAM)) for path in UPSTREAM.glob("samples/ray-service.*.yaml"))


def every_manifest() -> Iterator[Any]:
    for stack in STACKS:
        yield pytest.param(lambda stack=stack: render.ray_services(recorded(stack)), id=stack)
    for sample in SAMPLES or ["samples/ray-service.high-throughput-llm.yaml"]:
        yield pytest.param(lambda sample=sample: [load(sample)], id=sample)


@pytest.fixture(params=every_manifest())
def services(request: pytest.FixtureRequest) -> list[RayService]:
    return [RayService(manifest) for manifest in request.param()]


def test_every_group_has_its_ray_container_and_its_counts(services: list[RayService]):
    for service in services:
        assert [group.role for group in service.groups] == [Role.HEAD, *[Role.WORKER] * len(service.workers)]
        assert service.head.replicas == 1
        for group in service.groups:
            assert group.ray_container.data is group.pod["containers"][0]
            assert group.ray_container.data["image"]
            assert 0 <= group.replicas <= group.most_replicas
            assert group.num_cpus >= 0
            assert set(group.secret_mounts) <= set(group.ray_container.mounts)
            assert set(group.ray_container.mounts.values()) <= set(group.volumes)


def test_the_environment_has_every_entry_and_no_value_of_a_secret(services: list[RayService]):
    for container in (group.ray_container for service in services for group in service.groups):
        entries = container.data.get("env") or []
        assert container.environment.keys() == {entry["name"] for entry in entries}
        for entry in entries:
            value = container.environment[entry["name"]]
            assert isinstance(value, str) == ("valueFrom" not in entry)
            assert plain_environment(container)[entry["name"]] == (value if isinstance(value, str) else None)


def test_each_model_runs_in_a_deployment_of_its_name(services: list[RayService]):
    for service in services:
        assert service.serve.data == yaml.safe_load(service.spec["serveConfigV2"])
        assert [application.name for application in service.serve.applications]
        for config in service.serve.llm_configs:
            assert config.deployment.startswith("LLMServer:")
            assert config.model_source
        assert service.serve.most_engines >= len(service.serve.llm_configs)


def test_a_copy_with_another_environment_differs_in_that_alone(services: list[RayService]):
    for service in services:
        before = copy.deepcopy(service.manifest)
        first = next(iter(service.head.ray_container.environment), "ABSENT")
        changed = service.with_environment({"NEW": True, "COUNT": 3, first: None})
        assert service.manifest == before, "the original is not changed"
        for old, new in zip(service.groups, changed.groups, strict=True):
            expected = {name: value for name, value in old.ray_container.environment.items() if name != first}
            assert new.ray_container.environment == expected | {"NEW": "1", "COUNT": "3"}
            assert {**old.data, "template": None} == {**new.data, "template": None}
        assert changed.serve == service.serve
        assert service.with_environment({}).groups[0].ray_container.environment == service.head.ray_container.environment


def test_a_copy_with_another_serve_configuration_differs_in_that_alone(services: list[RayService]):
    for service in services:
        before = copy.deepcopy(service.manifest)
        changed = service.with_serve(lambda config: config.update(http_options={"port": 8123}))
        assert service.manifest == before, "the original is not changed"
        assert changed.serve.port == 8123
        assert changed.serve.applications == service.serve.applications
        assert changed.groups == service.groups
        assert service.with_serve(lambda config: None).serve == service.serve


def test_a_stack_of_this_machine_is_read_as_it_is_declared():
    (manifest,) = render.ray_services(recorded("local"))
    service = RayService(manifest)
    assert [config.is_on_cpu for config in service.serve.llm_configs] == [True]
    assert service.serve.port == service.head.ray_container.ports["serve"] == 8000
    assert service.token is not None
    assert isinstance(service.token, SecretRef)
    assert "/etc/rayline/api-keys" in service.workers[0].secret_mounts


def test_gpus_are_accelerators_of_the_workers_alone():
    for stack in ("dev-l4", "prod-b200"):
        for service in map(RayService, render.ray_services(recorded(stack))):
            assert not service.head.accelerators
            assert all(list(group.accelerators) == ["nvidia.com/gpu"] for group in service.workers)


# --- manifests that lack something -----------------------------------------------------------------------------------


def read_all(service: RayService) -> None:
    """Read every property of a RayService down to its containers and models."""
    seen: list[Any] = [service, service.serve, *service.groups, *service.serve.applications, *service.serve.llm_configs]
    seen += [group.ray_container for group in service.groups]
    for one in seen:
        for name, member in vars(type(one)).items():
            if isinstance(member, property):
                getattr(one, name)
    for group in service.groups:
        group.custom_resources()


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything below a value whose absence may be met: mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if isinstance(item, (dict, list)):
            yield (*path, key)
            yield from paths(item, (*path, key))


@pytest.mark.parametrize("instead", [None, "gone"])
def test_any_part_may_be_missing_or_not_known(instead: str | None):
    whole = json.loads(json.dumps(render.ray_services(recorded("prod-l4"))[0]))
    everywhere = [path for path in paths(whole) if not {"valueFrom", "secretKeyRef"} & set(path)]
    for path in random.Random(0).sample(everywhere, min(150, len(everywhere))):
        broken = copy.deepcopy(whole)
        *above, last = path
        holder = broken
        for key in above:
            holder = holder[key]
        if instead is None:
            holder[last] = None
        else:
            del holder[last]
        read_all(RayService(broken))


def test_nothing_reads_as_nothing():
    for manifest in ({}, {"spec": None}, {"spec": {"rayClusterConfig": {"headGroupSpec": None, "workerGroupSpecs": None}}}):
        service = RayService(manifest)
        read_all(service)
        assert service.workers == []
        assert service.head.ray_container.environment == {}
        assert service.serve.data == {}
        assert service.active_cluster is None


def test_a_value_from_elsewhere_says_from_where():
    env = [
        {"name": "PLAIN"},
        {"name": "TWICE", "value": "first"},
        {"name": "TWICE", "value": "last"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token", "optional": True}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    container = Container({"env": env})
    assert container.environment == {
        "PLAIN": "",
        "TWICE": "last",
        "TOKEN": SecretRef("hf", "token", optional=True),
        "POD": PodSource("fieldRef"),
    }
    assert plain_environment(container) == {"PLAIN": "", "TWICE": "last", "TOKEN": None, "POD": None}


def test_cpus_are_kuberays():
    def group(start: dict, resources: dict) -> RayService:
        containers = [{"name": "ray", "resources": resources}]
        spec = {"rayStartParams": start, "template": {"spec": {"containers": containers}}}
        return RayService({"spec": {"rayClusterConfig": {"headGroupSpec": spec}}})

    cases = [
        ({"num-cpus": "0"}, {"limits": {"cpu": "4"}}, 0),
        ({}, {"requests": {"cpu": "1500m"}}, 2),
        ({}, {"requests": {"cpu": 1}, "limits": {"cpu": 3}}, 3),
        ({}, {}, 0),
    ]
    assert [group(start, resources).head.num_cpus for start, resources, _ in cases] == [n for _, _, n in cases]


def test_a_sidecar_before_the_ray_container_of_a_pod_is_passed_over():
    ray, sidecar = {"name": "ray-worker", "image": "ray"}, {"name": "istio-proxy"}
    for containers in itertools.permutations([ray, sidecar]):
        assert ray_container({"spec": {"containers": containers}}).data == ray
    assert ray_container({"spec": {"containers": [sidecar]}}).name == "istio-proxy"
    assert ray_container({}).name == ""


def test_a_status_tells_which_ray_cluster_serves():
    status = {
        "observedGeneration": 3,
        "activeServiceStatus": {"rayClusterName": "old"},
        "pendingServiceStatus": {"rayClusterName": "new"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    service = RayService({"metadata": {"name": "chat", "generation": 3}, "status": status})
    assert (service.active_cluster, service.pending_cluster) == ("old", "new")
    assert service.is_seen_by_the_operator
    assert service.conditions["Ready"]["status"] == "True"


def test_a_serve_configuration_that_is_no_yaml_is_an_error():
    with pytest.raises(yaml.YAMLError):
        _ = RayService({"spec": {"serveConfigV2": "a: [1"}}).serve
