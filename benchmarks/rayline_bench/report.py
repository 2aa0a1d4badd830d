"""A receipt for people: tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from rayline_bench.goals import verdicts
from rayline_bench.receipt import DISTURBED_CORES, Receipt
from rayline_bench.summary import LOAD_GENERATOR, METRICS, Line, Spread, cpu_by_process, cpu_unit, lines, ratio_of

COLUMNS = ("throughput", "ttft_p50", "ttft_p99", "tpot_p50", "cpu_engine", "cpu_rest")
RATIOS = ("throughput", "requests", "ttft_p99", "cpu_rest")
WITHOUT_TOKENS = {"throughput": "requests", "tpot_p50": None, "tpot_p99": None, "cpu_engine": None}
"""What stands in the place of a column where a workload has no tokens; None: nothing."""


def _columns(here: Sequence[Line]) -> list[str]:
    if any(line.values["throughput"] for line in here):
        return list(COLUMNS)
    return [column for key in COLUMNS if (column := WITHOUT_TOKENS.get(key, key))]


def tables(receipt: Receipt) -> list[Table]:
    """For each load: figures with their spread and ratio, then CPU by role."""
    found = []
    every = lines(receipt)
    for workload, concurrency in dict.fromkeys((line.workload, line.concurrency) for line in every):
        here = [line for line in every if (line.workload, line.concurrency) == (workload, concurrency)]
        found.append(_figures(receipt, workload, concurrency, here))
        if any(line.cpu for line in here):
            found.append(_cpu(workload, concurrency, here))
    if goals := verdicts(receipt):
        table = Table(title="goals", title_justify="left")
        for column in ("goal", "streams", "measured", ""):
            table.add_column(column)
        for verdict in goals:
            word = "[green]reached[/]" if verdict.reached else "[red]not reached[/]"
            few = "" if verdict.enough else " (fewer repeats or requests than it is stated for)"
            table.add_row(verdict.text(), str(verdict.concurrency), ratio_text(verdict.ratio), word + few)
        found.append(table)
    return found


def remarks(receipt: Receipt) -> list[str]:
    """What a reader of the figures has to know before: what is missing, what disturbed."""
    found = []
    every = sum(map(len, receipt.groups)) * len(receipt.configuration.loads) * receipt.repeats
    if missing := every - len(receipt.points):
        found.append(f"{missing} of {every} points are missing: rayline bench --resume with this receipt measures them")
    if disturbed := [point for point in receipt.points if point.machine_load > DISTURBED_CORES]:
        most = max(point.machine_load for point in disturbed)
        found.append(
            f"other processes of the machine used more than {DISTURBED_CORES} cores during {len(disturbed)} of "
            f"{len(receipt.points)} points, {most:.2f} at most: repeat it with nothing beside it"
        )
    return found


def _figures(receipt: Receipt, workload: str, concurrency: int, here: Sequence[Line]) -> Table:
    base = receipt.configuration.base
    title = f"{workload} at {concurrency} streams: median (low-high), x = against {base} in the same repeat"
    table = Table(title=title, title_justify="left")
    table.add_column("arm", no_wrap=True)
    columns = _columns(here)
    for key in columns:
        table.add_column(f"{METRICS[key].title}\n{METRICS[key].unit}", justify="right")
    table.add_column("repeats", justify="right")
    for line in here:
        cells = []
        for key in columns:
            cell = figure(line.values[key])
            if key in RATIOS and (ratio := line.ratios[key]):
                cell += f"\n{ratio_text(ratio)}"
            cells.append(cell)
        failed = f" ({line.failed_points} failed)" if line.failed_points else ""
        table.add_row(line.arm, *cells, f"{line.repeats}{failed}")
    return table


def _cpu(workload: str, concurrency: int, here: Sequence[Line]) -> Table:
    title = f"{workload} at {concurrency}: server CPU-seconds per {cpu_unit(here)}, by process"
    table = Table(title=title, title_justify="left")
    table.add_column("process")
    for line in here:
        table.add_column(line.arm, justify="right")
    for process, *cells in cpu_by_process(here):
        table.add_row(process, *cells, style="dim" if process == LOAD_GENERATOR else None)
    return table


def figure(value: Spread | None) -> str:
    """Median and, where there is more than one, the spread."""
    if value is None:
        return "-"
    text = number(value.median)
    return f"{text} ({number(value.low)}-{number(value.high)})" if value.count > 1 else text


def ratio_text(value: Spread) -> str:
    """x 1.25 (1.22-1.31), and the median of each start where there were several"""
    text = f"x {value.median:.2f}"
    if value.low == value.high:
        return text
    starts = "; starts " + ", ".join(f"{one:.2f}" for one in value.by_start) if value.by_start else ""
    return f"{text} ({value.low:.2f}-{value.high:.2f}{starts})"


def number(value: float) -> str:
    """Three figures that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def summary_json(receipt: Receipt) -> list[dict]:
    """The same for a machine."""
    found = []
    for line in lines(receipt):
        metrics = {}
        for key, value in line.values.items():
            if value is not None:
                metrics[key] = {
                    "median": value.median,
                    "low": value.low,
                    "high": value.high,
                    "ratio": ratio_of(line, key),
                }
        found.append(
            {
                "workload": line.workload,
                "concurrency": line.concurrency,
                "arm": line.arm,
                "repeats": line.repeats,
                "failed_points": line.failed_points,
                "metrics": metrics,
                "cpu_seconds_per_1000": line.cpu,
                "load_cpu_seconds_per_1000": line.load_cpu,
            }
        )
    return found


def goals_json(receipt: Receipt) -> list[dict]:
    """Each goal that the receipt can tell something about."""
    return [
        {
            "goal": verdict.text(),
            "concurrency": verdict.concurrency,
            "ratio": verdict.ratio.median,
            "low": verdict.ratio.low,
            "high": verdict.ratio.high,
            "reached": verdict.reached,
            "enough": verdict.enough,
        }
        for verdict in verdicts(receipt)
    ]
