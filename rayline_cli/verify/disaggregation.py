"""Check of prefill and decode: a prompt that no replica has seen moves its KV cache from one to the other."""

from __future__ import annotations

import time
from uuid import uuid4

from rayline_cli.verify.check import Verdict, verdict
from rayline_cli.verify.endpoint import probe, why_broken
from rayline_cli.verify.target import View

TRANSFERS = "ray_vllm_nixl_xfer_time_seconds_count"
"""Ray's metric of finished transfers, which the receiving engine counts (vllm/distributed/kv_transfer/kv_connector/v1/nixl/stats.py)."""
PATIENCE_SECONDS = 60
"""vLLM hands its numbers to Ray as an engine works, and Ray publishes them every 10 s."""


def transfers(view: View) -> Verdict:
    """Check that replicas of both sides run, and that a new prompt's KV cache is received."""
    running = {name: len(view.replicas(name)) for name in sorted(view.expected.llm_deployments)}
    seen = ", ".join(f"{count} of {name}" for name, count in running.items())
    if not all(running.values()):
        return verdict(False, f"replicas that run: {seen}", "look at the log of the replicas that do not run")
    request = probe(view)
    # a full block at least, with a beginning that no prefix cache has: what is cached is not moved
    request["body"]["prompt"] = " ".join(uuid4().hex for _ in range(4))
    before = _received(view)
    said = view.target.run_client({"do": "stream", "base": view.target.endpoint, **request})
    if reason := why_broken(said, view.task):
        return verdict(False, reason, "look at the logs of the replicas of both sides")
    end = time.monotonic() + PATIENCE_SECONDS
    while (after := _received(view)) <= before and time.monotonic() < end:
        time.sleep(1)
    evidence = f"replicas that run: {seen}; {TRANSFERS} grew from {before:.0f} to {after:.0f}"
    if after <= before:
        evidence = f"{seen} run, and {TRANSFERS} stays at {before:.0f} after a new prompt: decode computes it itself"
    return verdict(after > before, evidence, "bring the stack up again: requests pass prefill by")


def _received(view: View) -> float:
    """Return the number of transfers that all nodes have counted."""
    return sum(count for _, count in view.on_each(view.target.nodes, {"do": "metric", "name": TRANSFERS}))
