"""`make up` installs what the stack needs: Ray and vLLM for this machine, Pulumi alone for a deployment."""

import os
import pathlib
import shutil
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(not shutil.which("make"), reason="needs make on PATH")
@pytest.mark.parametrize(
    ("cluster", "installed"),
    [
        ("cluster: {mode: local}", "all"),
        ('cluster: {"mode": "local"}', "all"),
        ("cluster: {mode: 'local', location: x}", "all"),
        ("cluster:\n    mode:   local  # here", "all"),
        ("cluster: {mode: create}", "base"),
        ("cluster: {mode: create}  # not mode: local", "base"),
        ("# cluster: {mode: local}\n  cluster:\n    mode: existing", "base"),
    ],
)
def test_make_installs_what_the_stack_needs(tmp_path: pathlib.Path, cluster: str, installed: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    stack = tmp_path / "stacks" / "Pulumi.one.yaml"
    needed = ("requirements/all.txt", "requirements/base.txt", "requirements/uv.txt", "components/rayline/__init__.py")
    projects = [tmp_path / folder / "pyproject.toml" for folder in (".", "components", "benchmarks", "tools")]
    for path in (stack, *projects, *(tmp_path / name for name in needed)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    stack.write_text(f"config:\n  {cluster}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", "up", "STACK=one"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert f"installing requirements/{installed}.txt into .venv" in done.stdout
