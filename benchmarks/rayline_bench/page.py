"""A receipt as one page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from .receipt import Receipt
from .report import HOW_TO_READ, remarks, tables
from .tables import Table, code, prose

POINT_FIGURES = {
    "output_tokens_per_second": "tokens/s",
    "requests_per_second": "req/s",
    "ttft_p50_ms": "TTFT p50",
    "ttft_p99_ms": "TTFT p99",
    "tpot_p50_ms": "TPOT p50",
    "tpot_p99_ms": "TPOT p99",
}


def write(receipt: Receipt, path: Path) -> Path:
    """Write the page beside a receipt's `path`. Return its path."""
    page = path.with_suffix(".md")
    page.write_text(text(receipt))
    return page


def text(receipt: Receipt) -> str:
    """Return the page."""
    parts = ["# rayline bench", _facts(receipt).markdown()]
    notes = [*(f"**{remark}**" for remark in remarks(receipt)), *map(prose, (*receipt.notes, *HOW_TO_READ))]
    parts.append("\n".join(f"- {note}" for note in notes))
    for table in tables(receipt):
        parts += [f"## {table.title}", table.markdown()]
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
