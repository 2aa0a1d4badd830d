"""What all tiers share: the real program of a stack, recorded once."""

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from rayline_cli import offline
from rayline_cli.offline import Program

ROOT = pathlib.Path(__file__).resolve().parent.parent
STACKS = ["dev-l4", "kind", "local", "prod-b200", "prod-l4"]
"""The stacks that the kit ships. A team's own stack files are no subject of the tests; `make rehearse` deploys one."""

# Colours and widths of the terminal that happens to run the tests are no part of what is tested.
os.environ.setdefault("NO_COLOR", "1")
os.environ.setdefault("COLUMNS", "160")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests that share a session to one process. Files with sessions of their own, and all other tests, run beside it."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.startswith("tests/serve/own_session/"):
                return nodeid.split("::")[0]
            return "serve" if nodeid.startswith("tests/serve/") else nodeid

    return Scheduling(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="skip the tests with the marks `full` and `suite`, which take minutes each"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--quick"):
        for item in items:
            for mark, target in {"full": "test-full", "suite": "suites"}.items():
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=f"takes minutes: `make {target}`"))


def stacks_of(*modes: str) -> list[str]:
    """The stacks with one of these cluster modes. Read from the files: recording them is work for a test, not for pytest."""
    files = {name: yaml.safe_load((ROOT / "stacks" / f"Pulumi.{name}.yaml").read_text()) for name in STACKS}
    return [name for name, file in files.items() if file["config"]["cluster"]["mode"] in modes]


@functools.cache
def recorded(stack: str) -> Program:
    """The program of a stack file. Read-only: it is shared by all tests."""
    return offline.record(stack)


@pytest.fixture(params=STACKS)
def program(request: pytest.FixtureRequest) -> Program:
    """Every stack in turn."""
    return recorded(request.param)


@pytest.fixture
def stack() -> Callable[[str], Program]:
    """One stack by its name."""
    return recorded


@pytest.fixture
def record_file(tmp_path: pathlib.Path) -> Callable[..., Program]:
    """Record the program for the text of a stack file (with or without `config:`), under a stack name."""

    def record(text: str, stack: str = "test") -> Program:
        path = tmp_path / "Pulumi.test.yaml"
        body = text if text.lstrip().startswith("config:") else "config:\n" + _indented(text)
        path.write_text(body)
        return offline.record(stack, config=offline.read_stack_file(path))

    return record


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.strip("\n").splitlines())
