"""Sessions of the serve tier. Few of them, used by many tests: each takes a minute to start.

Files in own_session/ do not use the shared session, so another process can run them beside it (tests/conftest.py).

`serving` is imported inside the fixtures: without the `local` extra it skips the module that imports it, by name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from tests.serve.serving import Served, UpProcess


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.serve)
            item.add_marker(pytest.mark.slow)
            # `up` ends by itself when nothing moves any more; a test may bring up two sessions, on a busy machine
            item.add_marker(pytest.mark.timeout(3600))


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """All switches on. Shared by all files: do not change it."""
    from tests.serve.serving import ray_service, run

    with run(tmp_path_factory.mktemp("all-on"), ray_service()) as one:
        yield one


@pytest.fixture(scope="module")
def second(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Beside the first: every switch but HAProxy declared off, two HAProxy threads, no API key."""
    from tests.serve.serving import SECOND, ray_service, run

    with run(tmp_path_factory.mktemp("direct-off"), ray_service(**SECOND)) as one:
        yield one


@pytest.fixture
def up_process(tmp_path: Path) -> Iterator[UpProcess]:
    """`up` as a command in a process of its own, to be interrupted."""
    from rayline_cli.local import runtime
    from tests.serve.serving import SECRETS, Recorder, UpProcess, ray_service, takes_ctrl_c

    state_dir = tmp_path / "state"
    manifest = tmp_path / "ray-service.yaml"
    manifest.write_text(yaml.safe_dump(ray_service()))
    output = tmp_path / "output"
    command = [sys.executable, "-m", "tests.serve.up", str(manifest), str(state_dir)]
    secrets = json.dumps([[name, key, value] for (name, key), value in SECRETS.items()])
    with output.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "SERVE_TEST_SECRETS": secrets},
            cwd=Path(__file__).parents[2],
            preexec_fn=takes_ctrl_c,
        )
    try:
        yield UpProcess(process, state_dir, output)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        runtime.down(state_dir, Recorder())
