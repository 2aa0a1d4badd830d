"""When a wait for a session ends: not after a number of seconds on the clock, but when nothing moves any more."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

pytest.importorskip("psutil", reason="needs the `local` extra")

import psutil

from rayline_cli.local import waiting
from rayline_cli.local.session import Session
from rayline_cli.local.waiting import Observation, Phase, Stuck, Watch, session_seconds, share_of_others, used

CPUS = 2
MINUTE = 60.0


@dataclass
class Machine:
    """Two CPUs, a session and other programs on paper; `for_seconds` lets time pass."""

    now: Observation = field(default_factory=lambda: Observation(1000.0, {1: 0.0}, 0, 0.0, 0.0))
    notes: list[str] = field(default_factory=list)

    def for_seconds(self, seconds: float, *, session: float = 0.0, others: float = 0.0, disk: float = 0.0) -> None:
        """Time passes; the session has `session` CPUs, other programs `others`, and `disk` CPUs wait for the disk."""
        cpu = {**self.now.cpu, 1: self.now.cpu[1] + session * seconds}
        busy = self.now.machine_busy + (session + others) * seconds
        idle = self.now.machine_idle + (CPUS - session - others - disk) * seconds
        self.now = replace(self.now, at=self.now.at + seconds, cpu=cpu, machine_busy=busy, machine_idle=idle)

    def logs(self) -> None:
        self.now = replace(self.now, logged=self.now.logged + 80)

    def starts(self, process: int) -> None:
        self.now = replace(self.now, cpu={**self.now.cpu, process: 0.0})

    def ends(self, process: int) -> None:
        self.now = replace(self.now, cpu={one: cpu for one, cpu in self.now.cpu.items() if one != process})

    def watch(self, alive: Callable[[], None] = lambda: None) -> Watch:
        return Watch(lambda: self.now, self.notes.append, alive, lambda: self.now.at)

    def minutes_until_stuck(
        self, step: Callable[[], None], *, at_most: float = 600, waiting_for: Callable[[], str] = lambda: "a replica"
    ) -> tuple[float, str]:
        """Checks after every `step`; how long that went on, and what was said in the end."""
        watch, began = self.watch(), self.now.at
        while self.now.at - began < at_most * MINUTE:
            step()
            try:
                watch.check(waiting_for())
            except Stuck as stuck:
                return (self.now.at - began) / MINUTE, str(stuck)
        return at_most, "still waiting"


@pytest.fixture
def machine() -> Machine:
    return Machine()


# --- which seconds count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "counted"),
    [
        pytest.param({}, 10.0, id="the session sleeps on an idle machine"),
        pytest.param({"session": 1.0}, 10.0, id="the session computes on an idle machine"),
        pytest.param({"session": 2.0}, 10.0, id="no second counts twice"),
        pytest.param({"session": 1.0, "others": 1.0}, 10.0, id="others have the other CPU"),
        pytest.param({"session": 0.3, "others": 1.7}, 3.0, id="beside busy programs: what the session got"),
        pytest.param({"others": 2.0}, 1.0, id="beside busy programs at least a tenth"),
        pytest.param({"session": 0.2, "disk": 1.8}, 2.0, id="waiting for the disk is not being free"),
    ],
)
def test_seconds_count_as_far_as_the_session_could_run(machine: Machine, given, counted):
    before = machine.now
    machine.for_seconds(10, **given)
    assert session_seconds(before, machine.now) == pytest.approx(counted)


def test_a_process_that_has_ended_does_not_take_its_cpu_time_back(machine: Machine):
    machine.starts(2)
    machine.now = replace(machine.now, cpu={1: 5.0, 2: 50.0})
    before = machine.now
    machine.ends(2)
    machine.for_seconds(10, session=0.5, others=1.5)
    assert used(before, machine.now) == pytest.approx(5.0)


def test_the_share_of_others_leaves_the_session_out(machine: Machine):
    before = machine.now
    machine.for_seconds(10, session=0.5, others=1.5)
    assert share_of_others(before, machine.now) == pytest.approx(0.75)
    assert share_of_others(before, before) == 0.0


# --- when a wait ends ------------------------------------------------------------------------------------------------


def test_a_session_that_does_nothing_is_given_up_after_the_quiet_time(machine: Machine):
    minutes, said = machine.minutes_until_stuck(lambda: machine.for_seconds(5))
    assert minutes * MINUTE == pytest.approx(waiting.QUIET_SECONDS, abs=10)
    assert "nothing has moved" in said
    assert "it was waiting for: a replica" in said


def test_one_that_computes_without_a_word_is_given_up_too(machine: Machine):
    minutes, _ = machine.minutes_until_stuck(lambda: machine.for_seconds(5, session=1.0))
    assert minutes * MINUTE == pytest.approx(waiting.QUIET_SECONDS, abs=10)


def test_a_wait_counts_only_the_cpu_time_that_the_session_could_use(machine: Machine):
    minutes, said = machine.minutes_until_stuck(lambda: machine.for_seconds(5, session=0.25, others=1.75))
    assert minutes * MINUTE == pytest.approx(4 * waiting.QUIET_SECONDS, abs=30)
    assert "the machine is busy" in said
    assert "other programs use 1.8 of them, this service 0.2" in said
    assert "Fix: bring it up again when the machine has less to do" in said


def test_a_sleeping_session_beside_busy_programs_fails_after_ten_times_the_limit(machine: Machine):
    minutes, _ = machine.minutes_until_stuck(lambda: machine.for_seconds(5, others=2.0))
    assert minutes * MINUTE == pytest.approx(10 * waiting.QUIET_SECONDS, abs=30)


@pytest.mark.parametrize("what", ["a line in a log", "a process starts", "a process ends", "another thing to wait for"])
def test_whatever_moves_begins_the_quiet_time_anew(machine: Machine, what: str):
    steps = 0
    for process in range(2, 100):
        machine.starts(process)

    def step() -> None:
        nonlocal steps
        steps += 1
        machine.for_seconds(100)
        if what == "a line in a log":
            machine.logs()
        elif what == "a process starts":
            machine.starts(100 + steps)
        elif what == "a process ends":
            machine.ends(1 + steps)

    def waiting_for() -> str:
        return f"replica {steps}" if what == "another thing to wait for" else "a replica"

    assert machine.minutes_until_stuck(step, at_most=30, waiting_for=waiting_for) == (30, "still waiting")


def test_one_that_moves_and_gets_nowhere_is_given_up_in_the_end(machine: Machine):
    def step() -> None:
        machine.for_seconds(5)
        machine.logs()

    minutes, said = machine.minutes_until_stuck(step)
    assert minutes * MINUTE == pytest.approx(waiting.LAST_SECONDS, abs=10)
    assert "although something moves" in said


def test_a_session_that_has_ended_is_not_waited_for(machine: Machine):
    def alive() -> None:
        raise RuntimeError("Ray ended")

    with pytest.raises(RuntimeError, match="Ray ended"):
        machine.watch(alive).check("a replica")


# --- what a person hears ---------------------------------------------------------------------------------------------


def test_a_busy_machine_is_told_soon_and_seldom(machine: Machine):
    watch = machine.watch()
    for _ in range(60):
        machine.for_seconds(5, session=0.2, others=1.8)
        machine.logs()
        watch.check("a replica")
    assert 2 <= len(machine.notes) <= 4, "five minutes"
    assert f"on {len(os.sched_getaffinity(0))} CPUs" in machine.notes[0]
    assert "as long as something moves" in machine.notes[0]


def test_of_a_machine_that_has_room_nothing_is_said(machine: Machine):
    watch = machine.watch()
    for _ in range(60):
        machine.for_seconds(5, session=1.5, others=0.3)
        machine.logs()
        watch.check("a replica")
    assert machine.notes == []


# --- calls that take their time --------------------------------------------------------------------------------------


def test_a_call_gives_its_result(machine: Machine):
    assert machine.watch().during(lambda: 42, "an answer") == 42


def test_a_call_that_fails_fails_in_its_own_words(machine: Machine):
    with pytest.raises(ZeroDivisionError):
        machine.watch().during(lambda: 1 / 0, "an answer")


def test_a_call_that_never_returns_ends_when_nothing_moves():
    def look() -> Observation:
        # a minute of an idle machine at each look
        moments.append(len(moments) * MINUTE)
        return Observation(moments[-1], {}, 0, 0.0, moments[-1])

    moments: list[float] = []
    watch = Watch(look, lambda _: None, clock=lambda: moments[-1] + MINUTE)
    with pytest.raises(Stuck, match="it was waiting for: an answer"):
        watch.during(lambda: time.sleep(60), "an answer")


def test_a_phase_asks_until_there_is_nothing_to_wait_for(machine: Machine):
    class Report:
        lines: list[str] = []

        def phase(self, name: str, detail: str) -> None:
            self.lines.append(f"{name}: {detail}")

        def done(self, name: str, seconds: float, detail: str) -> None:
            self.lines.append(f"{name} done: {detail}")

        def note(self, text: str) -> None: ...

    answers = iter(["HTTP 503", "HTTP 503", ""])
    report = Report()
    phase = Phase(report, "HAProxy", machine.watch())
    phase.until(lambda: next(answers))
    phase.done("lists tiny")
    assert report.lines == ["HAProxy: HTTP 503", "HAProxy: HTTP 503", "HAProxy done: lists tiny"]


# --- looking at real processes ---------------------------------------------------------------------------------------


def test_a_look_sees_the_cpu_time_of_a_process_and_the_bytes_of_a_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("x" * 100)
    spins = "import time\nwhile time.process_time() < 1: pass\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", spins]) as process:
        try:
            child = psutil.Process(process.pid)
            before = waiting.look([child], [log, tmp_path / "gone"])
            while sum(child.cpu_times()[:2]) < 0.5:
                time.sleep(0.02)
            now = waiting.look([child], [log])
        finally:
            process.kill()
    assert now.logged == before.logged == 100
    assert set(now.cpu) == {process.pid}
    assert used(before, now) >= 0.3
    assert now.machine_busy - before.machine_busy >= 0.3
    gone = waiting.look([child], [])
    assert gone.cpu == {}


def test_a_log_that_grows_by_itself_is_no_sign_of_life(tmp_path):
    logs = tmp_path / "session_latest" / "logs"
    (logs / "serve").mkdir(parents=True)
    growing = {
        "dashboard.log": "GET /api/serve/applications/",
        "python-core-driver-01.log": "Failed to look up actor",
        "gcs_server.out": "Gcs Debug state",
        "serve/controller_77.log": "have taken more than 30s to be scheduled",
        "worker-a.err": ":job_id:01000000\n:actor_name:ServeController\n",
    }
    telling = {
        "worker-b.err": ":job_id:01000000\n:actor_name:ServeReplica:llm:LLMServer:tiny\nLoading weights",
        "serve/replica_llm_LLMServer.log": "Started",
        "raylet.err": "",
    }
    for name, text in {**growing, **telling}.items():
        (logs / name).write_text(text)
    session = Session("id", tmp_path, tmp_path, {}, "", "", 1, 0.0, 0.0, 0)
    found = {str(path.relative_to(logs)) for path in session.logs() if logs in path.parents and path.is_file()}
    assert found == set(telling)
    assert session.output in set(session.logs())
