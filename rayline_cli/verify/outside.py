"""A service of which only the address is known: what a client can see of it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from rayline.facts.serve_flags import SWITCHES
from rayline_cli.errors import UsageError
from rayline_cli.verify import inside
from rayline_cli.verify.check import Outcome, Verdict, verdict
from rayline_cli.verify.expected import Expected
from rayline_cli.verify.target import Node, NotSeen, View

KEY_VARIABLE = "RAYLINE_API_KEY"
"""Where the key of an endpoint comes from: an argument would be in everybody's process list."""

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
    """The address cannot be asked; the message says why."""


class UrlTarget:
    """Implements rayline_cli.verify.Target for an address, with everything on that the kit turns on."""

    settles_seconds = 0.0
    nodes: Sequence[Node] = ()

    def __init__(self, url: str, key: str | None) -> None:
        """Raises BadUrl."""
        no_address = BadUrl(f"--url {url}: an address looks like https://llm.example.com")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # an unclosed [, or a port that is no number
            raise no_address from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise no_address
        if parts.username or parts.query or parts.fragment:
            raise BadUrl(f"--url: only scheme, host, port and path; a key comes from ${KEY_VARIABLE}")
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
            api_key=True,
        )

    def reach(self) -> None:
        """Raises NotSeen where nobody takes a connection: no check would say more."""
        (open_,) = self.run_client({"do": "connect", "addresses": [[self._host, self._port]]})
        if not open_:
            raise NotSeen(f"nothing takes a connection at {self._host}:{self._port}: look at the address, DNS and firewalls")

    def run_client(self, job: Mapping[str, Any]) -> Any:
        """Do a job of inside.py from this machine."""
        return inside.run(job, {"key": self._key or ""})

    def reachability(self, view: View) -> Verdict:
        """Check that the address takes connections at its own port alone."""
        try:
            addresses = {one[4][0] for one in socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)}
        except OSError as error:
            return Outcome.FAIL, f"{self._host} has no address: {error}", "look at the DNS record"
        if all(ipaddress.ip_address(str(address).split("%")[0]).is_loopback for address in addresses):
            return Outcome.NOT_APPLICABLE, f"{self._host} is this machine: only others' view would say something", ""
        return closed(self.run_client, self._host, self._port)


def closed(run: Any, host: str, served: int) -> Verdict:
    """Whether `host` takes connections at ports that are nobody's but Ray's, asked with `run`."""
    ports = [port for port in CLOSED if port != served]
    answers = run({"do": "connect", "addresses": [[host, port] for port in [served, *ports]]})
    opened = [f"{port} ({CLOSED[port]})" for port, open_ in zip(ports, answers[1:], strict=True) if open_]
    if not answers[0]:
        return Outcome.FAIL, f"{host}:{served} takes no connection, so nothing can be said of the others", ""
    return verdict(
        not opened,
        f"{host} takes connections at {', '.join(opened)}"
        if opened
        else f"{host} takes connections at {served} and at none of {', '.join(map(str, ports))}",
        "only the Serve port may be published: take the others out of the Service or load balancer",
    )
