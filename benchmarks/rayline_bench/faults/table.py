"""The table of faults in docs/measured/faults.md, from the receipt of `rayline faults`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rayline_bench.faults.rows import FAULTS

HEADER = (
    "Fault",
    "Sent",
    "Answered",
    "Streams open at that moment",
    "New requests that failed",
    "How",
    "Longest time without an answer, s (before it)",
    "Whole again after, s",
    "What is inherent, and what shortens the rest",
)


def rows(receipt: Mapping[str, Any]) -> list[Sequence[object]]:
    """Return a row for each fault of the receipt, in the order of FAULTS."""
    by_key = {fault["key"]: fault for fault in receipt["faults"]}
    return [_row(by_key[key]) for key in FAULTS if key in by_key]


def _row(fault: Mapping[str, Any]) -> Sequence[object]:
    return (
        f"{fault['fault']}{_settings(fault['settings'])}: {fault['done']}",
        fault["sent"],
        fault["answered"],
        _streams(fault),
        _new(fault),
        ", ".join(f"{count} x {kind}" for kind, count in sorted(fault["failed"].items())) or "none",
        f"{fault['longest_gap_seconds']:g} ({fault['usual_gap_seconds']:g})",
        _whole(fault),
        FAULTS[fault["key"]].inherent,
    )


def _settings(settings: Mapping[str, Any]) -> str:
    """Return the settings of the service besides those that all have; the text above the table names two replicas."""
    groups = {name: group for name, group in settings.items() if name != "replicas"}
    variables = groups.get("pods", {}).get("env", {})
    others = {f"{name}.{key}": value for name, group in groups.items() for key, value in group.items() if key != "env"}
    texts = [f"`{key}: {value}`" for key, value in (*sorted(variables.items()), *others.items())]
    return f" with {', '.join(texts)}" if texts else ""


def _streams(fault: Mapping[str, Any]) -> str:
    elsewhere = f"{fault['running'] - fault['running_on_it']}"
    failed = f"{fault['failed_elsewhere'] or 'none'} failed"
    if fault["running_on_it"]:
        return f"{fault['running_on_it']} on it, {fault['failed_on_it']} failed; {elsewhere} elsewhere, {failed}"
    return f"{elsewhere}, {failed}"


def _whole(fault: Mapping[str, Any]) -> str:
    if fault["recovery_seconds"] is None:
        return f"not by itself; it answered for {fault['served_on_seconds']:g} s more"
    if fault["key"] == "worker":
        # no other node comes here, as one would in a cluster
        return f"one replica fewer, which HAProxy had dropped after {fault['recovery_seconds']:g} s"
    return f"{fault['recovery_seconds']:g}"


def _new(fault: Mapping[str, Any]) -> str:
    if not fault["failed_new"]:
        return "none"
    if fault["last_failure_seconds"] <= 0:
        return f"{fault['failed_new']}, sent before it, without an answer yet"
    return f"{fault['failed_new']}, the last sent after {fault['last_failure_seconds']:g} s"
