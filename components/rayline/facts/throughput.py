"""Throughput that others measured and published, for the forecast of a plan. Tokens a second of one GPU, prompts and answers together.

A row holds for its load alone. service/workload.py gives the bounds that follow from it for another load.
"""

from dataclasses import dataclass

from rayline.facts.choices import Accelerator


@dataclass(frozen=True)
class MeasuredThroughput:
    """One published measurement, for each GPU. `least` and `most` are the ends of its range."""

    model: str
    accelerator: Accelerator
    gpus: int
    """GPUs of one replica."""
    least: int
    most: int
    load: str
    source: str
    tokens: tuple[int, int] | None = None
    """Tokens of a prompt and of an answer, on average; None where the source does not say."""
    first_token_ms: float | None = None
    """Time to first token that the measurement kept; None where the source does not say. The same for the next one."""
    token_ms: float | None = None


# vLLM's benchmark on ShareGPT: 1,000 prompts have 217,393 tokens and about 201,847 of answers, in its printed results.
SHAREGPT = (217, 202)

MEASURED: tuple[MeasuredThroughput, ...] = (
    MeasuredThroughput(
        "Qwen/Qwen3-8B-FP8", Accelerator.L4, 1, 1940, 1980,
        "prompts of 4,096 tokens, 94 % of all tokens, FP8 KV cache, p95 between tokens at most 75 ms",
        "akamaslabs/vllm-benchmark study 27", (4096, 261), 10_000, 75,
    ),
    MeasuredThroughput(
        "Qwen/Qwen3-30B-A3B-FP8", Accelerator.L4, 4, 607, 607, "ShareGPT, tensor parallel 4", "akamaslabs/vllm-benchmark study 16",
    ),
    MeasuredThroughput(
        "openai/gpt-oss-20b", Accelerator.L4, 2, 2345, 2345,
        "ShareGPT, tensor parallel 2, p95 between tokens at most 300 ms", "akamaslabs/vllm-benchmark study 13",
        None, 1500, 300,
    ),
    MeasuredThroughput(
        "Qwen/Qwen3.5-9B", Accelerator.H100, 1, 34470, 34470,
        "1,024 tokens in and 128 out, 512 requests at once, vLLM 0.17.1", "gpustack/gpustack docs/performance-lab", (1024, 128),
    ),
    MeasuredThroughput(
        "openai/gpt-oss-20b", Accelerator.H100, 1, 19129, 19129, "ShareGPT, vLLM 0.11", "gpustack/gpustack docs/performance-lab",
        SHAREGPT,
    ),
    MeasuredThroughput(
        "Qwen/Qwen3.5-35B-A3B-FP8", Accelerator.H200, 1, 50465, 50465,
        "1,024 tokens in and 128 out", "gpustack/gpustack docs/performance-lab", (1024, 128),
    ),
    MeasuredThroughput(
        "openai/gpt-oss-120b", Accelerator.B200, 1, 25320, 25320,
        "1,000 tokens in and 1,000 out, 72 tokens a second for each of about 256 users, FP4", "inferencex.semianalysis.com",
        (1000, 1000), None, 1000 / 72,
    ),
)  # fmt: skip


def measured(model: str, accelerator: Accelerator, gpus: int) -> MeasuredThroughput | None:
    """Return the measurement of a model on so many GPUs of a kind; None where none is known."""
    rows = (row for row in MEASURED if (row.model, row.accelerator, row.gpus) == (model, accelerator, gpus))
    return next(rows, None)


def usd_per_million(tokens_per_second: float, hourly_usd: float) -> float:
    """Return the price of a million tokens for hardware of `hourly_usd` that carries so many."""
    return hourly_usd / (tokens_per_second * 3600) * 1e6
