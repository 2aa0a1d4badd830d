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


def figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return METRICS (load.py) and more from the JSON of a run."""
    found = {
        "completed": result["completed"],
        "failed": result["failed"],
        "duration": result["duration"],
        "requests_per_second": result["request_throughput"],
        "output_tokens": result["total_output_tokens"],
        "output_tokens_per_second": result["output_throughput"],
        "input_tokens": result["total_input_tokens"],
    }
    for metric in ("ttft", "tpot", "e2el"):
        for percentile in ("50", "90", "99"):
            found[f"{metric}_p{percentile}_ms"] = result[f"p{percentile}_{metric}_ms"]
    return found
