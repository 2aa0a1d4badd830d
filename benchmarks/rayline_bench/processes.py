"""Runs the processes of an arm in one session: `python -P processes.py PLAN`.

Linux shares a CPU between sessions first and between their processes then (sched_autogroup). vLLM's engine waits in a loop,
so two servers in sessions of their own would starve each other for seconds; started from one shell, as by hand,
they do not. PLAN is a JSON list of {"name", "argv", "env", "ready"}; each is started when the
previous one answers 200 at its address `ready`. Ends, with exit code 1, when one of them has ended. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

READY_PATH = "/v1/models"
"""Answered with 200 by a server, and by a router, that serves."""
POLL_SECONDS = 0.2
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def main(plan: Path) -> int:
    """Run the processes of a plan until one has ended."""
    running: dict[str, subprocess.Popen] = {}
    for step in json.loads(plan.read_text()):
        running[step["name"]] = subprocess.Popen(step["argv"], env={**os.environ, **step["env"]})
        while not answers(step["ready"]):
            if _has_ended(running):
                return 1
            time.sleep(POLL_SECONDS)
    # returns when one has ended, and leaves it to be waited for: `_has_ended` names it
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    _has_ended(running)
    return 1


def _has_ended(running: dict[str, subprocess.Popen]) -> bool:
    for name, process in running.items():
        if process.poll() is not None:
            print(f"{name} has ended with {process.returncode}", flush=True)
            return True
    return False


def answers(url: str) -> bool:
    """Return whether a GET is answered with 200."""
    try:
        with _open(url, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
