"""How Pulumi's CLI is run: one Ctrl-C, whoever sends it, and an exit code that means the same for every command."""

import json
import os
import pathlib
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.unit.waiting import wait_until

# Counts the Ctrl-C that it gets, as Pulumi does: after the first it would finish what is under way.
PULUMI = """#!{python}
import pathlib, signal, sys, time
folder = pathlib.Path({folder!r})
if sys.argv[1] == "stack":
    print('{{"endpoints": {{"a": "b"}}, "kubeconfig": "hush", "api_keys": "[secret]"}}')
    sys.exit()
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(1))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(99))
(folder / "started").touch()
if {wait}:
    while not seen:
        time.sleep(0.01)
    time.sleep(0.5)
print("progress")
print({said!r}, file=sys.stderr)
(folder / "interrupts").write_text(str(len(seen)))
sys.exit({code})
"""
SCRIPT = """
import dataclasses, json, sys
from rayline_cli import deploy
done = deploy.operate(deploy.arguments("up", "s", yes=True, terminal=False))
print(json.dumps(dataclasses.asdict(done)))
sys.exit(done.exit_code)
"""


@pytest.fixture
def rayline(tmp_path: pathlib.Path) -> Any:
    """Start the deployment with a stand-in for Pulumi's CLI first on PATH."""

    def start(code: int = 0, said: str = "", wait: bool = False) -> subprocess.Popen[str]:
        script = tmp_path / "pulumi"
        script.write_text(PULUMI.format(python=sys.executable, folder=str(tmp_path), wait=wait, said=said, code=code))
        script.chmod(0o755)
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("to_all", [True, False], ids=["to all processes", "to the first process"])
def test_pulumi_gets_one_ctrl_c_whoever_sends_it(rayline, tmp_path, number: signal.Signals, to_all: bool) -> None:
    process = rayline(code=8, wait=True)
    wait_until((tmp_path / "started").exists)
    (os.killpg if to_all else os.kill)(process.pid, number)
    # an impatient person, or a pipeline that ends the job twice
    process.send_signal(number)
    out, log = process.communicate(timeout=60)
    assert (tmp_path / "interrupts").read_text() == "1", log
    assert process.returncode == json.loads(out)["exit_code"] == 130


@pytest.mark.parametrize(("pulumi", "ours"), [(0, 0), (1, 1), (2, 2), (5, 1), (6, 1), (8, 130), (255, 1)])
def test_a_code_of_pulumis_is_one_of_the_kits(rayline, pulumi: int, ours: int) -> None:
    process = rayline(code=pulumi)
    process.communicate(timeout=60)
    assert process.returncode == ours


def test_only_the_result_is_on_stdout_and_what_opens_the_cluster_is_not_in_it(rayline) -> None:
    out, log = rayline().communicate(timeout=60)
    assert json.loads(out)["outputs"] == {"endpoints": {"a": "b"}}
    assert "hush" not in out
    assert "progress" in log


def test_what_fails_before_there_is_an_engine_is_in_the_result(rayline) -> None:
    out, log = rayline(code=255, said="error: no passphrase").communicate(timeout=60)
    assert json.loads(out)["errors"] == ["error: no passphrase"]
    assert "no passphrase" in log


def test_a_stack_without_state_is_reported_with_pulumi_stack_init(rayline) -> None:
    out, log = rayline(code=6, said="error: no stack named 's' found").communicate(timeout=60)
    said, fix = json.loads(out)["errors"]
    assert said == "error: no stack named 's' found"
    assert "Fix: pulumi stack init s" in fix
    assert fix in log
