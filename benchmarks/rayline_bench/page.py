"""A receipt as one page: Markdown, with plots as PNG files beside it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .receipt import Receipt
from .report import HOW_TO_READ, remarks, tables
from .summary import METRICS, Line, lines
from .tables import Table, code, prose

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000", "#997700", "#994455")
"""Paul Tol's bright scheme, then some: people who see colours differently tell them apart."""
PLOTTED = ("throughput", "requests", "ttft_p50", "ttft_p99", "tpot_p50")
POINT_FIGURES = {
    "output_tokens_per_second": "tokens/s",
    "requests_per_second": "req/s",
    "ttft_p50_ms": "TTFT p50",
    "ttft_p99_ms": "TTFT p99",
    "tpot_p50_ms": "TPOT p50",
    "tpot_p99_ms": "TPOT p99",
}


def write(receipt: Receipt, path: Path) -> list[Path]:
    """Write the page and its plots beside a receipt's `path`. Return the files, the page first."""
    plots = {path.with_name(f"{path.stem}-{name}.png"): png for name, png in drawn(receipt).items()}
    page = path.with_suffix(".md")
    page.write_text(text(receipt, [plot.name for plot in plots]))
    for file, png in plots.items():
        file.write_bytes(png)
    return [page, *plots]


def text(receipt: Receipt, plots: Iterable[str]) -> str:
    """Return the page; `plots` are the names of files beside it."""
    parts = ["# rayline bench", _facts(receipt).markdown()]
    notes = [*(f"**{remark}**" for remark in remarks(receipt)), *map(prose, (*receipt.notes, *HOW_TO_READ))]
    parts.append("\n".join(f"- {note}" for note in notes))
    parts += [f"![{name}]({name})" for name in plots]
    for one in tables(receipt):
        parts += [f"## {one.title}", one.markdown()]
    parts += _arms(receipt)
    parts += ["## Every measurement", _points(receipt).markdown()]
    return "\n\n".join(parts) + "\n"


def _facts(receipt: Receipt) -> Table:
    config, git = receipt.configuration, receipt.git
    changes = " with changes" if git.get("changed") else ""
    rows = [
        ("model", config.model),
        ("measured", f"{receipt.started_at} to {receipt.ended_at or 'not ended'}, resumed {receipt.interrupted} times"),
        ("repeats", f"{receipt.repeats}, arms in turns; side by side: {' / '.join(map(', '.join, receipt.groups))}"),
        ("machine", ", ".join(f"{name} {value}" for name, value in receipt.hardware.items())),
        ("versions", ", ".join(f"{name} {version}" for name, version in config.versions.items())),
        ("kit", f"commit {str(git.get('commit'))[:12]}{changes}, configuration {receipt.configuration_hash}"),
        ("command", code(receipt.command)),
    ]
    return Table(("", ""), rows)


def _arms(receipt: Receipt) -> Iterator[str]:
    for name, arm in receipt.arms.items():
        failed = sum(check["outcome"] == "fail" for check in arm.checks)
        verified = f"{len(arm.checks) - failed} of {len(arm.checks)} checks without a failure"
        yield f"## Arm {code(name)}"
        yield prose(f"{arm.what}; {arm.memory_gib:.1f} GiB; {verified if arm.checks else 'not a service of Ray'}.")
        yield f"Different from {code(receipt.configuration.base)}:"
        yield "\n".join(("```", *(arm.differences or ["nothing"]), "```"))
        if arm.checks:
            yield Table(("outcome", "check", "seen"), [[c["outcome"], c["name"], c["evidence"]] for c in arm.checks]).markdown()


def _points(receipt: Receipt) -> Table:
    first = ("at", "batch", "repeat", "workload", "streams", "arm", "answered", "failed")
    last = ("server CPU s", "load CPU s", "others, cores")
    rows = []
    for point in receipt.points:
        load = point.load
        row: list[object] = [point.at, point.batch, point.repeat, point.workload, point.concurrency, code(point.arm)]
        row += [load["completed"], f"**{load['failed']}**" if point.failed else load["failed"]]
        row += [f"{load[key]:,.1f}" if load.get(key) is not None else "" for key in POINT_FIGURES]
        row += [f"{math.fsum(point.cpu_seconds.values()):.1f}", f"{load['load_cpu_seconds']:.1f}", f"{point.machine_load:.2f}"]
        rows.append(row)
    return Table((*first, *POINT_FIGURES.values(), *last), rows)


# --- plots -------------------------------------------------------------------------------------------------------------


def drawn(receipt: Receipt) -> dict[str, bytes]:
    """Return name -> PNG: for each workload its figures over the concurrency, and CPU by process."""
    plots = {}
    every = lines(receipt)
    for workload in dict.fromkeys(line.workload for line in every):
        here = [line for line in every if line.workload == workload]
        plots[workload] = _figures(here)
        if any(line.cpu for line in here):
            plots[f"{workload}-cpu"] = _cpu(here)
    return plots


def _figures(here: Sequence[Line]) -> bytes:
    """A bar for the median, a line from the lowest to the highest repeat; groups are concurrencies."""
    keys = [key for key in PLOTTED if any(line.values[key] for line in here)]
    if "throughput" in keys:
        keys.remove("requests")
    arms = dict(zip(dict.fromkeys(line.arm for line in here), COLOURS * 9, strict=False))
    streams = sorted({line.concurrency for line in here})
    canvas, axes = _canvas(4.2 * len(keys), len(keys))
    width = 0.8 / len(arms)
    for axis, key in zip(axes, keys, strict=True):
        for line in here:
            if value := line.values[key]:
                x = streams.index(line.concurrency) + (list(arms).index(line.arm) - (len(arms) - 1) / 2) * width
                axis.bar(x, value.median, width * 0.92, color=arms[line.arm])
                axis.vlines(x, value.low, value.high, color="black", linewidth=1)
        axis.set_title(f"{METRICS[key].title} ({METRICS[key].unit})", fontsize=10)
        axis.set_xticks(range(len(streams)), [f"{count} streams" for count in streams])
    return _png(canvas, arms)


def _cpu(here: Sequence[Line]) -> bytes:
    """Stacked bars: server CPU-seconds by role for each arm and concurrency."""
    roles = dict(zip(dict.fromkeys(role for line in here for role in line.cpu), COLOURS * 9, strict=False))
    canvas, (axis,) = _canvas(max(5.0, 1.2 * len(here)), 1)
    for x, line in enumerate(here):
        under = 0.0
        for role, seconds in line.cpu.items():
            axis.bar(x, seconds, 0.7, bottom=under, color=roles[role])
            under += seconds
    axis.set_xticks(range(len(here)), [f"{line.arm}\n{line.concurrency}" for line in here], rotation=20, ha="right")
    axis.set_title("server CPU-seconds per 1,000 tokens, or requests", fontsize=10)
    return _png(canvas, roles)


def _canvas(width: float, columns: int) -> tuple[Any, Sequence[Any]]:
    # not pyplot: it keeps a global state and looks for a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(width, 4.0), layout="constrained", dpi=110)
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
    return canvas, axes


def _png(canvas: Any, legend: Mapping[str, str]) -> bytes:
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=label) for label, colour in legend.items()]
    canvas.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    file = io.BytesIO()
    canvas.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
