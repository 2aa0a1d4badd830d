"""The parts of a service on this machine: its processes by their role, and what its HAProxy says."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from rayline_bench.faults.clients import Load, Request
from rayline_cli.local.haproxy import HAPROXY_FOLDER
from rayline_cli.local.session import Session
from rayline_cli.verify.inside import haproxy_counters, haproxy_says

REPLICA = "ray::ServeReplica:llm:LLMServer"
ROUTER = "ray::ServeReplica:llm:LLMRouter"
MANAGER = "ray::HAProxyManager"
CONTROLLER = "ray::ServeController"
ENGINE = "VLLM::EngineCore"


def of_role(session: Session, role: str) -> list[psutil.Process]:
    """The session's processes whose title begins with `role`, or whose program is `role`; oldest first."""
    found = []
    for process in session.processes():
        try:
            title = " ".join(process.cmdline())
            if title.startswith(role) or process.name() == role:
                found.append((process.create_time(), process.pid, process))
        except psutil.NoSuchProcess:
            continue
    return [process for *_, process in sorted(found)]


def haproxies(session: Session) -> list[psutil.Process]:
    """haproxy processes, the one that listens last."""
    return of_role(session, "haproxy")


@dataclass(frozen=True)
class Server:
    """A replica as HAProxy knows it."""

    name: str
    port: int
    status: str
    """UP, DOWN, MAINT; with a transition "UP 1/2"."""


def haproxy_sockets(session: Session) -> list[Path]:
    """The admin socket of each HAProxy of the session that answers, one for each node."""
    found = []
    for path in sorted(session.folder.glob(f"{HAPROXY_FOLDER}/*/admin.sock")):
        with suppress(OSError):
            haproxy_says(path, "show info")
            found.append(path)
    return found


def servers(path: Path) -> list[Server]:
    """The replicas in HAProxy's own backend of the application, health-checked ones: not the fallback proxy."""
    return [
        Server(row["svname"], int(row["addr"].rsplit(":", 1)[1]), row["status"])
        for row in haproxy_counters(path)
        if row["svname"].startswith("SERVE_REPLICA") and not row["pxname"].endswith("-via-ingress-request-router")
    ]


def streams(path: Path) -> Mapping[int, str]:
    """Client's port -> name of the replica that answers it, of every request that is at a replica now."""
    return parse_sessions(haproxy_says(path, "show sess"))


def parse_sessions(text: str) -> dict[int, str]:
    """`show sess`: one line a session, `src=127.0.0.1:53424 ... srv=SERVE_REPLICA__llm-...`."""
    found = {}
    for line in text.splitlines():
        client = re.search(r"\bsrc=\S*?:(\d+)\b", line)
        server = re.search(r"\bsrv=(SERVE_REPLICA\S+)", line)
        if client and server:
            found[int(client[1])] = server[1]
    return found


def pid_of(path: Path) -> int:
    """The haproxy process that answers on an admin socket. Raises OSError where none does."""
    match = re.search(r"^Pid:\s*(\d+)", haproxy_says(path, "show info"), re.MULTILINE)
    return int(match[1]) if match else 0


def requests_at(load: Load, path: Path, names: Collection[str]) -> list[Request]:
    """The open requests that the replicas `names` have."""
    at_replica = streams(path)
    return [one for one in load.requests if not one.outcome and at_replica.get(one.port) in names]


def wait_for_fresh_stream(load: Load, path: Path, names: Collection[str] | None = None, seconds: float = 120) -> str:
    """The replica that answers a long stream which has just begun, of `names` if given. Raises TimeoutError."""
    found: list[str] = []

    def running() -> bool:
        at_replica = streams(path)
        found[:] = [at_replica[one.port] for one in load.fresh() if one.port in at_replica]
        found[:] = [name for name in found if names is None or name in names]
        return bool(found)

    load.wait(running, seconds, "a long stream on what is to be killed")
    return found[0]


def port_of(process: psutil.Process, ports: range) -> int | None:
    """The port of `ports` that a process listens on."""
    for connection in process.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports:
            return connection.laddr.port
    return None
