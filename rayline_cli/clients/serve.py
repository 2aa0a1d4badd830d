"""Ray Serve's REST API on the dashboard, and what its answers mean for somebody who waits."""

from __future__ import annotations

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

    def details(self, timeout_seconds: float | None = 30) -> dict[str, Any]:
        """GET: what is deployed and how it is. Raises ServeUnreachable."""
        try:
            answer = self._client.get(APPLICATIONS, timeout=timeout_seconds)
        except httpx.HTTPError as error:
            raise ServeUnreachable(f"{type(error).__name__}: {error}") from None
        if answer.status_code != 200:
            raise ServeUnreachable(f"HTTP {answer.status_code}: {answer.text[:300]}")
        return answer.json()

    def resources(self) -> Mapping[str, float] | None:
        """GET: all resources of all living nodes together, in use or not. None where the dashboard does not say."""
        try:
            answer = self._client.get(NODES)
            nodes = answer.json()["data"]["result"]["result"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None
        total: dict[str, float] = {}
        for node in nodes:
            for name, amount in node["resources_total"].items():
                total[name] = total.get(name, 0.0) + amount
        return total

    def put(self, config: Mapping[str, Any]) -> None:
        """PUT: replaces what is deployed. Raises ServeRejected (Serve says why) or ServeUnreachable.

        The first one also starts the controller and the proxies; how long that takes is not limited here.
        """
        try:
            answer = self._client.put(APPLICATIONS, json=dict(config), timeout=None)
        except httpx.HTTPError as error:
            raise ServeUnreachable(f"{type(error).__name__}: {error}") from None
        if answer.status_code == 400:
            raise ServeRejected(answer.text)
        if answer.status_code != 200:
            raise ServeUnreachable(f"HTTP {answer.status_code}: {answer.text}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def every_deployment(details: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and state of each deployment of each application in GET's answer."""
    for application in (details.get("applications") or {}).values():
        yield from (application.get("deployments") or {}).items()


def replica_counts(details: Mapping[str, Any]) -> dict[str, str]:
    """Return "running/target" for each deployment of `details`."""
    return {
        name: f"{sum(r.get('state') == 'RUNNING' for r in deployment['replicas'])}/{deployment['target_num_replicas']}"
        for name, deployment in every_deployment(details)
    }


class State(Enum):
    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Rollout:
    """How far the configuration that was sent has come."""

    state: State
    detail: str
    """What is waited for, or why it failed, in Serve's words."""
    built: bool = False
    """Whether the application's deployments exist by now."""
    starting_workers: tuple[str, ...] = ()
    """Ray worker ids of replicas that are starting: the key to their log files."""
    unscheduled: bool = False
    """Whether a replica has had no place for more than 30 s (Serve's own limit)."""


_STARTING = "a replica is starting"


def rollout(details: Mapping[str, Any], sent: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Rollout:
    """Reads GET's answer. READY only for the configuration that was sent, with every replica running.

    An application that is RUNNING may still be the previous one, so what GET says is deployed is compared with `sent`.
    While the new one is being built, its deployments are still the previous ones, with the failures those had:
    `before`, GET's answer from before the PUT, tells these apart.
    """
    old_failures = {
        (name, title): _failure(deployment)
        for name, app in ((before or {}).get("applications") or {}).items()
        for title, deployment in (app.get("deployments") or {}).items()
    }
    applications = details.get("applications") or {}
    waiting: Rollout | None = None
    for wanted in sent["applications"]:
        name = wanted.get("name", "default")
        one = _application(name, wanted, applications.get(name), old_failures)
        if one.state is State.FAILED:
            return one
        if one.state is State.WAITING and waiting is None:
            waiting = one
    for name in applications.keys() - {app.get("name", "default") for app in sent["applications"]}:
        waiting = waiting or Rollout(State.WAITING, f"application {name}, no longer declared, is being deleted")
    return waiting or Rollout(State.READY, "every replica is running", built=True)


def _application(
    name: str, wanted: Mapping[str, Any], found: Mapping[str, Any] | None, old_failures: Mapping[tuple[str, str], str]
) -> Rollout:
    if found is None:
        return Rollout(State.WAITING, f"Serve's controller has not taken up application {name} yet")
    if not _contains(found.get("deployed_app_config"), wanted):
        return Rollout(State.WAITING, f"application {name} still runs the previous configuration")
    deployments = found.get("deployments") or {}
    workers = tuple(
        replica["worker_id"]
        for deployment in deployments.values()
        for replica in deployment.get("replicas") or []
        if replica.get("state") == "STARTING" and replica.get("worker_id")
    )
    for title, deployment in deployments.items():
        reason = _failure(deployment)
        if reason and reason != old_failures.get((name, title)):
            return Rollout(State.FAILED, f"deployment {title}: {reason}", True, workers)
    if found["status"] in {"DEPLOY_FAILED", "UNHEALTHY"}:
        return Rollout(State.FAILED, f"application {name}: {found.get('message') or found['status']}", True, workers)
    if found["status"] != "RUNNING" and not deployments:
        return Rollout(State.WAITING, f"building application {name} (imports vLLM)")
    for title, deployment in deployments.items():
        running = sum(replica.get("state") == "RUNNING" for replica in deployment.get("replicas") or [])
        target = deployment.get("target_num_replicas") or 0
        if deployment["status"] != "HEALTHY" or running < target:
            said = " ".join((deployment.get("message") or _STARTING).split())
            waits_for_room = "to be scheduled" in said
            return Rollout(State.WAITING, f"{title} {running}/{target} running: {said}", True, workers, waits_for_room)
    if found["status"] != "RUNNING":
        return Rollout(State.WAITING, f"application {name} is {found['status']}", True, workers)
    return Rollout(State.READY, "every replica is running", True)


def wanted_resources(details: Mapping[str, Any]) -> dict[str, float]:
    """What all replicas of all deployments in GET's answer ask of Ray together."""
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
    """Which resources are fewer than `wanted`, as sentences; nothing where all replicas fit or `there` is not known."""
    if there is None:
        return ""
    return " ".join(
        f"All replicas together ask for {amount:g} {name}, and this Ray has {there.get(name, 0.0):g}."
        for name, amount in sorted(wanted.items())
        if amount > there.get(name, 0.0)
    )


def _failure(deployment: Mapping[str, Any]) -> str:
    """Why this deployment will not come up, or "" while it still may.

    Serve tries a failed replica several times, at a minute each with vLLM, before it says DEPLOY_FAILED. Nothing
    changes between the attempts, so the first failure is the answer.
    """
    message = deployment.get("message") or ""
    if deployment["status"] in {"DEPLOY_FAILED", "UNHEALTHY"}:
        return message or deployment["status"]
    if "failed to start with exception" in message:
        return message
    return ""


def _contains(found: Any, wanted: Any) -> bool:
    """Whether `found` says everything that `wanted` says; GET adds defaults."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_contains(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, (list, tuple)):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_contains, found, wanted))
    return found == wanted
