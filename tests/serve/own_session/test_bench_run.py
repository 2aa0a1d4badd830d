"""A run of the benchmark on real servers: it can be stopped and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rayline_bench import receipt
from rayline_cli.local.session import SESSION_VARIABLE, environ
from tests.serve.serving import patient, takes_ctrl_c, wait_until

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[3]
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
