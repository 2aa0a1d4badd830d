"""Each fault: what is done to a running service under load, and when it is over. Judging the count is the caller's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from rayline_bench.faults import parts
from rayline_bench.faults.clients import ANSWERED, Load, Request, longest_gap, outcomes
from rayline_cli.local.ports import REPLICA_PORTS
from rayline_cli.local.session import Session

CLIENTS, TOKENS = 4, 100
LONG_CLIENTS = 2
RECOVERY_SECONDS = 300.0
"""How long a part may take to come back; a replica of a tiny model takes half a minute on a quiet machine."""


@dataclass(frozen=True)
class Scene:
    """A service that runs on this machine."""

    session: Callable[[], Session]
    url: str
    model: str
    api_key: str | None
    up: Callable[..., Any]
    """Lays settings of the service, in a stack file's groups, over its own in place; returns when they run."""
    long_tokens: int = 3000
    """Of the streams that a fault meets in the middle."""
    rest_seconds: float = 0.0
    """Pause after each answer while a part comes back, once every client has been answered after the fault. A model loads
    sooner where nothing computes beside it."""

    def load(self) -> Load:
        """Clients of this service, not started yet."""
        return Load(
            self.url, self.model, self.api_key, CLIENTS, TOKENS, long_clients=LONG_CLIENTS, long_tokens=self.long_tokens
        )

    def replicas(self) -> dict[int, psutil.Process]:
        """Port -> process of the replicas that listen."""
        session = self.session()
        first = session.ports["replicas"]
        found = {}
        for process in parts.of_role(session, parts.REPLICA):
            try:
                port = parts.port_of(process, range(first, first + REPLICA_PORTS))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if port is not None:
                found[port] = process
        return found

    def is_whole(self, replicas: int) -> bool:
        """Whether so many replicas live and HAProxy has exactly these, all UP."""
        listening = self.replicas()
        try:
            (path,) = parts.haproxy_sockets(self.session())
            known = parts.servers(path)
        except (OSError, ValueError):
            return False
        up = {one.port for one in known if one.status == "UP"}
        return len(listening) == len(known) == replicas and up == set(listening)

    def settle(self, replicas: int, seconds: float = RECOVERY_SECONDS) -> None:
        """Waits for a state to begin from: whole, and one haproxy process. Raises TimeoutError."""
        give_up = time.monotonic() + seconds
        while not (self.is_whole(replicas) and len(parts.haproxies(self.session())) == 1):
            if time.monotonic() > give_up:
                raise TimeoutError(f"{replicas} replicas behind one HAProxy: not within {seconds:.0f} s")
            time.sleep(0.25)


@dataclass(frozen=True)
class Outcome:
    """What clients saw of one fault."""

    fault: str
    done: str
    """What was killed or changed."""
    sent: int
    answered: int
    failed: Mapping[str, int]
    """How -> how many."""
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
    longest_survivor_seconds: float
    """How long the longest of `running` that was answered went on after the fault."""
    served_on_seconds: float | None = None
    """Where the service ends with the fault: for how long it went on answering."""
    requests: list[Request] = field(default_factory=list, repr=False, compare=False)

    def going_on_for(self, seconds: float) -> Outcome:
        """The same for a service that answered on for so long and then no more."""
        return dataclasses.replace(self, served_on_seconds=round(seconds, 1), recovery_seconds=None)

    @property
    def failures(self) -> int:
        return sum(self.failed.values())


@dataclass
class Blow:
    """What a fault notes about itself when it strikes."""

    done: str = ""
    at: float = 0.0
    running: list[Request] = field(default_factory=list)
    running_on_it: list[Request] = field(default_factory=list)

    def happens(self, load: Load, done: str) -> None:
        """To be called right before the blow."""
        self.done, self.at = done, time.monotonic()
        self.running = load.open()
        load.let_long_streams_end()


