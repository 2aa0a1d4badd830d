"""The Gateway and its policies against the kinds of GKE and of the Gateway API."""

import copy
import functools

import jsonschema
import pytest

from rayline_cli.offline import Declared
from tests.contract.test_crd import strict
from tests.contract.upstream import load
from tests.program.test_endpoint import exposing

FILES = {
    "Gateway": "gateway.networking.k8s.io_gateways",
    "HTTPRoute": "gateway.networking.k8s.io_httproutes",
    "GCPGatewayPolicy": "networking.gke.io_gcpgatewaypolicies",
    "GCPBackendPolicy": "networking.gke.io_gcpbackendpolicies",
    "HealthCheckPolicy": "networking.gke.io_healthcheckpolicies",
}
ENDPOINTS = {
    "public": "exposure: public, rate_limit_per_minute: 60, iap_members: ['domain:example.com']",
    "public with a map": "exposure: public, tls: own, certificate: our-map",
    "internal": "exposure: internal",
    "internal with a secret": "exposure: internal, tls: own, certificate: our-secret",
    "internal without TLS": "exposure: internal, tls: none",
}


@functools.cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    crd = load(f"crds/{FILES[kind]}.yaml")
    version = next(version for version in crd["spec"]["versions"] if version["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def mistakes(resource: Declared) -> list[str]:
    kind = resource.type.rpartition(":")[2]
    return [f"{kind}: {error.json_path}: {error.message}" for error in validator(kind).iter_errors(resource.inputs)]


def declared(program) -> list[Declared]:
    return [one for one in program.resources if one.type.rpartition(":")[2] in FILES]


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
def test_every_object_of_an_endpoint_has_only_fields_that_its_kind_knows(endpoint):
    objects = declared(exposing(endpoint))
    assert len(objects) >= 4
    for one in objects:
        assert mistakes(one) == []


@pytest.mark.parametrize("kind", FILES)
def test_a_misspelt_field_of_a_kind_is_noticed(kind):
    objects = declared(exposing(ENDPOINTS["public"]))
    one = copy.deepcopy(next(one for one in objects if one.type.endswith(f":{kind}")))
    one.inputs["spec"]["defualt"] = {}
    assert len(mistakes(one)) == 1
