"""The benchmark on real servers: an arm can be frozen and comes back, and a run can be stopped and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rayline_bench import cpu, receipt
from rayline_bench.servers import Server
from rayline_cli.clients.openai import NoAnswer, OpenAiClient
from rayline_cli.local import runtime
from rayline_cli.local.session import SESSION_VARIABLE, environ
from rayline_cli.verify import Outcome
from tests.serve.serving import API_KEY, Served, patient, takes_ctrl_c, wait_until

ROOT = Path(__file__).parents[2]
FROZEN_SECONDS = 25
"""Longer than Serve's check of a replica (every 10 s, 10 s to answer) and GCS's check of a node (3 s) take to notice."""


@pytest.fixture
def arm(served: Served):
    """The shared session as an arm of a benchmark; it runs on afterwards."""
    one = Server("kit", served.running.url, "tiny", API_KEY, served.session, None)
    yield one
    one.resume()


def ids(server: Server) -> set[int]:
    return {process.pid for process in server.processes()}


def test_a_frozen_arm_uses_no_cpu_and_comes_back_as_it_was(served: Served, arm: Server):
    before = ids(arm)
    arm.pause()
    with OpenAiClient(arm.url, API_KEY) as client, pytest.raises(NoAnswer):
        client.ask("tiny", timeout_seconds=2)
    used = cpu.snapshot(arm.processes())
    time.sleep(FROZEN_SECONDS)
    spent = cpu.between(used, cpu.snapshot(arm.processes()))
    assert {role for role, seconds in spent.items() if seconds} <= {cpu.OTHER}, "only the supervisor runs on"
    arm.resume()
    assert served.session.processes()
    workers = {pid for pid in before if not psutil.Process(pid).cmdline()[0].startswith("ray::IDLE")}
    assert workers <= ids(arm), "nobody was declared dead meanwhile"
    assert runtime.status(served.state_dir).healthy
    assert {check.outcome for check in served.up(served.manifest).checks} <= {Outcome.PASS, Outcome.NOT_APPLICABLE}


FIRST = ("--arms", "vllm", "--concurrency", "4", "--requests", "8", "--repeats", "1000")


def bench(folder: Path, *options: str) -> subprocess.Popen:
    # `rayline` with its files elsewhere, so that a benchmark of whoever runs the tests is left alone
    script = f"import pathlib, rayline_cli.cli as cli; cli.common.STATE = pathlib.Path({str(folder / 'state')!r}); cli.main()"
    command = [sys.executable, "-c", script, "bench", "--json", *options]
    output = (folder / "output").open("ab")
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=output, start_new_session=True, preexec_fn=takes_ctrl_c
    )


def left_over(folder: Path) -> list[psutil.Process]:
    """Processes of arms whose files are in `folder`."""
    ours = {json.loads(path.read_text())["id"] for path in folder.rglob("session.json")}
    return [p for p in psutil.process_iter() if environ(p.pid).get(SESSION_VARIABLE) in ours]


def test_a_run_that_is_stopped_leaves_nothing_and_goes_on_later(tmp_path: Path):
    path = tmp_path / "receipt.json"
    first = bench(tmp_path, *FIRST, "--receipt", str(path))
    try:
        assert wait_until(lambda: first.poll() is not None or (path.exists() and receipt.read(path).points != []), 150)
        assert first.poll() is None, (tmp_path / "output").read_text()
        assert left_over(tmp_path)
        os.kill(first.pid, signal.SIGINT)
        assert first.wait(patient(60)) == 130
    finally:
        first.kill()
        first.wait()
    assert not left_over(tmp_path)
    stopped = receipt.read(path)
    measured = len(stopped.points)
    assert stopped.ended_at is None
    stopped.repeats = stopped.options["repeats"] = measured + 1
    stopped.write(path)

    second = bench(tmp_path, "--receipt", str(path))
    said, _ = second.communicate(timeout=patient(200))
    assert second.returncode == 0, (tmp_path / "output").read_text()
    ended = receipt.read(path)
    assert len(ended.points) == measured + 1
    assert ended.points[:measured] == stopped.points
    assert (ended.interrupted, ended.ended_at is None) == (1, False)
    last = ended.points[-1]
    assert (last.load["completed"], last.load["failed"], last.load["output_tokens"]) == (8, 0, 800)
    assert last.cpu_seconds["engine"] > 0
    assert last.cpu_seconds["replica"] > 0
    assert json.loads(said)["results"][0]["repeats"] == measured + 1
    assert path.with_suffix(".md").is_file()
    assert not left_over(tmp_path)
