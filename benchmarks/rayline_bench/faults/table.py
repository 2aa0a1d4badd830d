"""The table of faults in docs/measured/faults.md, from the receipt that `rayline faults` writes. Needs no Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RECEIPT = Path("benchmarks/receipts/faults.json")
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

# What of a fault's cost is inherent, by the key of its row: what no setting saves, and which setting saves the rest. In the
# order of the table: a fault under other settings follows the one that it is to be compared with.
INHERENT: Mapping[str, str] = {
    "replica": "The streams on it: their state died with the process, and HAProxy cannot repeat an answer that has begun. "
    "New requests are sent to the other replica, because a refused connection may be tried again (`redispatch`).",
    "engine": "The streams on it. A stream may also end in good order, with HTTP 200 and `[DONE]` but no tokens: clients should look at "
    "`usage`. The API server ends soon after its engine, and what it refuses until then is not repeated, because the request "
    "may have had an effect.",
    "engine-quicker": "As above.",
    "router": "No stream. New completions are refused until Serve has noticed and started another router: there is one for "
    "each node, and HAProxy asks no other (ray #66339); `RAY_SERVE_INGRESS_ROUTER_REPLICAS_PER_NODE: '2'` gives it a second. "
    "`GET` requests are answered throughout.",
    "one-router-of-two": "Nothing: HAProxy asks the other router of the node when a connection is refused.",
    "haproxy": "Every stream of the node. New requests wait for Serve: it looks every "
    "`RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S` (10 s) and replaces HAProxy after three failures. In a cluster the readiness "
    "probe takes the pod out of the Service meanwhile. The variable may be lowered in `pods.env`. A new HAProxy says 404 for a "
    "moment, before it knows the routes.",
    "haproxy-quicker": "As above, and a shorter wait. `elsewhere` are streams that an older haproxy process was finishing after a reload: it "
    "ends with the manager, which Serve replaces together with HAProxy.",
    "manager": "As for HAProxy: the process ends with the actor that started it.",
    "controller": "Nothing: it is not in the path of a request.",
    "reload": "Nothing, while streams are shorter than `rollout.longest_stream_seconds` (300 s).",
    "short-limit": "Streams longer than the limit: an old haproxy process is ended with what it still has (ray #66056).",
    "down": "Nothing: the replica finishes its streams before it ends.",
    "up": "Nothing.",
    "roll": "Nothing: the old replica ends when another one answers.",
    "worker": "The streams on its replica, and in a cluster those that came through its HAProxy. A machine that loses power "
    "answers nothing, and each new request that is sent there waits 5 s for it, until HAProxy has seen two checks fail.",
    "head": "Without a store every replica ends when its raylet has given up the GCS, and loads again with the new head. "
    "`head.store` is for that.",
    "head-with-store": "What ran on the head itself; in a stack of the kit it holds no replica. Workers serve on; there is no scaling and "
    "no change until the new head is there.",
}


def rows(receipt: Mapping[str, Any]) -> list[Sequence[object]]:
    """A row for each fault of the receipt, in the order of INHERENT."""
    by_key = {one["key"]: one for one in receipt["faults"]}
    return [_row(by_key[key]) for key in INHERENT if key in by_key]


def _row(one: Mapping[str, Any]) -> Sequence[object]:
    return (
        f"{one['fault']}{_settings(one['settings'])}: {one['done']}",
        one["sent"],
        one["answered"],
        _streams(one),
        _new(one),
        _how(one),
        f"{one['longest_gap_seconds']:g} ({one['usual_gap_seconds']:g})",
        _whole(one),
        INHERENT[one["key"]],
    )


def _settings(settings: Mapping[str, Any]) -> str:
    """What the service had besides what all have; two replicas are said above the table."""
    groups = {name: group for name, group in settings.items() if name != "replicas"}
    variables = groups.get("pods", {}).get("env", {})
    others = {f"{name}.{key}": value for name, group in groups.items() for key, value in group.items() if key != "env"}
    said = [f"`{key}: {value}`" for key, value in (*sorted(variables.items()), *others.items())]
    return f" with {', '.join(said)}" if said else ""


def _streams(one: Mapping[str, Any]) -> str:
    elsewhere = one["running"] - one["running_on_it"]
    if one["running_on_it"]:
        return (
            f"{one['running_on_it']} on it, {one['failed_on_it']} failed; {elsewhere} elsewhere, "
            f"{one['failed_elsewhere'] or 'none'} failed"
        )
    return f"{elsewhere}, {one['failed_elsewhere'] or 'none'} failed"


def _whole(one: Mapping[str, Any]) -> str:
    if one["recovery_seconds"] is None:
        return f"not by itself; it answered for {one['served_on_seconds']:g} s more"
    if one["key"] == "worker":
        # no other node comes here, as one would in a cluster
        return f"one replica fewer, which HAProxy had dropped after {one['recovery_seconds']:g} s"
    return f"{one['recovery_seconds']:g}"


def _new(one: Mapping[str, Any]) -> str:
    if not one["failed_new"]:
        return "none"
    if one["last_failure_seconds"] <= 0:
        return f"{one['failed_new']}, sent before it, without an answer yet"
    return f"{one['failed_new']}, the last sent after {one['last_failure_seconds']:g} s"


def _how(one: Mapping[str, Any]) -> str:
    """Kinds of failure with their counts."""
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(one["failed"].items())) or "none"


def load(root: Path) -> dict[str, Any] | None:
    """The committed receipt, or None where nobody has made one yet."""
    path = root / RECEIPT
    return json.loads(path.read_text()) if path.exists() else None
