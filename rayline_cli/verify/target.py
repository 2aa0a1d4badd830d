"""What the checks look into: the nodes of a running service, and the address that clients use."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from rayline_cli.clients.kubernetes import NotSeen
from rayline_cli.clients.serve import APPLICATIONS, every_deployment
from rayline_cli.verify.check import Verdict
from rayline_cli.verify.expected import Expected

Run = Callable[[Mapping[str, Any]], Any]
"""Does one job of inside.py at a certain place."""

ACTORS = "/api/v0/actors?detail=0&limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"


@dataclass(frozen=True)
class Node:
    """A Ray node: a pod, or this machine's one."""

    name: str
    is_head: bool
    run: Run

    def dashboard(self, path: str, *, auth: bool = True) -> dict[str, Any]:
        """Return what Ray's dashboard answers to GET `path` from this node: {"status", "text"}."""
        (answer,) = self.run({"do": "ask", "base": "dashboard", "requests": [{"path": path, "auth": auth}]})
        return answer


def entrances(nodes: Sequence[Node]) -> Sequence[Node]:
    """Those of `nodes` that clients come through: not a cluster's head, which has no API key; this machine's one node is both."""
    return [node for node in nodes if not node.is_head] or nodes


class Target(Protocol):
    """A running service."""

    @property
    def expected(self) -> Expected:
        """What must be seen."""
        ...

    @property
    def nodes(self) -> Sequence[Node]:
        """Every Ray node of it, the head first. None where only the address can be asked."""
        ...

    @property
    def endpoint(self) -> str:
        """The address that clients use, as `run_client` reaches it."""
        ...

    def run_client(self, job: Mapping[str, Any]) -> Any:
        """A job at a place that sends requests as a client of the endpoint does, and has its key."""
        ...

    @property
    def settles_seconds(self) -> float:
        """How long what changes by itself may take until it is right."""
        ...

    def reachability(self, view: View) -> Verdict:
        """Whether others reach no more than they should."""
        ...


class View:
    """A target as it is now: everything is asked for once, when it is needed."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._kept: dict[str, Any] = {}

    @property
    def expected(self) -> Expected:
        """Return what must be seen."""
        return self.target.expected

    def _once(self, name: str, find: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = find()
        return self._kept[name]

    @property
    def looks(self) -> list[tuple[Node, dict[str, Any]]]:
        """What inside.look found on each node."""

        def find() -> list[tuple[Node, dict[str, Any]]]:
            secret = self.expected.secret_variables()
            job = {
                "do": "look",
                "names": sorted(self.expected.variables() - secret),
                "secret_names": sorted(secret),
                "salt": secrets.token_hex(16),
            }
            return self.on_each(self.target.nodes, job)

        return self._once("looks", find)

    def on_each(self, nodes: Sequence[Node], job: Mapping[str, Any]) -> list[tuple[Node, Any]]:
        """One job on several nodes at once."""
        with ThreadPoolExecutor(8) as pool:
            return list(zip(nodes, pool.map(lambda node: node.run(job), nodes), strict=True))

    @property
    def details(self) -> dict[str, Any]:
        """Serve's own account of applications, replicas and proxies."""
        return self._once("details", lambda: self._dashboard(APPLICATIONS))

    @property
    def actors(self) -> list[dict[str, Any]]:
        """Ray's living actors."""
        return self._once("actors", lambda: self._dashboard(ACTORS)["data"]["result"]["result"])

    def _dashboard(self, path: str) -> Any:
        if not self.target.nodes:
            raise NotSeen("there is no head to ask")
        answer = self.target.nodes[0].dashboard(path)
        if answer["status"] != 200:
            raise NotSeen(f"the dashboard says to {path}: {answer['status'] or ''} {answer['text'][:300]}".strip())
        return json.loads(answer["text"])

    def replicas(self, *deployments: str) -> list[dict[str, Any]]:
        """Running replicas of those deployments, or of all."""
        return [
            {**replica, "deployment": name}
            for name, deployment in every_deployment(self.details)
            for replica in deployment["replicas"]
            if replica["state"] == "RUNNING" and (not deployments or name in deployments)
        ]

    def endpoint(self, *requests: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Answers of the address that clients use."""
        return self.target.run_client({"do": "ask", "base": self.target.endpoint, "requests": list(requests)})
