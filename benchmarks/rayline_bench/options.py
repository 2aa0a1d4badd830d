"""From the options of `rayline bench` to arms and loads. Every mistake of a command is said at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import goals
from .arm_files import overlaid, read_overlay
from .arms import ARMS, Arm, ArmError
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
    service: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the stack's service, for an arm of a file."""

    @property
    def label(self) -> str:
        return self.arm.name + suffix(self.replicas)


@dataclass(frozen=True)
class Chosen:
    """What one run measures on this machine."""

    arms: Sequence[ChosenArm]
    loads: Sequence[Load]

    @property
    def base(self) -> str:
        """Return the name of the baseline arm."""
        return self.arms[0].arm.name

    @property
    def replicas(self) -> list[int]:
        """Return the numbers of replicas, each once."""
        return list(dict.fromkeys(one.replicas for one in self.arms))


def suffix(replicas: int) -> str:
    """Return what the label of an arm with so many replicas ends with."""
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
        "workloads": goals.WORKLOAD,
        "concurrency": ",".join(map(str, goals.CONCURRENCIES)),
        "requests": goals.REQUESTS,
    }
    if others := given & decided.keys():
        raise BenchUsageError(f"--preset {options.preset}: it decides on them. Fix: leave out {flags(others)}")
    return replace(options, repeats=max(options.repeats, goals.REPEATS), preset="", **decided)


def read(options: Options) -> Chosen:
    """Return the arms and loads that the options choose. Raises BenchUsageError, which names every mistake."""
    mistakes = Mistakes()
    arms = [one for text in mistakes.of(_names, "--arms", options.arms) or [] if (one := mistakes.of(_arm, text))]
    labels = [one.label for one in arms]
    if arms and len(set(labels)) == len(labels):
        # each ratio is between arms with as many replicas
        wanted = [arms[0].arm.name + suffix(count) for count in dict.fromkeys(one.replicas for one in arms)]
        if missing := [label for label in wanted if label not in labels]:
            mistakes.add(f"--arms {options.arms}: the baseline {missing[0]} is missing. Fix: name it, too")
    elif arms:
        mistakes.add(f"--arms {options.arms}: a name is there twice")
    loads = mistakes.of(read_loads, options) or []
    if options.repeats < 1:
        mistakes.add(f"--repeats {options.repeats}: at least 1")
    mistakes.refuse()
    return Chosen(arms, loads)


def read_loads(options: Options) -> list[Load]:
    """Return the loads that the options choose. Raises BenchUsageError, which names every mistake."""
    loads, mistakes = [], Mistakes()
    names = mistakes.of(_names, "--workloads", options.workloads) or []
    if unknown := [name for name in names if name not in WORKLOADS]:
        mistakes.add(f"--workloads {', '.join(unknown)}: there is {', '.join(WORKLOADS)}")
    own = options.concurrency == "workload"
    streams = [] if own else mistakes.of(_numbers, "--concurrency", options.concurrency) or []
    if options.requests < 0:
        mistakes.add(f"--requests {options.requests}: at least 1, or 0 for each workload's own")
    for workload in [WORKLOADS[name] for name in names if name in WORKLOADS]:
        for concurrency in streams or workload.concurrencies:
            requests = options.requests or workload.requests
            if 0 < requests < concurrency:
                mistakes.add(f"--requests {requests}: at {concurrency} streams at least {concurrency} are needed")
            loads.append(Load(workload, concurrency, requests))
    mistakes.refuse()
    return loads


def _arm(text: str) -> ChosenArm:
    """Read NAME, NAME@REPLICAS, NAME=FILE or NAME@REPLICAS=FILE."""
    label, equals, file = text.partition("=")
    name, at, count = label.partition("@")
    cores = len(os.sched_getaffinity(0))
    replicas = int(count) if count.isdigit() else 0 if at else 1
    if not 1 <= replicas <= cores:
        raise BenchUsageError(f"--arms {text}: after @ stands a number of replicas, 1 to {cores} (the cores of this machine)")
    if not equals:
        if name not in ARMS:
            raise BenchUsageError(f"--arms {text}: there is {', '.join(ARMS)}. Fix: one of them, or NAME=FILE")
        return ChosenArm(ARMS[name], replicas)
    if name in ARMS or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise BenchUsageError(f"--arms {text}: it is no new name. Fix: NAME=FILE, for example quiet=quiet.yaml")
    try:
        overlay = read_overlay(name, Path(file).read_text())
    except OSError as error:
        raise BenchUsageError(f"--arms {text}: {error.strerror}: {file}") from None
    except ArmError as error:
        raise BenchUsageError(f"--arms {text}: {error}") from None
    return ChosenArm(overlaid(overlay), replicas, overlay.service)


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchUsageError(f"{option}: it names nothing")
    if len(set(names)) < len(names):
        raise BenchUsageError(f"{option} {text}: a name is there twice")
    return names


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdigit() and int(part) for part in parts) or len(set(parts)) < len(parts):
        raise BenchUsageError(f"{option} {text}: whole numbers from 1, each once, with commas between them")
    return [int(part) for part in parts]
