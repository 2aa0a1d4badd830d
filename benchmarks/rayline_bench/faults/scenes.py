"""A service under load, a fault in it, and the count of its requests."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from rayline_bench.faults import parts
from rayline_bench.faults.clients import ANSWERED, Request, StreamLoad, longest_gap, outcomes
from rayline_bench.faults.parts import Haproxy
from rayline_bench.faults.second_node import WorkerNode
from rayline_cli.local.ports import REPLICA_PORTS
from rayline_cli.local.session import Session
from rayline_cli.local.waiting import slowdown

CLIENTS, TOKENS = 4, 100
LONG_CLIENTS, LONG_TOKENS = 2, 3000
RECOVERY_SECONDS = 300.0
"""How long a part may take to come back on an idle machine; a replica of a tiny model takes half a minute there."""


@dataclass(frozen=True)
class Scene:
    """A service that runs on this machine."""

    session: Callable[[], Session]
    url: str
    model: str
    api_key: str | None
    up: Callable[..., Any]
    """Lays settings of the service, in a stack file's groups, over its own in place; returns when they run."""
    node: WorkerNode | None = None
    """The second node, where there is one."""
    rest_seconds: float = 0.0
    """Pause after each answer while a part comes back, once every client has been answered after the fault. A model loads
    sooner where nothing computes beside it."""

    def processes(self, role: str) -> list[psutil.Process]:
        """Return the processes of a role (parts.py), oldest first."""
        return parts.of_role(self.session(), role)

    def replicas(self) -> dict[int, psutil.Process]:
        """Return the process of each port on which a replica listens."""
        first = self.session().ports["replicas"]
        listening = {}
        for process in self.processes(parts.REPLICA):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                listening[parts.port_of(process, range(first, first + REPLICA_PORTS))] = process
        return {port: process for port, process in listening.items() if port is not None}

    def haproxy(self, *, of_worker: bool = False) -> Haproxy | None:
        """Return the HAProxy of the head or of the second node; None where it does not answer."""
        on_worker = {process.pid for process in self.node.processes()} if self.node else set()
        for haproxy in parts.haproxies(self.session()):
            with suppress(OSError):
                if (haproxy.pid() in on_worker) is of_worker:
                    return haproxy
        return None

    def is_whole(self, replicas: int) -> bool:
        """Return whether so many replicas live and the only HAProxy has exactly these, all UP."""
        listening = self.replicas()
        try:
            (haproxy,) = parts.haproxies(self.session())
            count = len(haproxy.servers())
        except (OSError, ValueError):
            return False
        return len(listening) == count == replicas and haproxy.up_ports() == set(listening)

    def settle(self, replicas: int) -> None:
        """Wait for a state to begin from: whole, and one haproxy process. Raises TimeoutError."""
        begun = time.monotonic()
        while not (self.is_whole(replicas) and len(self.processes(parts.HAPROXY)) == 1):
            if time.monotonic() - begun > RECOVERY_SECONDS * slowdown():
                raise TimeoutError(
                    f"{replicas} replicas behind one HAProxy: not within {RECOVERY_SECONDS:.0f} s; {self.state()}"
                )
            time.sleep(0.25)

    def state(self) -> str:
        """Return what there is, for an error: the replicas that listen, and the servers of each HAProxy."""
        servers = []
        for haproxy in parts.haproxies(self.session()):
            with suppress(OSError, ValueError, KeyError):
                servers.append([f"{server.port} {server.status}" for server in haproxy.servers()])
        return f"replicas listen on {sorted(self.replicas())}, HAProxy has {servers}"


@dataclass
class Blow:
    """The moment of a fault, and the requests that were under way."""

    at: float = 0.0
    running: list[Request] = field(default_factory=list)
    running_on_it: list[Request] = field(default_factory=list)

    def happens(self, load: StreamLoad) -> None:
        """Note the moment. To be called right before the blow."""
        self.at, self.running = time.monotonic(), load.open()
        load.no_more_long_streams = True


Strike = Callable[[Scene, StreamLoad, Blow], Callable[[], bool]]
"""Waits for the right moment, notes it in the Blow and breaks a part. Returns the condition under which the fault is over."""


@dataclass(frozen=True, eq=False)
class FaultService:
    """The service that a fault is injected into; faults of one service follow each other in one session."""

    settings: Mapping[str, Any]
    """Laid over services.SERVICE."""
    two_nodes: bool = False
    """Whether a second Ray node runs one of two replicas."""
    store: bool = False
    """Whether the head's GCS has a store."""
    clients_at_worker: bool = False
    """Whether the clients' connections go through the second node's HAProxy."""


