"""A running service as `rayline verify` saw one, and ways to break it.

recorded_verify.json holds the answers of a real session of the local runtime with every switch on (Ray 2.60.0, vLLM 0.29.0).
"""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayline.facts.choices import Task
from rayline.facts.labels import Role
from rayline.facts.serve_flags import SWITCHES
from rayline_cli.verify import Expected, Node, View
from rayline_cli.verify.check import Outcome, Verdict

RECORDED = json.loads((pathlib.Path(__file__).parent / "recorded_verify.json").read_text())


@dataclass
class Service:
    """One service with one node, all of whose answers can be changed before it is checked."""

    look: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(RECORDED["look"]))
    settings: list[dict[str, Any]] = field(default_factory=lambda: copy.deepcopy(RECORDED["settings"]))
    details: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(RECORDED["details"]))
    actors: list[dict[str, Any]] = field(default_factory=lambda: copy.deepcopy(RECORDED["actors"]))
    stream: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(RECORDED["stream"]))
    """Of a streamed completion with HAProxy's rows from before and after it."""
    models: str = RECORDED["models"]
    routes: dict[str, list[str]] = field(default_factory=lambda: copy.deepcopy(RECORDED["routes"]))
    """Path -> methods of the application, as /openapi.json tells."""
    open_paths: set[str] = field(default_factory=set)
    """What is answered without the key."""
    switches: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(SWITCHES, True))
    environment: dict[str, str | None] = field(default_factory=lambda: dict(RECORDED["environment"]))
    api_key: bool = True
    on_gpu: bool = False
    task: Task = Task.GENERATE
    inside: bool = True
    serve_config: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(RECORDED["serve_config"]))
    asked: list[tuple[str, str]] = field(default_factory=list)
    """What was asked without the key."""
    endpoint: str = "serve"
    application: str | None = None
    settles_seconds: float = 0.0

    @property
    def expected(self) -> Expected:
        return Expected(
            service="tiny",
            environment={Role.HEAD: self.environment, Role.WORKER: self.environment},
            switches=self.switches,
            serve_config=self.serve_config if self.inside else {},
            on_gpu=self.on_gpu,
            tasks={"llm": self.task} if self.inside else None,
            api_key=self.api_key,
        )

    @property
    def nodes(self) -> Sequence[Node]:
        return [Node("head-0", is_head=True, run=self.run_client)] if self.inside else []

    def run_client(self, job: Mapping[str, Any]) -> Any:
        if job["do"] == "look":
            return copy.deepcopy(self.look)
        if job["do"] == "settings":
            return copy.deepcopy(self.settings)
        if job["do"] == "stream":
            return copy.deepcopy(self.stream)
        if job["base"] == "dashboard":
            (request,) = job["requests"]
            found: Any = self.details
            if "actors" in request["path"]:
                found = {"data": {"result": {"result": self.actors}}}
            return [answer(200, json.dumps(found))]
        return [self._answer(**request) for request in job["requests"]]

    def _answer(self, path: str, method: str = "GET", body: Any = None, auth: bool = True) -> dict[str, Any]:
        if not auth:
            self.asked.append((method, path))
            return answer(200 if path in self.open_paths else 401)
        if path == "/openapi.json":
            described = {path: {key: {} for key in methods} for path, methods in self.routes.items()}
            return answer(200, json.dumps({"paths": described})) if self.routes else answer(404)
        return answer(200, self.models if path == "/v1/models" else "")

    def reachability(self, view: View) -> Verdict:
        return Outcome.NOT_APPLICABLE, "not recorded", ""

    @property
    def haproxy(self) -> dict[str, Any]:
        """Its one HAProxy."""
        return self.look["haproxy"][0]

    def process(self, title: str) -> dict[str, Any]:
        """The first process whose title begins so."""
        return next(one for one in self.look["processes"] if one["title"].startswith(title))

    @property
    def model_replica(self) -> dict[str, Any]:
        """The running replica of the model, as Serve's dashboard tells."""
        return self.details["applications"]["llm"]["deployments"]["LLMServer:tiny"]["replicas"][0]


def answer(status: int, text: str = "") -> dict[str, Any]:
    """As inside.ask gives it."""
    return {"status": status, "text": text, "server": ""}
