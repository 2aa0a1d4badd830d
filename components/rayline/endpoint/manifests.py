"""Manifests of the Gateway, and of each service's route through it. No Pulumi, no I/O.

Kinds of networking.gke.io as GoogleCloudPlatform/gke-gateway-api defines them (config/crd).
"""

from typing import Any

from rayline.endpoint.types import EndpointPlan
from rayline.facts.choices import Exposure, Tls
from rayline.facts.google import BACKEND_TIMEOUT_SECONDS, MAX_DRAINING_SECONDS
from rayline.facts.labels import MANAGED_BY, SERVE_PORT, SERVICE_LABEL, serve_service_name
from rayline.service.drain import drain_times
from rayline.service.types import ServicePlan
from rayline.service.zero import longest_wait_seconds

# Names of the listeners, which routes refer to.
HTTP, HTTPS = "http", "https"
GATEWAY_CLASS = {Exposure.PUBLIC: "gke-l7-global-external-managed", Exposure.INTERNAL: "gke-l7-rilb"}
# vLLM's server has more paths (/invocations, /metrics, /tokenize, ...), which clients outside do not need.
PATHS = ("/v1",)
# HAProxy's own answer on every node (KubeRay probes it too); the load balancer's default is GET /, which is a 404 here.
HEALTH_PATH = "/-/healthz"


def gateway_name(endpoint: EndpointPlan) -> str:
    """Return the name of the Gateway of all services. GKE cannot turn one exposure's load balancer into the other's."""
    return f"rayline-{endpoint.exposure.value}"


def gateway(endpoint: EndpointPlan, namespace: str) -> dict[str, Any]:
    """Return the Gateway: class, address, listeners and certificate of the load balancer."""
    metadata = _gateway_metadata(endpoint, namespace)
    listener: dict[str, Any] = {"name": HTTPS, "protocol": "HTTPS", "port": 443}
    plain = {"name": HTTP, "protocol": "HTTP", "port": 80}
    listeners = [listener]
    if endpoint.args.tls is Tls.NONE:
        listeners = [plain]
    elif endpoint.exposure is Exposure.PUBLIC:
        # a map of Certificate Manager is named here and nowhere else: with tls.certificateRefs beside it GKE refuses both
        metadata["annotations"] = {"networking.gke.io/certmap": endpoint.args.certificate or endpoint.certificate_name}
        listeners = [listener, plain]
    elif endpoint.args.tls is Tls.OWN:
        listener["tls"] = {"mode": "Terminate", "certificateRefs": [{"name": endpoint.args.certificate}]}
    else:
        # regional Gateways take no map
        options = {"networking.gke.io/cert-manager-certs": endpoint.certificate_name}
        listener["tls"] = {"mode": "Terminate", "options": options}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": metadata,
        "spec": {
            "gatewayClassName": GATEWAY_CLASS[endpoint.exposure],
            "listeners": listeners,
            "addresses": [{"type": "NamedAddress", "value": endpoint.resource_name}],
        },
    }


def gateway_extras(endpoint: EndpointPlan, namespace: str) -> list[dict[str, Any]]:
    """Return the TLS policy of the Gateway, and for the internet a redirect of plain HTTP."""
    extras: list[dict[str, Any]] = []
    if endpoint.args.tls is not Tls.NONE:
        target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway_name(endpoint)}
        extras.append(
            _policy("GCPGatewayPolicy", _gateway_metadata(endpoint, namespace), {"sslPolicy": endpoint.resource_name}, target)
        )
    if endpoint.exposure is Exposure.PUBLIC:
        extras.append(
            _route(
                endpoint,
                # a service's route ends differently, so no service can have this name
                _gateway_metadata(endpoint, namespace, "-redirect"),
                HTTP,
                sorted(endpoint.hostnames.values()),
                {"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]},
            )
        )
    return extras


def service_route(endpoint: EndpointPlan, service: ServicePlan, namespace: str) -> dict[str, Any]:
    """Return the route from the service's host name to the Service that KubeRay keeps through all rollouts."""
    return _route(
        endpoint,
        _metadata(service, namespace),
        HTTP if endpoint.args.tls is Tls.NONE else HTTPS,
        [endpoint.hostnames[service.name]],
        {
            "matches": [
                {"path": {"type": "PathPrefix", "value": f"{model.prefix}{path}"}} for model in service.models for path in PATHS
            ],
            "backendRefs": [{"name": serve_service_name(service.name), "port": SERVE_PORT}],
        },
    )


def service_policies(endpoint: EndpointPlan, service: ServicePlan, namespace: str) -> list[dict[str, Any]]:
    """Return the policies of the service's backend: health check, time limits, rate limit and IAP."""
    metadata = _metadata(service, namespace)
    target = {"group": "", "kind": "Service", "name": serve_service_name(service.name)}
    health = {"portSpecification": "USE_FIXED_PORT", "port": SERVE_PORT, "requestPath": HEALTH_PATH}
    backend: dict[str, Any] = {
        "timeoutSec": max(
            BACKEND_TIMEOUT_SECONDS, service.asked.rollout.longest_stream_seconds + longest_wait_seconds(service)
        ),
        "connectionDraining": {
            "drainingTimeoutSec": min(MAX_DRAINING_SECONDS, drain_times(service.asked.rollout.longest_stream_seconds).gateway)
        },
        "logging": {"enabled": True},
    }
    if endpoint.args.rate_limit_per_minute is not None:
        backend["securityPolicy"] = endpoint.resource_name
    if endpoint.args.iap_members:
        # without a client of one's own Google manages one
        backend["iap"] = {"enabled": True}
    return [
        _policy("HealthCheckPolicy", metadata, {"config": {"type": "HTTP", "httpHealthCheck": health}}, target),
        _policy("GCPBackendPolicy", metadata, backend, target),
    ]


def _gateway_metadata(endpoint: EndpointPlan, namespace: str, ending: str = "") -> dict[str, Any]:
    return {"name": gateway_name(endpoint) + ending, "namespace": namespace, "labels": MANAGED_BY}


def _metadata(service: ServicePlan, namespace: str) -> dict[str, Any]:
    return {"name": f"{service.name}-serve", "namespace": namespace, "labels": {SERVICE_LABEL: service.name, **MANAGED_BY}}


def _policy(kind: str, metadata: dict[str, Any], default: dict[str, Any], target: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.gke.io/v1",
        "kind": kind,
        "metadata": metadata,
        "spec": {"default": default, "targetRef": target},
    }


def _route(
    endpoint: EndpointPlan, metadata: dict[str, Any], listener: str, hostnames: list[str], rule: dict[str, Any]
) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {
            "parentRefs": [{"name": gateway_name(endpoint), "sectionName": listener}],
            "hostnames": hostnames,
            "rules": [rule],
        },
    }
