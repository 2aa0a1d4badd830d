"""Faults of whole nodes: one of two Ray nodes of this machine is lost, each with a replica and a HAProxy."""

from __future__ import annotations

import copy
import dataclasses
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from rayline_bench.faults import parts, second_node
from rayline_bench.faults.clients import ANSWERED, Load
from rayline_bench.faults.scenarios import RECOVERY_SECONDS, Blow, Outcome, Scene, count, observe
from rayline_bench.faults.second_node import WorkerNode
from rayline_cli.clients.serve import ServeApi, ServeUnreachable
from rayline_cli.local import session as sessions
from rayline_cli.local.runtime import LocalRuntimeError
from rayline_cli.local.session import environ

GOING_ON_SECONDS = 180.0
"""A raylet without its GCS gives up after gcs_rpc_server_reconnect_timeout_s (60 s, ray/core ray_config_def.h)."""


@contextmanager
def two_nodes(scene: Scene) -> Iterator[WorkerNode]:
    """A second node, with the second replica of the service on it: the head has room for one. Raises TimeoutError."""
    session = scene.session()
    with second_node.joined(session) as node:
        # not by `up`, which would restart a Ray that has too few CPUs of its own
        config = copy.deepcopy(dict(session.sent))
        config["applications"][0]["deployments"][0]["num_replicas"] = 2
        dashboard = f"http://127.0.0.1:{session.ports['dashboard']}"
        api = ServeApi(dashboard, session.variable("RAY_AUTH_TOKEN"))
        give_up = time.monotonic() + RECOVERY_SECONDS
        api.put(config)
        while not _both_serve(scene, node, api):
            if time.monotonic() > give_up or not node.runs():
                said = (node.folder / "output").read_text()[-2000:]
                raise TimeoutError(f"no replica on the second node within {RECOVERY_SECONDS:.0f} s; it said: {said}")
            time.sleep(0.5)
        api.close()
        yield node


def _both_serve(scene: Scene, node: WorkerNode, api: ServeApi) -> bool:
    try:
        proxies = api.details().get("proxies") or {}
    except ServeUnreachable:
        return False
    sockets = parts.haproxy_sockets(scene.session())
    ready = len(sockets) == 2 and all(one["status"] == "HEALTHY" for one in proxies.values()) and len(proxies) == 2
    return ready and all(len(up_ports(path)) == 2 for path in sockets) and socket_of(scene, node, here=True) is not None


def up_ports(path: Path) -> set[int]:
    """The ports of the replicas that a HAProxy has UP; none where it does not answer."""
    try:
        return {one.port for one in parts.servers(path) if one.status == "UP"}
    except (OSError, ValueError, KeyError):
        return set()


def socket_of(scene: Scene, node: WorkerNode, *, here: bool) -> Path | None:
    """The admin socket of the HAProxy of the worker node (`here`) or of the head."""
    pids = {process.pid for process in node.processes()}
    for path in parts.haproxy_sockets(scene.session()):
        with suppress(OSError):
            if (parts.pid_of(path) in pids) is here:
                return path
    return None


def worker_lost(scene: Scene, node: WorkerNode) -> Outcome:
    """Every process of the worker node is killed; the clients' connections go through the head's HAProxy."""

    def act(load: Load, noted: Blow) -> None:
        path = socket_of(scene, node, here=False)
        assert path is not None
        pids = {process.pid for process in node.processes()}
        lost = {port for port, process in scene.replicas().items() if process.pid in pids}
        names = {one.name for one in parts.servers(path) if one.port in lost}
        parts.wait_for_fresh_stream(load, path, names)
        noted.running_on_it = parts.requests_at(load, path, names)
        second_node.stand_last(scene.session().supervisor())
        noted.happens(load, "SIGKILL to every process of one of two nodes: raylet, replica, router and HAProxy")
        node.kill()

    def over() -> bool:
        path = socket_of(scene, node, here=False)
        return path is not None and up_ports(path) == set(scene.replicas())

    return observe(scene, "worker node lost", act, over)


