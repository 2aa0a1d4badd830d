"""Starts an arm, stops the clock for it while another one is measured, and ends it.

An idle arm still uses CPU (Ray's background processes take several per cent of a core), so all but the measured one are
frozen: SIGSTOP to every process but the supervisor, SIGCONT when its turn comes. The supervisor runs on, so that an arm
ends with this process however that ends: it kills what is frozen, too.
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

import httpx
import psutil

from rayline_bench import processes
from rayline_bench.arms import ProcessArm
from rayline_bench.plan import Plan
from rayline_cli.clients.openai import NoAnswer, OpenAiClient
from rayline_cli.local import bundled_models, runtime, single_node, translate
from rayline_cli.local import session as sessions
from rayline_cli.local.environment import inherited_env
from rayline_cli.local.session import Session
from rayline_cli.local.supervisor import stand_behind_other_sessions
from rayline_cli.progress import Report

READY_SECONDS = 300.0
FREEZE_SECONDS = 10.0
RESUME_SECONDS = 60.0
POLL_SECONDS = 0.2


class ServerError(Exception):
    """An arm did not start, or did not come back; the message says why."""


@dataclass
class Server:
    """An arm that runs."""

    name: str
    url: str
    """Base URL, without /v1."""
    model_id: str
    api_key: str | None
    state_dir: Path
    session: Session
    leash: object
    """The arm ends with this process while it has this."""
    checks: list[dict[str, str]] = field(default_factory=list)
    """What rayline_cli.verify found, for arms of Ray."""
    probe: str = ""
    """A path to GET instead of asking a model, where the arm serves another application."""

    def processes(self) -> list[psutil.Process]:
        """Every process of the arm."""
        return self.session.processes()

    def memory_gib(self) -> float:
        """Proportional set size of all processes."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
        return total / 2**30

    def pause(self) -> None:
        """Freezes the arm. Raises ServerError if a process goes on."""
        give_up = time.monotonic() + FREEZE_SECONDS
        # Asked again until nobody is left: one that was just started is seen in the next round.
        while running := [process for process in self._freezable() if not _is_stopped(process)]:
            for process in running:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGSTOP)
            if time.monotonic() > give_up:
                raise ServerError(f"{self.name}: these processes do not freeze: {[p.pid for p in running]}")
            time.sleep(0.02)

    def resume(self) -> None:
        """Lets the arm run again; returns when it answers. Raises ServerError."""
        self._thaw()
        self.wait_until_it_answers(RESUME_SECONDS)

    def wait_until_it_answers(self, seconds: float) -> None:
        """Until one streamed completion came through, or one answer of another application. Raises ServerError."""
        give_up = time.monotonic() + seconds
        while True:
            try:
                if self.probe:
                    _get(self.url + self.probe, seconds)
                    return
                with OpenAiClient(self.url, self.api_key) as client:
                    client.ask(self.model_id, max_tokens=4, timeout_seconds=seconds)
                return
            except NoAnswer as error:
                if time.monotonic() > give_up:
                    raise ServerError(f"{self.name} does not answer within {seconds:.0f} s: {error}") from None
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Ends every process of the arm."""
        # A frozen process does not act on SIGTERM before it goes on.
        self._thaw()
        sessions.stop(self.session)
        self.leash = None

    def _freezable(self) -> list[psutil.Process]:
        return [process for process in self.processes() if process.pid != self.session.supervisor_pid]

    def _thaw(self) -> None:
        for process in self._freezable():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


def start(plan: Plan, label: str, report: Report) -> Server:
    """Start an arm and wait until it answers; what an earlier run left of it is ended first.

    Raises ServerError or LocalRuntimeError. If it fails, nothing of it is left running.
    """
    built, state_dir = plan.built[label], plan.state_dir / label.replace("@", "-")
    if (old := sessions.load(state_dir)) is not None:
        sessions.stop(old)
    if isinstance(built, ProcessArm):
        return _start_processes(plan, label, built, state_dir, report)
    running = runtime.up(built.manifest, state_dir=state_dir, secrets=plan.secrets, report=report, outlives_caller=False)
    session = sessions.load(state_dir)
    assert session is not None
    key = translate.api_key(single_node.read(built.manifest), plan.secrets)
    checks = [
        {"name": check.name, "outcome": check.outcome.value, "evidence": check.evidence, "fix": check.fix}
        for check in running.checks
    ]
    probe = plan.application.probe if plan.application else ""
    return Server(label, running.url, plan.model_id, key, state_dir, session, running.leash, checks, probe)


def model_folder(source: str, report: Report | None = None) -> str:
    """Return the folder of a bundled model, or the source itself."""
    folder = bundled_models.prepare(source, bundled_models.default_cache_dir(), report or _Silent())
    return str(folder or source)


class _Silent:
    def phase(self, name: str, detail: str) -> None: ...
    def done(self, name: str, seconds: float, detail: str) -> None: ...
    def note(self, text: str) -> None: ...


def _start_processes(plan: Plan, label: str, arm: ProcessArm, state_dir: Path, report: Report) -> Server:
    model = model_folder(plan.model_source, report)
    ports = free_ports([name for process in arm.processes for name in (process.name, *process.more_ports)])
    places = {"python": sys.executable, "model": model, **ports}
    steps = [
        {
            "name": process.name,
            "argv": [filled(part, places) for part in process.argv],
            "env": dict(process.env),
            "ready": f"http://127.0.0.1:{ports[process.name]}{process.ready}",
        }
        for process in arm.processes
    ]
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = sessions.session_folder(state_dir)
    sessions.make_folder(folder)
    (folder / "plan.json").write_text(json.dumps(steps))
    env = inherited_env(os.environ)
    env |= {"PATH": os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "/usr/bin:/bin")])}
    env |= {"HF_HUB_OFFLINE": "1"} if model != plan.model_source else {}
    started = time.monotonic()
    starting = sessions.start(
        [sys.executable, "-P", processes.__file__, str(folder / "plan.json")],
        session_id=sessions.new_id(),
        state_dir=state_dir,
        folder=folder,
        env=env,
        ports={"serve": ports[arm.endpoint]},
        restart_key="",
        salt="",
        num_cpus=0,
    )
    url = f"http://127.0.0.1:{ports[arm.endpoint]}"
    server = Server(label, url, plan.model_id, None, state_dir, starting.session, starting)
    try:
        for step in steps:
            _wait_ready(server.session, step["ready"], report, step["name"])
            report.done(step["name"], time.monotonic() - started, " ".join(step["argv"][1:4]))
        server.wait_until_it_answers(READY_SECONDS)
        stand_behind_other_sessions(server.session.supervisor_pid)  # as `up` does with an arm of Ray
    except BaseException:
        server.stop()
        raise
    return server


def _get(url: str, seconds: float) -> None:
    """Raises NoAnswer unless it is answered well."""
    try:
        answer = httpx.get(url, timeout=seconds, trust_env=False)
    except httpx.HTTPError as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from None
    if answer.status_code != 200:
        raise NoAnswer(f"HTTP {answer.status_code}: {answer.text[:200]}")


def _wait_ready(session: Session, url: str, report: Report, name: str) -> None:
    give_up = time.monotonic() + READY_SECONDS
    with httpx.Client(timeout=10, trust_env=False) as client:
        while True:
            with suppress(httpx.HTTPError):
                if client.get(url).status_code == 200:
                    return
            if session.supervisor() is None:
                raise ServerError(f"{name} has ended. Its last words:\n{_tail(session.output)}")
            if time.monotonic() > give_up:
                raise ServerError(f"{url} does not answer after {READY_SECONDS:.0f} s:\n{_tail(session.output)}")
            report.phase(name, f"{url} does not answer yet")
            time.sleep(POLL_SECONDS)


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join(lines[-20:])


def filled(text: str, places: Mapping[str, Any]) -> str:
    # not str.format: arguments may hold JSON
    for name, value in places.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def free_ports(names: Iterable[str]) -> dict[str, int]:
    """A free port on the loopback address for each name."""
    with ExitStack() as held:
        sockets = {name: held.enter_context(socket.socket()) for name in names}
        for one in sockets.values():
            one.bind(("127.0.0.1", 0))
        return {name: one.getsockname()[1] for name, one in sockets.items()}


def _is_stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
