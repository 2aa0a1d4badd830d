"""`rayline bench`: from its options to a run, and the result to the terminal."""

from __future__ import annotations

import json
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict, replace

from rich.console import Console

from rayline_cli import offline, place
from rayline_cli.local import session
from rayline_cli.progress import Report, terminal_report
from rayline_cli.render import dump
from rayline_cli.stack_files import read_stack

from . import cluster_job, cluster_run, page, report, run
from . import plan as plans
from . import receipt as receipts
from .arms import ARMS, ArmError
from .cli import Options
from .errors import BenchUsageError
from .options import OF_THE_CALL, flags, read, read_loads, with_preset
from .tables import Table
from .workloads import WORKLOADS


def bench(options: Options, given: Set[str], state: pathlib.Path, console: Console) -> int:
    """Run it, show it; return the exit code. `given`: the options that the command line has.

    Raises BenchError, BenchUsageError and what rendering the stack raises.
    """
    found = _earlier(options)
    if found and options.dry_run:
        _leave_out(given - {"receipt", "dry_run", "as_json"})
        return _shown(options, found, console)
    if found:
        _leave_out(given - OF_THE_CALL - {"repeats"})
        options = resumed(options, found, given)
    options = with_preset(options, given)
    if place.is_in_a_cluster(options.stack, options.config_file):
        return _bench_in_cluster(options, given, found, state, console)
    if options.dry_run:
        return show(options, state, console)
    plan = prepared(options, state)
    found, path = _begun(
        options, found, state, plan.configuration, lambda command: run.new_receipt(plan, options.repeats, command)
    )
    with terminal_report() as progress:
        if len(found.groups) > 1:
            progress.note(f"not all arms fit into memory at once: {' | '.join(', '.join(g) for g in found.groups)}")
        for name in _running_here(state):
            progress.note(f"stack {name} runs here and disturbs every figure. Fix: rayline down --stack {name}")
        with _kept(path, progress):
            run.measure(plan, found, path, progress)
    return _shown(replace(options, receipt=path), found, console)


def _bench_in_cluster(
    options: Options, given: Set[str], found: receipts.Receipt | None, state: pathlib.Path, console: Console
) -> int:
    """Do the same for the service as it runs in a cluster, from a Job beside it."""
    wanted = prepared_for_cluster(options, given)
    if options.dry_run:
        jobs = wanted.jobs(wanted.left(cluster_run.new_receipt(wanted, options.repeats, "")))
        print("---\n".join(map(dump, cluster_job.manifests(wanted.plan, wanted.service, jobs))), end="")
        return 0
    found, path = _begun(
        options, found, state, wanted.configuration, lambda command: cluster_run.new_receipt(wanted, options.repeats, command)
    )
    with terminal_report() as progress, _kept(path, progress):
        cluster_run.measure(wanted, found, path, progress)
    return _shown(replace(options, receipt=path), found, console)


def prepared(options: Options, state: pathlib.Path) -> plans.Plan:
    """Return the plan of a run on this machine. Raises BenchUsageError."""
    try:
        return plans.prepare(options, read(options), state / "bench")
    except ArmError as error:
        raise BenchUsageError(str(error)) from None


def prepared_for_cluster(options: Options, given: Set[str]) -> cluster_run.Run:
    """Return the plan of a run in a cluster. Raises BenchUsageError."""
    if "model" in given:
        raise BenchUsageError(f"--model: stack {options.stack} is in a cluster, where the service is measured as it runs")
    program = offline.record(options.stack, config=read_stack(options.stack, file=options.config_file))
    # the default names arms of one machine
    service = options.arms if options.arms != Options.arms else ""
    return cluster_run.prepare(program, read_loads(options), service)


def _running_here(state: pathlib.Path) -> list[str]:
    """Return the stacks whose session on this machine, started from this folder, lives."""
    found = [session.load(folder) for folder in sorted((state / "local").glob("*"))]
    return [one.state_dir.name for one in found if one is not None and one.supervisor() is not None]


