"""`up` on a machine whose CPUs others use: it takes longer, says so, and ends with an answer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rayline_cli.local import session
from rayline_cli.verify import Outcome
from tests.serve.serving import SECRETS, Recorder, ray_service, runtime

CPUS = len(os.sched_getaffinity(0))
BUSY = 2 * CPUS
# ends with its parent, however that ends
SPIN = "import ctypes\nctypes.CDLL(None).prctl(1, 9)\nwhile True:\n    pass"


@dataclass
class Watching(Recorder):
    """A report that also looks at the priority of the session whenever it is told something."""

    state_dir: Path = Path()
    niceness: dict[str, int | None] = field(default_factory=dict)
    """Phase -> of the session's scheduling group, as it was last seen then."""

    def phase(self, name: str, detail: str) -> None:
        super().phase(name, detail)
        found = session.load(self.state_dir)
        if found is not None:
            self.niceness[name] = group_niceness(found.supervisor_pid)


def group_niceness(pid: int) -> int | None:
    """Of a process's scheduling group; None where the kernel makes no such groups."""
    try:
        return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])
    except (OSError, IndexError):
        return None


@pytest.fixture
def busy() -> Iterator[list[int]]:
    """So many processes that only use CPU, each in a session of its own, as others' compilers are."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True) for _ in range(BUSY)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def test_up_ends_with_an_answer_beside_busy_programs_of_equal_priority(busy: list[int], tmp_path: Path):
    report = Watching(state_dir=tmp_path)
    try:
        running = runtime.up(ray_service(), state_dir=tmp_path, secrets=SECRETS, report=report)
        print(
            f"up took {running.seconds:.0f} s beside {len(busy)} busy processes on {CPUS} CPUs, load {os.getloadavg()[0]:.0f}"
        )
        assert running.answer is not None
        assert running.answer.completion_tokens > 1
        assert [check for check in running.checks if check.outcome is Outcome.FAIL] == []
        told = [line for line in report.lines if line.startswith("the machine is busy (load")]
        assert told, report.lines
        assert f"on {CPUS} CPUs" in told[0]

        # equal: none of them makes way for the start of the session, nor the session for them
        assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in busy} == {os.getpriority(os.PRIO_PROCESS, 0)}
        assert {group_niceness(pid) for pid in busy} <= {0, None}
        assert {report.niceness[phase] for phase in ("Ray", "deployments", "replicas", "first token")} <= {0, None}
        started = session.load(tmp_path)
        assert started is not None
        assert group_niceness(started.supervisor_pid) != 0, "once it serves, its clients come first"
    finally:
        runtime.down(tmp_path, Recorder())
