"""Pure: the environment of Ray's processes on this machine, from the caller's, the manifest's, and longer time-outs."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from rayline_cli.local.ports import LOOPBACK

INHERITED_PREFIXES_DROPPED = ("RAY_", "RAYLLM_", "VLLM_", "RAYLINE_SESSION")


START_TIMEOUTS: Mapping[str, str] = {
    # until the dashboard answers (60 s), and each of its modules (30 s)
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "ray/_private/ray_constants.py",
    "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "ray/dashboard/consts.py",
    # until the raylet has registered (30 s): the defaults of ray_config_def.h are compiled into both files
    "RAY_raylet_start_wait_time_s": "ray/_raylet.so",
    "RAY_agent_register_timeout_ms": "ray/core/src/ray/raylet/raylet",
    # until a worker's process has registered (60 s); otherwise it is killed and started again
    "RAY_worker_register_timeout_seconds": "ray/core/src/ray/raylet/raylet",
    # until HAProxyManager answers (5 s), and HAProxy its manager (30 s); three such waits, and the manager is started again
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "ray/serve/_private/constants.py",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "ray/serve/_private/constants.py",
    # until the engine's process is ready (600 s)
    "VLLM_ENGINE_READY_TIMEOUT_S": "vllm/envs.py",
}
"""Time-outs that end a start that is merely slow -> the file in site-packages that reads the variable.

Each of them is an hour here unless the manifest declares it: `up` watches whether something moves (waiting.py)."""


def start_timeouts() -> dict[str, str]:
    """Return START_TIMEOUTS as variables, each an hour in its own unit."""
    return {name: "3600000" if name.endswith("_ms") else "3600" for name in START_TIMEOUTS}


def inherited_env(environ: Mapping[str, str], *, compiles: bool = False) -> dict[str, str]:
    """Return the part of the caller's environment that Ray's processes inherit. `compiles`: an engine runs without enforce_eager."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(INHERITED_PREFIXES_DROPPED) and name not in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    }
    # gRPC and urllib honour a proxy variable even for 127.0.0.1.
    for name in ("no_proxy", "NO_PROXY"):
        kept[name] = ",".join(filter(None, [environ.get(name), LOOPBACK, "localhost"]))
    if not compiles or not can_compile(environ):
        kept.setdefault("TORCH_COMPILE_DISABLE", "1")
    return kept


def process_env(
    environ: Mapping[str, str], declared: Mapping[str, str], programs: str, *, compiles: bool = False
) -> dict[str, str]:
    """Return the whole environment of Ray's processes: the caller's, overlaid with the declared variables.

    `programs` is this Python's folder of programs: some of Ray's helpers look for `python` and `ray` on PATH.
    """
    inherited = inherited_env(environ, compiles=compiles)
    env = {**inherited, **declared}
    env["PATH"] = os.pathsep.join([programs, env.get("PATH", "/usr/bin:/bin")])
    for name in ("no_proxy", "NO_PROXY"):
        both = f"{declared.get(name, '')},{inherited[name]}".split(",")
        env[name] = ",".join(dict.fromkeys(filter(None, both)))
    return env


def can_compile(environ: Mapping[str, str]) -> bool:
    """Return whether torch.compile finds a C++ compiler ($CXX or g++, as torch looks for them) and Python's headers."""
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return shutil.which(environ.get("CXX") or "g++", path=environ.get("PATH", "")) is not None and headers.exists()
