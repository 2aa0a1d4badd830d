"""A copy of the project in a folder of its own with file state, and Pulumi's CLI on it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]


def missing(*tools: str) -> list[str]:
    """Those of `tools` that are not on PATH."""
    return [tool for tool in tools if not shutil.which(tool)]


def merged(base: Any, over: Any) -> Any:
    """`over` laid over `base`, maps into maps."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {
            key: merged(base.get(key), over[key]) if key in over else base[key] for key in [*base, *(over.keys() - base.keys())]
        }
    return over


@dataclass(frozen=True)
class Step:
    """One step of the engine that changes something: create, update, delete, or a part of a replacement."""

    op: str
    type: str
    name: str


@dataclass(frozen=True)
class Run:
    """One command of the CLI."""

    code: int
    output: str
    """What it printed, on both streams."""
    steps: tuple[Step, ...] = ()
    """What it did, or in a preview would do."""


class PulumiProject:
    """One stack. `environment` is laid over the caller's; `overrides` over the stack's configuration."""

    def __init__(
        self, folder: pathlib.Path, stack: str, environment: dict[str, str] | None = None, overrides: Any = None
    ) -> None:
        self.stack = stack
        self.folder = folder / "project"
        self.state = folder / "state"
        self.events = folder / "events.jsonl"
        # a stack file that git does not track yet, too
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        tracked = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in filter(None, tracked.split("\0")):
            if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        (self.folder / ".venv").symlink_to(sys.prefix)
        self.state.mkdir()
        self.environment = (
            os.environ
            | {
                "PULUMI_BACKEND_URL": f"file://{self.state}",
                "PULUMI_CONFIG_PASSPHRASE": "test",
                "PULUMI_SKIP_UPDATE_CHECK": "true",
                "PULUMI_DEBUG_COMMANDS": "true",  # gives --event-log
            }
            | (environment or {})
        )
        self.pulumi("stack", "init", stack)
        self.path = self.folder / "stacks" / f"Pulumi.{stack}.yaml"
        if overrides:
            document = yaml.safe_load(self.path.read_text())
            # the CLI has written the project's prefix before each key
            plain = {key.removeprefix("rayline:"): value for key, value in document["config"].items()}
            document["config"] = merged(plain, overrides)
            self.path.write_text(yaml.safe_dump(document))

    def run(self, *arguments: str, timeout: float = 1500, stdin: str | None = None) -> Run:
        """Run the CLI, whatever comes of it."""
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
        )
        return Run(done.returncode, done.stdout + done.stderr)

    def pulumi(self, *arguments: str, timeout: float = 1500, stdin: str | None = None) -> str:
        """Run the CLI; its output, or an AssertionError that shows it."""
        done = self.run(*arguments, timeout=timeout, stdin=stdin)
        assert done.code == 0, f"pulumi {' '.join(arguments)} failed:\n{done.output[-10000:]}"
        return done.output

    def operate(self, command: str, *more: str, preview: bool = False) -> Run:
        """Preview, up, refresh or destroy, with its steps; on wish with the preview that people get before they confirm."""
        self.events.unlink(missing_ok=True)
        unasked = [] if command == "preview" else ["--yes"] if preview else ["--yes", "--skip-preview"]
        done = self.run(command, "--stack", self.stack, *unasked, "--event-log", str(self.events), *more)
        steps = []
        for line in self.events.read_text().splitlines() if self.events.exists() else []:
            event = json.loads(line).get("resourcePreEvent")
            if event and event["metadata"]["op"] not in ("same", "read", "refresh"):
                parts = event["metadata"]["urn"].split("::", 3)
                steps.append(Step(event["metadata"]["op"], event["metadata"]["type"], parts[3]))
        return Run(done.code, done.output, tuple(steps))

    def up(self, *more: str) -> str:
        return self.pulumi("up", "--stack", self.stack, "--yes", "--skip-preview", *more)

    def change(self, path: str, value: str) -> None:
        self.pulumi("config", "set", "--stack", self.stack, "--path", path, value)

    def output(self, name: str) -> Any:
        done = subprocess.run(
            ["pulumi", "stack", "output", name, "--stack", self.stack, "--show-secrets", "--json", "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)
