"""`python -m rayline_cli.local up|down|status|logs`: the local runtime without the rest, on a RayService in a file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

import yaml

from rayline_cli.local import runtime
from rayline_cli.progress import terminal_report
from rayline_cli.ray_logs import LOG_COMPONENTS
from rayline_cli.signals import terminable


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rayline_cli.local", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "logs"])
    parser.add_argument("--manifest", type=Path, help="a RayService as YAML (for up)")
    parser.add_argument("--state-dir", type=Path, default=Path(".rayline_cli/local"))
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME/KEY=VARIABLE",
        help="take the value of a Secret's key from an environment variable",
    )
    parser.add_argument("--component", choices=sorted(LOG_COMPONENTS))
    parser.add_argument("--lines", type=int, default=40)
    options = parser.parse_args()
    try:
        with terminable(), terminal_report() as report:
            if options.command == "up":
                secrets = {}
                for text in options.secret:
                    reference, variable = text.split("=", 1)
                    name, key = reference.split("/", 1)
                    secrets[name, key] = os.environ[variable]
                running = runtime.up(
                    yaml.safe_load(options.manifest.read_text()), state_dir=options.state_dir, secrets=secrets, report=report
                )
                for check in running.checks:
                    report.note(f"{check.outcome.value:<14} {check.name}: {check.evidence}")
                report.note(f"ready in {running.seconds:.0f} s: {running.url}")
            elif options.command == "down":
                return 0 if runtime.down(options.state_dir, report) else 1
            elif options.command == "status":
                print(json.dumps(dataclasses.asdict(runtime.status(options.state_dir)), indent=2))
            else:
                for line in runtime.logs(options.state_dir, component=options.component, lines=options.lines):
                    print(line)
    except runtime.LocalRuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was left running", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
