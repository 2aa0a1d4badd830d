"""Proxies and other addresses in the variables and engine arguments of a service."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from rayline.cluster.types import ClusterPlan
from rayline.facts.choices import ClusterMode
from rayline.facts.variables import NEVER_THROUGH_A_PROXY, NEVER_THROUGH_A_PROXY_IN_A_CLUSTER, PROXIES

PORT_OF_AN_ADDRESS = "the port of an address is a number from 1 to 65535, such as http://otel.example.com:4317"


def is_proxy(name: str) -> bool:
    """Return whether HTTP clients read a proxy from a variable."""
    return name.lower() in PROXIES


def is_address_of_a_proxy(text: str) -> bool:
    """Return whether a text is a host with at most a scheme and a port, as curl takes it."""
    try:
        address = urlsplit(text if "://" in text else f"//{text}")
        port = address.port
    except ValueError:
        return False
    schemes = ("", "http", "https", "socks4", "socks5", "socks5h")
    return bool(address.hostname) and port != 0 and address.scheme in schemes and address.path in ("", "/")


def _exceptions(env: Mapping[str, str]) -> list[str]:
    """Return the entries of the stack's own NO_PROXY."""
    return [entry.strip() for name in ("NO_PROXY", "no_proxy") for entry in env.get(name, "").split(",") if entry.strip()]


def past_the_proxy(env: Mapping[str, str], cluster: ClusterPlan) -> tuple[dict[str, str], list[str]]:
    """Return NO_PROXY in both spellings, with what must not go through a proxy, and warnings; nothing without a proxy."""
    if not any(is_proxy(name) and value for name, value in env.items()):
        return {}, []
    exceptions, own = _exceptions(env), [*NEVER_THROUGH_A_PROXY]
    if cluster.mode is not ClusterMode.LOCAL:
        own += NEVER_THROUGH_A_PROXY_IN_A_CLUSTER
    if cluster.mode is ClusterMode.CREATE:
        network = cluster.args.network
        own += (network.nodes_cidr, network.pods_cidr, network.services_cidr)
    listed = ",".join(dict.fromkeys((*exceptions, *own)))
    warnings = []
    if cluster.mode is ClusterMode.EXISTING and not any("/" in entry or entry == "*" for entry in exceptions):
        warnings.append(
            "pods.env.NO_PROXY names no address range: add those of this cluster's pods and Services, which are not known here"
        )
    return {"NO_PROXY": listed, "no_proxy": listed}, warnings


def outbound_ports(env: Mapping[str, str], engine_kwargs: Mapping[str, Any]) -> set[int]:
    """Return the ports of addresses outside in a service's variables and engine arguments, such as a proxy's."""
    ports = set()
    for name, text in _texts({**env, **engine_kwargs}):
        try:
            address = _address(name, text)
            port = address.port or {"http": 80, "https": 443}.get(address.scheme)
        except ValueError:
            continue
        if port and address.hostname and address.hostname not in NEVER_THROUGH_A_PROXY:
            ports.add(port)
    return ports


def _is_endpoint(name: str) -> bool:
    return name.lower().endswith("endpoint")


def _address(name: str, text: str) -> SplitResult:
    """Return the address in a text, also without a scheme where OTLP's exporters or clients of a proxy take it so."""
    bare = (is_proxy(name) or _is_endpoint(name)) and "://" not in text
    return urlsplit(f"//{text}" if bare else text)


def port_is_sound(name: str, text: str) -> bool:
    """Return whether an endpoint has a port or none, and nothing else after the colon."""
    try:
        return not _is_endpoint(name) or _address(name, text).port != 0
    except ValueError:
        return False


def _texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key, text) of every text in a value, at any depth."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner, name)
    elif isinstance(value, str):
        yield name, value
