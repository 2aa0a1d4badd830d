"""The endpoint in the resource graph: what Google Cloud needs for it, and what goes before what."""

import functools
import pathlib
import tempfile

import pytest

from rayline_cli import offline
from rayline_cli.offline import Declared, Program
from tests.program.test_program import needs, urns

STACK = """
config:
  gcp:project: my-project
  gcp:region: us-central1
  cluster: {mode: create}
  services:
    qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}
    gemma: {model: google/gemma-4-E2B-it, accelerator: l4, api: {hostname: llm.example.com}}
  endpoint: {domain: llm.example.com, %s}
"""
PUBLIC = "exposure: public"
INTERNAL = "exposure: internal"


@functools.cache
def exposing(endpoint: str) -> Program:
    """The program of a stack with two services and this endpoint. Read-only: it is shared."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "Pulumi.test.yaml"
        path.write_text(STACK % endpoint)
        return offline.record("test", config=offline.read_stack_file(path))


@pytest.fixture(params=[PUBLIC, INTERNAL], ids=["public", "internal"])
def exposed(request) -> Program:
    return exposing(request.param)


def gateways(program: Program) -> list[Declared]:
    return program.of_type(":Gateway")


def routes(program: Program) -> list[Declared]:
    return [one for one in program.of_type(":HTTPRoute") if one.inputs["metadata"]["name"].endswith("-serve")]


# --- order


def test_a_route_goes_before_its_service_so_that_google_has_let_go_of_it(exposed):
    assert len(routes(exposed)) == 2
    for route in routes(exposed):
        name = route.inputs["metadata"]["name"].removesuffix("-serve")
        service = next(one for one in exposed.of_type(":RayService") if one.inputs["metadata"]["name"] == name)
        assert service.urn in needs(exposed, route)
        assert route.urn not in needs(exposed, service)


def test_a_backend_has_its_policies_before_the_first_request(exposed):
    for route in routes(exposed):
        own = [one for one in exposed.resources if one.parent == route.parent and one.type != route.type]
        assert {one.type.split(":")[-1] for one in own} == {"HealthCheckPolicy", "GCPBackendPolicy"}
        assert urns(own) <= needs(exposed, route)


def test_the_gateway_is_deleted_before_its_namespace_cluster_and_network(exposed):
    gateway = gateways(exposed)[0]
    before = needs(exposed, gateway)
    for what in ("core/v1:Namespace", "cluster:Cluster", "network:Network", "ddress", "slPolicy", "certificate:Certificate"):
        found = [one for one in exposed.resources if one.type.lower().endswith(what.lower())]
        assert found, what
        # the operator's namespace is another one
        assert urns(found) & before, what
    assert all(gateway.urn in needs(exposed, route) for route in exposed.of_type(":HTTPRoute"))


def test_the_gateway_does_not_wait_for_gpus_so_that_its_certificate_can_be_issued_meanwhile(exposed):
    assert not urns(exposed.of_type(":RayService")) & needs(exposed, gateways(exposed)[0])
    assert not urns(exposed.of_type(":GpuNodePool")) & needs(exposed, gateways(exposed)[0])


def test_a_change_from_internal_to_public_makes_a_second_load_balancer():
    def own(endpoint: str) -> set[str]:
        program = exposing(endpoint)
        component = program.of_type(":EndpointGateway")[0].urn
        return {one.urn for one in program.resources if component in (one.urn, one.parent)}

    def in_kubernetes(endpoint: str) -> set[str]:
        return {one.inputs["metadata"]["name"] for one in gateways(exposing(endpoint))}

    assert not own(INTERNAL) & own(PUBLIC)
    assert not in_kubernetes(INTERNAL) & in_kubernetes(PUBLIC)


def test_google_has_the_time_to_take_the_load_balancer_apart(exposed):
    assert gateways(exposed)[0].delete_timeout == "30m"
    # the namespace waits for the network endpoint groups of its Services, else they keep the VPC
    assert exposed.named("test-namespace").delete_timeout == "30m"


def test_what_the_manifests_name_exists_under_that_name(exposed):
    gateway = gateways(exposed)[0].inputs
    names = {one.inputs.get("name") for one in exposed.resources if one.type.startswith("gcp:")}
    options = gateway["spec"]["listeners"][0].get("tls", {}).get("options", {})
    named = [one["value"] for one in gateway["spec"]["addresses"]]
    named += gateway["metadata"].get("annotations", {}).values()
    named += options.values()
    named += [one.inputs["spec"]["default"]["sslPolicy"] for one in exposed.of_type(":GCPGatewayPolicy")]
    assert len(named) == 3
    assert set(named) <= names


def test_the_cluster_knows_the_kinds_of_a_gateway(exposed):
    assert exposed.of_type("cluster:Cluster")[0].inputs["gatewayApiConfig"] == {"channel": "CHANNEL_STANDARD"}


def test_apis_that_the_endpoint_needs_are_on_and_no_others():
    def apis(endpoint: str) -> set[str]:
        return {one.inputs["service"] for one in exposing(endpoint).of_type("service:Service")}

    certificates, iap = "certificatemanager.googleapis.com", "iap.googleapis.com"
    assert apis(INTERNAL) - apis(INTERNAL + ", tls: none") == {certificates}
    assert apis(PUBLIC + ", iap_members: ['group:ml@example.com']") - apis(PUBLIC) == {iap}


# --- in Google Cloud


def test_an_internal_endpoint_has_an_address_of_the_subnet_and_room_for_its_proxies():
    program = exposing(INTERNAL + ", proxy_cidr: 10.9.0.0/24")
    proxies = program.named("test-internal-endpoint-proxies")
    assert {
        "purpose": "REGIONAL_MANAGED_PROXY",
        "role": "ACTIVE",
        "ipCidrRange": "10.9.0.0/24",
    }.items() <= proxies.inputs.items()
    address = program.of_type("address:Address")[0]
    assert (address.inputs["addressType"], address.inputs["region"]) == ("INTERNAL", "us-central1")
    assert program.named("test-subnet").urn in address.dependencies
    assert proxies.urn in needs(program, gateways(program)[0])
    assert program.of_type("globalAddress:GlobalAddress") == []


def test_a_public_endpoint_has_a_global_address_and_no_proxies_of_its_own():
    program = exposing(PUBLIC)
    assert len(program.of_type("globalAddress:GlobalAddress")) == 1
    assert [one.name for one in program.of_type(":Subnetwork")] == ["test-subnet"]


def test_a_managed_certificate_covers_every_name_that_a_service_may_have(exposed):
    certificate = exposed.of_type("certificate:Certificate")[0].inputs
    assert certificate["managed"]["domains"] == ["llm.example.com", "*.llm.example.com"]
    authorization = exposed.of_type(":DnsAuthorization")[0].inputs
    assert (authorization["domain"], authorization["type"]) == ("llm.example.com", "PER_PROJECT_RECORD")
    assert certificate["location"] == authorization["location"]


def test_a_certificate_is_where_its_load_balancer_is():
    assert exposing(PUBLIC).of_type("certificate:Certificate")[0].inputs["location"] == "global"
    program = exposing(INTERNAL)
    assert program.of_type("certificate:Certificate")[0].inputs["location"] == "us-central1"
    assert program.of_type(":CertificateMap") == []


def test_a_public_certificate_is_served_through_its_map_to_every_name():
    program = exposing(PUBLIC)
    entry = program.of_type(":CertificateMapEntry")[0]
    assert entry.inputs["matcher"] == "PRIMARY"
    assert entry.urn in needs(program, gateways(program)[0])


def test_a_certificate_of_ones_own_makes_none():
    program = exposing(PUBLIC + ", tls: own, certificate: our-map")
    assert [one for one in program.resources if "certificatemanager" in one.type] == []


LIMITS = [
    ("client-ip", {"enforceOnKey": "IP"}),
    (
        "api-key",
        {
            "enforceOnKey": "",
            "enforceOnKeyConfigs": [
                {"enforceOnKeyType": "HTTP_HEADER", "enforceOnKeyName": "Authorization"},
                {"enforceOnKeyType": "HTTP_HEADER", "enforceOnKeyName": "x-api-key"},
            ],
        },
    ),
]


@pytest.mark.parametrize(("by", "key"), LIMITS, ids=["client-ip", "api-key"])
def test_cloud_armor_answers_429_beyond_the_limit_and_lets_the_rest_pass(by, key):
    program = exposing(PUBLIC + f", rate_limit_per_minute: 600, rate_limit_by: {by}")
    policy = program.of_type(":SecurityPolicy")[0]
    limit, default = policy.inputs["rules"]
    assert limit["action"] == "throttle"
    assert limit["rateLimitOptions"] == key | {
        "conformAction": "allow",
        "exceedAction": "deny(429)",
        "rateLimitThreshold": {"count": 600, "intervalSec": 60},
    }
    assert (default["action"], default["priority"]) == ("allow", 2147483647)
    # the backends that name it go first
    assert all(policy.urn in needs(program, one) for one in program.of_type(":GCPBackendPolicy"))


def test_without_a_limit_there_is_no_policy(exposed):
    assert exposed.of_type(":SecurityPolicy") == []


def test_iap_lets_in_those_who_are_named_and_only_through_this_endpoint():
    program = exposing(PUBLIC + ', iap_members: ["group:ml@example.com", "serviceAccount:ci@p.iam.gserviceaccount.com"]')
    grants = program.of_type(":WebTypeComputeIamMember")
    assert {one.inputs["member"] for one in grants} == {"group:ml@example.com", "serviceAccount:ci@p.iam.gserviceaccount.com"}
    for grant in grants:
        assert grant.inputs["role"] == "roles/iap.httpsResourceAccessor"
        expression = grant.inputs["condition"]["expression"]
        assert expression == 'request.host == "llm.example.com" || request.host.endsWith(".llm.example.com")'


def test_production_on_l4_is_reached_from_the_vpc_with_tls(stack):
    plan = stack("prod-l4").plan
    assert plan.endpoint.urls == {"qwen": "https://qwen.llm.example.com/v1"}
    assert plan.endpoint.exposure.value == "internal"
