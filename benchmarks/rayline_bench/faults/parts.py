"""The parts of a service on this machine: its processes by role, and its HAProxies by their admin sockets."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from rayline_bench.faults.clients import Request, StreamLoad
from rayline_cli.local.haproxy import HAPROXY_FOLDER
from rayline_cli.local.session import Session
from rayline_cli.verify.inside import haproxy_counters, haproxy_says

REPLICA = "ray::ServeReplica:llm:LLMServer"
ROUTER = "ray::ServeReplica:llm:LLMRouter"
MANAGER = "ray::HAProxyManager"
CONTROLLER = "ray::ServeController"
ENGINE = "VLLM::EngineCore"
HAPROXY = "haproxy"


def of_role(session: Session, role: str) -> list[psutil.Process]:
    """Return the session's processes whose title begins with `role`, or whose program is `role`; oldest first."""
    matching = []
    for process in session.processes():
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(role) or process.name() == role:
                matching.append((process.create_time(), process.pid, process))
    return [process for *_, process in sorted(matching)]


@dataclass(frozen=True)
class HaproxyServer:
    """A replica in HAProxy's list of servers."""

    name: str
    port: int
    status: str
    """UP, DOWN, MAINT; with a transition "UP 1/2"."""


@dataclass(frozen=True)
class Haproxy:
    """A HAProxy, read through its admin socket. Every method raises OSError where nothing answers there."""

    socket: Path

    def pid(self) -> int:
        """Return the id of the process that answers."""
        match = re.search(r"^Pid:\s*(\d+)", haproxy_says(self.socket, "show info"), re.MULTILINE)
        return int(match[1]) if match else 0

    def servers(self) -> list[HaproxyServer]:
        """Return the replicas in the application's own backend, which are health-checked; not the fallback proxy."""
        return [
            HaproxyServer(row["svname"], int(row["addr"].rsplit(":", 1)[1]), row["status"])
            for row in haproxy_counters(self.socket)
            if row["svname"].startswith("SERVE_REPLICA") and not row["pxname"].endswith("-via-ingress-request-router")
        ]

    def up_ports(self) -> set[int]:
        """Return the ports of the replicas that are UP; none where nothing answers."""
        try:
            return {server.port for server in self.servers() if server.status == "UP"}
        except (OSError, ValueError, KeyError):
            return set()

    def streams(self) -> dict[int, str]:
        """Return the name of the replica for the client's port of every request that is at a replica now."""
        replicas = {}
        # one line a session: `src=127.0.0.1:53424 ... srv=SERVE_REPLICA__llm-...`
        for line in haproxy_says(self.socket, "show sess").splitlines():
            client, server = re.search(r"\bsrc=\S*?:(\d+)\b", line), re.search(r"\bsrv=(SERVE_REPLICA\S+)", line)
            if client and server:
                replicas[int(client[1])] = server[1]
        return replicas

    def requests_at(self, load: StreamLoad, names: Collection[str]) -> list[Request]:
        """Return the open requests that are at the replicas `names`."""
        streams = self.streams()
        return [request for request in load.requests if not request.outcome and streams.get(request.port) in names]

    def wait_for_fresh_stream(self, load: StreamLoad, names: Collection[str] | None = None, seconds: float = 120) -> str:
        """Return the replica of a long stream that has just begun, one of `names` if set. Raises TimeoutError."""
        replicas: list[str] = []

        def running() -> bool:
            streams = self.streams()
            at = [streams[request.port] for request in load.fresh() if request.port in streams]
            replicas[:] = [name for name in at if names is None or name in names]
            return bool(replicas)

        load.wait(running, seconds, "a long stream on the part that is to be killed")
        return replicas[0]


def haproxies(session: Session) -> list[Haproxy]:
    """Return the HAProxies of a session that answer, one for each node."""
    answering = []
    for path in sorted(session.folder.glob(f"{HAPROXY_FOLDER}/*/admin.sock")):
        with suppress(OSError):
            haproxy_says(path, "show info")
            answering.append(Haproxy(path))
    return answering


def port_of(process: psutil.Process, ports: range) -> int | None:
    """Return the port of `ports` on which a process listens."""
    listening = (socket.laddr.port for socket in process.net_connections("tcp") if socket.status == psutil.CONN_LISTEN)
    return next((port for port in listening if port in ports), None)