@dataclass(frozen=True)
class Fault:
    """One fault."""

    key: str
    what: str
    """For `rayline faults --list`."""
    fault: str
    done: str
    service: FaultService
    strike: Strike
    inherent: str
    """Costs that no setting saves, and the setting that saves the rest."""
    whole: int | None = 2
    """Replicas behind one HAProxy once it is over; None: the strike's own condition decides."""
    long_tokens: int = LONG_TOKENS
    """Of the streams that are interrupted."""
    comes_back: bool = True
    """Whether the service answers again by itself."""


@dataclass(frozen=True)
class FaultOutcome:
    """The count of one fault, as a receipt keeps it."""

    fault: str
    done: str
    """The part that was killed or changed."""
    sent: int
    answered: int
    failed: Mapping[str, int]
    """Number of requests of each kind of failure."""
    running: int
    """Streams that were open at that moment."""
    running_on_it: int
    """Requests that depended on the killed part at that moment; 0 where none does."""
    failed_on_it: int
    """Of `running_on_it`, failed."""
    failed_elsewhere: int
    """Of the other `running`, failed."""
    failed_new: int
    """Failed of all that were sent later, or that waited for a replica at that moment."""
    last_failure_seconds: float
    """From the fault until the last of `failed_new` was sent; 0 where there is none, or all had been sent before."""
    longest_gap_seconds: float
    """Longest time without an answer that came to its end, from the fault on."""
    usual_gap_seconds: float
    """The same before the fault."""
    recovery_seconds: float | None
    """From the fault until everything was there again; None where it does not come back by itself."""
    served_on_seconds: float | None = None
    """Where the service ends with the fault: for how long it still answered."""

    def going_on_for(self, seconds: float) -> FaultOutcome:
        """Return the same for a service that answered on for so long and then no more."""
        return dataclasses.replace(self, served_on_seconds=round(seconds, 1), recovery_seconds=None)


def observe(scene: Scene, fault: Fault) -> FaultOutcome:
    """Inject a fault under load; return the count when it is over and every client has an answer. Raises TimeoutError."""
    blow = Blow()
    tokens = (CLIENTS, TOKENS, LONG_CLIENTS, fault.long_tokens)
    with StreamLoad(scene.url, scene.model, scene.api_key, *tokens) as load:
        begun = time.monotonic()
        load.wait_for_every_client()
        over = fault.strike(scene, load, blow)
        if scene.rest_seconds:
            load.wait_for_every_client()
            load.pause = scene.rest_seconds
        try:
            load.wait(
                lambda: over() and (fault.whole is None or scene.is_whole(fault.whole)),
                RECOVERY_SECONDS,
                f"recovery from: {fault.fault}",
            )
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {scene.state()}") from None
        recovered = time.monotonic()
        if fault.comes_back:
            load.wait_for_every_client()
        ended = time.monotonic()
    seen = count(fault.fault, fault.done, blow, load.requests, begun=begun, recovered=recovered, ended=ended)
    if fault.comes_back:
        return seen
    return seen.going_on_for(
        max([blow.at, *(request.ended for request in load.requests if request.outcome == ANSWERED)]) - blow.at
    )


def count(
    fault: str, done: str, blow: Blow, requests: Sequence[Request], *, begun: float, recovered: float, ended: float
) -> FaultOutcome:
    """Return the sums over requests that have all ended; moments are on their clock."""
    failed = [request for request in requests if request.outcome != ANSWERED]
    on_it = {id(request) for request in blow.running_on_it}
    elsewhere = {id(request) for request in blow.running} - on_it
    new = [request for request in failed if id(request) not in on_it | elsewhere and request.ended >= blow.at]
    late = [request.started - blow.at for request in new if request.started > blow.at]
    return FaultOutcome(
        fault=fault,
        done=done,
        sent=len(requests),
        answered=len(requests) - len(failed),
        failed=dict(outcomes(failed)),
        running=len(on_it | elsewhere),
        running_on_it=len(on_it),
        failed_on_it=sum(id(request) in on_it for request in failed),
        failed_elsewhere=sum(id(request) in elsewhere for request in failed),
        failed_new=len(new),
        last_failure_seconds=round(max(late, default=0.0), 1),
        longest_gap_seconds=round(longest_gap(requests, blow.at, ended), 1),
        usual_gap_seconds=round(longest_gap(requests, begun, blow.at), 1),
        recovery_seconds=round(recovered - blow.at, 1),
    )
