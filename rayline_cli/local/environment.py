"""Pure: the environment of Ray's processes on this machine, from the caller's, the manifest's, and longer time-outs."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rayline_cli.local.ports import LOOPBACK

INHERITED_PREFIXES_DROPPED = ("RAY_", "RAYLLM_", "VLLM_", "RAYLINE_SESSION")


@dataclass(frozen=True)
class StartTimeout:
    """A time-out of Ray, Serve or vLLM that ends a start that is merely slow."""

    variable: str
    default_seconds: float
    source: str
    """The file that reads the variable, in site-packages."""
    per_second: int = 1
    """What the variable counts in: 1000 for milliseconds."""


START_TIMEOUTS: tuple[StartTimeout, ...] = (
    # until the dashboard answers, and each of its modules
    StartTimeout("RAY_DASHBOARD_STARTUP_TIMEOUT_S", 60, "ray/_private/ray_constants.py"),
    StartTimeout("RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT", 30, "ray/dashboard/consts.py"),
    # until the raylet has registered: the defaults of ray_config_def.h are compiled into both files
    StartTimeout("RAY_raylet_start_wait_time_s", 30, "ray/_raylet.so"),
    StartTimeout("RAY_agent_register_timeout_ms", 30, "ray/core/src/ray/raylet/raylet", per_second=1000),
    # until a worker's process has registered; it is killed and started anew else
    StartTimeout("RAY_worker_register_timeout_seconds", 60, "ray/core/src/ray/raylet/raylet"),
    # until HAProxyManager answers, and HAProxy its manager; three such waits, and the manager is started anew
    StartTimeout("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", 5, "ray/serve/_private/constants.py"),
    StartTimeout("RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S", 30, "ray/serve/_private/constants.py"),
    # until the engine's process is ready
    StartTimeout("VLLM_ENGINE_READY_TIMEOUT_S", 600, "vllm/envs.py"),
)
"""Each of them is an hour here unless the manifest declares it: `up` watches whether something moves (waiting.py)."""
_START_TIMEOUT_SECONDS = 3600


def start_timeouts() -> dict[str, str]:
    """Return START_TIMEOUTS as variables, each an hour in its own unit."""
    return {one.variable: str(_START_TIMEOUT_SECONDS * one.per_second) for one in START_TIMEOUTS}


def inherited_env(environ: Mapping[str, str]) -> dict[str, str]:
    """What Ray's processes get of the caller's environment."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(INHERITED_PREFIXES_DROPPED) and name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    }
    # gRPC and urllib honour a proxy variable even for 127.0.0.1.
    for name in ("no_proxy", "NO_PROXY"):
        kept[name] = ",".join(filter(None, [environ.get(name), LOOPBACK, "localhost"]))
    if not can_compile(environ):
        kept.setdefault("TORCH_COMPILE_DISABLE", "1")
    return kept


def process_env(environ: Mapping[str, str], declared: Mapping[str, str], programs: str) -> dict[str, str]:
    """The whole environment of Ray's processes: the caller's, and over it what the manifest and `translate` say.

    `programs` is this Python's folder of programs: some of Ray's helpers look for `python` and `ray` on PATH.
    """
    inherited = inherited_env(environ)
    env = {**inherited, **declared}
    env["PATH"] = os.pathsep.join([programs, env.get("PATH", "/usr/bin:/bin")])
    for name in ("no_proxy", "NO_PROXY"):
        both = f"{declared.get(name, '')},{inherited[name]}".split(",")
        env[name] = ",".join(dict.fromkeys(filter(None, both)))
    return env


def can_compile(environ: Mapping[str, str]) -> bool:
    """Whether torch.compile finds what it needs for the CPU: $CXX or g++, as torch looks for them, and Python's headers."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return shutil.which(environ.get("CXX") or "g++", path=environ.get("PATH", "")) is not None and headers.exists()
