"""One benchmark on this machine: starts the arms, measures point after point in turns, ends everything."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path

import psutil

from rayline_cli.local import session
from rayline_cli.progress import Report
from rayline_cli.signals import undisturbed

from . import cpu, schedule, servers
from . import receipt as receipts
from .errors import BenchError
from .load import LoadGenerator
from .plan import BenchPlan
from .receipt import DISTURBED_CORES, ArmRecord, Measured, Receipt
from .schedule import Point
from .servers import Server
from .workloads import GENERATORS, Load

MEMORY_KEPT_GIB = 2.0
"""Left free for the load generator and other programs."""
SECONDS_OF_A_POINT = 45.0
"""The first guess of how long a point takes."""
NOTES = [
    "The load generator runs on the same cores.",
    "The kit's arms require an API key, as shipped; sample and vllm have none.",
    "Ray's own token (RAY_AUTH_MODE) is on in every arm of Ray: the runtime on this machine insists.",
    "All arms but the measured one are frozen (SIGSTOP).",
]


def new_receipt(plan: BenchPlan, repeats: int, command: str) -> Receipt:
    """Return a receipt without a point. Raises BenchError where the arms do not fit into memory."""
    available = psutil.virtual_memory().available / 2**30 - MEMORY_KEPT_GIB
    return receipts.new(plan.configuration, repeats, plan.groups(available), command, NOTES)


def measure(plan: BenchPlan, receipt: Receipt, path: Path, report: Report) -> None:
    """Measure what `receipt` lacks and write it to `path` after each point.

    However this ends, also by Ctrl-C or SIGTERM, no process of it continues. Raises BenchError.
    """
    _warn(plan, receipt, report)
    loads = {(load.workload.name, load.concurrency): load for load in plan.loads}
    points = schedule.order(receipt.groups, list(loads), receipt.repeats)
    todo = schedule.left(points, [point.point() for point in receipt.points])
    took: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as ends, _only_one(plan.state_dir):
        log = plan.state_dir / "load.log"
        generator_of = cache(lambda module: ends.enter_context(closing(LoadGenerator(module, log))))
        for batch in dict.fromkeys(point.batch for point in todo):
            with _running(plan, receipt, receipt.groups[batch - 1], report) as turn_of:
                for point in [point for point in todo if point.batch == batch]:
                    title, text = f"{len(receipt.points) + 1}/{len(points)}", describe(point, receipt.repeats)
                    left = schedule.remaining_seconds(todo[todo.index(point) :], took, SECONDS_OF_A_POINT)
                    under_way = _under_way(report, title, text, time.monotonic() + left)
                    under_way("waking it")
                    started = time.monotonic()
                    server, load = turn_of(point.arm), loads[point.workload, point.concurrency]
                    generator = generator_of(GENERATORS[load.workload.generator])
                    measured = _measure(plan, point, load, server, generator, under_way)
                    measured.seconds, measured.start = round(time.monotonic() - started, 1), receipt.interrupted + 1
                    arm = receipt.arms[point.arm]
                    arm.memory_gib = arm.memory_gib or round(server.memory_gib(), 2)
                    receipt.points.append(measured)
                    receipt.write(path)
                    took.setdefault((point.workload, point.concurrency), []).append(measured.seconds)
                    report.done(title, measured.seconds, f"{text}: {figures(measured)}")
    receipt.ended_at = receipts.now()
    receipt.write(path)


def _warn(plan: BenchPlan, receipt: Receipt, report: Report) -> None:
    """Report what disturbs the figures: batches, and other sessions of this folder on this machine."""
    if len(receipt.groups) > 1:
        report.note(f"not all arms fit into memory at once: {' | '.join(', '.join(arms) for arms in receipt.groups)}")
    for folder in sorted((plan.state_dir.parent / "local").glob("*")):
        other = session.load(folder)
        if other is not None and other.supervisor() is not None:
            report.note(f"stack {folder.name} runs here and disturbs every figure. Fix: rayline down --stack {folder.name}")


def _measure(
    plan: BenchPlan, point: Point, load: Load, server: Server, generator: LoadGenerator, waiting: Callable[[str], None]
) -> Measured:
    job = {
        "url": server.url,
        "model": plan.model_id,
        "tokenizer": "" if plan.application else servers.model_folder(plan.configuration.model),
        **load.job(point),
        # by the environment of the generator's child: every user of the machine can read an argument
        "env": {"OPENAI_API_KEY": server.api_key or ""},
    }
    watch = _Watch(server)
    try:
        result = generator.run(job, watch.begin, watch.end, waiting)
    except BenchError as error:
        raise BenchError(f"{describe(point)}: {error}") from None
    own = sum(watch.seconds.values()) + result["load_cpu_seconds"]
    return Measured(
        **vars(point),
        at=receipts.now(),
        requests=load.requests,
        seconds=0.0,
        load=result,
        cpu_seconds=watch.seconds,
        machine_load=round(max(0.0, watch.machine - own) / max(watch.elapsed, 0.001), 3),
    )


def _under_way(report: Report, title: str, point: str, end: float) -> Callable[[str], None]:
    """Return a function that reports the state of a point, and how long the rest will take."""
    return lambda what: report.phase(title, f"{point}: {what}; about {max(0.0, end - time.monotonic()) / 60:.0f} min left")


class _Watch:
    """CPU of an arm, and of the whole machine, between `begin` and `end`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seconds: dict[str, float] = {}
        self.machine = self.elapsed = 0.0

    def begin(self) -> None:
        """Read the clocks."""
        self._before, self._at, self._all = cpu.snapshot(self._server.processes()), time.monotonic(), cpu.of_machine()

    def end(self) -> None:
        """Read the clocks again and keep the differences."""
        self.elapsed, self.machine = time.monotonic() - self._at, cpu.of_machine() - self._all
        self.seconds = cpu.between(self._before, cpu.snapshot(self._server.processes()))


