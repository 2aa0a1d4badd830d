"""The workloads, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayline.service.reading import RayService

from .schedule import Point, seed

LABORATORY = Path(__file__).parents[1]

VLLM, HTTP, AGENTIC_LOAD = "vllm", "http", "agentic"
GENERATORS = {VLLM: "rayline_bench.vllm_load", HTTP: "rayline_bench.http_load", AGENTIC_LOAD: "rayline_bench.agentic_load"}
"""Name of a load generator, as receipts have it -> its module, with `run`: see load.py."""


@dataclass(frozen=True)
class Application:
    """A Ray Serve application of rayline_bench.apps: an ingress, and a second deployment behind it."""

    name: str
    deployments: tuple[str, str]
    """The deployment that HTTP requests reach, and the one that it calls."""
    probe: str
    """A GET that says HTTP 200 once the whole chain answers."""
    args: Mapping[str, Any]

    def put_into(self, manifest: Mapping[str, Any], replicas: int = 1) -> Mapping[str, Any]:
        """Return a copy of a RayService that runs this application and nothing else, `replicas` of each deployment.

        Everything else of the arm stays: environment, Ray's start parameters, http_options, logging. The folder of this
        package is put on the path of Ray's processes, where they find rayline_bench.apps. No deployment requests a Ray CPU,
        as the kit's engines do not: CPUs are Ray's bookkeeping, and every arm gets the same cores.
        """
        settings = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0}}
        declared = {
            "name": self.name,
            "route_prefix": "/",
            "import_path": f"rayline_bench.apps:{self.name}",
            "args": dict(self.args),
            "deployments": [{"name": name, **settings} for name in self.deployments],
        }
        changed = RayService(manifest).with_serve(lambda config: config.update(applications=[declared]))
        return changed.with_environment({"PYTHONPATH": str(LABORATORY)}).manifest


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
    application: Application | None = None
    """Takes the model's place in the arms."""
    context: int = 0
    """Tokens that the model's context has to hold, chat template included. 0: whatever it is."""

    def row(self) -> tuple[str, str, str]:
        """Return description, streams and requests for a table."""
        return self.what, ", ".join(map(str, self.concurrencies)), f"{self.requests:,}"


@dataclass(frozen=True)
class Load:
    """A workload at a concurrency."""

    workload: Workload
    concurrency: int
    requests: int

    @property
    def warmup(self) -> int:
        """Return the requests before the measurement: one for each stream, so that every connection and cache is warm."""
        return self.concurrency

    def job(self, point: Point) -> dict[str, Any]:
        """Return a load generator's job for a point of this load; the caller adds the address."""
        numbers = {"concurrency": self.concurrency, "requests": self.requests, "warmup": self.warmup}
        return numbers | {"seed": seed(point), "arguments": list(self.workload.arguments)}

    def record(self) -> dict[str, Any]:
        """Return what a receipt keeps of it."""
        numbers = {"concurrency": self.concurrency, "requests": self.requests, "warmup": self.warmup}
        generator = {"generator": self.workload.generator, "arguments": list(self.workload.arguments)}
        return {"workload": self.workload.name} | numbers | generator


def _random(name: str, what: str, tokens_in: int, tokens_out: int, concurrencies: Sequence[int], requests: int) -> Workload:
    # vLLM's random prompts have exactly this length before the chat template, and eos is ignored
    dataset = ("--dataset-name", "random", "--random-input-len", str(tokens_in), "--random-output-len", str(tokens_out))
    return Workload(name, what, concurrencies, requests, dataset, context=tokens_in + tokens_out + 64)


AGENTIC = ("--turns", "6", "--shared-tokens", "256", "--own-tokens", "256", "--tokens-in", "100", "--tokens-out", "64")
CONVERSATIONS = ("--turns", "6", "--shared-tokens", "256", "--own-tokens", "1792", "--tokens-in", "100", "--tokens-out", "64")
ECHO = ("--path", "/echo", "--body-bytes", "10240", "--contains", "Echo: x")
RECOMMENDER = ("--path", "/recommend?user_id=1", "--contains", '{"scores":[0.')
ECHO_APP = Application("echo", ("EchoIngress", "Echo"), "/echo?message=hello", {})
# published: 100,000 rows a table, 0.7 GB in all
RECOMMENDER_APP = Application("recommender", ("RecommenderIngress", "Ranker"), "/recommend?user_id=1", {"cardinality": 10_000})

WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        _random("tokens", "50 tokens in, 100 out: what a goal of throughput is stated for", 50, 100, (64, 256), 1024),
        _random("decode-heavy", "50 tokens in, 500 out", 50, 500, (64, 128, 256), 512),
        _random("balanced", "512 tokens in, 128 out", 512, 128, (64, 128, 256), 512),
        _random("prefill-heavy", "8000 tokens in, 50 out", 8000, 50, (16, 32, 64), 128),
        # the context: instructions, 6 questions and 6 answers, and the chat template's words around each of 13 messages
        Workload("agentic",
            "sessions of 6 turns: 512 tokens of instructions, half of them shared, 100 more in each turn, 64 out",
            (8, 32, 64), 384, AGENTIC, AGENTIC_LOAD, context=512 + 6 * 100 + 6 * 64 + 13 * 16),
        Workload("conversations",
            "sessions of 6 turns: 2,048 tokens of history, 256 of them shared, 100 more in each turn, 64 out",
            (8, 32), 192, CONVERSATIONS, AGENTIC_LOAD, context=2048 + 6 * 100 + 6 * 64 + 13 * 16),
        Workload("echo", "no model: 10 KB to an ingress, from there to a second deployment, and back",
            (1, 16, 64, 256), 4000, ECHO, HTTP, application=ECHO_APP),
        Workload("recommender", "no LLM: a small DLRM behind an ingress, 32 candidates in a request",
            (1, 16, 64), 2000, RECOMMENDER, HTTP, application=RECOMMENDER_APP),
    )
}  # fmt: skip
