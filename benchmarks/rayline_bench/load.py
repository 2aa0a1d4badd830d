"""Load generators: one process of its own that imports a generator once, then forks for each measurement.

The parent (LoadGenerator) sends jobs and is told when the measured part begins and ends, so that CPU is read at exactly
these moments. A generator is a module with `run(job, mark) -> dict`: it warms up, calls `mark.begin()`, measures, calls
`mark.end()`, and returns METRICS (and what else is worth keeping).

    load.py MODULE      # jobs as JSON lines on stdin, events as JSON lines on stdout
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

METRICS: Mapping[str, str] = {
    "completed": "requests answered",
    "failed": "requests that were not",
    "duration": "seconds from the first request to the last answer",
    "requests_per_second": "answered requests over the duration",
    "output_tokens": "tokens generated (0 where the workload has none)",
    "output_tokens_per_second": "tokens over the duration",
    "ttft_p50_ms": "time to first token (or to the answer, where it is one piece), median",
    "ttft_p99_ms": "the same, 99th percentile",
    "tpot_p50_ms": "time per output token after the first, median",
    "tpot_p99_ms": "the same, 99th percentile",
}
"""What a generator returns."""
PR_SET_PDEATHSIG = 1
LABORATORY = Path(__file__).parents[1]
"""The folder that this package lies in."""
TIMEOUT_SECONDS = 1800.0
"""Of one measurement, warm-up included: a server that hangs would be waited for without end."""


class LoadError(Exception):
    """A measurement could not be made; the message is the generator's own."""


class Mark:
    """How a generator, in the forked child, tells the parent where the measured part is."""

    def __init__(self) -> None:
        self.load_cpu_seconds = 0.0

    def begin(self) -> None:
        """Waits until the parent has read the CPU times."""
        _tell({"event": "begin"})
        sys.stdin.buffer.raw.read(1)  # type: ignore[attr-defined]
        self._from = _own_cpu()

    def end(self) -> None:
        self.load_cpu_seconds = _own_cpu() - self._from
        _tell({"event": "end"})


class LoadGenerator:
    """One generator's process. Ends with `close`, and with this process however that ends."""

    def __init__(self, module: str, log: Path) -> None:
        self._log = log
        # removed here, not by the child: that may be killed in the middle of a measurement
        self._scratch = tempfile.TemporaryDirectory(prefix="rayline-load-")
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rayline_bench.load", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the parent, which then ends this
                env=_environment() | {"TMPDIR": self._scratch.name},
                cwd=LABORATORY,
                bufsize=0,
            )
        self._pending = b""
        self._wait("ready", "the load generator did not start")

    def run(
        self,
        job: Mapping[str, Any],
        begin: Callable[[], None],
        end: Callable[[], None],
        waiting: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """One measurement; `begin` and `end` are called where its measured part begins and ends. Raises LoadError.

        `waiting` is told once a second what is under way.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._wait("begin", "the warm-up failed", lambda: waiting("warm-up"))
        begin()
        self._process.stdin.write(b"g")
        self._wait("end", "the measurement failed", lambda: waiting("measuring"))
        end()
        return self._wait("result", "the measurement failed")["result"]

    def processes(self) -> list[int]:
        return [self._process.pid]

    def close(self) -> None:
        """Ends the process and what it forked."""
        if self._process.poll() is None:
            # its session is its process group: the child of a measurement goes with it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._scratch.cleanup()

    def _wait(self, wanted: str, otherwise: str, waiting: Callable[[], None] = lambda: None) -> dict[str, Any]:
        assert self._process.stdout is not None
        give_up = time.monotonic() + TIMEOUT_SECONDS
        while b"\n" not in self._pending:
            if select.select([self._process.stdout], [], [], 1.0)[0]:
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise LoadError(f"{otherwise}: the process has ended; see {self._log}")
                self._pending += piece
            elif time.monotonic() > give_up:
                raise LoadError(f"{otherwise}: not at its end after {TIMEOUT_SECONDS:.0f} s")
            else:
                waiting()
        line, _, self._pending = self._pending.partition(b"\n")
        event = json.loads(line)
        if event["event"] != wanted:
            raise LoadError(f"{otherwise}: {event.get('error', event)}")
        return event


def _environment() -> dict[str, str]:
    # as for the arms: nothing of the caller's shell decides, and no proxy stands before 127.0.0.1
    from rayline_cli.local.translate import inherited_env

    return inherited_env(os.environ) | {
        "PYTHONPATH": str(LABORATORY),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TOKENIZERS_PARALLELISM": "false",
        # one event loop is the whole generator; thread pools of numeric libraries would only fork badly
        "OMP_NUM_THREADS": "1",
    }


# --- in the generator's process ----------------------------------------------------------------------------------------


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


_events: int = -1


def _tell(event: Mapping[str, Any]) -> None:
    os.write(_events, json.dumps(event).encode() + b"\n")


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(module: str) -> int:
    global _events
    _end_with_parent()
    # what the generator prints belongs into the log, not between the events
    _events = os.dup(1)
    os.dup2(2, 1)
    generator = importlib.import_module(module)
    _tell({"event": "ready"})
    stdin = sys.stdin.buffer.raw  # type: ignore[attr-defined]
    while line := _line_of(stdin):
        child = os.fork()
        if child == 0:
            _end_with_parent()
            _measure(generator, json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            _tell({"event": "error", "error": f"its process ended with {os.waitstatus_to_exitcode(status)}"})
    return 0


def _line_of(stdin: Any) -> bytes:
    """Byte by byte: what follows the line is for the child."""
    line = b""
    while not line.endswith(b"\n"):
        byte = stdin.read(1)
        if not byte:
            return b""
        line += byte
    return line


def _ahead_of_servers() -> str:
    """Puts this process before all ordinary ones, where the machine allows it; returns its scheduling class.

    vLLM's engine waits by calling sched_yield in a loop. Measured on two cores (Linux 6.18): the kernel then let a generator
    that was ready to run wait for up to four seconds, which looked like a server that had stopped; time to first token at
    the 99th percentile was 2,900 to 8,000 ms, and 280 to 350 ms in this class.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return "ordinary"
    return "real-time"


def _measure(generator: Any, job: dict[str, Any]) -> None:
    started = time.time()
    scheduling = _ahead_of_servers()
    mark = Mark()
    # for whatever the generator writes; in LoadGenerator's folder
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(job.get("env", {}))
        os.chdir(scratch)
        try:
            result = generator.run(job, mark)
            result |= {
                "load_cpu_seconds": round(mark.load_cpu_seconds, 3),
                "load_scheduling": scheduling,
                "started_at": started,
            }
            _tell({"event": "result", "result": result})
        except BaseException as error:
            traceback.print_exc()
            _tell({"event": "error", "error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    # the module that was imported, not __main__: generators may import this one by its name
    from rayline_bench import load

    sys.exit(load.main(sys.argv[1]))