def observe(scene: Scene, fault: str, act: Callable[[Load, Blow], None], over: Callable[[], bool]) -> Outcome:
    """Runs `act` under load until `over` and every client has had another answer. Raises TimeoutError."""
    noted = Blow()
    with scene.load() as running:
        begun = time.monotonic()
        running.wait_for_every_client()
        act(running, noted)
        if scene.rest_seconds:
            running.wait_for_every_client()
            running.slow_down(scene.rest_seconds)
        running.wait(over, RECOVERY_SECONDS, f"recovery from: {fault}")
        recovered = time.monotonic()
        running.wait_for_every_client()
        ended = time.monotonic()
    return count(fault, noted, running.requests, begun=begun, recovered=recovered, ended=ended)


def count(fault: str, noted: Blow, requests: list[Request], *, begun: float, recovered: float, ended: float) -> Outcome:
    """Sums requests that have all ended; moments are on their clock."""
    failed = [one for one in requests if one.outcome != ANSWERED]
    on_it = {id(one) for one in noted.running_on_it}
    elsewhere = {id(one) for one in noted.running} - on_it
    new = [one for one in failed if id(one) not in on_it | elsewhere and one.ended >= noted.at]
    return Outcome(
        fault=fault,
        done=noted.done,
        sent=len(requests),
        answered=len(requests) - len(failed),
        failed=dict(outcomes(failed)),
        running=len(on_it | elsewhere),
        running_on_it=len(on_it),
        failed_on_it=sum(id(one) in on_it for one in failed),
        failed_elsewhere=sum(id(one) in elsewhere for one in failed),
        failed_new=len(new),
        last_failure_seconds=round(max((one.started - noted.at for one in new if one.started > noted.at), default=0.0), 1),
        longest_gap_seconds=round(longest_gap(requests, noted.at, ended), 1),
        usual_gap_seconds=round(longest_gap(requests, begun, noted.at), 1),
        recovery_seconds=round(recovered - noted.at, 1),
        longest_survivor_seconds=round(
            max((one.ended - noted.at for one in noted.running if one.outcome == ANSWERED), default=0.0), 1
        ),
        requests=requests,
    )


# --- killed parts ------------------------------------------------------------------------------------------------------


def replica_killed(scene: Scene, replicas: int = 2) -> Outcome:
    """SIGKILL for one replica that answers streams."""
    done = "SIGKILL to one of two replicas (vLLM's API server)"
    return _killed_with_streams(scene, "replica killed", done, lambda replica: replica, replicas)


def engine_killed(scene: Scene, replicas: int = 2) -> Outcome:
    """SIGKILL for the engine process of one replica, whose API server lives on."""
    done = "SIGKILL to the engine of one of two replicas; its API server lives on"

    def engine(replica: psutil.Process) -> psutil.Process:
        found = parts.of_role(scene.session(), parts.ENGINE)
        return next(process for process in found if replica in process.parents())

    return _killed_with_streams(scene, "engine killed", done, engine, replicas)


def _killed_with_streams(
    scene: Scene, fault: str, done: str, victim_of: Callable[[psutil.Process], psutil.Process], whole: int
) -> Outcome:
    """Kills a process of one replica while it streams; over when another replica has taken its place."""
    replaced: list[psutil.Process] = []

    def act(load: Load, noted: Blow) -> None:
        (path,) = parts.haproxy_sockets(scene.session())
        replicas = scene.replicas()
        victims = {one.name: victim_of(replicas[one.port]) for one in parts.servers(path)}
        ports = {one.name: one.port for one in parts.servers(path)}
        name = parts.wait_for_fresh_stream(load, path)
        replaced.append(replicas[ports[name]])
        noted.running_on_it = parts.requests_at(load, path, {name})
        noted.happens(load, done)
        victims[name].kill()

    def over() -> bool:
        return replaced[0] not in scene.replicas().values() and scene.is_whole(whole)

    return observe(scene, fault, act, over)


def _restarted(scene: Scene, role: str, killed: set[int]) -> bool:
    """Whether processes of `role` live and none of them is one that was killed."""
    found = {process.pid for process in parts.of_role(scene.session(), role)}
    return bool(found) and not found & killed


