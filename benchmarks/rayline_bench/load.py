"""Load generators: one process of its own that imports a generator once, then forks for each measurement.

The parent (LoadGenerator) sends jobs and gets events where the measured part begins and ends, so that it reads CPU at exactly
these moments. A generator is a module with `run(job, mark) -> dict`: it warms up, calls `mark.begin()`, measures, calls
`mark.end()`, and returns METRICS (and what else is worth keeping).
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rayline_cli.local.environment import inherited_env

from .errors import BenchError

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
"""The figures of every generator."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
    # one event loop is the whole generator; thread pools of numeric libraries would only fork badly
    "OMP_NUM_THREADS": "1",
}
PR_SET_PDEATHSIG = 1
TIMEOUT_SECONDS = 1800.0
"""Of one measurement, warm-up included: without it a server that hangs would never end the run."""


class LoadGenerator:
    """One generator's process. Ends with `close`, and with this process however that ends."""

    def __init__(self, module: str, log: Path) -> None:
        self._log = log
        # removed here, not by the child: that may be killed in the middle of a measurement
        self._scratch = tempfile.TemporaryDirectory(prefix="rayline-load-")
        spawn = multiprocessing.get_context("spawn")
        self._pipe, there = spawn.Pipe()
        # as for the arms: nothing of the caller's shell decides, and no proxy stands before 127.0.0.1
        environment = inherited_env(os.environ) | ENVIRONMENT | {"TMPDIR": self._scratch.name}
        arguments = (module, there, str(log), environment)
        self._process = spawn.Process(target=_serve, args=arguments)
        self._process.start()
        there.close()
        try:
            self._wait("ready", "the load generator did not start")
        except BaseException:
            self.close()
            raise

    def run(
        self,
        job: Mapping[str, Any],
        begin: Callable[[], None],
        end: Callable[[], None],
        waiting: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """Measure once; call `begin` and `end` where the measured part begins and ends. Raises BenchError.

        `waiting` is called once a second with the part that is under way.
        """
        self._pipe.send(job)
        self._wait("begin", "the warm-up failed", lambda: waiting("warm-up"))
        begin()
        self._pipe.send("go")
        self._wait("end", "the measurement failed", lambda: waiting("measuring"))
        end()
        return self._wait("result", "the measurement failed")

    def processes(self) -> list[int]:
        """Return the process ids."""
        return [self._process.pid] if self._process.pid else []

    def close(self) -> None:
        """End the process, and with it the child that measures."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._scratch.cleanup()

    def _wait(self, wanted: str, otherwise: str, waiting: Callable[[], None] = lambda: None) -> Any:
        give_up = time.monotonic() + TIMEOUT_SECONDS
        while not self._pipe.poll(1.0):
            if time.monotonic() > give_up:
                raise BenchError(f"{otherwise}: not at its end after {TIMEOUT_SECONDS:.0f} s")
            waiting()
        try:
            event, value = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise BenchError(f"{otherwise}: the process has ended. Fix: read {self._log}") from None
        if event != wanted:
            raise BenchError(f"{otherwise}: {value}")
        return value


# --- in the generator's process ----------------------------------------------------------------------------------------


class Mark:
    """The generator's end of the pipe, in the forked child: marks the measured part for the parent."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.load_cpu_seconds = 0.0

    def begin(self) -> None:
        """Wait until the parent has read the CPU times."""
        self._pipe.send(("begin", None))
        self._pipe.recv()
        self._from = _own_cpu()

    def end(self) -> None:
        """Send the parent the end of the measured part."""
        self.load_cpu_seconds = _own_cpu() - self._from
        self._pipe.send(("end", None))


def _own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _serve(module: str, pipe: Connection, log: str, environment: Mapping[str, str]) -> None:
    _end_with_parent()
    os.setsid()  # Ctrl-C is for the parent, which then ends this
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    generator = importlib.import_module(module)
    pipe.send(("ready", None))
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            _end_with_parent()
            _measure(generator, job, pipe)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            pipe.send(("error", f"its process ended with {os.waitstatus_to_exitcode(status)}"))


def _ahead_of_servers() -> str:
    """Put this process before all ordinary ones, where the machine allows it; return its scheduling class.

    vLLM's engine waits by calling sched_yield in a loop. Measured on two cores (Linux 6.18): the kernel then let a generator
    that was ready to run wait for up to four seconds, which looked like a server that had stopped; time to first token at
    the 99th percentile was 2,900 to 8,000 ms, and 280 to 350 ms in this class.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return "ordinary"
    return "real-time"


def _measure(generator: Any, job: dict[str, Any], pipe: Connection) -> None:
    started, scheduling, mark = time.time(), _ahead_of_servers(), Mark(pipe)
    # for whatever the generator writes; in LoadGenerator's folder
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(job.get("env", {}))
        os.chdir(scratch)
        try:
            result = generator.run(job, mark)
            cpu = round(mark.load_cpu_seconds, 3)
            pipe.send(("result", result | {"load_cpu_seconds": cpu, "load_scheduling": scheduling, "started_at": started}))
        except BaseException as error:
            traceback.print_exc()
            pipe.send(("error", f"{type(error).__name__}: {error}"))
