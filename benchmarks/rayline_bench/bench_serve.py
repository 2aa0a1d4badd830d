"""`vllm bench serve`, the load generator of language models: its arguments, and the figures of its JSON. Imports nothing of vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def arguments(job: Mapping[str, Any], *, requests: int, seed: int) -> list[str]:
    """Return the arguments for a job: url, model, tokenizer, concurrency, and `arguments`, which describe the dataset."""
    return [
        *("--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", job["url"]),
        *("--model", job["model"], "--tokenizer", job["tokenizer"]),
        *("--num-prompts", str(requests), "--max-concurrency", str(job["concurrency"]), "--seed", str(seed)),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99"),
        *("--ignore-eos", "--disable-tqdm"),
        *job["arguments"],
    ]


FIGURES: Mapping[str, str] = {
    "completed": "completed",
    "failed": "failed",
    "duration": "duration",
    "requests_per_second": "request_throughput",
    "output_tokens": "total_output_tokens",
    "output_tokens_per_second": "output_throughput",
    "input_tokens": "total_input_tokens",
    **{f"{metric}_p{n}_ms": f"p{n}_{metric}_ms" for metric in ("ttft", "tpot", "e2el") for n in (50, 90, 99)},
}
"""Name in METRICS (load.py), and more -> name in the JSON."""


def figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return METRICS (load.py) and more from the JSON of a run."""
    return {name: result[key] for name, key in FIGURES.items()}
