"""A session that runs goes on unless something changed that needs new processes; a configuration is waited for to its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("psutil", reason="needs the `local` extra")

from rayline_cli.clients.serve import ServeUnreachable
from rayline_cli.local.bring_up import BringUp
from rayline_cli.local.deploying import Deploying
from rayline_cli.local.failures import LocalRuntimeError
from rayline_cli.local.single_node import read
from rayline_cli.local.translate import restart_key
from tests.unit.test_translate import SECRETS, ray_service
from tests.unit.test_tried_again import Notes


@pytest.fixture
def bring_up(tmp_path) -> BringUp:
    return BringUp(read(ray_service()), SECRETS, tmp_path, tmp_path, {}, Notes())


def session(bring_up: BringUp, **changes: Any) -> Any:
    """A session of what is declared, whose dashboard does not answer."""
    declared = {
        "supervisor": lambda: object(),
        "ready": True,
        "salt": "salt",
        "restart_key": restart_key(bring_up.node, SECRETS, "salt"),
        "num_cpus": bring_up.node.num_cpus,
        "ports": {"dashboard": 9},
        "variable": lambda name: None,
        "processes": list,
        "logs": list,
        "named": lambda name: [],
    }
    return SimpleNamespace(**declared | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"supervisor": lambda: None}, "the previous session has died"),
        ({"ready": False}, "never became ready"),
        ({"restart_key": "another"}, "environment, rayStartParams or http_options changed"),
        ({"num_cpus": 1}, "requests 4 Ray CPUs, and this Ray has 1"),
        ({}, "dashboard does not answer"),
    ],
)
def test_why_a_session_cannot_go_on_is_said(bring_up: BringUp, changes: dict[str, Any], reason: str):
    assert reason in bring_up._why_restart(session(bring_up, **changes))


CONFIG = {"applications": [{"name": "llm"}]}


def details(status: str, deployment: str, *, running: int, message: str = "") -> dict[str, Any]:
    replicas = [{"state": "RUNNING", "actor_id": "a"}] * running
    one = {"status": deployment, "message": message, "replicas": replicas, "target_num_replicas": 1}
    one["deployment_config"] = {"placement_group_bundles": [{"CPU": 3.0}]}
    application = {"status": status, "message": message, "deployed_app_config": {"name": "llm"}}
    return {"applications": {"llm": application | {"deployments": {"model": one}}}}


UNSCHEDULED = "Deployment has 1 replicas that have taken more than 30s to be scheduled"
NOTHING = {"applications": {}}
SERVING = details("RUNNING", "HEALTHY", running=1)
STARTING = details("DEPLOYING", "UPDATING", running=0, message=UNSCHEDULED)
TIMED_OUT = details("DEPLOY_FAILED", "DEPLOY_FAILED", running=0, message="RuntimeError: timed out after 60s")
BROKEN = details("DEPLOY_FAILED", "DEPLOY_FAILED", running=0, message="ValueError: max_model_len is too long")


class Dashboard:
    """Answers each look with the next of `answers`."""

    url = "http://dashboard"

    def __init__(self, *answers: Any) -> None:
        self.answers, self.taken = list(answers), []

    def details(self) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def put(self, config: Any) -> None:
        self.taken.append(config)

    def resources(self) -> dict[str, float]:
        return {"CPU": 2.0}


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """Send CONFIG to a dashboard that gives these answers; return what was noted and recorded."""
    monkeypatch.setattr("rayline_cli.local.waiting.POLL_SECONDS", 0)

    def run(*answers: Any) -> tuple[list[str], Any]:
        recorded: Any = SimpleNamespace(log_folder=tmp_path)
        recorded.changed = lambda **changes: SimpleNamespace(log_folder=tmp_path, **changes)
        dashboard: Any = Dashboard(NOTHING, *answers)
        notes = Notes()
        translation: Any = SimpleNamespace(serve_config=CONFIG)
        deploying = Deploying(recorded, dashboard, translation, notes, watch=None)
        deploying.send()
        assert dashboard.taken == [CONFIG]
        assert dashboard.answers == []
        return notes.lines, deploying.session

    return run


def test_a_configuration_is_waited_for_until_it_runs_and_recorded(send):
    notes, session = send(ServeUnreachable("busy"), details("DEPLOYING", "UPDATING", running=0), SERVING)
    assert notes == []
    assert session.sent == CONFIG


def test_the_first_time_out_of_a_replica_is_serves_to_try_again(send):
    notes, _ = send(TIMED_OUT, SERVING)
    assert "Serve tries it once more" in notes[0]


def test_another_failure_ends_the_wait_with_its_reason(send):
    with pytest.raises(LocalRuntimeError, match="max_model_len is too long"):
        send(BROKEN)


def test_replicas_that_never_fit_end_the_wait_with_both_numbers(send):
    with pytest.raises(LocalRuntimeError, match="request 3 CPU, and this Ray has 2"):
        send(STARTING)
