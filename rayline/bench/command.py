"""`rayline bench`: from its options' texts to a run, and its result to the terminal."""

from __future__ import annotations

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import psutil
import yaml
from rich.console import Console
from rich.table import Table

from rayline import offline, place
from rayline.bench import cluster_job, cluster_run, page, report, run
from rayline.bench import receipt as receipts
from rayline.bench.arms import ARMS, DEFAULT_ARMS, DEFAULT_BASE, ArmError, Overlay, read_overlay
from rayline.bench.errors import BenchUsageError, Mistakes
from rayline.bench.workloads import WORKLOADS
from rayline.local import session
from rayline.local.report import Report, terminal_report
from rayline.render import dump
from rayline.stack_files import read_stack


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
    """0, with `resume`: as many as the receipt has."""
    replicas: str
    model: str
    engine: Sequence[str]
    receipt: pathlib.Path | None
    resume: pathlib.Path | None
    as_json: bool
    service: str = ""
    """For a stack in a cluster that has several."""
    config_file: pathlib.Path | None = None
    """The stack's file, if it lies elsewhere."""


def options(values: Values) -> run.Options:
    """Raises BenchUsageError, which names every mistake."""
    mistakes = Mistakes()
    overlays = [one for text in values.overlays if (one := mistakes.of(_overlay, text))]
    names = mistakes.of(_names, "--arms", values.arms) or []
    names += [overlay.name for overlay in overlays if overlay.name not in names]
    given = run.Options(
        stack=values.stack,
        config_file=values.config_file,
        model=values.model,
        arms=names,
        overlays=overlays,
        base=values.base,
        workloads=mistakes.of(_names, "--workloads", values.workloads) or [],
        concurrency=[]
        if values.concurrency == "workload"
        else mistakes.of(_numbers, "--concurrency", values.concurrency) or [],
        requests=values.requests or None,
        repeats=values.repeats,
        replicas=mistakes.of(_numbers, "--replicas", values.replicas) or [],
        engine=dict(one for text in values.engine if (one := mistakes.of(_setting, text))),
    )
    mistakes.of(run.chosen_arms, given)
    mistakes.of(run.read_loads, given)
    mistakes.of(run.check_numbers, given)
    mistakes.refuse()
    return given


def bench(values: Values, state: pathlib.Path, console: Console) -> int:
    """Runs it, shows it; the exit code. Raises BenchError, BenchUsageError and what rendering the stack raises."""
    values = resumed(values)
    if place.is_in_a_cluster(values.stack, values.config_file):
        return _bench_in_cluster(values, state, console)
    if values.service:
        raise BenchUsageError("--service: the arms on this machine serve the stack's one service")
    plan = _prepared(values, state)
    available = psutil.virtual_memory().available / 2**30 - run.MEMORY_KEPT_GIB
    found, path = _begun(
        values,
        state,
        plan.configuration,
        lambda command: run.new_receipt(plan, values.repeats, plan.groups(available), command),
    )
    with terminal_report() as progress:
        if len(found.groups) > 1:
            progress.note(f"not all arms fit into memory at once: {' | '.join(', '.join(g) for g in found.groups)}")
        for name in _running_here(state):
            progress.note(
                f"stack {name} runs on this machine and disturbs every figure; rayline down --stack {name} stops it"
            )
        with _kept(path, progress):
            run.measure(plan, found, path, progress)
    return _shown(values, found, path, console)


def _bench_in_cluster(values: Values, state: pathlib.Path, console: Console) -> int:
    """The same for the service as it runs in a cluster, from a Job beside it."""
    wanted = _prepared_for_cluster(values)
    found, path = _begun(
        values,
        state,
        wanted.configuration,
        lambda command: cluster_run.new_receipt(wanted, values.repeats, command),
    )
    with terminal_report() as progress, _kept(path, progress):
        cluster_run.measure(wanted, found, path, progress, cluster_run.Kubectl(wanted.plan))
    return _shown(values, found, path, console)


def _running_here(state: pathlib.Path) -> list[str]:
    """Stacks whose session on this machine, started from this folder, lives."""
    found = [session.load(folder) for folder in sorted((state / "local").glob("*"))]
    return [one.state_dir.name for one in found if one is not None and one.supervisor() is not None]


@contextmanager
def _kept(path: pathlib.Path, progress: Report) -> Iterator[None]:
    """Says where the receipt is, and again when the run is interrupted: by then the first line is far up."""
    progress.note(f"receipt: {path}")
    try:
        yield
    except KeyboardInterrupt:
        progress.note(f"what was measured is kept, and this goes on with it: rayline bench --resume {path}")
        raise


def render(values: Values) -> int:
    """Prints what `bench` would apply in a cluster. Raises BenchUsageError."""
    if not place.is_in_a_cluster(values.stack, values.config_file):
        raise BenchUsageError(f"--render: stack {values.stack} runs on this machine, where nothing is applied")
    wanted = _prepared_for_cluster(values)
    points = wanted.points(cluster_run.new_receipt(wanted, values.repeats, ""))
    print("---\n".join(map(dump, cluster_job.manifests(wanted.plan, wanted.service, points))), end="")
    return 0


