"""The services that faults are injected into, on this machine."""

from __future__ import annotations

import copy
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rayline.service.api_key import API_KEY_KEY, api_key_secret
from rayline.service.reading import RayService
from rayline_bench.arms import laid_over
from rayline_bench.faults import parts, second_node
from rayline_bench.faults.scenes import RECOVERY_SECONDS, FaultService, Scene
from rayline_bench.faults.second_node import WorkerNode
from rayline_cli import offline, render
from rayline_cli.clients.serve import ServeApi, ServeUnreachable
from rayline_cli.local import runtime, session
from rayline_cli.local.deploying import serve_api
from rayline_cli.local_secrets import secret_values
from rayline_cli.progress import Report
from rayline_cli.stack_files import full_key

NAME = "tiny"
SERVICE: Mapping[str, Any] = {
    "model": "rayline/tiny-random-qwen3",
    "accelerator": "cpu",
    "api": {"served_model_name": NAME},
    "engine": {
        # room for streams that outlast a reload
        "max_model_len": 16384,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 1024,
        # the number of events is the number of tokens
        "stream_interval": 1,
    },
    "pods": {"env": {"RAY_SERVE_HAPROXY_NBTHREAD": "1"}},
}


@contextmanager
def served(service: FaultService, state_dir: Path, report: Report) -> Iterator[Scene]:
    """Bring a service up on this machine; end it and everything beside it afterwards."""
    secrets: dict[tuple[str, str], str] = {}

    def up(**more: Any) -> runtime.Running:
        settings = laid_over(laid_over(SERVICE, service.settings), more)
        values = {"cluster": {"mode": "local"}, "services": {NAME: settings}}
        program = offline.record("faults", config=({full_key(name): json.dumps(value) for name, value in values.items()}, []))
        secrets.update(secret_values(render.secrets(program), state_dir))
        manifest = dict(RayService(render.ray_services(program)[0]).with_environment(store_variables).manifest)
        if service.two_nodes:
            # the head has CPUs for one replica
            manifest["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] = 1
        return runtime.up(manifest, state_dir=state_dir, secrets=secrets, report=report)

    def recorded() -> session.Session:
        current = session.load(state_dir)
        if current is None:
            raise runtime.LocalRuntimeError("the session is gone")
        return current

    with ExitStack() as ends:
        store_variables = ends.enter_context(redis()) if service.store else {}
        ends.callback(runtime.down, state_dir, report)
        url = up().url
        scene = Scene(recorded, url, NAME, secrets[api_key_secret(NAME), API_KEY_KEY], up)
        if service.two_nodes:
            node = ends.enter_context(second_node.joined(recorded()))
            url = node.url if service.clients_at_worker else url
            scene = Scene(recorded, url, NAME, scene.api_key, up, node)
            _put_a_replica_on(node, scene)
        yield scene


def _put_a_replica_on(node: WorkerNode, scene: Scene) -> None:
    """Have Serve start a second replica, which has room on `node` alone. Raises TimeoutError."""
    # not by `up`, which would restart a Ray that has too few CPUs of its own
    config = copy.deepcopy(dict(scene.session().sent))
    config["applications"][0]["deployments"][0]["num_replicas"] = 2
    api, give_up = serve_api(scene.session()), time.monotonic() + RECOVERY_SECONDS
    api.put(config)
    while not _both_serve(scene, api):
        if time.monotonic() > give_up or not node.runs():
            output = (node.folder / "output").read_text()[-2000:]
            raise TimeoutError(f"no replica on the second node within {RECOVERY_SECONDS:.0f} s. Its output: {output}")
        time.sleep(0.5)
    api.close()


def _both_serve(scene: Scene, api: ServeApi) -> bool:
    try:
        proxies = api.details().get("proxies") or {}
    except ServeUnreachable:
        return False
    haproxies = parts.haproxies(scene.session())
    ready = len(haproxies) == len(proxies) == 2 and all(proxy["status"] == "HEALTHY" for proxy in proxies.values())
    return ready and all(len(haproxy.up_ports()) == 2 for haproxy in haproxies) and scene.haproxy(of_worker=True) is not None


@contextmanager
def redis() -> Iterator[dict[str, str]]:
    """Run a redis-server on loopback for a head's GCS. Yields the variables that KubeRay sets for it.

    Source of the variables: ray-operator/controllers/ray/common/pod.go of KubeRay 1.7.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
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
