"""Client of Ray Serve's REST API on the dashboard, and the progress of a configuration that was sent to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import httpx

APPLICATIONS = "/api/serve/applications/"
NODES = "/api/v0/nodes?detail=0&limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"


class ServeRejected(Exception):
    """Serve refused the configuration; the message is Serve's."""


class ServeUnreachable(Exception):
    """The dashboard does not answer (yet)."""


class ServeApi:
    """Client of one dashboard."""

    def __init__(self, dashboard_url: str, token: str | None) -> None:
        self.url = dashboard_url
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # trust_env=False: a proxy from the environment has no business between this machine and itself.
        self._client = httpx.Client(base_url=dashboard_url, headers=headers, timeout=30, trust_env=False)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServeUnreachable(f"{type(error).__name__}: {error}") from None
        if method == "PUT" and answer.status_code == 400:
            raise ServeRejected(answer.text)
        if answer.status_code != 200:
            # a failed PUT ends with Serve's traceback
            raise ServeUnreachable(f"HTTP {answer.status_code}: {answer.text if method == 'PUT' else answer.text[:300]}")
        return answer

    def details(self, timeout_seconds: float | None = 30) -> dict[str, Any]:
        """Return every application with its state. Raises ServeUnreachable."""
        return self._send("GET", APPLICATIONS, timeout=timeout_seconds).json()

    def resources(self) -> Mapping[str, float] | None:
        """Return the resources of all living nodes together, in use or not. None where the dashboard does not list them."""
        total: Counter[str] = Counter()
        try:
            for node in self._send("GET", NODES).json()["data"]["result"]["result"]:
                total.update(node["resources_total"])
        except (ServeUnreachable, ValueError, KeyError, TypeError):
            return None
        return total

    def put(self, config: Mapping[str, Any]) -> None:
        """Send a configuration by PUT, in place of the deployed one. Raises ServeRejected or ServeUnreachable.

        The first PUT also starts the controller and the proxies, so it has no time limit.
        """
        self._send("PUT", APPLICATIONS, json=dict(config), timeout=None)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def every_deployment(details: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and state of each deployment in GET's answer; of several applications as APPLICATION/NAME."""
    applications = details.get("applications") or {}
    for application, state in applications.items():
        prefix = f"{application}/" if len(applications) > 1 else ""
        for name, deployment in (state.get("deployments") or {}).items():
            yield prefix + name, deployment


def _running(deployment: Mapping[str, Any]) -> int:
    return sum(replica.get("state") == "RUNNING" for replica in deployment.get("replicas") or [])


def replica_counts(details: Mapping[str, Any]) -> dict[str, str]:
    """Return "running/target" for each deployment of `details`."""
    return {name: f"{_running(state)}/{state['target_num_replicas']}" for name, state in every_deployment(details)}


def serving(counts: Mapping[str, str]) -> str:
    """Return the state of a service that serves, from `replica_counts`: a deployment may have no replica until the next request."""
    waiting = [name for name, count in counts.items() if count == "0/0"]
    return f"serving; the next request starts a replica of {', '.join(waiting)}" if waiting else "serving"


class State(Enum):
    """State of a rollout."""

    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Rollout:
    """Progress of the configuration that was sent."""

    state: State
    detail: str
    """What the rollout waits for, or why it failed, in Serve's words."""
    built: bool = False
    """Whether the application's deployments exist by now."""
    starting_workers: tuple[str, ...] = ()
    """Ray worker ids of replicas that are starting: the key to their log files."""
    unscheduled: bool = False
    """Whether a replica has had no place for more than 30 s (Serve's own limit)."""


_READY = Rollout(State.READY, "every replica is running", built=True)


def rollout(details: Mapping[str, Any], sent: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Rollout:
    """Read GET's answer. READY only for the configuration that was sent, with every replica running.

    An application that is RUNNING may still be the previous one, so the deployed configuration is compared with `sent`.
    While the new one is being built, its deployments are still the previous ones, with the failures of those. `before` is
    GET's answer from before the PUT and tells these failures apart.
    """
    applications, previous = ((answer or {}).get("applications") or {} for answer in (details, before))
    declared = {wanted.get("name", "default"): wanted for wanted in sent["applications"]}
    steps = [_application(name, wanted, applications.get(name), previous.get(name)) for name, wanted in declared.items()]
    steps += [
        Rollout(State.WAITING, f"application {name}, no longer declared, is being deleted")
        for name in applications.keys() - declared.keys()
    ]
    return next((step for state in (State.FAILED, State.WAITING) for step in steps if step.state is state), _READY)


def _application(
    name: str, wanted: Mapping[str, Any], actual: Mapping[str, Any] | None, previous: Mapping[str, Any] | None
) -> Rollout:
    if actual is None:
        return Rollout(State.WAITING, f"Serve's controller has not taken up application {name} yet")
    if not _contains(actual.get("deployed_app_config"), wanted):
        return Rollout(State.WAITING, f"application {name} still runs the previous configuration")
    deployments = actual.get("deployments") or {}
    workers = tuple(
        replica["worker_id"]
        for deployment in deployments.values()
        for replica in deployment.get("replicas") or []
        if replica.get("state") == "STARTING" and replica.get("worker_id")
    )
    earlier = (previous or {}).get("deployments") or {}
    for title, deployment in deployments.items():
        if (reason := _failure(deployment)) and reason != _failure(earlier.get(title) or {}):
            return Rollout(State.FAILED, f"deployment {title}: {reason}", True, workers)
    if actual["status"] in {"DEPLOY_FAILED", "UNHEALTHY"}:
        return Rollout(State.FAILED, f"application {name}: {actual.get('message') or actual['status']}", True, workers)
    if actual["status"] != "RUNNING" and not deployments:
        return Rollout(State.WAITING, f"building application {name} (imports vLLM)")
    for title, deployment in deployments.items():
        running, target = _running(deployment), deployment.get("target_num_replicas") or 0
        if deployment["status"] != "HEALTHY" or running < target:
            message = " ".join((deployment.get("message") or "a replica is starting").split())
            detail = f"{title} {running}/{target} running: {message}"
            return Rollout(State.WAITING, detail, True, workers, unscheduled="to be scheduled" in message)
    if actual["status"] != "RUNNING":
        return Rollout(State.WAITING, f"application {name} is {actual['status']}", True, workers)
    return _READY


def wanted_resources(details: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources that all replicas of all deployments in GET's answer request of Ray together."""
    wanted: dict[str, float] = {}
    for _, deployment in every_deployment(details):
        replicas = deployment.get("target_num_replicas") or 0
        bundles = (deployment.get("deployment_config") or {}).get("placement_group_bundles")
        # with a placement group the replica lives in its first bundle
        for bundle in bundles or [deployment.get("required_resources") or {}]:
            for name, amount in bundle.items():
                wanted[name] = wanted.get(name, 0.0) + replicas * (amount or 0.0)
    return wanted


def lacking(wanted: Mapping[str, float], there: Mapping[str, float] | None) -> str:
    """Return which resources are fewer than `wanted`, as sentences; nothing where all replicas fit or `there` is None."""
    if there is None:
        return ""
    return " ".join(
        f"All replicas together request {amount:g} {name}, and this Ray has {there.get(name, 0.0):g}."
        for name, amount in sorted(wanted.items())
        if amount > there.get(name, 0.0)
    )


def _failure(deployment: Mapping[str, Any]) -> str:
    """Return why this deployment will not come up, or "" while it still may.

    Serve tries a failed replica several times, at a minute each with vLLM, before it says DEPLOY_FAILED. Nothing
    changes between the attempts, so the first failure is the answer.
    """
    message = deployment.get("message") or ""
    if deployment.get("status") in {"DEPLOY_FAILED", "UNHEALTHY"}:
        return message or deployment["status"]
    return message if "failed to start with exception" in message else ""


def _contains(actual: Any, wanted: Any) -> bool:
    """Return whether `actual` has everything in `wanted`; GET adds defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(actual, Mapping) and all(_contains(actual.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, (list, tuple)):
        return isinstance(actual, list) and len(actual) == len(wanted) and all(map(_contains, actual, wanted))
    return actual == wanted
