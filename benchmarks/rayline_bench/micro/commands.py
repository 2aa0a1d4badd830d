"""What `rayline --help` and `rayline plan` of one stack cost: CPU seconds of whole processes.

Method: for each command one run that is not counted, which writes the bytecode, then REPEATS runs; median and spread of user and
system time. The limits are for a quiet core: half a second for help, four seconds for a plan.

    .venv/bin/python benchmarks/rayline_bench/micro/commands.py
"""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
REPEATS = 5
LIMITS = {("--help",): 0.5, ("plan", "--stack", "dev-l4"): 4.0}


def cpu_seconds(*arguments: str) -> float:
    """Return user and system time of one run of `rayline` with these arguments."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        [sys.executable, "-m", "rayline_cli.cli", *arguments],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    for command, limit in LIMITS.items():
        cpu_seconds(*command)
        runs = [cpu_seconds(*command) for _ in range(REPEATS)]
        row = {
            "command": " ".join(["rayline", *command]),
            "repeats": REPEATS,
            "median_cpu_s": round(statistics.median(runs), 2),
            "min_cpu_s": round(min(runs), 2),
            "max_cpu_s": round(max(runs), 2),
            "limit_s": limit,
        }
        print(json.dumps(row))


if __name__ == "__main__":
    main()