def _prepared_for_cluster(values: Values) -> cluster_run.Run:
    # what the arms of one machine are made of has no meaning for a service that runs already
    given = {
        "--arms": values.arms != ",".join(DEFAULT_ARMS),
        "--arm": bool(values.overlays),
        "--base": values.base != DEFAULT_BASE,
        "--replicas": values.replicas != "1",
        "--model": values.model != run.TINY_MODEL,
        "--engine": bool(values.engine),
    }
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise BenchUsageError(
            f"{', '.join(wrong)}: stack {values.stack} is in a cluster, where the one arm is the service as it runs "
            "(another arm is another RayCluster: another stack, or a change of this one)"
        )
    program = offline.record(values.stack, config=read_stack(values.stack, file=values.config_file))
    return cluster_run.prepare(program, run.read_loads(options(values)), values.service)


def without_receipt(arguments: Sequence[str]) -> list[str]:
    """The command line as somebody else would repeat it: where the receipt went is a path of this machine."""
    kept = [one for one in arguments if not one.startswith("--receipt=")]
    if "--receipt" in kept:
        place = kept.index("--receipt")
        del kept[place : place + 2]
    return kept


# What is this call's own, and not the run's that it goes on with.
_OF_THE_CALL = ("receipt", "resume", "config_file", "as_json")
BESIDE_RESUME = {"resume", "repeats", "config_file", "as_json"}
"""Parameters that may be given with a receipt to go on with; it decides on the others."""


def resumed(values: Values) -> Values:
    """With the options of the receipt that is to go on, if there is one; more repeats than it has may be asked for.

    Raises BenchUsageError.
    """
    if values.resume is None:
        return values
    optionless = BenchUsageError(f"--resume: {values.resume} does not say with which options it was made")
    try:
        found = receipts.read(values.resume)
        if not found.options:
            raise optionless
        if 0 < values.repeats < found.repeats:
            raise BenchUsageError(f"--repeats {values.repeats}: the receipt has {found.repeats}, it can only get more")
        return replace(values, **(found.options | {"repeats": max(found.repeats, values.repeats)}))
    except receipts.ReceiptError as error:
        raise BenchUsageError(f"--resume: {error}") from None
    except TypeError:  # an option of another version
        raise optionless from None


def _begun(
    values: Values,
    state: pathlib.Path,
    configuration: receipts.Configuration,
    new: Callable[[str], receipts.Receipt],
) -> tuple[receipts.Receipt, pathlib.Path]:
    """The receipt to go on with, or a new one, and its place."""
    if values.resume:
        try:
            found, path = receipts.read(values.resume), values.resume
            receipts.resumable(found, configuration)
        except receipts.ReceiptError as error:
            raise BenchUsageError(f"--resume: {error}") from None
        found.repeats = max(found.repeats, values.repeats)
        found.interrupted += 1
        found.ended_at = None
        return found, path
    path = values.receipt or state / "bench" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    # before the machine's memory is looked at: a wrong option is wrong on every machine
    _refuse_unwritable(path)
    found = new(shlex.join(["rayline", *without_receipt(sys.argv[1:])]))
    found.options = {name: value for name, value in asdict(values).items() if name not in _OF_THE_CALL}
    found.write(path)
    return found, path


def _refuse_unwritable(path: pathlib.Path) -> None:
    existed = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise BenchUsageError(f"--receipt: {path} cannot be written: {error.strerror}") from None
    if not existed:
        path.unlink()


def _shown(values: Values, found: receipts.Receipt, path: pathlib.Path, console: Console) -> int:
    """Writes the page, prints the figures; the exit code."""
    files = page.write(found, path)
    if values.as_json:
        data = {
            "receipt": str(path),
            "page": str(files[0]),
            "results": report.summary_json(found),
            "goals": report.goals_json(found),
            "remarks": report.remarks(found),
        }
        print(json.dumps(data, indent=2))
    else:
        for table in report.tables(found):
            console.print(table)
        for remark in report.remarks(found):
            console.print(remark, soft_wrap=True, markup=False)
        console.print(f"receipt: {path}\npage: {files[0]}", soft_wrap=True, markup=False)
    return 1 if any(point.failed for point in found.points) else 0


def show_receipt(values: Values, path: pathlib.Path, console: Console) -> int:
    """The page and the figures of a receipt that is there, measuring nothing. Raises BenchUsageError."""
    try:
        return _shown(values, receipts.read(path), path, console)
    except receipts.ReceiptError as error:
        raise BenchUsageError(f"--report: {error}") from None


def show(values: Values, state: pathlib.Path, console: Console) -> int:
    """The arms and what each has differently from the base arm; the workloads. Raises BenchUsageError."""
    if place.is_in_a_cluster(values.stack, values.config_file):
        raise BenchUsageError(
            f"--list: stack {values.stack} is in a cluster, where the one arm is the service as it runs; --render shows its Job"
        )
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
