"""The check of a service without replicas loads the model with its own request, and fails where a request would not be held."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from rayline_cli.verify import CheckResult, Outcome, Target, check_switches
from tests.unit.verify_service import Service, answer

ZERO = "scale to zero"
BOUNDS = {"min_replicas": 0, "max_replicas": 2}


class ScalesToZero(Service):
    """A service whose replica stops without load."""

    def __init__(self, *, replica: bool, **fields: Any) -> None:
        super().__init__(**fields)
        self.serve_config["applications"][0]["deployments"] = [{"name": "LLMServer:tiny", "autoscaling_config": BOUNDS}]
        self.deployed = self.details["applications"]["llm"]
        self.deployed["deployed_app_config"]["deployments"] = [{"name": "LLMServer:tiny", "autoscaling_config": BOUNDS}]
        self.model = self.deployed["deployments"]["LLMServer:tiny"]
        self.model["deployment_config"]["autoscaling_config"] = dict(BOUNDS)
        self.stopped = [] if replica else self.model["replicas"]
        self.requests_without_key_refused = True
        self.cut = 0
        """Requests that end before the model is loaded."""
        self.cut_by: tuple[int, str] = (0, "TimeoutError: timed out")
        if not replica:
            self.model.update(replicas=[], target_num_replicas=0)

    def look_again(self) -> None:
        pass

    def run_client(self, job: Mapping[str, Any]) -> Any:
        if job["do"] == "stream" and self.stopped:
            if self.cut:
                self.cut -= 1
                status, text = self.cut_by
                return self.stream | {"status": status, "text": text}
            if self.stream["status"] == 200:
                self.model.update(replicas=self.stopped, target_num_replicas=1)
                self.stopped = []
        return super().run_client(job)

    def _answer(self, path: str, method: str = "GET", body: Any = None, auth: bool = True) -> dict[str, Any]:
        if self.stopped and not auth and not self.requests_without_key_refused:
            return answer(0, "TimeoutError: timed out")
        return super()._answer(path, method, body, auth)


def checks(service: Service) -> dict[str, CheckResult]:
    return {check.name: check for check in check_switches(cast(Target, service))}


def failed(results: dict[str, CheckResult]) -> dict[str, str]:
    return {name: check.evidence for name, check in results.items() if check.outcome is Outcome.FAIL}


def test_a_service_without_replicas_passes_every_check_because_the_first_one_loads_the_model():
    results = checks(ScalesToZero(replica=False))
    assert failed(results) == {}
    assert next(iter(results)) == ZERO
    assert "without a replica a request without the key got HTTP 401; one with it was answered after" in results[ZERO].evidence


def test_a_start_that_takes_longer_than_a_request_is_waited_for():
    service = ScalesToZero(replica=False)
    service.cut = 2
    assert failed(checks(service)) == {}


def test_the_moment_in_which_the_last_replica_stops_is_no_failure():
    service = ScalesToZero(replica=False, settles_seconds=60.0)
    service.cut, service.cut_by = 1, (503, "Ingress request router failed: router_unreachable")
    assert failed(checks(service)) == {}


def test_a_service_with_a_replica_is_not_asked_to_load_the_model():
    result = checks(ScalesToZero(replica=True))[ZERO]
    assert (result.outcome, "a replica runs" in result.evidence) == (Outcome.PASS, True)


def test_a_service_that_keeps_a_replica_has_no_such_check():
    assert ZERO not in checks(Service())


def keeps_a_replica(service: ScalesToZero) -> None:
    service.model["deployment_config"]["autoscaling_config"]["min_replicas"] = 1


def proxy_down(service: ScalesToZero) -> None:
    for row in service.haproxy["stat"]:
        if "fallback" in row["svname"]:
            row["status"] = "DOWN"


def no_proxy(service: ScalesToZero) -> None:
    service.haproxy["config"] = service.haproxy["config"].replace(" backup", "")


def gate_missing(service: ScalesToZero) -> None:
    service.requests_without_key_refused = False


def model_that_cannot_start(service: ScalesToZero) -> None:
    service.stream.update(status=503, text="no available replica", events=0, done=False)


@pytest.mark.parametrize(
    ("break_it", "evidence"),
    [
        (keeps_a_replica, "Serve keeps 1 replica(s) of LLMServer:tiny"),
        (proxy_down, "head-0: Serve's proxy is no server of HAProxy that is UP"),
        (no_proxy, "head-0: Serve's proxy is no server of HAProxy that is UP"),
        (gate_missing, "without a replica a request without the key is not refused"),
        (model_that_cannot_start, "no available replica"),
    ],
)
def test_one_broken_thing_fails_the_check_and_is_named(break_it: Callable[[ScalesToZero], None], evidence: str):
    service = ScalesToZero(replica=False)
    break_it(service)
    result = checks(service)[ZERO]
    assert result.outcome is Outcome.FAIL
    assert evidence in result.evidence
    assert result.fix
