"""What the gate in front of a service costs a request: time in the ASGI application with and without it, in one run.

Method: an application that answers at once, called directly and through the gate, turn by turn for ROUNDS rounds of
REQUESTS requests; two keys, the request brings the older one among twelve other headers. Reported are the fastest rounds
(whatever else the machine does only adds), their difference, and a refusal. The gate sees a request once and hands the
application's own coroutine on, so its cost does not grow with the answer.

    .venv/bin/python benchmarks/rayline_bench/gate.py
"""

import asyncio
import json
import os
import pathlib
import tempfile
import time
from typing import Any

from rayline.service.in_pods.rayline_gate import FOLDER_VARIABLE, ApiKeyGate

REQUESTS = 5000
ROUNDS = 30


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
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
    return {name: min(values) for name, values in rounds.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, key in (("api_key", "a" * 48), ("previous_api_key", "b" * 48)):
            (pathlib.Path(folder) / name).write_text(key)
        os.environ[FOLDER_VARIABLE] = folder
        fastest = asyncio.run(measure())
    print(
        json.dumps(
            {
                "rounds": ROUNDS,
                "requests_a_round": REQUESTS,
                "without_us": round(fastest["without"], 2),
                "with_us": round(fastest["with"], 2),
                "gate_us": round(fastest["with"] - fastest["without"], 2),
                "refusal_us": round(fastest["refused"], 2),
            }
        )
    )


if __name__ == "__main__":
    main()
