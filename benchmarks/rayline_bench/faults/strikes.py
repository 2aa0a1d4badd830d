"""The ways to break a running service. Each returns a Strike (scenes.py)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import psutil

from rayline_bench.faults import parts, second_node
from rayline_bench.faults.clients import StreamLoad
from rayline_bench.faults.scenes import Blow, Scene, Strike
from rayline_cli.local import session as sessions
from rayline_cli.local.runtime import LocalRuntimeError

GOING_ON_SECONDS = 180.0
"""A raylet without its GCS gives up after gcs_rpc_server_reconnect_timeout_s (60 s, ray/core ray_config_def.h)."""


def kill_a_streaming_replica(*, engine_only: bool = False) -> Strike:
    """Send SIGKILL to a replica that streams, or to its engine alone; over when another replica has taken its place."""

    def strike(scene: Scene, load: StreamLoad, blow: Blow) -> Callable[[], bool]:
        (haproxy,) = parts.haproxies(scene.session())
        ports, replicas = {server.name: server.port for server in haproxy.servers()}, scene.replicas()
        # before the stream is chosen: a search among all processes takes a while
        engines = {engine.pid: engine.parents() for engine in scene.processes(parts.ENGINE)} if engine_only else {}
        name = haproxy.wait_for_fresh_stream(load)
        replica = replicas[ports[name]]
        victim = next(psutil.Process(pid) for pid, parents in engines.items() if replica in parents) if engine_only else replica
        blow.running_on_it = haproxy.requests_at(load, {name})
        blow.happens(load)
        victim.kill()
        return lambda: replica not in scene.replicas().values()

    return strike


def kill_every(role: str, *, streams_pass: bool = False, reloads: bool = False) -> Strike:
    """Send SIGKILL to every process of `role`; over when others have taken their place.

    With `streams_pass` the long streams depend on it. With `reloads` it is over after a reload of HAProxy only: a killed
    router leaves its list, and another one joins it. The old haproxy process then continues its streams until
    RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S.
    """

    def strike(scene: Scene, load: StreamLoad, blow: Blow) -> Callable[[], bool]:
        victims = scene.processes(role)
        killed, haproxies = _pids(victims), _pids(scene.processes(parts.HAPROXY))
        load.wait_for_long_streams()
        blow.running_on_it = load.fresh() if streams_pass else []
        blow.happens(load)
        for process in victims:
            process.kill()

        def over() -> bool:
            now = _pids(scene.processes(role))
            reloaded = not reloads or bool(_pids(scene.processes(parts.HAPROXY)) - haproxies)
            return bool(now) and not now & killed and reloaded

        return over

    return strike


def kill_one_router(scene: Scene, load: StreamLoad, blow: Blow) -> Callable[[], bool]:
    """Send SIGKILL to one of several LLMRouter replicas of a node; over when there are as many as before."""
    routers = scene.processes(parts.ROUTER)
    load.wait_for_long_streams()
    blow.happens(load)
    routers[0].kill()

    def over() -> bool:
        now = _pids(scene.processes(parts.ROUTER))
        return routers[0].pid not in now and len(now) == len(routers)

    return over


def change(**settings: Any) -> Strike:
    """Change settings of the service in place."""

    def strike(scene: Scene, load: StreamLoad, blow: Blow) -> Callable[[], bool]:
        load.wait_for_long_streams()
        blow.happens(load)
        scene.up(**settings)
        return lambda: True

    return strike


# --- one of two nodes is lost, each with a replica and a HAProxy -------------------------------------------------------


def lose_the_worker(scene: Scene, load: StreamLoad, blow: Blow) -> Callable[[], bool]:
    """Send SIGKILL to every process of the worker node; over when the head's HAProxy has dropped its replica."""
    assert scene.node is not None
    _prepare_the_loss(scene, load, blow, of_head=False)
    scene.node.kill()

    def over() -> bool:
        haproxy = scene.haproxy()
        return haproxy is not None and haproxy.up_ports() == set(scene.replicas())

    return over


def lose_the_head(scene: Scene, load: StreamLoad, blow: Blow) -> Callable[[], bool]:
    """Send SIGKILL to every process of the head, whose GCS has no store.

    Over when the worker's raylet has given up its GCS. A pod's container ends with its raylet, so everything else of the
    worker is ended then.
    """
    assert scene.node is not None
    node = scene.node
    _kill_the_head(scene, load, blow)
    give_up = time.monotonic() + GOING_ON_SECONDS

    def over() -> bool:
        if node.runs() and time.monotonic() < give_up:
            return False
        node.kill()
        return True

    return over


def lose_the_head_and_start_it_again(scene: Scene, load: StreamLoad, blow: Blow) -> Callable[[], bool]:
    """Send SIGKILL to every process of the head, whose GCS has a store, and start the head again at once, as KubeRay does."""
    before = scene.session()
    root = before.supervisor()
    assert root is not None
    # [python, -P, supervisor.py, pipe, folder, command...]
    command, env = root.cmdline()[5:], sessions.environ(root.pid)
    _kill_the_head(scene, load, blow)
    # the new head's container is as fresh as that of a pod; else `ray start` takes the survivor's raylet for its own
    (before.folder / "ray_current_cluster").unlink(missing_ok=True)
    kept = {name: getattr(before, name) for name in ("state_dir", "folder", "ports", "restart_key", "salt", "num_cpus")}
    sessions.start(command, session_id=before.id, env=env, **kept).keep()
    # the surviving node answers
    second_node.stand_last(scene.session().supervisor())

    def over() -> bool:
        if scene.session().supervisor() is None:
            raise LocalRuntimeError(f"the new head has ended. Its output: {scene.session().output.read_text()[-2000:]}")
        haproxy, listening = scene.haproxy(of_worker=True), set(scene.replicas())
        return haproxy is not None and len(listening) == 2 and haproxy.up_ports() == listening

    return over


def _kill_the_head(scene: Scene, load: StreamLoad, blow: Blow) -> None:
    assert scene.node is not None
    on_worker = _pids(scene.node.processes())
    head = [process for process in scene.session().processes() if process.pid not in on_worker]
    _prepare_the_loss(scene, load, blow, of_head=True)
    for process in head:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(head, timeout=10)


def _prepare_the_loss(scene: Scene, load: StreamLoad, blow: Blow, *, of_head: bool) -> None:
    """Wait for a long stream and note the requests of the node that is to be lost, as the other node's HAProxy has them."""
    haproxy = scene.haproxy(of_worker=of_head)
    assert haproxy is not None
    assert scene.node is not None
    on_worker = _pids(scene.node.processes())
    lost = {port for port, process in scene.replicas().items() if (process.pid in on_worker) is not of_head}
    names = {server.name for server in haproxy.servers() if server.port in lost}
    # on whichever node: through the worker's HAProxy all streams may be at the worker's own replica
    haproxy.wait_for_fresh_stream(load, None if of_head else names)
    blow.running_on_it = haproxy.requests_at(load, names)
    second_node.stand_last(scene.node.root if of_head else scene.session().supervisor())
    blow.happens(load)


def _pids(processes: Iterable[psutil.Process]) -> set[int]:
    return {process.pid for process in processes}
