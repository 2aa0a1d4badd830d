"""Applications without a language model, as the bench runs them: one session, one after the other in it."""

import json
from pathlib import Path

import httpx
import pytest

from rayline_bench import http_load
from rayline_bench.http_load import HttpRequest
from rayline_bench.workloads import ECHO_APP, RECOMMENDER_APP
from rayline_cli.local import runtime
from rayline_cli.verify import Outcome
from tests.serve.serving import PATIENCE, SECRETS, Recorder, ray_service, run

pytestmark = pytest.mark.full


def test_applications_come_up_behind_haproxy_and_answer_through_both_of_their_deployments(tmp_path: Path) -> None:
    with run(tmp_path, dict(ECHO_APP.put_into(ray_service()))) as served:
        assert served.running.answer is None
        outcomes = {check.name: check.outcome for check in served.running.checks}
        assert set(outcomes.values()) == {Outcome.PASS, Outcome.NOT_APPLICABLE}, served.running.checks
        assert {name for name, outcome in outcomes.items() if outcome is Outcome.PASS} == {
            "declared configuration",
            "HAProxy: managers and processes",
            "throughput settings of Serve",
            "environment parity",
            "reachable from outside",
        }
        body = json.dumps({"message": "x" * 10_240}).encode()
        measured = http_load.loop(HttpRequest(f"{served.running.url}/echo", body, b"Echo: xxx"), concurrency=4, requests=40)
        assert (measured["completed"], measured["errors"]) == (40, [])

        manifest = RECOMMENDER_APP.put_into(ray_service())
        again = runtime.up(manifest, state_dir=tmp_path, secrets=SECRETS, report=Recorder())
        assert again.ports == served.running.ports
        scores = [
            httpx.get(f"{again.url}/recommend?user_id={user}", trust_env=False, timeout=PATIENCE).json()["scores"]
            for user in (1, 2, 1)
        ]
        assert [len(one) for one in scores] == [32, 32, 32]
        assert scores[0] == scores[2] != scores[1]
