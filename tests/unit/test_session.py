"""A session ends as a whole, with its caller unless it is kept, and its Secrets follow the declared ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("psutil", reason="needs the `local` extra")

from rayline_cli.local import session as sessions
from rayline_cli.local.session import Session, Starting
from tests.unit.waiting import wait_until

# An orphan in a process session of its own, and a process that ignores SIGTERM, as Ray's workers may.
FAMILY = "(setsid sleep 600 &) ; (trap '' TERM; sleep 601) & wait"


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[list[Starting]]:
    """One session of several processes; a test that takes it out of the list ends the caller's hold on it."""
    folder = sessions.session_folder(tmp_path)
    sessions.make_folder(folder)
    started = sessions.start(
        ["sh", "-c", FAMILY],
        session_id=sessions.new_id(),
        state_dir=tmp_path,
        folder=folder,
        env=dict(os.environ),
        ports={},
        restart_key="",
        salt="",
        num_cpus=0,
    )
    session = started.session
    wait_until(lambda: [process.name() for process in session.processes()].count("sleep") == 2)
    held = [started]
    del started
    yield held
    sessions.stop(session)


def ends(session: Session) -> None:
    wait_until(lambda: not session.processes())


def test_a_session_ends_with_its_caller_and_leaves_no_folder(starting: list[Starting]):
    session = starting[0].session
    starting.clear()
    ends(session)
    wait_until(lambda: not session.folder.exists())
    assert "the caller ended" in session.output.read_text()


def test_a_session_that_is_kept_outlives_its_caller_until_it_is_stopped(starting: list[Starting]):
    session = starting[0].session
    starting[0].keep()
    starting.clear()
    assert sessions.stop(session)
    assert session.processes() == []
    assert sessions.load(session.state_dir) is None
    assert "asked to stop" in session.output.read_text()


def test_processes_whose_supervisor_was_killed_are_still_ended(starting: list[Starting]):
    session = starting[0].session
    starting[0].keep()
    supervisor = session.supervisor()
    assert supervisor is not None
    supervisor.kill()
    wait_until(lambda: session.supervisor() is None)
    assert len(session.processes()) >= 2
    assert sessions.stop(session)
    assert session.processes() == []


def test_mounted_secrets_follow_the_declared_ones_and_only_this_user_reads_them(tmp_path: Path):
    first = {"secrets/key/api_key": "one", "secrets/key/previous_api_key": ""}
    assert sessions.write_secrets(tmp_path, first)
    assert not sessions.write_secrets(tmp_path, first)
    assert sessions.write_secrets(tmp_path, {"secrets/key/api_key": "two"})
    (file,) = (tmp_path / "secrets" / "key").iterdir()
    assert (file.name, file.read_text()) == ("api_key", "two")
    assert file.stat().st_mode & 0o077 == 0
