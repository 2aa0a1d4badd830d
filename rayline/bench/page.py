"""A receipt as one page: plots as PNG files and inside one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rayline.bench.goals import verdicts
from rayline.bench.receipt import Receipt
from rayline.bench.report import COLUMNS, RATIOS, figure, ratio_text, remarks
from rayline.bench.summary import METRICS, Line, lines
from rayline.bench.workloads import WORKLOADS

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000", "#997700", "#994455")
"""Paul Tol's bright scheme, then some: told apart by people who see colours differently."""
PLOTTED = ("throughput", "requests", "ttft_p50", "ttft_p99", "tpot_p50")
SMALL_ROLE = 0.02
"""Roles below this share of the largest bar are drawn together."""


def write(receipt: Receipt, path: Path) -> list[Path]:
    """Writes the page and its plots beside a receipt's `path`. The files, the page first."""
    plots = drawn(receipt)
    page = path.with_suffix(".html")
    page.write_text(text(receipt, plots))
    files = [page]
    for name, png in plots.items():
        file = path.with_name(f"{path.stem}-{name}.png")
        file.write_bytes(png)
        files.append(file)
    return files


# --- plots -------------------------------------------------------------------------------------------------------------


def drawn(receipt: Receipt) -> dict[str, bytes]:
    """Name -> PNG: for each workload its figures over the concurrency, and CPU by process."""
    plots = {}
    every = lines(receipt)
    colours = dict(zip(receipt.configuration.arms, COLOURS * 9, strict=False))
    for workload in dict.fromkeys(line.workload for line in every):
        here = [line for line in every if line.workload == workload]
        plots[workload] = _figures(here, colours)
        if any(line.cpu for line in here):
            plots[f"{workload}-cpu"] = _cpu(here)
    return plots


def _canvas(width: float, height: float, columns: int) -> tuple[Any, Sequence[Any]]:
    # not pyplot: it keeps a global state and looks for a display
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="y", alpha=0.3)
        one.set_axisbelow(True)
    return canvas, axes


def _png(canvas: Any) -> bytes:
    file = io.BytesIO()
    canvas.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _figures(here: Sequence[Line], colours: Mapping[str, str]) -> bytes:
    """A bar for the median, a line from the lowest to the highest repeat; groups are concurrencies."""
    keys = [key for key in PLOTTED if any(line.values[key] for line in here)]
    if "throughput" in keys:
        keys.remove("requests")
    arms = list(dict.fromkeys(line.arm for line in here))
    streams = sorted({line.concurrency for line in here})
    canvas, axes = _canvas(4.2 * len(keys), 3.6, len(keys))
    width = 0.8 / len(arms)
    for axis, key in zip(axes, keys, strict=True):
        for index, arm in enumerate(arms):
            for line in here:
                value = line.values[key]
                if line.arm != arm or value is None:
                    continue
                x = streams.index(line.concurrency) + (index - (len(arms) - 1) / 2) * width
                label = arm if line.concurrency == streams[0] and key == keys[0] else None
                axis.bar(x, value.median, width * 0.92, color=colours[arm], label=label)
                axis.vlines(x, value.low, value.high, color="black", linewidth=1)
        axis.set_title(f"{METRICS[key].title} ({METRICS[key].unit})", fontsize=10)
        axis.set_xticks(range(len(streams)), [f"{count} streams" for count in streams])
    canvas.legend(loc="outside lower center", ncols=min(len(arms), 6), frameon=False)
    return _png(canvas)


