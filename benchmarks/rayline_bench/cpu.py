"""CPU-seconds of an arm by the role of its processes, processes that ended in between included.

A process's own time is utime + stime. The time of a process that has ended is in cutime + cstime of the ancestor that
waited for it (proc(5)); the supervisor of an arm inherits every orphan, so nothing leaves the tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

ENGINE, SERVER, ROUTER, HAPROXY = "engine", "replica", "router", "haproxy"
ENDED = "ended meanwhile"
OTHER = "other"

# Beginning of a process's title -> its role. First match wins; Ray's and vLLM's workers set their own titles.
ROLES: tuple[tuple[str, str], ...] = (
    ("VLLM::", ENGINE),
    ("vllm::router", ROUTER),
    ("ray::RayWorkerProc", ENGINE),
    ("ray::ServeReplica:llm:LLMRouter", ROUTER),
    ("ray::ServeReplica:llm_app:LLMRouter", ROUTER),
    ("ray::ServeReplica:llm:OpenAiIngress", "ingress"),
    ("ray::ServeReplica:llm_app:OpenAiIngress", "ingress"),
    ("ray::ServeReplica:echo:EchoIngress", "ingress"),
    ("ray::ServeReplica:recommender:RecommenderIngress", "ingress"),
    ("ray::ServeReplica", SERVER),
    ("ray::ServeController", "controller"),
    ("ray::HAProxyManager", "haproxy manager"),
    ("ray::ProxyActor", "python proxy"),
    ("ray::IDLE", "idle workers"),
    ("ray::DashboardAgent", "dashboard"),
    ("ray-dashboard", "dashboard"),
    ("ray::", "other Ray"),
)
# The same by a part of the command line.
COMMANDS: tuple[tuple[str, str], ...] = (
    ("vllm.entrypoints.openai.api_server", SERVER),
    ("vllm_router", ROUTER),
    ("vllm-router", ROUTER),
    ("/haproxy", HAPROXY),
    ("gcs_server", "gcs"),
    ("/raylet/raylet", "raylet"),
    ("/dashboard/", "dashboard"),
    ("runtime_env/agent", "dashboard"),
    ("ray/_private/log_monitor", "other Ray"),
    ("ray/autoscaler", "other Ray"),
    ("ray.scripts.scripts", "other Ray"),
    ("default_worker.py", "idle workers"),
    ("ray/", "other Ray"),
)


def role(title: str) -> str:
    """Return the role of a process by its command line, or the title that it gave itself."""
    for start, name in ROLES:
        if title.startswith(start):
            return name
    for part, name in COMMANDS:
        if part in title:
            return name
    return OTHER


@dataclass(frozen=True)
class Spent:
    """Seconds of CPU that a process has used up to now."""

    role: str
    own: float
    waited_for: float
    """Of descendants that have ended and were waited for."""


Snapshot = Mapping[tuple[int, float], Spent]
"""(pid, start time) -> CPU used since it started."""


def snapshot(processes: Iterable[psutil.Process]) -> dict[tuple[int, float], Spent]:
    """Return the CPU that `processes` have used."""
    used = {}
    for process in processes:
        try:
            with process.oneshot():
                times = process.cpu_times()
                title = " ".join(process.cmdline()).strip() or process.name()
                key = (process.pid, process.create_time())
            used[key] = Spent(role(title), times.user + times.system, times.children_user + times.children_system)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return used


def between(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """Return CPU-seconds by role from one snapshot to a later one of the same arm.

    Time of processes that ended in between is ENDED: the time that their ancestors waited for, less their time before.
    """
    seconds: dict[str, float] = {}
    ended = 0.0
    for key, now in after.items():
        then = before.get(key, Spent(now.role, 0.0, 0.0))
        seconds[now.role] = seconds.get(now.role, 0.0) + now.own - then.own
        ended += now.waited_for - then.waited_for
    ended -= sum(then.own + then.waited_for for key, then in before.items() if key not in after)
    if ended > 0:
        seconds[ENDED] = ended
    return {name: round(value, 3) for name, value in sorted(seconds.items(), key=lambda item: -item[1])}


def of_machine() -> float:
    """Return the seconds that all cores have worked; work for other virtual machines (steal) is in it."""
    times = psutil.cpu_times()._asdict()
    # guests' time is in the user's already
    return sum(seconds for name, seconds in times.items() if name not in ("idle", "iowait", "guest", "guest_nice"))
