"""With the base install alone, every command for a cluster works or says what is missing. No Ray, no vLLM, no dev tools."""

import importlib.metadata
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STACK = "dev-l4"

# Runs in a process of its own, where a package that is not in requirements/base.txt cannot be imported.
PROGRAM = """
import json, pathlib, sys
from importlib.machinery import PathFinder
from typer.testing import CliRunner

find_spec = PathFinder.find_spec

def only_base(name, path=None, target=None):
    return None if name.split(".")[0] in BLOCKED else find_spec(name, path, target)

PathFinder.find_spec = staticmethod(only_base)
from rayline_cli import cli

cli.common.STATE = pathlib.Path.home()
results = {}
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=True)
    wrong = result.exception and not isinstance(result.exception, SystemExit)
    results[" ".join(arguments)] = {
        "code": result.exit_code, "output": result.output, "traceback": repr(result.exception) if wrong else "",
    }
print("RESULTS" + json.dumps(results))
"""

COMMANDS = (
    ("plan", "--json"),
    ("plan", "--stack", STACK),
    ("render", "--check"),
    ("status", "--stack", STACK, "--context", "nowhere"),
    ("logs", "--stack", STACK, "--context", "nowhere"),
    ("key", "--stack", STACK, "--context", "nowhere"),
    ("verify", "--stack", STACK, "--context", "nowhere"),
    ("verify", "--url", "http://127.0.0.1:9"),
    ("up", "--stack", STACK),
    ("down", "--stack", STACK),
    ("bench", "--stack", STACK, "--dry-run"),
    ("faults", "--only", "router"),
    ("docs", "--check"),
    ("up", "--stack", "local"),
    ("status", "--stack", "local"),
    ("--help",),
)
WORK = {("plan", "--json"), ("plan", "--stack", STACK), ("render", "--check"), ("--help",)}
"""Those that need nothing beside the base install."""


def modules_of_extras() -> set[str]:
    """Return the top-level modules of every installed package that requirements/base.txt does not have."""

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    text = (ROOT / "requirements" / "base.txt").read_text()
    base = {plain(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)} | {"rayline", "rayline-cli", "pip"}
    found = importlib.metadata.packages_distributions()
    return {module for module, packages in found.items() if not {plain(name) for name in packages} & base}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What each of COMMANDS does where neither an extra nor a tool of a cluster is installed."""
    blocked = modules_of_extras()
    assert {"ray", "vllm", "torch", "pytest", "pycurl", "rayline_bench", "rayline_docs"} <= blocked
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOOGLE_", "KUBE"))}
    done = subprocess.run(
        [sys.executable, "-c", f"BLOCKED = {blocked!r}\n{PROGRAM}", json.dumps(COMMANDS)],
        cwd=ROOT,
        env=environment | {"HOME": str(home), "PATH": str(home), "PYTHONPATH": f"{ROOT}:{ROOT / 'components'}"},
        capture_output=True,
        text=True,
        timeout=500,
        stdin=subprocess.DEVNULL,
    )
    assert "RESULTS" in done.stdout, done.stderr
    return json.loads(done.stdout.partition("RESULTS")[2])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_needs_no_package_of_an_extra(results: dict[str, dict], command: tuple[str, ...]) -> None:
    result = results[" ".join(command)]
    assert result["traceback"] == ""
    if command in WORK:
        assert result["code"] == 0, result["output"]
    else:
        assert result["code"] in (1, 2)
        assert result["output"].strip(), "it says what is missing"


def test_a_stack_on_this_machine_names_the_missing_packages_and_how_to_install_them(results: dict[str, dict]) -> None:
    said = " ".join(results["up --stack local"]["output"].split())
    assert "needs packages that are not installed: ray, vllm" in said
    assert "Fix: `make .venv/bin/.installed-all`" in said


@pytest.mark.parametrize(
    ("command", "package", "install"),
    [
        (f"bench --stack {STACK} --dry-run", "rayline-bench", "make bench"),
        ("faults --only router", "rayline-bench", "make bench"),
        ("docs --check", "rayline-docs", "make docs"),
    ],
)
def test_a_command_of_another_package_names_the_package_and_how_to_install_it(
    results: dict[str, dict], command: str, package: str, install: str
) -> None:
    said = " ".join(results[command]["output"].split())
    assert f"package {package} is not installed. Fix: `{install}`" in said
    assert results[command]["code"] == 1
