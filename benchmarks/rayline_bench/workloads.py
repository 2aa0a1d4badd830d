"""The workloads: what is asked of every arm, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .schedule import Point, seed

VLLM, HTTP, AGENTIC_LOAD = "vllm", "http", "agentic"
GENERATORS = {VLLM: "rayline_bench.vllm_load", HTTP: "rayline_bench.http_load", AGENTIC_LOAD: "rayline_bench.agentic_load"}
"""Name of a load generator, as receipts have it -> its module, with `run`: see load.py."""


@dataclass(frozen=True)
class Workload:
    """One kind of load."""

    name: str
    what: str
    concurrencies: Sequence[int]
    """Requests under way at once, when --concurrency does not say."""
    requests: int
    """Requests of one measurement, when --requests does not say."""
    arguments: Sequence[str] = ()
    """For the generator; for vLLM's `bench serve` they describe the dataset."""
    generator: str = VLLM
    """Of GENERATORS."""
    application: str = ""
    """A Ray Serve application that takes the model's place in the arms, see rayline_bench.applications."""
    context: int = 0
    """Tokens that the model's context has to hold, chat template included. 0: whatever it is."""


@dataclass(frozen=True)
class Load:
    """A workload at a concurrency."""

    workload: Workload
    concurrency: int
    requests: int

    @property
    def warmup(self) -> int:
        """Requests before the measurement: one for each stream, so that every connection and cache is warm."""
        return self.concurrency

    def job(self, point: Point) -> dict[str, Any]:
        """Return what a load generator does for a point of this load; where to is for the caller."""
        numbers = {"concurrency": self.concurrency, "requests": self.requests, "warmup": self.warmup}
        return numbers | {"seed": seed(point), "arguments": list(self.workload.arguments)}

    def record(self) -> dict[str, Any]:
        """Return what a receipt keeps of it."""
        return {
            "workload": self.workload.name,
            "concurrency": self.concurrency,
            "requests": self.requests,
            "warmup": self.warmup,
            "generator": self.workload.generator,
            "arguments": list(self.workload.arguments),
        }


def _random(name: str, what: str, tokens_in: int, tokens_out: int, concurrencies: Sequence[int], requests: int) -> Workload:
    # vLLM's random prompts have exactly this length before the chat template, and eos is ignored
    dataset = ("--dataset-name", "random", "--random-input-len", str(tokens_in), "--random-output-len", str(tokens_out))
    return Workload(name, what, concurrencies, requests, dataset, context=tokens_in + tokens_out + 64)


AGENTIC = ("--turns", "6", "--shared-tokens", "256", "--own-tokens", "256", "--tokens-in", "100", "--tokens-out", "64")
ECHO = ("--path", "/echo", "--body-bytes", "10240", "--contains", "Echo: x")
RECOMMENDER = ("--path", "/recommend?user_id=1", "--contains", '{"scores":[0.')

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        _random("tokens", "50 tokens in, 100 out: what a goal of throughput is stated for", 50, 100, (64, 256), 1024),
        _random("decode-heavy", "50 tokens in, 500 out", 50, 500, (64, 128, 256), 512),
        _random("balanced", "512 tokens in, 128 out", 512, 128, (64, 128, 256), 512),
        _random("prefill-heavy", "8000 tokens in, 50 out", 8000, 50, (16, 32, 64), 128),
        Workload(
            "agentic",
            "sessions of 6 turns: 512 tokens of instructions, half of them shared, 100 more in each turn, 64 out",
            (8, 32, 64),
            384,
            AGENTIC,
            AGENTIC_LOAD,
            # instructions, 6 questions and 6 answers, and the chat template's words around each of 13 messages
            context=512 + 6 * 100 + 6 * 64 + 13 * 16,
        ),
        Workload(
            "echo",
            "no model: 10 KB to an ingress, from there to a second deployment, and back",
            (1, 16, 64, 256),
            4000,
            ECHO,
            HTTP,
            application="echo",
        ),
        Workload(
            "recommender",
            "no LLM: a small DLRM behind an ingress, 32 candidates in a request",
            (1, 16, 64),
            2000,
            RECOMMENDER,
            HTTP,
            application="recommender",
        ),
    )
}
