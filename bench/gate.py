"""What the gate in front of a service costs a request: time in the ASGI application with and without it, in one run.

Method: an application that streams CHUNKS parts without doing anything, called directly and through the gate, turn by turn
for ROUNDS rounds of REQUESTS requests; two keys, the request brings the older one. Reported are the medians of the rounds,
their difference, and the same for a refusal. The gate sees a request once, so its cost does not grow with the answer.

    .venv/bin/python -m bench.gate
"""

import asyncio
import json
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any

from components.in_pods.rayline_gate import FOLDER_VARIABLE, ApiKeyGate

CHUNKS = 100
REQUESTS = 2000
ROUNDS = 15


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": b"data: {}", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _ignore(message: Any = None) -> Any:
    return message


async def microseconds(app: Any, headers: list[tuple[bytes, bytes]]) -> float:
    """Of one request, mean of REQUESTS."""
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    start = time.perf_counter()
    for _ in range(REQUESTS):
        await app(scope, _ignore, _ignore)
    return (time.perf_counter() - start) / REQUESTS * 1e6


async def measure() -> dict[str, float]:
    # what a client of the OpenAI library sends beside the key
    others = [(f"x-header-{index}".encode(), b"value") for index in range(12)]
    right = [*others, (b"authorization", b"Bearer " + b"b" * 48)]
    gate = ApiKeyGate(application)
    rounds: dict[str, list[float]] = {"without": [], "with": [], "refused": []}
    for _ in range(ROUNDS):
        rounds["without"].append(await microseconds(application, right))
        rounds["with"].append(await microseconds(gate, right))
        rounds["refused"].append(await microseconds(gate, others))
    return {name: statistics.median(values) for name, values in rounds.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, key in (("api_key", "a" * 48), ("previous_api_key", "b" * 48)):
            (pathlib.Path(folder) / name).write_text(key)
        os.environ[FOLDER_VARIABLE] = folder
        medians = asyncio.run(measure())
    print(
        json.dumps(
            {
                "rounds": ROUNDS,
                "requests_a_round": REQUESTS,
                "chunks": CHUNKS,
                "without_us": round(medians["without"], 2),
                "with_us": round(medians["with"], 2),
                "gate_us": round(medians["with"] - medians["without"], 2),
                "refusal_us": round(medians["refused"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
