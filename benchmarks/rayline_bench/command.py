"""`rayline bench`: from its options to a run, and the result to the terminal."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from rich.console import Console

from rayline_cli import offline, place
from rayline_cli.progress import Report, terminal_report
from rayline_cli.render import dump
from rayline_cli.stack_files import read_stack

from . import cluster_job, cluster_run, page, report, run
from . import plan as plans
from . import receipt as receipts
from .arms import ARMS
from .cli import Options
from .errors import BenchUsageError
from .options import OF_THE_CALL, flags, read, read_loads, with_preset
from .receipt import Configuration, Receipt
from .tables import Table
from .workloads import WORKLOADS


@dataclass(frozen=True)
class Prepared:
    """A run that can begin, on this machine or in a cluster."""

    configuration: Configuration
    new_receipt: Callable[[int, str], Receipt]
    """From repeats and command line."""
    measure: Callable[[Receipt, Path, Report], None]
    show: Callable[[], None]
    """Shows what would be measured; measures nothing."""


def bench(options: Options, given: Set[str], state: Path, console: Console) -> int:
    """Run a benchmark and show its result; return the exit code. `given`: the options that the command line has.

    Raises BenchError, BenchUsageError and the errors of rendering the stack.
    """
    earlier = None
    if options.receipt and (options.receipt.exists() or options.dry_run):
        earlier = receipts.read(options.receipt)
        if options.dry_run:
            _leave_out(given - {"receipt", "dry_run", "as_json"})
            return _shown(options.receipt, earlier, options.as_json, console)
        _leave_out(given - OF_THE_CALL - {"repeats"})
        options = resumed(options, earlier, given)
    options = with_preset(options, given)
    in_cluster = place.is_in_a_cluster(options.stack, options.config_file)
    prepared = _in_cluster(options, given) if in_cluster else _here(options, state, console)
    if options.dry_run:
        prepared.show()
        return 0
    receipt, path = _begun(options, earlier, state, prepared)
    with terminal_report() as progress, _kept(path, progress):
        prepared.measure(receipt, path, progress)
    return _shown(path, receipt, options.as_json, console)


def _here(options: Options, state: Path, console: Console) -> Prepared:
    plan = plan_here(options, state)
    new, measure = partial(run.new_receipt, plan), partial(run.measure, plan)
    return Prepared(plan.configuration, new, measure, partial(show, plan, options.as_json, console))


def _in_cluster(options: Options, given: Set[str]) -> Prepared:
    if "model" in given:
        raise BenchUsageError(f"--model: stack {options.stack} is in a cluster, where the service is measured as it runs")
    program = offline.record(options.stack, config=read_stack(options.stack, file=options.config_file))
    # the default names arms of one machine
    service = options.arms if options.arms != Options.arms else ""
    plan = cluster_run.prepare(program, read_loads(options), service)

    def show_job() -> None:
        jobs = plan.jobs(plan.left(cluster_run.new_receipt(plan, options.repeats, "")))
        print("---\n".join(map(dump, cluster_job.manifests(plan.plan, plan.service, jobs))), end="")

    new, measure = partial(cluster_run.new_receipt, plan), partial(cluster_run.measure, plan)
    return Prepared(plan.configuration, new, measure, show_job)


def plan_here(options: Options, state: Path) -> plans.BenchPlan:
    """Return the plan of a run on this machine. Raises BenchUsageError."""
    return plans.prepare(options, *read(options), state / "bench")


@contextmanager
def _kept(path: Path, progress: Report) -> Iterator[None]:
    """Say where the receipt is, and again when the run is interrupted: by then the first line is far up."""
    progress.note(f"receipt: {path}")
    try:
        yield
    except KeyboardInterrupt:
        progress.note(f"the points so far are kept, and this continues with them: rayline bench --receipt {path}")
        raise


def without_receipt(arguments: Sequence[str]) -> list[str]:
    """Return the command line without `--receipt PATH`, which is a path of this machine."""
    kept = [argument for argument in arguments if not argument.startswith("--receipt=")]
    if "--receipt" in kept:
        at = kept.index("--receipt")
        del kept[at : at + 2]
    return kept


def _leave_out(others: Set[str]) -> None:
    if others:
        raise BenchUsageError(f"--receipt: the receipt is there and decides. Fix: leave out {flags(others)}, or name another")


def resumed(options: Options, receipt: Receipt, given: Set[str]) -> Options:
    """Return the options of the receipt to continue, perhaps with more repeats. Raises BenchUsageError."""
    repeats = options.repeats if "repeats" in given else receipt.repeats
    if repeats < receipt.repeats:
        raise BenchUsageError(f"--repeats {repeats}: the receipt has {receipt.repeats}. Fix: as many, or more")
    if not receipt.options or receipt.options.keys() - asdict(options).keys():
        raise BenchUsageError("--receipt: it does not say with which options of this version it was made. Fix: name another")
    return replace(options, **(receipt.options | {"repeats": repeats}))


def _begun(options: Options, earlier: Receipt | None, state: Path, prepared: Prepared) -> tuple[Receipt, Path]:
    """Return the receipt to continue, or a new one, and its place."""
    if earlier and options.receipt:
        receipts.resumable(earlier, prepared.configuration)
        earlier.repeats, earlier.ended_at = options.repeats, None
        earlier.interrupted += 1
        return earlier, options.receipt
    path = options.receipt or state / "bench" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    # before the memory is read: a wrong option is wrong on every machine
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("xb").close()
    except OSError as error:
        raise BenchUsageError(f"--receipt: {path} cannot be written: {error.strerror}. Fix: name another file") from None
    path.unlink()
    receipt = prepared.new_receipt(options.repeats, shlex.join(["rayline", *without_receipt(sys.argv[1:])]))
    receipt.options = {name: value for name, value in asdict(options).items() if name not in OF_THE_CALL}
    receipt.write(path)
    return receipt, path


def _shown(path: Path, receipt: Receipt, as_json: bool, console: Console) -> int:
    """Write the page beside the receipt, print the figures; return the exit code."""
    written = page.write(receipt, path)
    if as_json:
        print(json.dumps({"receipt": str(path), "page": str(written)} | report.as_json(receipt), indent=2))
    else:
        for table in report.tables(receipt):
            console.print(table.rich())
        for line in (*report.HOW_TO_READ, *report.remarks(receipt), f"receipt: {path}", f"page: {written}"):
            console.print(line, soft_wrap=True, markup=False)
    return 1 if any(point.failed for point in receipt.points) else 0


def show(plan: plans.BenchPlan, as_json: bool, console: Console) -> None:
    """Show the arms, what each has differently from the baseline, and the workloads."""
    if as_json:
        arms = {
            label: {"what": plan.what[label], "facts": built.facts(), "differences": plan.differences(label)}
            for label, built in plan.built.items()
        }
        print(json.dumps({"arms": arms, "loads": plan.configuration.loads}, indent=2, default=str))
        return
    for label, built in plan.built.items():
        console.print(f"[bold]{label}[/]  {plan.what[label]}, about {built.memory_gib:.1f} GiB", highlight=False)
        for line in plan.differences(label):
            console.print(f"    {line}", markup=False, soft_wrap=True)
    others = [(arm.name, arm.what) for name, arm in ARMS.items() if name not in plan.built]
    console.print(Table(("name", "what"), others, "other arms").rich())
    rows = [(name, *workload.row()) for name, workload in WORKLOADS.items()]
    console.print(Table(("name", "what", "streams", "requests"), rows, "workloads").rich())
