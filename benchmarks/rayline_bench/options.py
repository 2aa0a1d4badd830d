"""From the options of `rayline bench` to arms and loads. Every mistake of a command comes at once."""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

from . import goals
from .arm_files import arm_of_file
from .arms import ARMS, Arm
from .cli import Options
from .errors import BenchUsageError, Mistakes
from .workloads import WORKLOADS, Load

OF_THE_CALL = {"receipt", "config_file", "as_json", "dry_run"}
"""Options of one call. The others are of the run, and a receipt keeps them."""


@dataclass(frozen=True)
class ChosenArm:
    """An arm of --arms."""

    arm: Arm
    replicas: int = 1

    @property
    def label(self) -> str:
        """Return NAME, or NAME@REPLICAS."""
        return self.arm.name + suffix(self.replicas)


def suffix(replicas: int) -> str:
    """Return the end of the label of an arm with so many replicas."""
    return f"@{replicas}" if replicas > 1 else ""


def flags(names: Set[str]) -> str:
    """Return options as they are typed."""
    return ", ".join("--json" if name == "as_json" else "--" + name.replace("_", "-") for name in sorted(names))


def with_preset(options: Options, given: Set[str]) -> Options:
    """Return the options with those of their preset. Raises BenchUsageError."""
    if not options.preset:
        return options
    if options.preset not in goals.RUNS:
        raise BenchUsageError(f"--preset {options.preset}: there is no such preset. Fix: one of {', '.join(goals.RUNS)}")
    run = goals.RUNS[options.preset]
    decided = {
        "arms": ",".join(name + suffix(run.replicas) for name in run.arms),
        "workloads": run.load.workload,
        "concurrency": ",".join(map(str, run.load.concurrencies)),
        "requests": run.load.requests,
    }
    if others := given & decided.keys():
        raise BenchUsageError(f"--preset {options.preset}: it decides on them. Fix: leave out {flags(others)}")
    return replace(options, repeats=max(options.repeats, goals.REPEATS), preset="", **decided)


def read(options: Options) -> tuple[list[ChosenArm], list[Load]]:
    """Return the arms, the baseline first, and the loads that the options choose. Raises BenchUsageError, which names every mistake."""
    mistakes, chosen, loads = Mistakes(), [], []
    with mistakes.collected():
        for text in _names("--arms", options.arms):
            with mistakes.collected():
                chosen.append(_arm(text))
    labels = [arm.label for arm in chosen]
    if len(set(labels)) < len(labels):
        mistakes.append(f"--arms {options.arms}: a name is there twice. Fix: name it once")
    elif chosen:
        # each ratio is between arms with as many replicas
        bases = [chosen[0].arm.name + suffix(arm.replicas) for arm in chosen]
        if missing := [base for base in bases if base not in labels]:
            mistakes.append(f"--arms {options.arms}: the baseline {missing[0]} is missing. Fix: name it, too")
    with mistakes.collected():
        loads = read_loads(options)
    if options.repeats < 1:
        mistakes.append(f"--repeats {options.repeats}: too few. Fix: at least 1")
    mistakes.refuse()
    return chosen, loads


def read_loads(options: Options) -> list[Load]:
    """Return the loads that the options choose. Raises BenchUsageError, which names every mistake."""
    mistakes, names, streams = Mistakes(), [], []
    with mistakes.collected():
        names = _names("--workloads", options.workloads)
    if unknown := [name for name in names if name not in WORKLOADS]:
        mistakes.append(f"--workloads {', '.join(unknown)}: there is no such workload. Fix: one of {', '.join(WORKLOADS)}")
    if options.concurrency != "workload":
        with mistakes.collected():
            streams = _numbers("--concurrency", options.concurrency)
    if options.requests < 0:
        mistakes.append(f"--requests {options.requests}: too few. Fix: at least 1, or 0 for each workload's own")
    loads = [
        Load(workload, concurrency, options.requests or workload.requests)
        for workload in (WORKLOADS[name] for name in names if name in WORKLOADS)
        for concurrency in streams or workload.concurrencies
    ]
    for load in loads:
        if 0 < load.requests < load.concurrency:
            mistakes.append(
                f"--requests {load.requests}: too few for {load.concurrency} streams. Fix: at least {load.concurrency}"
            )
    mistakes.refuse()
    return loads


def _arm(text: str) -> ChosenArm:
    """Read NAME, NAME@REPLICAS, NAME=FILE or NAME@REPLICAS=FILE."""
    label, equals, file = text.partition("=")
    name, at, count = label.partition("@")
    cores = len(os.sched_getaffinity(0))
    replicas = int(count) if count.isdigit() else 0 if at else 1
    if not 1 <= replicas <= cores:
        raise BenchUsageError(
            f"--arms {text}: not a number of replicas. Fix: after @ a number from 1 to {cores} (the cores of this machine)"
        )
    if not equals:
        if name not in ARMS:
            raise BenchUsageError(f"--arms {text}: there is no such arm. Fix: one of {', '.join(ARMS)}, or NAME=FILE")
        return ChosenArm(ARMS[name], replicas)
    if name in ARMS or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise BenchUsageError(f"--arms {text}: it is no new name. Fix: NAME=FILE, for example quiet=quiet.yaml")
    try:
        return ChosenArm(arm_of_file(name, Path(file).read_text()), replicas)
    except OSError as error:
        raise BenchUsageError(f"--arms {text}: {error.strerror}: {file}. Fix: name a file that can be read") from None


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchUsageError(f"{option}: it names nothing. Fix: one or more names with commas between them")
    if len(set(names)) < len(names):
        raise BenchUsageError(f"{option} {text}: a name is there twice. Fix: name it once")
    return names


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdigit() and int(part) for part in parts) or len(set(parts)) < len(parts):
        raise BenchUsageError(
            f"{option} {text}: not such a list. Fix: whole numbers from 1, each once, with commas between them"
        )
    return [int(part) for part in parts]
