"""A deployment as a pipeline runs it: no terminal, no questions, one result as data; with the real engine."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from rayline_cli.deploy import OUTPUTS
from tests.engine.conftest import Life, a_life
from tests.engine.fake_provider import CRD
from tests.unit.waiting import wait_until

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(900)]

# What `rayline up --yes --json` does with Pulumi, before it looks into the cluster.
SCRIPT = """
import dataclasses, json, sys
from rayline_cli import deploy
command, stack = sys.argv[1:]
done = deploy.operate(deploy.arguments(command, stack, yes=True, terminal=False))
print(json.dumps(dataclasses.asdict(done)))
sys.exit(done.exit_code)
"""


@dataclasses.dataclass(frozen=True)
class Step:
    """One command of the pipeline."""

    code: int
    result: dict[str, Any]
    log: str


def step(life: Life, command: str, *, ended_when: Callable[[], bool] | None = None) -> Step:
    """Run it with no terminal on any stream. Nothing but one object may be on stdout.

    With `ended_when` it gets SIGTERM, as a pipeline ends a job, as soon as that is true.
    """
    project = life.project
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, command, life.stack],
        cwd=project.folder,
        env=project.environment | {"PYTHONPATH": str(project.folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a signal to the job's process alone, which has to pass it on
        start_new_session=True,
    )
    if ended_when:
        wait_until(ended_when, seconds=300)
        process.send_signal(signal.SIGTERM)
    out, log = process.communicate(timeout=600)
    return Step(process.returncode, json.loads(out), log)


@dataclasses.dataclass
class Pipeline:
    """A stack that a pipeline takes through its life."""

    life: Life
    steps: dict[str, Step]
    keys: set[str]
    """Every secret value of the stack."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory, stand_ins: pathlib.Path) -> Pipeline:
    """`kind`: a preview, as on a pull request; up, as on the merge; a broken change and its end; gone."""
    life = a_life(tmp_path_factory.mktemp("pipeline"), "kind", stand_ins)
    steps = {"preview": step(life, "preview")}
    left = list(life.cloud.objects())
    assert left == []
    steps["up"] = step(life, "up")
    keys = {
        value
        for one in life.cloud.of_type(":RandomPassword")
        for value in (one.plain_outputs["result"], one.plain_outputs["bcryptHash"])
    }
    steps["up again"] = step(life, "up")
    life.project.change("services.chat.accelerator", "gtx")
    steps["broken"] = step(life, "up")
    life.project.change("services.chat.accelerator", "cpu")
    steps["down"] = step(life, "destroy")
    before = len(life.cloud.operations())
    steps["cancelled"] = step(life, "up", ended_when=lambda: len(life.cloud.operations()) > before)
    steps["down after it"] = step(life, "destroy")
    return Pipeline(life, steps, keys)


def test_a_preview_counts_what_would_be_made(pipeline: Pipeline) -> None:
    done = pipeline.steps["preview"]
    assert done.code == 0, done.log[-4000:]
    assert done.result["planned"]["create"] > 10
    assert done.result["changes"] == {}


def test_up_says_what_it_made_and_where_the_services_are(pipeline: Pipeline) -> None:
    done = pipeline.steps["up"]
    assert done.code == 0, done.log[-4000:]
    assert done.result["changes"] == pipeline.steps["preview"].result["planned"]
    assert done.result["errors"] == []
    assert done.result["seconds"] > 0
    assert done.result["outputs"]["endpoints"] == {"chat": "http://chat-serve-svc.rayline.svc.cluster.local:8000/v1"}


def test_the_progress_goes_to_the_log_of_the_job(pipeline: Pipeline) -> None:
    assert "RayService" in pipeline.steps["up"].log


def test_up_again_finds_everything_as_it_is(pipeline: Pipeline) -> None:
    done = pipeline.steps["up again"]
    assert done.code == 0, done.log[-4000:]
    assert set(done.result["changes"]) == {"same"}


def test_a_program_that_refuses_is_exit_code_1_and_its_message_is_in_the_result(pipeline: Pipeline) -> None:
    done = pipeline.steps["broken"]
    assert done.code == 1
    assert done.result["exit_code"] == 1
    assert done.result["changes"] == {}
    assert any("services.chat.accelerator" in error for error in done.result["errors"])
    assert "Traceback" not in done.log


def test_down_says_what_it_removed(pipeline: Pipeline) -> None:
    done = pipeline.steps["down"]
    assert done.code == 0, done.log[-4000:]
    assert done.result["changes"]["delete"] > 10
    assert done.result["outputs"] == {}


def test_no_secret_is_in_a_result_or_in_the_log(pipeline: Pipeline) -> None:
    assert len(pipeline.keys) >= 4
    written = json.dumps([one.result for one in pipeline.steps.values()])
    written += "".join(one.log for one in pipeline.steps.values())
    assert not [key for key in pipeline.keys if key in written]
    assert set(pipeline.steps["up"].result["outputs"]) <= set(OUTPUTS)
    assert {"api_keys", "kubeconfig"}.isdisjoint(OUTPUTS)


def test_a_cancelled_job_ends_in_order_and_the_next_one_needs_no_repair(pipeline: Pipeline) -> None:
    done = pipeline.steps["cancelled"]
    assert (done.code, done.result["exit_code"]) == (130, 130)
    assert done.result["changes"].get("create", 0) < pipeline.steps["up"].result["changes"]["create"]
    # neither a lock nor an operation without an end is in the way
    assert pipeline.steps["down after it"].code == 0, pipeline.steps["down after it"].log[-4000:]
    # KubeRay's CRDs stay, which other stacks of the cluster may use
    assert [one.id for one in pipeline.life.cloud.objects() if one.type != CRD] == []


def test_a_stack_that_is_not_there_is_one_error_in_the_result(pipeline: Pipeline) -> None:
    life = dataclasses.replace(pipeline.life, stack="nowhere")
    done = step(life, "up")
    assert done.code == 1
    assert any("no stack named 'nowhere' found" in error for error in done.result["errors"])
    assert any("Fix: pulumi stack init nowhere" in error for error in done.result["errors"])
