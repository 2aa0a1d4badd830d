"""Starts an arm, freezes it while another one is measured, and ends it.

An idle arm still uses CPU (Ray's background processes take several per cent of a core), so all but the measured one are
frozen: SIGSTOP to every process but the supervisor, SIGCONT when its turn comes. The supervisor runs on, so that an arm
ends with this process however that ends: SIGKILL reaches frozen processes, too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from rayline_bench import processes
from rayline_bench.arms import ProcessArm
from rayline_bench.errors import BenchError
from rayline_bench.plan import BenchPlan
from rayline_cli.clients.openai import NoAnswer, OpenAiClient
from rayline_cli.local import bundled_models, diagnosis, runtime, single_node, translate
from rayline_cli.local import session as sessions
from rayline_cli.local.deploying import address
from rayline_cli.local.environment import process_env
from rayline_cli.local.session import Session
from rayline_cli.local.supervisor import stand_behind_other_sessions
from rayline_cli.progress import Report

READY_SECONDS = 300.0
"""Of each process of an arm, which starts when the previous process answers."""
FREEZE_SECONDS = 10.0
RESUME_SECONDS = 60.0
POLL_SECONDS = 0.2


@dataclass
class Server:
    """An arm that runs."""

    name: str
    url: str
    """Base URL, without /v1."""
    model_id: str
    api_key: str | None
    session: Session
    leash: object
    """The arm ends with this process while it has this."""
    checks: list[dict[str, str]] = field(default_factory=list)
    """The checks of rayline_cli.verify, for arms of Ray."""
    probe: str = ""
    """A path to GET in place of a question to a model, where the arm serves another application."""

    def processes(self) -> list[psutil.Process]:
        """Return every process of the arm."""
        return self.session.processes()

    def memory_gib(self) -> float:
        """Return the proportional set size of all processes."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total / 2**30

    def pause(self) -> None:
        """Freeze the arm. Raises BenchError if a process continues."""
        give_up = time.monotonic() + FREEZE_SECONDS
        # until none is left: a process that was just started is seen in the next round
        while running := [process for process in self._freezable() if not _is_stopped(process)]:
            _signal(running, signal.SIGSTOP)
            if time.monotonic() > give_up:
                raise BenchError(f"{self.name}: these processes do not freeze: {[p.pid for p in running]}")
            time.sleep(0.02)

    def resume(self) -> None:
        """Let the arm run again; return when it answers. Raises BenchError."""
        _signal(self._freezable(), signal.SIGCONT)
        self.wait_until_it_answers(RESUME_SECONDS)

    def wait_until_it_answers(self, seconds: float, path: str = "") -> None:
        """Return after one streamed completion, or one answer at `path` or the probe. Raises BenchError."""
        give_up, path = time.monotonic() + seconds, path or self.probe
        with OpenAiClient(self.url, self.api_key) as client:
            while True:
                try:
                    if path:
                        client.get(path)
                    else:
                        client.ask(self.model_id, max_tokens=4, timeout_seconds=seconds)
                    return
                except NoAnswer as error:
                    if self.session.supervisor() is None:
                        raise BenchError(f"{self.name} has ended:\n{diagnosis.last_words(self.session)}") from None
                    if time.monotonic() > give_up:
                        raise BenchError(f"{self.name} does not answer within {seconds:.0f} s: {error}") from None
                time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End every process of the arm."""
        # A frozen process does not act on SIGTERM before it continues.
        _signal(self._freezable(), signal.SIGCONT)
        sessions.stop(self.session)
        self.leash = None

    def _freezable(self) -> list[psutil.Process]:
        return [process for process in self.processes() if process.pid != self.session.supervisor_pid]


def _signal(running: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in running:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def start(plan: BenchPlan, label: str, report: Report) -> Server:
    """Start an arm and wait until it answers; end an earlier run's arm of this name first.

    Raises BenchError or LocalRuntimeError. If it fails, nothing of it is left running.
    """
    built, state_dir = plan.built[label], plan.state_dir / label.replace("@", "-")
    if (old := sessions.load(state_dir)) is not None:
        sessions.stop(old)
    if isinstance(built, ProcessArm):
        return _start_processes(plan, label, built, state_dir, report)
    running = runtime.up(built.manifest, state_dir=state_dir, secrets=plan.secrets, report=report, outlives_caller=False)
    session = sessions.load(state_dir)
    assert session is not None
    key = next(iter(translate.api_keys(single_node.read(built.manifest), plan.secrets).values()), None)
    checks = [
        {"name": check.name, "outcome": check.outcome.value, "evidence": check.evidence, "fix": check.fix}
        for check in running.checks
    ]
    probe = plan.application.probe if plan.application else ""
    return Server(label, running.url, plan.model_id, key, session, running.leash, checks, probe)


def model_folder(source: str) -> str:
    """Return the folder of a model on this machine, or the source itself."""
    return str(bundled_models.folder_of(source, bundled_models.default_cache_dir()) or source)


def _start_processes(plan: BenchPlan, label: str, arm: ProcessArm, state_dir: Path, report: Report) -> Server:
    source = plan.configuration.model
    model = str(bundled_models.prepare(source, bundled_models.default_cache_dir(), report) or source)
    ports = free_ports([name for process in arm.processes for name in (process.name, *process.more_ports)])
    places = {"python": sys.executable, "model": model, **ports}
    steps = [
        {
            "name": process.name,
            "argv": [filled(part, places) for part in process.argv],
            "env": dict(process.env),
            "ready": address(ports[process.name]) + processes.READY_PATH,
        }
        for process in arm.processes
    ]
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = sessions.session_folder(state_dir)
    sessions.make_folder(folder)
    (folder / "plan.json").write_text(json.dumps(steps))
    offline = {"HF_HUB_OFFLINE": "1"} if model != source else {}
    eager = any("--enforce-eager" in process.argv for process in arm.processes)
    endpoint = ports[arm.processes[-1].name]
    started = time.monotonic()
    starting = sessions.start(
        [sys.executable, "-P", processes.__file__, str(folder / "plan.json")],
        session_id=sessions.new_id(),
        state_dir=state_dir,
        folder=folder,
        env=process_env(os.environ, offline, str(Path(sys.executable).parent), compiles=not eager),
        ports={"serve": endpoint},
        restart_key="",
        salt="",
        num_cpus=0,
    )
    server = Server(label, address(endpoint), plan.model_id, None, starting.session, starting)
    try:
        report.phase("processes", f"{', '.join(process.name for process in arm.processes)} start, one after the other")
        server.wait_until_it_answers(READY_SECONDS * len(steps), processes.READY_PATH)
        server.wait_until_it_answers(READY_SECONDS)
        report.done("processes", time.monotonic() - started, f"{len(steps)} of {label}")
        stand_behind_other_sessions(server.session.supervisor_pid)  # as `up` does with an arm of Ray
    except BaseException:
        server.stop()
        raise
    return server


def filled(text: str, places: Mapping[str, Any]) -> str:
    """Return a text with a value for each {NAME}. Not str.format: arguments may hold JSON."""
    for name, value in places.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def free_ports(names: Iterable[str]) -> dict[str, int]:
    """Return a free port on the loopback address for each name."""
    with ExitStack() as held:
        sockets = {name: held.enter_context(socket.socket()) for name in names}
        for each in sockets.values():
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in sockets.items()}


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
