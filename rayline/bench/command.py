"""`rayline bench`: from its options' texts to a run, and its result to the terminal."""

from __future__ import annotations

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from rayline.bench import receipt as receipts
from rayline.bench import report, run
from rayline.bench.arms import ARMS, ArmError, Overlay, read_overlay
from rayline.bench.errors import BenchUsageError
from rayline.bench.workloads import WORKLOADS
from rayline.local.report import terminal_report


@dataclass(frozen=True)
class Values:
    """The command line's, as texts."""

    stack: str
    arms: str
    overlays: Sequence[str]
    base: str
    workloads: str
    concurrency: str
    requests: int
    repeats: int
    replicas: str
    model: str
    engine: Sequence[str]
    receipt: pathlib.Path | None
    resume: pathlib.Path | None
    as_json: bool


def options(values: Values) -> run.Options:
    """Raises BenchUsageError."""
    overlays = [_overlay(text) for text in values.overlays]
    names = _names("--arms", values.arms)
    names += [overlay.name for overlay in overlays if overlay.name not in names]
    return run.Options(
        stack=values.stack,
        model=values.model,
        arms=names,
        overlays=overlays,
        base=values.base,
        workloads=_names("--workloads", values.workloads),
        concurrency=[] if values.concurrency == "workload" else _numbers("--concurrency", values.concurrency),
        requests=values.requests or None,
        repeats=values.repeats,
        replicas=_numbers("--replicas", values.replicas),
        engine=dict(_setting(text) for text in values.engine),
    )


def bench(values: Values, state: pathlib.Path, console: Console) -> int:
    """Runs it, shows it; the exit code. Raises BenchError, BenchUsageError and what rendering the stack raises."""
    plan = _prepared(values, state)
    if values.resume:
        try:
            found, path = receipts.read(values.resume), values.resume
            receipts.resumable(found, plan.configuration)
        except receipts.ReceiptError as error:
            raise BenchUsageError(f"--resume: {error}") from None
        found.repeats = max(found.repeats, values.repeats)
        found.interrupted += 1
        found.ended_at = None
    else:
        path = values.receipt or state / "bench" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
        available = psutil.virtual_memory().available / 2**30 - run.MEMORY_KEPT_GIB
        command = shlex.join(["rayline", *sys.argv[1:]])
        found = run.new_receipt(plan, values.repeats, plan.groups(available), command)
        found.write(path)
    with terminal_report() as progress:
        if len(found.groups) > 1:
            progress.note(f"not all arms fit into memory at once: {' | '.join(', '.join(g) for g in found.groups)}")
        progress.note(f"receipt: {path} (if this is stopped: the same command with --resume {path})")
        run.measure(plan, found, path, progress)
    if values.as_json:
        print(json.dumps({"receipt": str(path), "results": report.summary_json(found)}, indent=2))
    else:
        for table in report.tables(found):
            console.print(table)
        console.print(f"receipt: {path}", soft_wrap=True, markup=False)
    return 1 if any(point.failed for point in found.points) else 0


def show(values: Values, state: pathlib.Path, console: Console) -> int:
    """The arms and what each has differently from the base arm; the workloads."""
    plan = _prepared(values, state)
    if values.as_json:
        arms = {
            label: {"what": plan.what[label], "facts": built.facts(), "differences": plan.differences(label)}
            for label, built in plan.built.items()
        }
        print(json.dumps({"arms": arms, "loads": plan.configuration.loads}, indent=2, default=str))
        return 0
    for label in plan.built:
        console.print(f"[bold]{label}[/]  {plan.what[label]}, about {plan.memory_gib[label]:.1f} GiB", highlight=False)
        for line in plan.differences(label):
            console.print(f"    {line}", markup=False, soft_wrap=True)
    others = [arm for name, arm in ARMS.items() if name not in plan.built]
    if others:
        console.print("\nother arms")
        for arm in others:
            console.print(f"  {arm.name:<16} {arm.what}", markup=False)
    table = Table(title="workloads", title_justify="left")
    for column in ("name", "what", "streams", "requests"):
        table.add_column(column)
    for workload in WORKLOADS.values():
        streams = ", ".join(map(str, workload.concurrencies))
        table.add_row(workload.name, workload.what, streams, str(workload.requests))
    console.print(table)
    return 0


def _prepared(values: Values, state: pathlib.Path) -> run.Plan:
    try:
        return run.prepare(options(values), state / "bench")
    except ArmError as error:
        raise BenchUsageError(str(error)) from None


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise BenchUsageError(f"{option}: it names nothing")
    if len(set(names)) < len(names):
        raise BenchUsageError(f"{option} {text}: a name is there twice")
    return names


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
        raise BenchUsageError(f"{option} {text}: whole numbers from 1, each once, with commas between them")
    return numbers


def _setting(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BenchUsageError(f"--engine {text}: NAME=VALUE, for example max_num_seqs=256")
    return name, yaml.safe_load(value)


def _overlay(text: str) -> Overlay:
    name, equals, file = text.partition("=")
    if not equals or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise BenchUsageError(f"--arm {text}: NAME=FILE, for example --arm quiet=quiet.yaml")
    try:
        return read_overlay(name, pathlib.Path(file).read_text())
    except OSError as error:
        raise BenchUsageError(f"--arm {text}: {error.strerror}: {file}") from None
    except ArmError as error:
        raise BenchUsageError(str(error)) from None
