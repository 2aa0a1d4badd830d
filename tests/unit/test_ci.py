"""The workflow of the common host runs what every machine runs, with the Pulumi CLI of the pinned SDK."""

import importlib.metadata
import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from pulumi.automation import PulumiCommand

from rayline_cli import deploy
from tests.conftest import ROOT

TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
STEPS: list[dict[str, Any]] = yaml.safe_load(TEXT)["jobs"]["test"]["steps"]
RUNS = [step["run"] for step in STEPS if "run" in step]


def test_it_ends_with_the_command_of_every_machine() -> None:
    assert RUNS[-1] == ".ci/run"
    assert (ROOT / ".ci" / "run").exists()


def test_its_python_is_one_of_the_projects() -> None:
    (python,) = [step["with"]["python-version"] for step in STEPS if "setup-python" in step.get("uses", "")]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert python in SpecifierSet(wanted)


def test_it_puts_the_cli_in_the_version_of_the_sdk_on_path(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    asked = []

    class Installed:
        command = str(deploy.TOOLS / "pulumi" / "bin" / "pulumi")

    def install(root: str, version: Any) -> Installed:
        asked.append((root, str(version)))
        return Installed()

    monkeypatch.setattr(PulumiCommand, "install", install)
    (step,) = [run for run in RUNS if run.endswith('>> "$GITHUB_PATH"')]
    code = re.fullmatch(r"\.venv/bin/python -c '(.*)' >> \"\$GITHUB_PATH\"", step)
    assert code
    exec(code[1], {})
    assert asked == [(str(deploy.TOOLS / "pulumi"), importlib.metadata.version("pulumi"))]
    assert capsys.readouterr().out == f"{deploy.TOOLS / 'pulumi' / 'bin'}\n"
