"""Which ports a session on this machine takes while others run, and after they were killed."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("psutil", reason="needs the `local` extra")

from rayline_cli.local import session as sessions
from rayline_cli.local.ports import PORTS, choose_ports

DECLARED: Mapping[str, int] = {port.name: 20000 + 10 * number for number, port in enumerate(PORTS)}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    made: list[Path] = []

    def make(name: str) -> Path:
        one = sessions.session_folder(tmp_path / name)
        sessions.make_folder(one)
        made.append(one)
        return one

    yield make
    for one in made:
        shutil.rmtree(one, ignore_errors=True)


def reserved(folder: Path):
    return sessions.reserved_ports(folder, lambda is_taken: choose_ports(DECLARED, is_taken))


def test_two_that_start_together_take_different_ports(folder):
    with reserved(folder("one")) as one, reserved(folder("two")) as two:
        assert not set(one.ports.values()) & set(two.ports.values())


def test_a_session_keeps_its_ports_until_it_is_killed_and_no_longer(folder, tmp_path: Path):
    home = tmp_path / "state"
    home.mkdir()
    first = folder("one")
    with reserved(first) as one:
        starting = sessions.start(
            ["sleep", "600"],
            session_id=sessions.new_id(),
            state_dir=home,
            folder=first,
            env=dict(os.environ),
            ports=one.ports,
            restart_key="",
            salt="",
            num_cpus=0,
            hold=[one.hold],
        )
    running = starting.session
    try:
        with reserved(folder("two")) as two:
            assert not set(one.ports.values()) & set(two.ports.values())
        supervisor = running.supervisor()
        assert supervisor is not None
        # the memory killer's way: nobody is left who could remove the folder
        for process in running.processes():
            process.send_signal(signal.SIGKILL)
        supervisor.wait(10)
        assert (first / "ports.json").exists()
        with reserved(folder("three")) as three:
            assert three.ports == one.ports
    finally:
        sessions.stop(running)
