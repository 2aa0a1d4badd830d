"""A receipt for people: its tables, the same for the terminal, its page and the docs, and remarks on its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .goals import verdicts
from .receipt import DISTURBED_CORES, Receipt
from .summary import METRICS, Line, Spread, cpu_by_process, lines
from .tables import NOTHING, Table, code
from .workloads import WORKLOADS

COLUMNS = ("throughput", "requests", "ttft_p50", "ttft_p99", "ttft_p99_later", "tpot_p50", "cpu_engine", "cpu_rest")
"""The metrics that a terminal has room for."""
RATIOS = ("throughput", "requests", "ttft_p99", "ttft_p99_later", "cpu_rest")
HOW_TO_READ = (
    "Figures are medians over the repeats, with the lowest and the highest. A ratio compares two arms in the same repeat.",
    "CPU is of the server, in seconds per 1,000 tokens (or requests, where a workload has no tokens); rest is all but the engine.",
    "Compare within one run only: the load generator shares the cores.",
)


def tables(receipt: Receipt, keys: Iterable[str] = COLUMNS) -> Iterator[Table]:
    """Yield for each load the figures of METRICS by `keys` and CPU by process; then the goals."""
    every = lines(receipt)
    for load in receipt.configuration.loads:
        workload, streams = load["workload"], load["concurrency"]
        here = [line for line in every if (line.workload, line.concurrency) == (workload, streams)]
        if not here:
            continue
        what = WORKLOADS[workload].what if workload in WORKLOADS else workload
        yield figures(receipt, here, keys, f"{what}, {streams} streams, {load['requests']:,} requests")
        if any(line.cpu for line in here):
            unit = "tokens" if any(line.values["throughput"] for line in here) else "requests"
            header = ("process", *(code(line.arm) for line in here))
            yield Table(header, cpu_by_process(here), f"CPU-seconds per 1,000 {unit}, by process")
    yield from goal_tables(receipt)


def goal_tables(receipt: Receipt) -> Iterator[Table]:
    """Yield the goals that the receipt is about, in one table; nothing without any."""
    rows = []
    for verdict in verdicts(receipt):
        reached = ("yes" if verdict.reached else "no") + ("" if verdict.enough else " (too few repeats)")
        rows.append((verdict.goal.text(), verdict.concurrency, ratio_text(verdict.ratio), reached))
    if rows:
        yield Table(("goal", "streams", "measured", "reached"), rows, "Goals")


def figures(receipt: Receipt, here: Sequence[Line], keys: Iterable[str], title: str = "", *, with_load: bool = False) -> Table:
    """Return a row for each line: its arm, then the metrics of `keys` that have figures, with their ratios."""
    shown = [key for key in keys if any(value and value.high for value in (line.values[key] for line in here))]
    if "throughput" in shown and "requests" in shown:
        shown.remove("requests")
    header = ["workload", "streams", "arm"] if with_load else ["arm"]
    for key in shown:
        header.append(f"{METRICS[key].title}, {METRICS[key].unit}")
        if key in RATIOS:
            header.append(f"x {receipt.configuration.base}")
    rows = []
    for line in here:
        failed = f" ({line.failed_points} points failed)" if line.failed_points else ""
        row = [code(line.workload), str(line.concurrency), code(line.arm)] if with_load else [code(line.arm) + failed]
        for key in shown:
            row.append(figure(line.values[key]))
            if key in RATIOS:
                ratio = line.ratios[key]
                row.append(ratio_text(ratio).removeprefix("x ") if ratio else NOTHING)
        rows.append(row)
    return Table(header, rows, title)


def remarks(receipt: Receipt) -> list[str]:
    """Return what a reader of the figures needs first: missing points, disturbed points."""
    texts = []
    every = sum(map(len, receipt.groups)) * len(receipt.configuration.loads) * receipt.repeats
    if missing := every - len(receipt.points):
        texts.append(f"{missing} of {every} points are missing: rayline bench --receipt with this receipt measures them")
    if disturbed := [point.machine_load for point in receipt.points if point.machine_load > DISTURBED_CORES]:
        texts.append(
            f"other processes of the machine used more than {DISTURBED_CORES} cores during {len(disturbed)} of "
            f"{len(receipt.points)} points, {max(disturbed):.2f} at most: repeat it with nothing beside it"
        )
    return texts


def figure(value: Spread | None) -> str:
    """Return the median and, where there is more than one, the spread."""
    if value is None:
        return NOTHING
    text = number(value.median)
    return f"{text} ({number(value.low)}-{number(value.high)})" if value.count > 1 else text


def ratio_text(value: Spread) -> str:
    """Return x 1.25 (1.22-1.31), with the median of each start where there were several."""
    text = f"x {value.median:.2f}"
    if value.low == value.high:
        return text
    starts = "; starts " + ", ".join(f"{start:.2f}" for start in value.by_start) if value.by_start else ""
    return f"{text} ({value.low:.2f}-{value.high:.2f}{starts})"


def number(value: float) -> str:
    """Return a number with three significant figures."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def as_json(receipt: Receipt) -> dict[str, list]:
    """Return results, goals and remarks as data."""
    results = []
    for line in lines(receipt):
        metrics = {}
        for key, value in line.values.items():
            if value is not None:
                ratio = line.ratios[key]
                ranges = {name: getattr(value, name) for name in ("median", "low", "high")}
                metrics[key] = ranges | {"ratio": ratio.median if ratio else None}
        kept = {name: getattr(line, name) for name in ("workload", "concurrency", "arm", "repeats", "failed_points")}
        cpu = {"cpu_seconds_per_1000": line.cpu, "load_cpu_seconds_per_1000": line.load_cpu}
        results.append(kept | {"metrics": metrics} | cpu)
    goals = []
    for verdict in verdicts(receipt):
        ratio = {"ratio": verdict.ratio.median, "low": verdict.ratio.low, "high": verdict.ratio.high}
        goal = {"goal": verdict.goal.text(), "concurrency": verdict.concurrency}
        goals.append(goal | ratio | {"reached": verdict.reached, "enough": verdict.enough})
    return {"results": results, "goals": goals, "remarks": remarks(receipt)}