def part_killed(scene: Scene, fault: str, role: str, done: str, replicas: int = 2, *, carries_streams: bool = False) -> Outcome:
    """SIGKILL for every process of `role`; over when others have taken their place and HAProxy has all replicas."""
    killed: set[int] = set()

    def act(load: Load, noted: Blow) -> None:
        victims = parts.of_role(scene.session(), role)
        load.wait(lambda: len(load.fresh()) == LONG_CLIENTS, 120, "long streams")
        if carries_streams:
            noted.running_on_it = load.fresh()
        noted.happens(load, done)
        for process in victims:
            killed.add(process.pid)
            process.kill()

    return observe(scene, fault, act, lambda: _restarted(scene, role, killed) and scene.is_whole(replicas))


def router_killed(scene: Scene) -> Outcome:
    """The LLMRouter replica that HAProxy asks where each POST goes."""
    return part_killed(scene, "router killed", parts.ROUTER, "SIGKILL to the LLMRouter replica, the only one of its node")


def one_router_killed(scene: Scene, replicas: int = 2) -> Outcome:
    """One of several LLMRouter replicas of a node; over when there are as many as before."""
    before: set[int] = set()
    killed: list[psutil.Process] = []

    def act(load: Load, noted: Blow) -> None:
        routers = parts.of_role(scene.session(), parts.ROUTER)
        load.wait(lambda: len(load.fresh()) == LONG_CLIENTS, 120, "long streams")
        before.update(process.pid for process in routers)
        noted.happens(load, f"SIGKILL to one of {len(routers)} LLMRouter replicas of the node")
        routers[0].kill()
        killed.append(routers[0])

    def over() -> bool:
        now = {process.pid for process in parts.of_role(scene.session(), parts.ROUTER)}
        return killed[0].pid not in now and len(now) == len(before) and scene.is_whole(replicas)

    return observe(scene, "one of two routers killed", act, over)


def haproxy_killed(scene: Scene) -> Outcome:
    """The haproxy process; its manager lives on."""
    return part_killed(scene, "HAProxy killed", "haproxy", "SIGKILL to the haproxy process, the only one", carries_streams=True)


def manager_killed(scene: Scene) -> Outcome:
    """The actor that writes HAProxy's configuration and starts it."""
    done = "SIGKILL to the actor HAProxyManager"
    return part_killed(scene, "HAProxy's manager killed", parts.MANAGER, done, carries_streams=True)


def controller_killed(scene: Scene) -> Outcome:
    """Serve's controller: nobody watches replicas until it is back."""
    return part_killed(scene, "controller killed", parts.CONTROLLER, "SIGKILL to the actor ServeController")


# --- changes -----------------------------------------------------------------------------------------------------------


def changed(scene: Scene, fault: str, done: str, /, *, whole: int, **settings: Any) -> Outcome:
    """A change of the service's settings in place; over when `whole` replicas are there and HAProxy has just these."""

    def act(load: Load, noted: Blow) -> None:
        load.wait(lambda: len(load.fresh()) == LONG_CLIENTS, 120, "long streams")
        noted.happens(load, done)
        scene.up(**settings)

    return observe(scene, fault, act, lambda: scene.is_whole(whole))


def reloaded_under_long_streams(scene: Scene, replicas: int) -> Outcome:
    """Long streams over reloads of HAProxy, which a killed router brings about: it leaves the list, another one joins it.

    After a reload the old haproxy process goes on with its streams until RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S.
    """
    killed: set[int] = set()
    before: set[int] = set()

    def act(load: Load, noted: Blow) -> None:
        victims = parts.of_role(scene.session(), parts.ROUTER)
        before.update(process.pid for process in parts.haproxies(scene.session()))
        load.wait(lambda: len(load.fresh()) == LONG_CLIENTS, 120, "long streams")
        noted.running_on_it = load.fresh()
        noted.happens(load, "SIGKILL to the LLMRouter replica, so that HAProxy is reloaded twice under long streams")
        for process in victims:
            killed.add(process.pid)
            process.kill()

    def over() -> bool:
        listening = {process.pid for process in parts.haproxies(scene.session())}
        return bool(listening - before) and _restarted(scene, parts.ROUTER, killed) and scene.is_whole(replicas)

    return observe(scene, "HAProxy reloaded under long streams", act, over)
