"""Keep one Ray session whole: run `ray start --block` and, when it or its caller ends, end everything below it.

    python -P supervisor.py PIPE_FD FOLDER COMMAND...

To the session what the kubelet is to a pod. As child subreaper it inherits every orphan (HAProxy, vLLM's engine, Ray's
workers), so "all processes of this session" is simply "all my descendants". PIPE_FD is the reading end of a pipe whose
other end only the caller holds: b"k" means that the session may outlive the caller. End of file before that means that
the caller died, and ends the session and removes FOLDER. Imports nothing of rayline: it lives as long as the session does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

import psutil

PR_SET_CHILD_SUBREAPER = 36
KEEP = b"k"
TERM_GRACE_SECONDS = 2.0
"""Between SIGTERM and SIGKILL. Short: Serve would drain for 35 s, and there is no traffic left to wait for."""
KILL_TIMEOUT_SECONDS = 10.0
AUTOGROUP_NICE = 5
"""Measured on two cores while other programs ran (load 20 to 41, unsteady), twice, with 10 once; a client that streams 16
answers. With 0 it could run and had to wait for 11 of 14 s, with 2 for 6 of 14, with 5 for 1.7 of 16, with 10 for 1.1 of 103.
The service made 631 and 837 tokens/s with 0, 488 twice with 2, 196 and 321 with 5, 15 with 10."""


def main(pipe: int, folder: str, command: list[str]) -> int:
    """Supervise `command` until it, its caller or a SIGTERM ends the session."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    stop_signals: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _: stop_signals.append(number))
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)

    # restore_signals does not cover these two: Ray must get its own Ctrl-C handling back.
    ray = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
    )
    watched, reason = [pipe, wake_read], ""
    while not reason:
        ready, _, _ = select.select(watched, [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            if ray.pid in _reap():
                reason = "ray start ended"
            elif stop_signals:
                reason = "asked to stop"
        if pipe in ready:
            if os.read(pipe, 1) != KEEP:
                reason = "the caller ended"
            watched.remove(pipe)
            os.close(pipe)
    print(f"supervisor: {reason}; ending all processes of this session", flush=True)
    _end_descendants()
    if reason == "the caller ended":
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def stand_behind_other_sessions(pid: int | None = None, nice: int = AUTOGROUP_NICE) -> None:
    """Lower the priority of a session (of `pid`, default this one) as a whole, where the kernel makes such groups.

    vLLM's engine waits by calling sched_yield in a loop, and Linux (sched_autogroup) then lets programs of other sessions,
    clients among them, wait for seconds.
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid or 'self'}/autogroup", "w") as group:
        group.write(str(nice))


def _reap() -> list[int]:
    """Collect ended children, inherited ones included. Return their ids."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            ended.append(pid)
    return ended


def _end_descendants() -> None:
    # Listed again until none is left: a raylet may start a worker while its siblings are being ended.
    me = psutil.Process()
    started = time.monotonic()
    for process in me.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    while (left := me.children(recursive=True)) and time.monotonic() - started < KILL_TIMEOUT_SECONDS:
        if time.monotonic() - started > TERM_GRACE_SECONDS:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.05)
        _reap()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
