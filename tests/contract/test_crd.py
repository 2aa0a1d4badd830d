"""Every RayService of every stack against KubeRay's CRD. The API server drops unknown fields silently; here they fail."""

import copy
import functools
from typing import Any

import jsonschema
import pytest

from rayline_cli import render
from tests.conftest import recorded
from tests.contract.upstream import load

INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


def strict(schema: Any) -> Any:
    """A structural OpenAPI schema as a JSON schema that allows no field that it does not name."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    # below `properties` the keys are field names, and one may be called `format` or `description`; the branches of a
    # choice name only the fields that they judge
    result = {
        key: value
        if key in ("oneOf", "anyOf", "allOf", "not")
        else {name: strict(item) for name, item in value.items()}
        if key == "properties"
        else strict(value)
        for key, value in schema.items()
        if not key.startswith("x-kubernetes-") and key not in ("description", "format", "default", "nullable")
    }
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    crd = load("crds/ray.io_rayservices.yaml")
    version = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    # the CRD leaves metadata to the API server
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def mistakes(manifest: dict) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator().iter_errors(manifest)]


def test_every_ray_service_has_only_fields_that_kuberay_knows(program):
    services = render.ray_services(program)
    assert services
    for service in services:
        assert mistakes(service) == []


@pytest.mark.parametrize(
    "service",
    [
        "park: true",
        "rollout: {strategy: incremental, gateway_class: istio, max_surge_percent: 50}",
        "autoscaling: {max_replicas: 4}",
    ],
)
def test_what_no_stack_here_uses_is_known_to_kuberay_too(record_file, service):
    qwen = f"{{model: Qwen/Qwen3.5-4B, accelerator: l4, {service}}}"
    program = record_file(
        f"gcp:project: my-project\ngcp:region: us-central1\ncluster: {{mode: create}}\nservices: {{qwen: {qwen}}}\n"
    )
    (manifest,) = render.ray_services(program)
    assert mistakes(manifest) == []


MISSPELT = {
    "in the spec": lambda spec: spec.update(rayClusterDeletionDelaySecond=60),
    "in the cluster": lambda spec: spec["rayClusterConfig"].update(enableInTreeAutoscaler=True),
    "in the autoscaler": lambda spec: spec["rayClusterConfig"]["autoscalerOptions"].update(idleTimeout=60),
    "in a worker group": lambda spec: spec["rayClusterConfig"]["workerGroupSpecs"][0].update(maxReplica=1),
    "in a pod": lambda spec: pod(spec).update(terminationGracePeriod=60),
    "in a container": lambda spec: pod(spec)["containers"][0].update(readynessProbe={}),
    "in an environment": lambda spec: pod(spec)["containers"][0]["env"].append({"name": "A", "valueForm": {}}),
}
WRONG = {
    "text for a number": lambda spec: spec.update(rayClusterDeletionDelaySeconds="60"),
    "a number for a start parameter": lambda spec: spec["rayClusterConfig"]["headGroupSpec"].update(
        rayStartParams={"num-cpus": 0}
    ),
    "a word that is none of the enum's": lambda spec: spec["rayClusterConfig"]["autoscalerOptions"].update(
        upscalingMode="Fast"
    ),
    "no group name": lambda spec: spec["rayClusterConfig"]["workerGroupSpecs"][0].pop("groupName"),
}


def pod(spec: dict) -> dict:
    return spec["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]


@pytest.mark.parametrize("change", [*MISSPELT.values(), *WRONG.values()], ids=[*MISSPELT, *WRONG])
def test_a_misspelt_field_or_a_wrong_value_is_noticed(change):
    service = copy.deepcopy(render.ray_services(recorded("dev-l4"))[0])
    change(service["spec"])
    assert len(mistakes(service)) == 1


def test_quantities_may_be_numbers_or_texts():
    service = copy.deepcopy(render.ray_services(recorded("dev-l4"))[0])
    pod(service["spec"])["containers"][0]["resources"]["requests"]["cpu"] = 6
    assert mistakes(service) == []


def test_the_version_of_the_crd_is_the_one_that_the_kit_installs():
    crd = load("crds/ray.io_rayservices.yaml")
    # 1.7 brought `suspend` and `managedBy` to the RayService
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert "suspend" in spec
    assert recorded("dev-l4").plan.kuberay.version.startswith("1.7.")