def _cpu(here: Sequence[Line]) -> bytes:
    """Stacked bars: server CPU-seconds by role, an axis for each concurrency."""
    streams = sorted({line.concurrency for line in here})
    largest = max(sum(line.cpu.values()) for line in here)
    weights: dict[str, float] = {}
    for line in here:
        for role, seconds in line.cpu.items():
            weights[role] = max(weights.get(role, 0.0), seconds)
    named = [role for role in sorted(weights, key=lambda r: -weights[r]) if weights[role] >= SMALL_ROLE * largest]
    colours = dict(zip(named, COLOURS, strict=False))
    arms = max(len([line for line in here if line.concurrency == count]) for count in streams)
    canvas, axes = _canvas(max(5.0, 1.0 * arms + 1.5) * len(streams), 4.2, len(streams))
    for axis, count in zip(axes, streams, strict=True):
        shown = [line for line in here if line.concurrency == count]
        for x, line in enumerate(shown):
            parts = [(role, line.cpu.get(role, 0.0)) for role in named]
            parts.append(("the rest", sum(line.cpu.values()) - sum(seconds for _, seconds in parts)))
            under = 0.0
            for role, seconds in parts:
                axis.bar(
                    x, seconds, 0.7, bottom=under, color=colours.get(role, "#dddddd"), label=role if x == 0 else None
                )
                under += seconds
        axis.set_xticks(range(len(shown)), [line.arm for line in shown], rotation=20, ha="right")
        unit = "1,000 tokens" if any(line.values["throughput"] for line in shown) else "1,000 requests"
        axis.set_title(f"server CPU-seconds per {unit}, {count} streams", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return _png(canvas)


# --- the page ----------------------------------------------------------------------------------------------------------

HOW_TO_READ = (
    'CPU: seconds of the servers\' processes for 1,000 tokens (s/1k); "engine" is vLLM\'s, "rest" everything around it.',
    "TTFT: time to first token. TPOT: time per output token after the first.",
    "A ratio says something where its whole range is on one side of 1 and its starts agree.",
    "These are figures of this machine under this load: compare within this page only. docs/benchmark.md has the method.",
)
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 0.8em 0; font-size: 13px }
th, td { padding: 3px 9px; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child, .left td { text-align: left }
.wide td { white-space: normal }
img { max-width: 100% }
small, .dim { color: #777 }
.bad { color: #b00; font-weight: 600 }
.good { color: #171 }
pre { background: #f5f5f5; padding: 0.7em; overflow-x: auto; font-size: 12px }
summary { cursor: pointer }
"""


def text(receipt: Receipt, plots: Mapping[str, bytes]) -> str:
    """The whole page."""
    parts = [_head(receipt), _goals(receipt)]
    every = lines(receipt)
    for workload in dict.fromkeys(line.workload for line in every):
        parts.append(f"<h2>{html.escape(workload)}</h2><p>{html.escape(_what(receipt, workload))}</p>")
        for name in (workload, f"{workload}-cpu"):
            if name in plots:
                data = base64.b64encode(plots[name]).decode()
                parts.append(f'<p><img alt="{html.escape(name)}" src="data:image/png;base64,{data}"></p>')
        for count in dict.fromkeys(line.concurrency for line in every if line.workload == workload):
            parts.append(
                _figures_table([p for p in every if (p.workload, p.concurrency) == (workload, count)], receipt)
            )
    parts += [_arms(receipt), _points(receipt)]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>rayline bench</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def table(header: Iterable[str], rows: Iterable[Iterable[str]], style: str = "") -> str:
    """Cells are HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="{style}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'


def _head(receipt: Receipt) -> str:
    config, git = receipt.configuration, receipt.git
    versions = ", ".join(f"{name} {version}" for name, version in config.versions.items())
    hardware = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in receipt.hardware.items())
    commit = f"{str(git.get('commit'))[:12]}{' with changes' if git.get('changed') else ''}"
    ended = receipt.ended_at or "<span class=bad>not at its end yet</span>"
    facts = [
        ("model", html.escape(config.model)),
        ("measured", f"{receipt.started_at} to {ended}, stopped and resumed {receipt.interrupted} times"),
        (
            "repeats",
            f"{receipt.repeats}, arms in turns; side by side: "
            + html.escape(" | ".join(", ".join(group) for group in receipt.groups)),
        ),
        ("machine", html.escape(hardware)),
        ("versions", html.escape(versions)),
        ("kit", f"commit {commit}, configuration {receipt.configuration_hash}"),
        ("command", f"<code>{html.escape(receipt.command)}</code>"),
    ]
    notes = "".join(f'<li class="bad">{html.escape(remark)}</li>' for remark in remarks(receipt))
    notes += "".join(f"<li>{html.escape(note)}</li>" for note in [*receipt.notes, *HOW_TO_READ])
    return f"<h1>rayline bench</h1>{table((), facts, 'left wide')}<ul>{notes}</ul>"


def _what(receipt: Receipt, workload: str) -> str:
    """The workload in words, and how many requests a point of it has."""
    known = WORKLOADS.get(workload)
    loads = [load for load in receipt.configuration.loads if load["workload"] == workload]
    points = ", ".join(f"{load['requests']} requests at {load['concurrency']} streams" for load in loads)
    return f"{known.what}; {points}" if known else points


def _goals(receipt: Receipt) -> str:
    found = verdicts(receipt)
    if not found:
        return ""
    rows = []
    for verdict in found:
        style, word = ("good", "reached") if verdict.reached else ("bad", "not reached")
        few = "" if verdict.enough else " <small>(fewer repeats or requests than it is stated for)</small>"
        cells = (html.escape(verdict.text()), f"{verdict.concurrency} streams", ratio_text(verdict.ratio))
        rows.append((*cells, f'<span class="{style}">{word}</span>{few}'))
    return "<h2>Goals</h2>" + table(("goal", "at", "measured", ""), rows)


def _figures_table(here: Sequence[Line], receipt: Receipt) -> str:
    first = here[0]
    rows = []
    for line in here:
        cells = [f"<b>{html.escape(line.arm)}</b>"]
        for key in COLUMNS:
            ratio = line.ratios[key] if key in RATIOS else None
            cells.append(figure(line.values[key]) + (f"<br><b>{ratio_text(ratio)}</b>" if ratio else ""))
        failed = f' <span class="bad">{line.failed_points} failed</span>' if line.failed_points else ""
        rows.append([*cells, f"{line.repeats}{failed}"])
    header = ["arm", *(f"{METRICS[key].title}<br><small>{METRICS[key].unit}</small>" for key in COLUMNS), "repeats"]
    roles = list(dict.fromkeys(role for line in sorted(here, key=lambda p: -len(p.cpu)) for role in line.cpu))
    cpu = [[html.escape(r), *(f"{p.cpu[r]:.4f}" if r in p.cpu else "" for p in here)] for r in roles]
    cpu.append(["<i>load generator</i>", *(f"{line.load_cpu:.4f}" for line in here)])
    base = html.escape(receipt.configuration.base)
    return (
        f"<h3>{html.escape(first.workload)}, {first.concurrency} streams</h3>"
        f"<p>Median (lowest-highest repeat); <b>x</b> against {base} in the same repeat.</p>{table(header, rows)}"
        "<details><summary>Server CPU-seconds per 1,000 tokens (or requests), by process</summary>"
        f"{table(['process', *(html.escape(line.arm) for line in here)], cpu)}</details>"
    )


def _arms(receipt: Receipt) -> str:
    parts = ["<h2>Arms</h2>"]
    for name, arm in receipt.arms.items():
        differences = html.escape("\n".join(arm.differences)) or "nothing"
        checks = [
            [
                f'<span class="{"bad" if check["outcome"] == "fail" else "good"}">{html.escape(check["outcome"])}</span>',
                html.escape(check["name"]),
                html.escape(check["evidence"]),
            ]
            for check in arm.checks
        ]
        failed = sum(check["outcome"] == "fail" for check in arm.checks)
        verified = (
            f"{len(checks) - failed} of {len(checks)} checks without a failure" if checks else "not a service of Ray"
        )
        parts.append(
            f"<details><summary><b>{html.escape(name)}</b>: {html.escape(arm.what)}; {arm.memory_gib:.1f} GiB; {verified}"
            f"</summary><p>Differs from {html.escape(receipt.configuration.base)} in:</p><pre>{differences}</pre>"
            f"{table(('outcome', 'check', 'seen'), checks, 'left wide') if checks else ''}</details>"
        )
    return "\n".join(parts)


def _points(receipt: Receipt) -> str:
    header = ("at", "batch", "repeat", "workload", "streams", "arm", "answered", "failed", "tokens/s", "req/s")
    header = (*header, "TTFT p50", "p99", "TPOT p50", "p99", "server CPU s", "load CPU s", "others, cores")
    rows = []
    for point in receipt.points:
        load = point.load
        numbers = ("output_tokens_per_second", "requests_per_second", "ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms")
        cells = [f"{load[key]:,.1f}" if load.get(key) is not None else "" for key in (*numbers, "tpot_p99_ms")]
        style = "bad" if point.failed else ""
        rows.append(
            [
                point.at,
                str(point.batch),
                str(point.repeat),
                html.escape(point.workload),
                str(point.concurrency),
                html.escape(point.arm),
                str(load["completed"]),
                f'<span class="{style}">{load["failed"]}</span>',
                *cells,
                f"{math.fsum(point.cpu_seconds.values()):.1f}",
                f"{load['load_cpu_seconds']:.1f}",
                f"{point.machine_load:.2f}",
            ]
        )
    return f"<h2>Every measurement</h2><details><summary>{len(rows)} points</summary>{table(header, rows)}</details>"