@contextmanager
def _kept(path: pathlib.Path, progress: Report) -> Iterator[None]:
    """Say where the receipt is, and again when the run is interrupted: by then the first line is far up."""
    progress.note(f"receipt: {path}")
    try:
        yield
    except KeyboardInterrupt:
        progress.note(f"what was measured is kept, and this goes on with it: rayline bench --receipt {path}")
        raise


def without_receipt(arguments: Sequence[str]) -> list[str]:
    """Return the command line without `--receipt PATH`, which is a path of this machine."""
    kept = [one for one in arguments if not one.startswith("--receipt=")]
    if "--receipt" in kept:
        at = kept.index("--receipt")
        del kept[at : at + 2]
    return kept


def _earlier(options: Options) -> receipts.Receipt | None:
    """Return the receipt that is there already. Raises BenchUsageError."""
    if options.receipt is None or not (options.receipt.exists() or options.dry_run):
        return None
    try:
        return receipts.read(options.receipt)
    except receipts.ReceiptError as error:
        raise BenchUsageError(f"--receipt: {error}") from None


def _leave_out(others: Set[str]) -> None:
    if others:
        raise BenchUsageError(f"--receipt: the receipt is there and decides. Fix: leave out {flags(others)}, or name another")


def resumed(options: Options, found: receipts.Receipt, given: Set[str]) -> Options:
    """Return the options of the receipt that is to go on; more repeats than it has may be asked for. Raises BenchUsageError."""
    repeats = options.repeats if "repeats" in given else found.repeats
    if repeats < found.repeats:
        raise BenchUsageError(f"--repeats {repeats}: the receipt has {found.repeats}, it can only get more")
    try:
        if found.options:
            return replace(options, **(found.options | {"repeats": repeats}))
    except TypeError:
        pass
    raise BenchUsageError("--receipt: it does not say with which options of this version it was made. Fix: name another")


def _begun(
    options: Options,
    found: receipts.Receipt | None,
    state: pathlib.Path,
    configuration: receipts.Configuration,
    new: Callable[[str], receipts.Receipt],
) -> tuple[receipts.Receipt, pathlib.Path]:
    """Return the receipt to go on with, or a new one, and its place."""
    if found and options.receipt:
        try:
            receipts.resumable(found, configuration)
        except receipts.ReceiptError as error:
            raise BenchUsageError(f"--receipt: {error}") from None
        found.repeats = options.repeats
        found.interrupted += 1
        found.ended_at = None
        return found, options.receipt
    path = options.receipt or state / "bench" / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    # before the machine's memory is looked at: a wrong option is wrong on every machine
    _refuse_unwritable(path)
    found = new(shlex.join(["rayline", *without_receipt(sys.argv[1:])]))
    found.options = {name: value for name, value in asdict(options).items() if name not in OF_THE_CALL}
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


def _shown(options: Options, found: receipts.Receipt, console: Console) -> int:
    """Write the page beside the receipt, print the figures; return the exit code."""
    assert options.receipt is not None
    files = page.write(found, options.receipt)
    if options.as_json:
        places = {"receipt": str(options.receipt), "page": str(files[0])}
        print(json.dumps(places | report.as_json(found), indent=2))
    else:
        for table in report.tables(found):
            console.print(table.rich())
        places = (f"receipt: {options.receipt}", f"page: {files[0]}")
        for line in (*report.HOW_TO_READ, *report.remarks(found), *places):
            console.print(line, soft_wrap=True, markup=False)
    return 1 if any(point.failed for point in found.points) else 0


def show(options: Options, state: pathlib.Path, console: Console) -> int:
    """Show the arms, what each has differently from the baseline, and the workloads. Raises BenchUsageError."""
    plan = prepared(options, state)
    if options.as_json:
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
    others = [(arm.name, arm.what) for name, arm in ARMS.items() if name not in plan.built]
    rows = [(one.name, one.what, ", ".join(map(str, one.concurrencies)), one.requests) for one in WORKLOADS.values()]
    console.print(Table(("name", "what"), others, "other arms").rich())
    console.print(Table(("name", "what", "streams", "requests"), rows, "workloads").rich())
    return 0
