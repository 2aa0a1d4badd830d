"""Keeps one Ray session whole: runs `ray start --block` and, when it or its caller ends, everything below it.

    python -P supervisor.py PIPE_FD FOLDER COMMAND...

To the session what the kubelet is to a pod. As child subreaper it inherits every orphan (HAProxy, vLLM's engine, Ray's
workers), so "all processes of this session" is simply "all my descendants". PIPE_FD is the reading end of a pipe whose
other end only the caller holds: b"k" says that the session may outlive the caller; end of file before that says that
the caller died, and ends the session and removes FOLDER. Standard library only: it lives as long as the session does.
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
    kept = False
    watched = [pipe, wake_read]
    reason = ""
    while not reason:
        ready, _, _ = select.select(watched, [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
            if ray.pid in _reap():
                reason = "ray start ended"
            elif stop_signals:
                reason = "asked to stop"
        if pipe in ready:
            kept = os.read(pipe, 1) == KEEP
            watched.remove(pipe)
            os.close(pipe)
            if not kept:
                reason = "the caller ended"
    print(f"supervisor: {reason}; ending all processes of this session", flush=True)
    _end_descendants()
    if reason == "the caller ended":
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def stand_behind_other_sessions(pid: int | None = None, nice: int = AUTOGROUP_NICE) -> None:
    """Lowers the priority of a session (of `pid`, default this one) as a whole, where the kernel makes such groups.

    vLLM's engine waits by calling sched_yield in a loop, and Linux (sched_autogroup) then lets programs of other sessions,
    clients among them, wait for seconds.
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid or 'self'}/autogroup", "w") as group:
        group.write(str(nice))


def _reap() -> list[int]:
    """Collects ended children, inherited ones included; returns their ids."""
    ended = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append(pid)


def _end_descendants() -> None:
    # Asked again until nobody is left: a raylet may start a worker while its siblings are being ended.
    _signal_descendants(signal.SIGTERM)
    give_up = time.monotonic() + KILL_TIMEOUT_SECONDS
    kill_at = time.monotonic() + TERM_GRACE_SECONDS
    while descendants(os.getpid()) and time.monotonic() < give_up:
        if time.monotonic() >= kill_at:
            _signal_descendants(signal.SIGKILL)
        time.sleep(0.05)
        _reap()


def _signal_descendants(number: signal.Signals) -> None:
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def descendants(root: int) -> list[int]:
    """Every process below `root`, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                # The command name in parentheses may hold blanks and parentheses: split behind the last one.
                parent = int(file.read().rsplit(b")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
