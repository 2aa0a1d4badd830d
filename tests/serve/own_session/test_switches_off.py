"""Every switch off, on a machine whose CPUs others use: `up` takes longer, says so, ends with an answer, and `verify` sees each switch off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rayline_cli import cli
from rayline_cli.cli import checking
from rayline_cli.clients.openai import Answer
from rayline_cli.local import session
from rayline_cli.verify import Outcome
from rayline_cli.verify.outside import UrlTarget
from tests.serve.serving import BARE, SECRETS, SWITCHED, Recorder, Served, failed, found, ray_service, runtime, stack_file

pytestmark = pytest.mark.full

CPUS = len(os.sched_getaffinity(0))
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


@contextmanager
def busy_programs() -> Iterator[list[int]]:
    """As many processes as CPUs that only use CPU, each in a session of its own, as others' compilers are."""
    processes = [subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True) for _ in range(CPUS)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


@dataclass
class Bare(Served):
    """A session with every switch declared off, HAProxy too, and no API key. It started beside busy programs."""

    report: Watching
    niceness_of_others: set[int | None]
    """Of the busy programs: of the processes and of their scheduling groups, when `up` had ended."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    folder, manifest = tmp_path_factory.mktemp("all-off"), ray_service(**BARE)
    report = Watching(state_dir=folder)
    try:
        with busy_programs() as pids:
            running = runtime.up(manifest, state_dir=folder, secrets=SECRETS, report=report)
            own = os.getpriority(os.PRIO_PROCESS, 0)
            others = {os.getpriority(os.PRIO_PROCESS, pid) - own for pid in pids} | {group_niceness(pid) for pid in pids}
        print(f"up took {running.seconds:.0f} s beside {len(pids)} busy processes on {CPUS} CPUs")
        yield Bare(folder, manifest, running, report, others)
    finally:
        runtime.down(folder, Recorder())


def test_up_ends_with_an_answer_beside_busy_programs_of_equal_priority(bare: Bare):
    assert isinstance(bare.running.answer, Answer)
    assert bare.running.answer.completion_tokens > 1
    assert [check for check in bare.running.checks if check.outcome is Outcome.FAIL] == []
    told = [line for line in bare.report.lines if line.startswith("the machine is busy (load")]
    assert told, bare.report.lines
    assert f"on {CPUS} CPUs" in told[0]

    # equal: none of them makes way for the start of the session, nor the session for them
    assert bare.niceness_of_others <= {0, None}
    phases = [phase for phase in ("Ray", "deployments", "replicas", "first token") if phase in bare.report.niceness]
    assert len(phases) > 2
    assert {bare.report.niceness[phase] for phase in phases} <= {0, None}
    assert group_niceness(bare.session.supervisor_pid) != 0, "once it serves, its clients come first"


def test_every_switch_declared_off_is_seen_off(bare: Bare):
    checks = {check.name: check for check in bare.running.checks}
    assert failed(checks) == {}
    assert {name for name, check in checks.items() if check.outcome is Outcome.OFF} == SWITCHED


def test_every_switch_off_fails_where_it_is_expected_on(bare: Bare):
    target = bare.target()
    target.expected = target.expected.all_on()
    assert set(failed(found(target))) == SWITCHED


def test_an_open_service_without_direct_streaming_fails_from_outside(bare: Bare):
    problems = failed(found(UrlTarget(bare.running.url, None)))
    assert set(problems) == {"direct streaming: deployments", "API key"}
    assert "OpenAiIngress answers" in problems["direct streaming: deployments"]


@pytest.mark.parametrize(("options", "exit_code"), [([], 0), (["--all-on"], 1)])
def test_the_command_reads_the_session_from_its_folder(
    bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], exit_code: int
):
    path = stack_file(tmp_path / "Pulumi.bare.yaml", **BARE)
    secrets: dict[str, dict[str, str]] = {}
    for (name, key), value in SECRETS.items():
        secrets.setdefault(name, {})[key] = value
    (bare.state_dir / "secrets.json").write_text(json.dumps(secrets))
    monkeypatch.setattr(checking, "state_dir", lambda stack: bare.state_dir)
    result = CliRunner().invoke(cli.app, ["verify", "--stack", "bare", "--config-file", str(path), "--json", *options])
    assert result.exit_code == exit_code, result.output
    said = json.loads(result.stdout)
    assert said["passed"] is (exit_code == 0)
    outcomes = {check["name"]: check["outcome"] for check in said["services"]["tiny"]}
    assert {name for name, outcome in outcomes.items() if outcome == ("off", "fail")[exit_code]} == SWITCHED
