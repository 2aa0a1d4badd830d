"""A running service as the checks look at it: its nodes, and the address that clients use."""

from __future__ import annotations

import dataclasses
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from rayline.facts.choices import Task
from rayline.service.api_key import API_KEY_KEY, KEYS_PATH, KEYS_VARIABLE
from rayline.service.serve_reading import ServeApplication
from rayline_cli.clients.kubernetes import NotSeen
from rayline_cli.clients.serve import APPLICATIONS, every_deployment
from rayline_cli.questions import QUESTIONS
from rayline_cli.verify.check import Verdict
from rayline_cli.verify.expected import Expected

ACTORS = "/api/v0/actors?detail=0&limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"


@dataclass(frozen=True)
class Node:
    """A Ray node: a pod, or this machine's only node."""

    name: str
    is_head: bool
    run: Callable[[Mapping[str, Any]], Any]
    """Runs one job of inside.py on the node."""

    def dashboard(self, path: str, *, auth: bool = True) -> dict[str, Any]:
        """Return the answer of Ray's dashboard to GET `path` from this node: {"status", "text"}."""
        (answer,) = self.run({"do": "ask", "base": "dashboard", "requests": [{"path": path, "auth": auth}]})
        return answer


def entrances(nodes: Sequence[Node]) -> Sequence[Node]:
    """Return the nodes that clients come through: not a cluster's head, which has no API key."""
    return [node for node in nodes if not node.is_head] or nodes


class Target(ABC):
    """A running service."""

    expected: Expected
    """What must be seen."""
    nodes: Sequence[Node] = ()
    """Every Ray node, the head first. Empty where only the address is known."""
    application: str | None = None
    """The only application that is looked at; None: all of them."""
    endpoint: str
    """Address that clients use, as `run_client` reaches it."""
    settles_seconds: float = 0.0
    """How long the service may take until it is right, such as HAProxy after a change."""

    def look_again(self) -> None:  # noqa: B027 (the nodes of a cluster alone change)
        """Take nodes into account that joined meanwhile."""

    @abstractmethod
    def run_client(self, job: Mapping[str, Any]) -> Any:
        """Run a job of inside.py at a place that sends requests as a client of the endpoint does, with its key."""

    @abstractmethod
    def reachability(self, view: View) -> Verdict:
        """Check that others reach no more than they should."""


class ApplicationTarget(Target):
    """One application of a service: its path, its key, its model and its replicas."""

    def __init__(self, whole: Target, application: ServeApplication) -> None:
        self._whole, self.application = whole, application.name
        self.expected = whole.expected.only(application.name)
        self.endpoint, self.settles_seconds = whole.endpoint, whole.settles_seconds
        self._place = {
            "application": application.name,
            "prefix": application.prefix,
            "key_file": f"{application.variables.get(KEYS_VARIABLE, KEYS_PATH)}/{API_KEY_KEY}",
        }
        self.nodes = [dataclasses.replace(node, run=partial(self._run, node)) for node in whole.nodes]

    def _run(self, node: Node, job: Mapping[str, Any]) -> Any:
        return node.run({**job, **self._place})

    def run_client(self, job: Mapping[str, Any]) -> Any:
        """Run a job of inside.py as a client of the application."""
        return self._whole.run_client({**job, **self._place})

    def reachability(self, view: View) -> Verdict:
        """Check the whole service."""
        return self._whole.reachability(view)


class View:
    """A target at one moment: everything is fetched once, when a check needs it."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @property
    def expected(self) -> Expected:
        """Return what must be seen."""
        return self.target.expected

    @cached_property
    def looks(self) -> list[tuple[Node, dict[str, Any]]]:
        """Return the result of inside.look on each node."""
        secret = self.expected.secret_variables()
        names = {"names": sorted(self.expected.variables() - secret), "secret_names": sorted(secret)}
        return self.on_each(self.target.nodes, {"do": "look", **names, "salt": secrets.token_hex(16)})

    def on_each(self, nodes: Sequence[Node], job: Mapping[str, Any]) -> list[tuple[Node, Any]]:
        """Run one job on several nodes at once."""
        with ThreadPoolExecutor(8) as pool:
            return list(zip(nodes, pool.map(lambda node: node.run(job), nodes), strict=True))

    @property
    def haproxies(self) -> list[tuple[Node, dict[str, Any]]]:
        """Return each node's HAProxy configurations that run."""
        return [(node, haproxy) for node, look in self.looks for haproxy in look["haproxy"]]

    @cached_property
    def task(self) -> Task:
        """Return the declared task; where only the address is known, the one whose routes the application has."""
        if self.expected.task is not None:
            return self.expected.task
        try:
            routes = self.routes
        except (ValueError, KeyError, TypeError):
            routes = {}
        # Ray's OpenAiIngress has the routes of all tasks
        pooled = () if "/v1/completions" in routes else QUESTIONS.items()
        return next((task for task, question in pooled if question.path in routes), Task.GENERATE)

    @cached_property
    def description(self) -> Mapping[str, Any]:
        """Return the answer to GET /openapi.json, which lists the routes of the application."""
        (answer,) = self.endpoint({"path": "/openapi.json"})
        return answer

    @cached_property
    def routes(self) -> Mapping[str, Any]:
        """Return the methods of each listed route; none without a list. Raises ValueError, KeyError or TypeError for another form."""
        return json.loads(self.description["text"])["paths"] if self.description["status"] == 200 else {}

    @cached_property
    def details(self) -> dict[str, Any]:
        """Return Serve's state of applications, replicas and proxies."""
        details, only = self._dashboard(APPLICATIONS), self.target.application
        if only is None:
            return details
        return {**details, "applications": {name: state for name, state in details["applications"].items() if name == only}}

    @cached_property
    def actors(self) -> list[dict[str, Any]]:
        """Return Ray's living actors."""
        return self._dashboard(ACTORS)["data"]["result"]["result"]

    def _dashboard(self, path: str) -> Any:
        if not self.target.nodes:
            raise NotSeen("there is no head whose dashboard could be read")
        answer = self.target.nodes[0].dashboard(path)
        if answer["status"] != 200:
            raise NotSeen(f"the dashboard answers {path} with: {answer['status'] or ''} {answer['text'][:300]}".strip())
        return json.loads(answer["text"])

    def replicas(self, *deployments: str) -> list[dict[str, Any]]:
        """Return running replicas of those deployments, or of all."""
        return [
            {**replica, "deployment": name}
            for name, deployment in every_deployment(self.details)
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING" and (not deployments or name in deployments)
        ]

    def endpoint(self, *requests: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the answers of the address that clients use."""
        return self.target.run_client({"do": "ask", "base": self.target.endpoint, "requests": list(requests)})