@contextmanager
def _running(plan: BenchPlan, receipt: Receipt, labels: Sequence[str], report: Report) -> Iterator[Callable[[str], Server]]:
    """Start the arms of one batch and freeze them; end all afterwards. Yields a function that lets one arm alone run."""
    arms: dict[str, Server] = {}
    running: list[str] = []

    def turn_of(label: str) -> Server:
        if running != [label]:
            for other in running:
                arms[other].pause()
            arms[label].resume()
            running[:] = [label]
        return arms[label]

    try:
        for index, label in enumerate(labels, start=1):
            report.note(f"arm {index} of {len(labels)}: {label}, {plan.what[label]}")
            server = arms[label] = servers.start(plan, label, report)
            receipt.arms[label] = ArmRecord(
                what=plan.what[label],
                facts=plan.built[label].facts(),
                differences=plan.differences(label),
                checks=server.checks,
                needs_api_key=server.api_key is not None,
            )
            server.pause()
        yield turn_of
    finally:
        with undisturbed():
            for label, server in arms.items():
                report.phase("stop", label)
                server.stop()


@contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    """Refuse a second benchmark: concurrent ones distort each other."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"another benchmark is running ({state_dir}/lock). Fix: wait for it") from None
        yield


def describe(point: Point, repeats: int = 0) -> str:
    """Return a point in words."""
    of = f" of {repeats}" if repeats else ""
    return f"{point.arm}, {point.workload} at {point.concurrency}, repeat {point.repeat}{of}"


def figures(point: Measured) -> str:
    """Return the figures of a point in a line."""
    tokens = point.load.get("output_tokens_per_second")
    speed = f"{tokens:,.0f} tokens/s" if tokens else f"{point.load['requests_per_second']:,.0f} requests/s"
    disturbed = f", others used {point.machine_load:.2f} cores" if point.machine_load > DISTURBED_CORES else ""
    failed = f", {point.load['failed']} FAILED" if point.load["failed"] else ""
    failed += "".join(f", CLIENT-BOUND: {why}" for why in point.load.get("client_bound", []))
    return f"{speed}, TTFT p99 {point.load['ttft_p99_ms']:,.0f} ms{disturbed}{failed}"
