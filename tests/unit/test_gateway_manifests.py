"""The Gateway and the routes of services: what clients outside reach, what they do not, and what survives a change."""

from typing import Any

import pytest

from rayline.endpoint import manifests as gateway_manifests
from rayline.facts.choices import Exposure, RateLimitKey, Tls
from rayline.platform.plan import make_plan
from rayline.platform.types import Plan

QWEN = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"}
GEMMA = {"model": "google/gemma-4-E2B-it", "accelerator": "l4"}
PUBLIC = {"exposure": "public", "domain": "llm.example.com"}
INTERNAL = {"exposure": "internal", "domain": "llm.example.com"}


def plan(endpoint: dict[str, Any], **services: dict[str, Any]) -> Plan:
    return make_plan(
        {
            "project": "my-project",
            "region": "us-central1",
            "cluster": {"mode": "create"},
            "endpoint": endpoint,
            "services": services or {"qwen": QWEN},
        },
        name="prod",
    )


def gateway(endpoint: dict[str, Any]) -> dict[str, Any]:
    return gateway_manifests.gateway(plan(endpoint).endpoint, "rayline")


def listeners(endpoint: dict[str, Any]) -> list[tuple[str, int]]:
    return [(one["protocol"], one["port"]) for one in gateway(endpoint)["spec"]["listeners"]]


def extras(endpoint: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in gateway_manifests.gateway_extras(plan(endpoint).endpoint, "rayline")}


def route(made: Plan, index: int = 0) -> dict[str, Any]:
    return gateway_manifests.service_route(made.endpoint, made.services[index], made.namespace)


def policies(endpoint: dict[str, Any], **service: Any) -> dict[str, dict[str, Any]]:
    made = plan(endpoint, qwen=QWEN | service)
    found = gateway_manifests.service_policies(made.endpoint, made.services[0], made.namespace)
    return {one["kind"]: one["spec"]["default"] for one in found}


# --- who listens where


def test_public_endpoints_are_global_and_internal_endpoints_regional():
    assert gateway(PUBLIC)["spec"]["gatewayClassName"] == "gke-l7-global-external-managed"
    assert gateway(INTERNAL)["spec"]["gatewayClassName"] == "gke-l7-rilb"


def test_plain_http_is_open_to_the_internet_for_a_redirect_only():
    assert listeners(PUBLIC) == [("HTTPS", 443), ("HTTP", 80)]
    redirect = extras(PUBLIC)["HTTPRoute"]["spec"]
    assert redirect["parentRefs"][0]["sectionName"] == "http"
    assert [set(rule) for rule in redirect["rules"]] == [{"filters"}]
    assert redirect["rules"][0]["filters"][0]["requestRedirect"] == {"scheme": "https", "statusCode": 301}


def test_inside_the_vpc_one_listener_is_enough():
    assert listeners(INTERNAL) == [("HTTPS", 443)]
    assert listeners(INTERNAL | {"tls": "none"}) == [("HTTP", 80)]
    assert "HTTPRoute" not in extras(INTERNAL)


@pytest.mark.parametrize("endpoint", [PUBLIC, INTERNAL])
def test_a_service_is_reached_through_the_listener_with_tls(endpoint):
    assert route(plan(endpoint))["spec"]["parentRefs"] == [{"name": f"rayline-{endpoint['exposure']}", "sectionName": "https"}]


def test_without_tls_a_service_is_reached_through_the_plain_listener():
    assert route(plan(INTERNAL | {"tls": "none"}))["spec"]["parentRefs"][0]["sectionName"] == "http"


def test_old_tls_is_refused_wherever_there_is_tls():
    for endpoint in (PUBLIC, INTERNAL):
        assert extras(endpoint)["GCPGatewayPolicy"]["spec"]["default"] == {"sslPolicy": "prod-endpoint"}
    assert extras(INTERNAL | {"tls": "none"}) == {}


# --- certificates


def certificate(endpoint: dict[str, Any]) -> tuple[Any, Any]:
    made = gateway(endpoint)
    return made["metadata"].get("annotations"), made["spec"]["listeners"][0].get("tls")


def test_a_global_gateway_takes_a_certificate_map_and_nothing_beside_it():
    assert certificate(PUBLIC) == ({"networking.gke.io/certmap": "prod-llm-example-com"}, None)
    own = PUBLIC | {"tls": "own", "certificate": "our-map"}
    assert certificate(own) == ({"networking.gke.io/certmap": "our-map"}, None)


def test_a_regional_gateway_takes_a_certificate_or_a_secret_and_no_map():
    option = {"networking.gke.io/cert-manager-certs": "prod-llm-example-com"}
    assert certificate(INTERNAL) == (None, {"mode": "Terminate", "options": option})
    own = INTERNAL | {"tls": "own", "certificate": "our-secret"}
    assert certificate(own) == (None, {"mode": "Terminate", "certificateRefs": [{"name": "our-secret"}]})


def test_another_domain_gets_a_second_certificate_while_the_first_serves():
    names = {plan(INTERNAL | {"domain": domain}).endpoint.certificate_name for domain in ("a.example.com", "b.example.com")}
    assert len(names) == 2
    assert len(plan(INTERNAL | {"domain": f"{'a' * 60}.example.com"}).endpoint.certificate_name) <= 63


# --- routes


def test_clients_outside_reach_v1_of_their_service_and_nothing_else():
    rules = route(plan(PUBLIC))["spec"]["rules"]
    assert [rule["matches"] for rule in rules] == [[{"path": {"type": "PathPrefix", "value": "/v1"}}]]
    # the name that KubeRay keeps through upgrades
    assert rules[0]["backendRefs"] == [{"name": "qwen-serve-svc", "port": 8000}]


