"""`make rehearse STACK=name` for anybody's stack."""

import pathlib
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]


def rehearse(stack: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.engine.rehearse", stack]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)


def test_a_stack_is_deployed_twice_and_destroyed(stand_ins: pathlib.Path) -> None:
    done = rehearse("kind")
    assert done.returncode == 0, done.stderr
    assert "kind: previewed, deployed, deployed again without a change, and destroyed" in done.stdout
    assert "create 1 x ray.io/v1:RayService" in " ".join(done.stdout.split())


@pytest.mark.parametrize(("stack", "message"), [("nosuch", "no stack 'nosuch'"), ("local", "Fix: STACK=NAME")])
def test_a_stack_that_cannot_be_deployed_is_one_line(stack: str, message: str) -> None:
    done = rehearse(stack)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
