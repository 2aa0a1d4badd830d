"""Why a session does not come up: whether it is alive, its last words, and the one line of them that matters."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil

from rayline_cli.clients.serve import Rollout
from rayline_cli.local import failures, waiting
from rayline_cli.local import session as sessions
from rayline_cli.local.failures import LocalRuntimeError, RayGaveUp
from rayline_cli.local.session import Session
from rayline_cli.local.waiting import Watch
from rayline_cli.progress import Report


def watch(session: Session, report: Report) -> Watch:
    """Return a watch over the session's processes and logs, which also notices that Ray has ended."""
    raylet: list[psutil.Process] = []

    def alive() -> None:
        check_alive(session)
        # `ray start` continues to wait for a raylet that has ended
        if not raylet:
            raylet.extend(session.named("raylet"))
        elif not sessions.is_alive(raylet[0]):
            raise _ended(session, "Ray's raylet ended unexpectedly")

    return Watch(lambda: waiting.look(session.processes(), session.logs()), report.note, alive)


def check_alive(session: Session) -> None:
    """Raise LocalRuntimeError with Ray's last words where Ray has ended."""
    if session.supervisor() is None:
        raise _ended(session, "Ray ended unexpectedly")


def _ended(session: Session, what: str) -> LocalRuntimeError:
    words = last_words(session)
    kind = RayGaveUp if failures.timed_out(words) else LocalRuntimeError
    return kind(f"{what}. Its last words:\n{words}")


def last_words(session: Session) -> str:
    """Return the end of what Ray's processes printed."""
    lines = failures.tail(session.output, 16_000).splitlines()
    for name in ("raylet.err", "ray_process_exit.log"):
        lines += failures.tail(session.log_folder / name, 4_000).splitlines()
    return "\n".join(line for line in lines if line.strip())[-3000:]


def why_failed(session: Session, failed: Rollout) -> str:
    """Return Serve's headline and, under it, the one line that matters."""
    logs = list(failures.replica_logs(session.log_folder).values())
    reason = failures.root_cause(failed.detail, *logs)
    if failures.memory_ran_out(failed.detail) or (reason is None and any(map(failures.memory_ran_out, logs))):
        available = psutil.virtual_memory().available / 2**30
        reason = f"the machine ran out of memory ({available:.1f} GiB are free now). {reason or ''}".strip()
    return f"{failed.detail.splitlines()[0].strip()}\n{reason}" if reason else failed.detail


def why_no_answer(session: Session, error: Exception) -> str:
    """Return the error in place of an answer and, under it, the reason in the replicas' logs."""
    check_alive(session)
    reason = failures.root_cause(*failures.replica_logs(session.log_folder).values())
    return f"{error}\n{reason}" if reason else str(error)


def failure_folder(state_dir: Path) -> Path:
    """Return the folder for the logs of a start that failed."""
    return state_dir / "last-failure"


def keep_logs(session: Session) -> Path | None:
    """Copy Ray's logs out of the folder that is about to be removed. Return the copy, None where nothing was copied."""
    kept = failure_folder(session.state_dir)
    shutil.rmtree(kept, ignore_errors=True)
    try:
        shutil.copytree(session.log_folder, kept, symlinks=True, ignore_dangling_symlinks=True)
    except (OSError, shutil.Error):
        return kept if kept.is_dir() else None
    return kept