def test_a_service_has_its_own_name_below_the_domain_or_the_domain_itself():
    made = plan(
        PUBLIC,
        qwen=QWEN,
        gemma=GEMMA | {"api": {"hostname": "llm.example.com"}},
        chat=QWEN | {"api": {"hostname": "talk.llm.example.com"}},
    )
    assert [route(made, index)["spec"]["hostnames"] for index in range(3)] == [
        ["qwen.llm.example.com"],
        ["llm.example.com"],
        ["talk.llm.example.com"],
    ]
    assert made.endpoint.urls == {
        "qwen": "https://qwen.llm.example.com/v1",
        "gemma": "https://llm.example.com/v1",
        "chat": "https://talk.llm.example.com/v1",
    }


def test_a_url_says_http_where_there_is_no_tls():
    assert plan(INTERNAL | {"tls": "none"}).endpoint.urls == {"qwen": "http://qwen.llm.example.com/v1"}


def test_no_service_can_have_the_redirects_name():
    made = plan(PUBLIC, **{"rayline-public": QWEN, "rayline-public-redirect": QWEN})
    names = {route(made, index)["metadata"]["name"] for index in range(2)}
    assert extras(PUBLIC)["HTTPRoute"]["metadata"]["name"] not in names


# --- backends


def test_health_is_what_haproxy_says_and_not_get_slash():
    check = policies(PUBLIC)["HealthCheckPolicy"]["config"]
    assert check == {
        "type": "HTTP",
        "httpHealthCheck": {"portSpecification": "USE_FIXED_PORT", "port": 8000, "requestPath": "/-/healthz"},
    }


@pytest.mark.parametrize(
    ("longest", "timeout", "draining"), [(10, 3600, 10), (300, 3600, 300), (3600, 3600, 3600), (7200, 7200, 3600)]
)
def test_streams_last_as_long_as_declared_and_drain_within_googles_limit(longest, timeout, draining):
    backend = policies(INTERNAL, rollout={"longest_stream_seconds": longest})["GCPBackendPolicy"]
    assert backend["timeoutSec"] == timeout
    assert backend["connectionDraining"] == {"drainingTimeoutSec": draining}


def test_a_stream_longer_than_google_drains_is_told():
    warned = plan(INTERNAL, qwen=QWEN | {"rollout": {"longest_stream_seconds": 3601}}).warnings
    assert any("3600 s at most when its pod goes" in warning for warning in warned)
    assert not any("when its pod goes" in warning for warning in plan(INTERNAL).warnings)


def test_rate_limit_and_iap_are_on_the_backend_only_when_set():
    asked = PUBLIC | {"rate_limit_per_minute": 60, "iap_members": ["group:ml@example.com"]}
    assert (
        policies(asked)["GCPBackendPolicy"] | {"iap": {"enabled": True}, "securityPolicy": "prod-endpoint"}
        == policies(asked)["GCPBackendPolicy"]
    )
    assert not {"iap", "securityPolicy"} & set(policies(PUBLIC)["GCPBackendPolicy"])


def test_both_policies_are_the_kubernetes_services_own():
    made = plan(PUBLIC)
    for policy in gateway_manifests.service_policies(made.endpoint, made.services[0], made.namespace):
        assert policy["spec"]["targetRef"] == {"group": "", "kind": "Service", "name": "qwen-serve-svc"}


# --- the plan


def test_without_an_endpoint_nothing_is_decided_and_nobody_is_let_in():
    made = plan({})
    assert made.endpoint.exposure is Exposure.NONE
    assert made.endpoint.urls == {}
    assert made.endpoint.source_ranges == ()


def test_internal_proxies_have_subnet_addresses_and_public_proxies_googles_ranges():
    google = ("130.211.0.0/22", "35.191.0.0/16")
    assert plan(PUBLIC).endpoint.source_ranges == google
    assert plan(INTERNAL).endpoint.source_ranges == (*google, "10.0.80.0/23")
    assert plan(INTERNAL | {"proxy_cidr": "10.9.0.0/26"}).endpoint.source_ranges[-1] == "10.9.0.0/26"


def test_managed_certificates_and_rate_limits_by_address_are_the_defaults():
    made = plan(PUBLIC).endpoint.args
    assert (made.tls, made.rate_limit_by) == (Tls.MANAGED, RateLimitKey.CLIENT_IP)


def test_a_public_endpoint_without_a_limit_is_told():
    text = "limits no client's requests"
    assert any(text in warning for warning in plan(PUBLIC).warnings)
    assert not any(text in warning for warning in plan(PUBLIC | {"rate_limit_per_minute": 60}).warnings)
    assert not any(text in warning for warning in plan(INTERNAL).warnings)


def test_iap_guards_a_service_without_a_key():
    assert plan(PUBLIC | {"iap_members": ["domain:example.com"]}, qwen=QWEN | {"api": {"key": False}}).services


def test_inside_the_vpc_a_service_may_do_without_a_key():
    assert plan(INTERNAL, qwen=QWEN | {"api": {"key": False}}).services


@pytest.mark.parametrize(
    "member",
    [
        "user:a@example.com",
        "serviceAccount:ci@p.iam.gserviceaccount.com",
        "principalSet://iam.googleapis.com/locations/global/workforcePools/pool/*",
    ],
)
def test_iap_takes_people_accounts_and_federated_identities(member):
    assert plan(PUBLIC | {"iap_members": [member]}).endpoint.args.iap_members == [member]