def head_lost(scene: Scene, node: WorkerNode) -> Outcome:
    """Every process of the head is killed, without a store for its GCS; clients come through the worker's HAProxy.

    Over when the worker's raylet has given up its GCS, with which a pod's container ends; so all else there is ended then.
    """
    with _through(scene, node).load() as load:
        begun = time.monotonic()
        load.wait_for_every_client()
        noted = Blow()
        _kill_head(scene, node, load, noted, "SIGKILL to every process of the head; its GCS has no store")
        give_up = time.monotonic() + GOING_ON_SECONDS
        while time.monotonic() < give_up and node.runs():
            time.sleep(0.2)
        node.kill()
        ended = time.monotonic()
    seen = count("head lost, no store", noted, load.requests, begun=begun, recovered=ended, ended=ended)
    last = max((one.ended for one in load.requests if one.outcome == ANSWERED), default=noted.at)
    return seen.going_on_for(last - noted.at)


def head_lost_with_store(scene: Scene, node: WorkerNode) -> Outcome:
    """The same with Redis as the store of its GCS, and the head started again at once, as KubeRay does."""

    def act(load: Load, noted: Blow) -> None:
        before = scene.session()
        root = before.supervisor()
        assert root is not None
        # [python, -P, supervisor.py, pipe, folder, command...]
        command, env = root.cmdline()[5:], environ(root.pid)
        _kill_head(scene, node, load, noted, "SIGKILL to every process of the head; Redis keeps its GCS; started again")
        # the new head's container is as fresh as that of a pod; else `ray start` takes the survivor's raylet for its own
        (before.folder / "ray_current_cluster").unlink(missing_ok=True)
        sessions.start(
            command,
            session_id=before.id,
            state_dir=before.state_dir,
            folder=before.folder,
            env=env,
            ports=before.ports,
            restart_key=before.restart_key,
            salt=before.salt,
            num_cpus=before.num_cpus,
        ).keep()
        # where the surviving node is
        second_node.stand_last(scene.session().supervisor())

    def over() -> bool:
        if scene.session().supervisor() is None:
            raise LocalRuntimeError(f"the new head has ended; it said: {scene.session().output.read_text()[-2000:]}")
        path = socket_of(scene, node, here=True)
        listening = set(scene.replicas())
        return path is not None and len(listening) == 2 and up_ports(path) == listening

    return observe(_through(scene, node), "head lost, with a store", act, over)


def _through(scene: Scene, node: WorkerNode) -> Scene:
    """The scene for clients of the worker's HAProxy."""
    return dataclasses.replace(scene, url=node.url)


def _kill_head(scene: Scene, node: WorkerNode, load: Load, noted: Blow, done: str) -> None:
    path = socket_of(scene, node, here=True)
    assert path is not None
    own = {process.pid for process in node.processes()}
    lost = {port for port, process in scene.replicas().items() if process.pid not in own}
    names = {one.name for one in parts.servers(path) if one.port in lost}
    head = [process for process in scene.session().processes() if process.pid not in own]
    # on whichever node: through the worker's HAProxy all streams may be at the worker's own replica
    parts.wait_for_fresh_stream(load, path)
    noted.running_on_it = parts.requests_at(load, path, names)
    second_node.stand_last(node.root)
    noted.happens(load, done)
    for process in head:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(head, timeout=10)


@contextmanager
def store(program: str) -> Iterator[dict[str, str]]:
    """A redis-server on loopback for a head's GCS; the variables that KubeRay sets for it.

    Source of the variables: ray-operator/controllers/ray/common/pod.go of KubeRay 1.7.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/tmp")
    try:
        yield {
            "RAY_REDIS_ADDRESS": f"127.0.0.1:{port}",
            "RAY_external_storage_namespace": "faults",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        }
    finally:
        process.terminate()
        process.wait()
