"""`rayline faults`: every fault on this machine, one after the other under load; the counts go to a receipt.

Takes longer than half an hour: several sessions are started one after the other, each of one or two replicas of a tiny model.
"""

from __future__ import annotations

import datetime
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayline_bench.errors import BenchError, BenchUsageError
from rayline_bench.faults import services
from rayline_bench.faults.rows import FAULTS, SERVICES
from rayline_bench.faults.scenes import CLIENTS, LONG_CLIENTS, LONG_TOKENS, TOKENS, FaultOutcome, observe
from rayline_bench.receipt import git_state, hardware, versions
from rayline_cli.local.runtime import LocalRuntimeError
from rayline_cli.progress import terminal_report


def machine() -> dict[str, Any]:
    """Return what all rows of a receipt have in common."""
    return {"hardware": hardware(), "versions": versions(), "service": dict(services.SERVICE)}


def earlier_rows(path: Path, here: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rows of an earlier receipt by key; they stay until they are counted again. Raises BenchUsageError."""
    if not path.exists():
        return {}
    try:
        earlier = json.loads(path.read_text())
        differs = [name for name in here if earlier[name] != here[name]]
        rows = {row["key"]: row for row in earlier["faults"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise BenchUsageError(f"--receipt: {path} is no receipt of this command. Fix: name another file") from None
    if differs:
        raise BenchUsageError(
            f"--receipt: {path} was made with other {' and '.join(differs)}, and one table needs the same for all its rows. "
            "Fix: name another file"
        )
    return rows


def receipt(rows: Mapping[str, Mapping[str, Any]], here: Mapping[str, Any]) -> dict[str, Any]:
    """Return the receipt with `rows`, which are by key."""
    load = {"clients": CLIENTS, "tokens": TOKENS, "long_clients": LONG_CLIENTS, "long_tokens": LONG_TOKENS}
    faults = [rows[key] for key in FAULTS if key in rows]
    return {"command": "rayline faults", **here, "load": load, "faults": faults}


def row(key: str, settings: Mapping[str, Any], outcome: FaultOutcome, git: Mapping[str, Any]) -> dict[str, Any]:
    """Return one fault of the receipt."""
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"key": key, "made": made, "git": dict(git), "settings": dict(settings), **vars(outcome)}


def measure(only: str, path: Path, state_dir: Path) -> None:
    """Inject each fault of `only` (names with commas; empty: all) and write the receipt. Raises BenchUsageError or BenchError."""
    wanted = only.split(",") if only else list(FAULTS)
    if unknown := [key for key in wanted if key not in FAULTS]:
        raise BenchUsageError(f"--only {','.join(unknown)}: there is no such fault. Fix: name some of {', '.join(FAULTS)}")
    here, git, skipped = machine(), git_state(), []
    rows = earlier_rows(path, here)
    try:
        with terminal_report(sys.stderr) as report:
            for service in SERVICES:
                faults = [fault for fault in FAULTS.values() if fault.service is service and fault.key in wanted]
                if not faults:
                    continue
                if service.store and shutil.which("redis-server") is None:
                    skipped += [fault.key for fault in faults]
                    report.note(f"{', '.join(skipped)}: skipped, no redis-server on PATH")
                    continue
                with services.served(service, state_dir, report) as scene:
                    for fault in faults:
                        if scene.node is None:
                            whole = len(scene.replicas())
                            report.phase("fault", f"{fault.key}: waiting for {whole} replicas behind one HAProxy")
                            scene.settle(whole)
                        report.phase("fault", fault.key)
                        seen = observe(scene, fault)
                        rows[fault.key] = row(fault.key, service.settings, seen, git)
                        report.note(
                            f"{seen.fault}: {seen.sent} sent, {seen.answered} answered, failed {dict(seen.failed) or 0}; "
                            f"recovery {seen.recovery_seconds} s"
                        )
                        # written each time: what was counted is kept when a later fault does not end
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_text(json.dumps(receipt(rows, here), indent=2) + "\n")
    except (LocalRuntimeError, TimeoutError) as error:
        raise BenchError(str(error)) from None
    if only and skipped:
        raise BenchError(f"{', '.join(skipped)}: not measured. Fix: install redis-server")
