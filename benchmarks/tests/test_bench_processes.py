"""Processes of an arm without Ray: one session for all, and none is left when one has ended."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("psutil", reason="needs the `local` extra")

from rayline_bench import processes
from rayline_bench.processes import answers
from rayline_bench.servers import free_ports
from rayline_cli.local import session as sessions
from tests.unit.waiting import wait_until


@pytest.fixture
def start(tmp_path: Path):
    folder = sessions.session_folder(tmp_path)
    sessions.make_folder(folder)
    started: list[sessions.Starting] = []

    def make(plan: list[dict]) -> sessions.Session:
        file = tmp_path / "plan.json"
        file.write_text(json.dumps(plan))
        starting = sessions.start(
            [sys.executable, "-P", processes.__file__, str(file)],
            session_id=sessions.new_id(),
            state_dir=tmp_path,
            folder=folder,
            env=dict(os.environ),
            ports={},
            restart_key="",
            salt="",
            num_cpus=0,
        )
        started.append(starting)
        return starting.session

    yield make
    for one in started:
        sessions.stop(one.session)
    shutil.rmtree(folder, ignore_errors=True)


def row(name: str, port: int, *, ready: int | None = None) -> dict:
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    return {"name": name, "argv": argv, "env": {"ROW": name}, "ready": f"http://127.0.0.1:{ready or port}/"}


def test_servers_share_a_session_and_all_end_when_one_ends(start):
    ports = free_ports(["one", "two"])
    session = start([row("one", ports["one"]), row("two", ports["two"])])
    wait_until(lambda: all(answers(f"http://127.0.0.1:{port}/") for port in ports.values()))
    assert {os.getsid(process.pid) for process in session.processes()} == {session.supervisor_pid}
    (second,) = (one for one in session.processes() if sessions.environ(one.pid).get("ROW") == "two")
    second.kill()
    wait_until(lambda: session.supervisor() is None)
    assert session.processes() == []
    assert "two has ended with -9" in session.output.read_text()


def test_the_next_server_waits_until_the_one_before_answers(start):
    ports = free_ports(["one", "two", "later"])
    session = start([row("one", ports["one"], ready=ports["later"]), row("two", ports["two"])])
    wait_until(lambda: answers(f"http://127.0.0.1:{ports['one']}/"))
    assert not answers(f"http://127.0.0.1:{ports['two']}/")
    names = {sessions.environ(one.pid).get("ROW") for one in session.processes()}
    assert "two" not in names
