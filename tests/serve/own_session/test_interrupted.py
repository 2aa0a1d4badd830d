"""`up` that does not come to its end leaves nothing behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from rayline_cli.local import runtime, session, waiting
from rayline_cli.local.runtime import LocalRuntimeError
from tests.serve.serving import SECRETS, Recorder, UpProcess, patient, ray_service, wait_until


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        pytest.param(signal.SIGINT, "building application", id="Ctrl-C while Serve builds the application"),
        pytest.param(signal.SIGTERM, "does not answer yet", id="SIGTERM while Ray starts"),
        pytest.param(signal.SIGKILL, "does not answer yet", id="the caller is killed while Ray starts"),
    ],
)
def test_an_interrupted_up_leaves_no_process(up_process: UpProcess, number: signal.Signals, phase: str):
    up_process.wait_until_it_says(phase)
    started = session.load(up_process.state_dir)
    assert started is not None
    assert started.processes()
    up_process.send(number)
    up_process.process.wait(timeout=patient(30))
    assert wait_until(lambda: not started.processes(), 30), started.processes()
    assert wait_until(lambda: not started.folder.exists(), 5)


class Freezes(Recorder):
    """A report that stops every process of Ray as soon as Serve is to start."""

    state_dir = Path()

    def phase(self, name: str, detail: str) -> None:
        super().phase(name, detail)
        started = session.load(self.state_dir)
        if name == "deployments" and started is not None:
            for process in started.processes():
                if process.pid != started.supervisor_pid:
                    process.suspend()


def test_an_up_in_which_nothing_moves_any_more_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(waiting, "QUIET_SECONDS", 15.0)
    report = Freezes()
    report.state_dir = tmp_path
    with pytest.raises(LocalRuntimeError, match="nothing has moved for") as raised:
        runtime.up(ray_service(), state_dir=tmp_path, secrets=SECRETS, report=report)
    assert "it was waiting for: Serve's controller and proxies to start" in str(raised.value)
    assert "Ray runtime started" in str(raised.value), "its last words"
    assert session.load(tmp_path) is None, "nothing is left behind"


def test_a_service_for_gpus_is_refused_before_anything_starts(tmp_path: Path):
    service = ray_service()
    group = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    group["template"]["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": "1"}
    with pytest.raises(LocalRuntimeError, match=r"requests 1 nvidia.com/gpu"):
        runtime.up(service, state_dir=tmp_path / "state", secrets=SECRETS, report=Recorder())
    assert not (tmp_path / "state").exists()


def test_a_wrong_model_folder_is_refused_before_anything_starts(tmp_path: Path):
    service = ray_service()
    service["spec"]["serveConfigV2"] = service["spec"]["serveConfigV2"].replace("rayline/tiny-random-qwen3", "/no/such")
    with pytest.raises(LocalRuntimeError, match=r"no config.json in /no/such"):
        runtime.up(service, state_dir=tmp_path / "state", secrets=SECRETS, report=Recorder())


def test_more_replicas_than_the_memory_holds_are_refused_before_anything_starts(tmp_path: Path):
    service = ray_service()
    service["spec"]["serveConfigV2"] = service["spec"]["serveConfigV2"].replace("num_replicas: 1", "num_replicas: 999")
    with pytest.raises(LocalRuntimeError, match=r"not enough memory: about \d+\.\d GiB are needed"):
        runtime.up(service, state_dir=tmp_path / "state", secrets=SECRETS, report=Recorder())
    assert session.load(tmp_path / "state") is None


def test_down_without_a_session_says_so(tmp_path: Path):
    assert runtime.down(tmp_path / "never", Recorder()) is False
    assert runtime.status(tmp_path / "never").detail == "nothing runs"
