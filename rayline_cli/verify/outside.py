"""A service of which only the address is known, as a client sees it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rayline.facts.serve_flags import SWITCHES
from rayline_cli.errors import UsageError
from rayline_cli.verify import inside
from rayline_cli.verify.check import Verdict, not_applicable, verdict
from rayline_cli.verify.expected import Expected
from rayline_cli.verify.target import NotSeen, Target, View

KEY_VARIABLE = "RAYLINE_API_KEY"
"""Variable with the key of an endpoint: an argument would be in every user's process list."""

CLOSED = {
    8265: "Ray's dashboard",
    6379: "Ray's GCS",
    10001: "Ray's client server",
    52365: "Ray's dashboard agent",
    8080: "Ray's metrics",
    9101: "HAProxy's metrics",
    8404: "HAProxy's statistics",
    8500: "the fallback proxy",
    30000: "a replica",
}
"""Ports of a Ray pod that no client may reach, with their number in a pod (docs/security.md has the whole table)."""


class BadUrl(UsageError):
    """The value of --url is no address that can be verified."""


class UrlTarget(Target):
    """An address, with everything on that the kit turns on."""

    def __init__(self, url: str, key: str | None) -> None:
        """Raises BadUrl."""
        no_address = BadUrl(f"--url {url} is no address. Fix: write it like https://llm.example.com")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # an unclosed [, or a port that is no number
            raise no_address from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise no_address
        if parts.username or parts.query or parts.fragment:
            raise BadUrl(
                f"--url has more than scheme, host, port and path. Fix: leave the rest out; a key comes from ${KEY_VARIABLE}"
            )
        self._key = key
        self._host = parts.hostname
        self._port = port or (443 if parts.scheme == "https" else 80)
        # people copy the base URL of their client
        self.endpoint = url.rstrip("/").removesuffix("/v1")
        self.expected = Expected(
            service=parts.netloc,
            environment={},
            switches=dict.fromkeys(SWITCHES, True),
            serve_config={},
            on_gpu=False,
            tasks=None,
            api_key=True,
        )

    def reach(self) -> None:
        """Raise NotSeen where the address takes no connection: no check would say more."""
        if self.run_client({"do": "connect", "addresses": [[self._host, self._port]]}) != [True]:
            raise NotSeen(f"nothing takes a connection at {self._host}:{self._port}. Fix: check the address, DNS and firewalls")

    def run_client(self, job: Mapping[str, Any]) -> Any:
        """Run a job of inside.py from this machine."""
        return inside.run(job, {"key": self._key or ""})

    def reachability(self, view: View) -> Verdict:
        """Check that the address takes connections at its own port alone."""
        try:
            addresses = {info[4][0] for info in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)}
        except OSError as error:
            return verdict(False, f"{self._host} has no address: {error}", "look at the DNS record")
        if all(ipaddress.ip_address(str(address).split("%")[0]).is_loopback for address in addresses):
            return not_applicable(f"{self._host} is this machine: only another machine can check what is reachable")
        return closed(self, self._host, self._port)


def closed(target: Target, host: str, served: int) -> Verdict:
    """Check from the place of `target`'s clients that `host` takes no connections at ports of Ray."""
    ports = [port for port in CLOSED if port != served]
    answers = target.run_client({"do": "connect", "addresses": [[host, port] for port in [served, *ports]]})
    if not answers[0]:
        return verdict(False, f"{host}:{served} takes no connection, so nothing can be said of the other ports", "")
    opened = [f"{port} ({CLOSED[port]})" for port, is_open in zip(ports, answers[1:], strict=True) if is_open]
    evidence = f"{host} takes connections at {served} and at none of {', '.join(map(str, ports))}"
    if opened:
        evidence = f"{host} takes connections at {', '.join(opened)}"
    return verdict(not opened, evidence, "publish the Serve port alone: take the others out of the Service or load balancer")
