"""Conversations as a generator: several turns each, the context grows, the session is named in a header.

One turn, its text and its timing are Ray's own (ray.llm._internal.serve.benchmark, which the image of a cluster has as well).
The loop around is not: Ray's makes prompts and warms up within what it measures, and counts no failures. Ray promises nothing
about this module, so a test holds the parts that are used here to the pinned version.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import numpy as np
from ray.llm._internal.serve.benchmark.text_gen import Conversation, TextGenerator
from ray.llm._internal.serve.benchmark.turn import execute_single_turn


def run(job: Mapping[str, Any], mark: Any) -> dict[str, Any]:
    """Measure once, see rayline_bench.load; a request is one turn. `arguments`: those of `_parser`."""
    from transformers import AutoTokenizer

    shape = _parser().parse_args(job["arguments"])
    np.random.seed(job["seed"])
    text = TextGenerator(AutoTokenizer.from_pretrained(job["tokenizer"]))
    sessions = max(job["concurrency"], -(-job["requests"] // shape.turns))
    # Every text is made before: making them takes as much CPU as sending them.
    shared = text.generate(shape.shared_tokens)

    def conversation(name: str, turns: int) -> Any:
        system = f"{shared} {text.generate(shape.own_tokens)}"
        return Conversation(f"{job['seed']}-{name}", system, [text.generate(shape.tokens_in) for _ in range(turns)], turns)

    conversations = [conversation(str(at), shape.turns) for at in range(sessions)]
    rehearsal = [conversation(f"w{at}", 1) for at in range(job["warmup"])]
    asyncio.run(_all(rehearsal, job, shape.tokens_out))
    mark.begin()
    started = time.perf_counter()
    turns, errors = asyncio.run(_all(conversations, job, shape.tokens_out))
    duration = time.perf_counter() - started
    mark.end()
    return summarised(turns, errors, duration, shape.turns)


async def _all(conversations: Sequence[Any], job: Mapping[str, Any], tokens_out: int) -> tuple[list[Any], Counter[str]]:
    """Run every conversation, `concurrency` at once; each turn follows the previous answer without a pause."""
    waiting, turns, errors = iter(conversations), list[Any](), Counter[str]()
    started, key = time.perf_counter_ns(), os.environ.get("OPENAI_API_KEY") or None
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:

        async def one_after_another() -> None:
            for conversation in waiting:
                try:
                    for turn in range(conversation.num_turns):
                        place = (conversation, turn, job["url"], job["model"], tokens_out, started)
                        turns.append((await execute_single_turn(http, *place, api_key=key)).metric)
                except (RuntimeError, aiohttp.ClientError, TimeoutError) as error:
                    # the turns after it cannot be sent any more
                    errors[f"{type(error).__name__}: {error}"[:200]] += conversation.num_turns - turn

        await asyncio.gather(*(one_after_another() for _ in range(job["concurrency"])))
    return turns, errors


def summarised(turns: Sequence[Any], errors: Mapping[str, int], duration: float, number_of_turns: int) -> dict[str, Any]:
    """Return figures of the turns that were answered, over all and by their place in the conversation (from 1)."""
    tokens = sum(turn.output_tokens for turn in turns)
    by_turn = []
    for place in range(number_of_turns):
        if here := [turn for turn in turns if turn.turn == place]:
            input_tokens = round(sum(turn.input_tokens for turn in here) / len(here), 1)
            counts = {"turn": place + 1, "completed": len(here), "input_tokens_mean": input_tokens}
            by_turn.append(counts | _percentiles(here, 50, 99))
    return {
        "completed": len(turns),
        "failed": sum(errors.values()),
        "duration": duration,
        "requests_per_second": len(turns) / duration,
        "output_tokens": tokens,
        "output_tokens_per_second": tokens / duration,
        "input_tokens": sum(turn.input_tokens for turn in turns),
        **_percentiles(turns, 50, 90, 99),
        "by_turn": by_turn,
        "errors": [f"{count} x {what}" for what, count in Counter(errors).most_common(3)],
    }


def _percentiles(turns: Sequence[Any], *shares: int) -> dict[str, float | None]:
    """Return time to first token, and time per token after the first of answers with more than one."""
    times = {
        "ttft": [turn.ttft_ms for turn in turns],
        "tpot": [(turn.e2e_latency_ms - turn.ttft_ms) / (turn.output_tokens - 1) for turn in turns if turn.output_tokens > 1],
    }
    return {
        f"{name}_p{share}_ms": round(float(np.percentile(values, share)), 3) if values else None
        for name, values in times.items()
        for share in shares
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="arguments of a workload", add_help=False)
    parser.add_argument("--turns", type=int, required=True)
    parser.add_argument("--shared-tokens", type=int, required=True, help="of the system prompt, the same for all sessions")
    parser.add_argument("--own-tokens", type=int, required=True, help="of the system prompt, the session's own")
    parser.add_argument("--tokens-in", type=int, required=True, help="of each question")
    parser.add_argument("--tokens-out", type=int, required=True, help="of each answer, at most")
    return parser
