"""Send one Serve configuration to a running Ray, and wait until it is built, started, and answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rayline.facts.choices import Task
from rayline.service.serve_reading import ServeApplication
from rayline_cli.clients.openai import QUESTION, Answer, NoAnswer, OpenAiClient
from rayline_cli.clients.serve import (
    Rollout,
    ServeApi,
    ServeRejected,
    ServeUnreachable,
    State,
    every_deployment,
    lacking,
    rollout,
    wanted_resources,
)
from rayline_cli.local import diagnosis, failures, waiting
from rayline_cli.local.failures import LocalRuntimeError
from rayline_cli.local.ports import address
from rayline_cli.local.session import Session
from rayline_cli.local.single_node import SingleNode
from rayline_cli.local.translate import Translation
from rayline_cli.local.waiting import Phase, Watch
from rayline_cli.progress import Report
from rayline_cli.questions import QUESTIONS, PooledAnswer


def serve_api(session: Session) -> ServeApi:
    """Return a client of the dashboard of a session, with the token of its processes."""
    return ServeApi(address(session.ports["dashboard"]), session.variable("RAY_AUTH_TOKEN"))


@dataclass
class Deploying:
    """The deployment of one configuration into a session."""

    session: Session
    """As recorded last: `send` records the sent configuration."""
    api: ServeApi
    translation: Translation
    report: Report
    watch: Watch | None

    def phase(self, name: str) -> Phase:
        """Return a new phase of the bring-up."""
        return Phase(self.report, name, self.watch)

    def details(self, phase: Phase) -> dict[str, Any]:
        """Return the state of Serve's applications, as soon as Ray's dashboard answers."""
        while True:
            try:
                return self.api.details()
            except ServeUnreachable as error:
                if "HTTP 401" in str(error) or "HTTP 403" in str(error):
                    raise LocalRuntimeError(f"Ray's dashboard refuses the token of authOptions: {error}") from None
            phase.waits_for(f"the dashboard at {self.api.url} does not answer yet")
            time.sleep(waiting.POLL_SECONDS)

    def is_deployed(self) -> bool:
        """Return whether exactly this configuration runs already."""
        details = self.details(self.phase("Ray"))
        config = self.translation.serve_config
        return self.session.sent == config and rollout(details, config).state is State.READY

    # --- send, build and start ---------------------------------------------------------------------------------------

    def send(self) -> None:
        """Send the configuration and wait until exactly that one runs. Raises LocalRuntimeError with the reason."""
        phase = self.phase("deployments")
        self.session = self.session.changed(sent=self.translation.serve_config)
        before = self.put(phase)
        building = tried_again = False
        while True:
            try:
                details = self.api.details()
                now = rollout(details, self.translation.serve_config, before)
            except ServeUnreachable as error:
                details, now = before, Rollout(State.WAITING, f"the dashboard does not answer: {error}", built=building)
            if now.state is State.FAILED:
                reason = diagnosis.why_failed(self.session, now)
                if tried_again or not failures.timed_out(reason):
                    raise LocalRuntimeError(reason)
                self.report.note(f"{reason}\nThat was a time-out: Serve tries it once more")
                tried_again, before = True, details
            if now.unscheduled and (missing := lacking(wanted_resources(details), self.api.resources())):
                raise LocalRuntimeError(
                    f"{now.detail}\n{missing} Nothing adds resources here. Fix: raise num-cpus or replicas of a worker group, "
                    "or request less in ray_actor_options (without direct streaming each OpenAiIngress replica requests a CPU)"
                )
            if now.built and not building:
                building = True
                phase.done(", ".join(name for name, _ in every_deployment(details)))
                phase = self.phase("replicas")
            if now.state is State.READY:
                phase.done(now.detail)
                return
            phase.waits_for(self._reason(now))
            time.sleep(waiting.POLL_SECONDS)

    def put(self, phase: Phase) -> Mapping[str, Any]:
        """Send the configuration by PUT, once more after a time-out of Serve's. Return GET's answer from before."""
        for attempt in (1, 2):
            try:
                before = self.details(phase)
                phase.during(lambda: self.api.put(self.translation.serve_config), "Serve's controller and proxies to start")
                return before
            except ServeRejected as error:
                raise LocalRuntimeError(f"Serve refuses serveConfigV2: {error}") from None
            except ServeUnreachable as error:
                diagnosis.check_alive(self.session)
                reason = failures.root_cause(str(error)) or str(error)[-1500:]
                if attempt == 2 or not failures.timed_out(str(error)):
                    raise LocalRuntimeError(f"Ray's dashboard did not take serveConfigV2: {reason}") from None
                self.report.note(f"Serve gave up ({reason}): sending serveConfigV2 once more")
        raise AssertionError

    def _reason(self, now: Rollout) -> str:
        """Return the reason to wait; while a replica starts, the longest wait of all, with vLLM's last line."""
        logs = failures.replica_logs(self.session.log_folder, now.starting_workers) if now.starting_workers else {}
        line = next(filter(None, map(failures.last_line, logs.values())), "")
        return f"{now.detail.split(':')[0]}: {line}" if line else now.detail

    # --- answer ------------------------------------------------------------------------------------------------------

    def first_answer(self, node: SingleNode) -> Answer | PooledAnswer | None:
        """Wait until the endpoint serves the declared routes and models. Send each model a question, and return the first answer."""
        url = address(self.session.ports["serve"])
        if not node.serve.model_ids:
            phase = self.phase("HAProxy" if node.has_haproxy else "proxy")
            with OpenAiClient(url, None) as client:
                # its replicas run by then: `send` has waited for them
                routes = [application.route_prefix for application in node.serve.applications]
                phase.until(lambda: _missing(f"{url}/-/routes", routes, lambda: list(client.get("/-/routes"))))
            phase.done(f"{url}/-/routes lists every application")
            return None
        answers = [
            self._answer_of(application, node, url) for application in node.serve.applications if application.llm_configs
        ]
        return answers[0]

    def _answer_of(self, application: ServeApplication, node: SingleNode, url: str) -> Answer | PooledAnswer:
        """Wait until an application lists its models, and return the answer of the first."""
        phase = self.phase("HAProxy" if node.has_haproxy else "proxy")
        base = url + application.prefix
        model_ids = application.model_ids
        with OpenAiClient(base, self.translation.api_keys.get(application.name)) as client:
            # /-/healthz says 200 without a single replica, so it proves nothing
            phase.until(lambda: _missing(f"{base}/v1/models", model_ids, client.models))
            phase.done(f"{base}/v1/models lists {', '.join(model_ids)}")
            task = node.tasks[application.name]
            return self._ask(client, model_ids[0]) if task is Task.GENERATE else self._pool(client, task, model_ids[0])

    def _pool(self, client: OpenAiClient, task: Task, model_id: str) -> PooledAnswer:
        """Return the answer to the question of a task other than generate. Raises LocalRuntimeError with the reason."""
        phase = self.phase("first answer")
        try:
            answer = phase.during(lambda: client.pool(task, model_id), f"POST {QUESTIONS[task].path}")
        except NoAnswer as error:
            raise self._no_answer(model_id, error) from None
        phase.done(f"{QUESTIONS[task].path} after {answer.total_seconds * 1000:.0f} ms")
        self.report.note(f"{answer.question} -> {answer.text}")
        return answer

    def _no_answer(self, model_id: str, error: NoAnswer) -> LocalRuntimeError:
        return LocalRuntimeError(f"{model_id} does not answer: {diagnosis.why_no_answer(self.session, error)}")

    def _ask(self, client: OpenAiClient, model_id: str) -> Answer:
        """Warm the model up and ask it one question. Raises LocalRuntimeError with the reason."""
        phase = self.phase("first token")

        def ask(**options: Any) -> Answer:
            return client.ask(model_id, timeout_seconds=None, **options)

        try:
            # Greedy decoding skips the kernels that sampling compiles at first use: warm up with a temperature.
            warm_up = phase.during(lambda: ask(max_tokens=4, temperature=1.0), "a first completion to warm up")
            answer = phase.during(ask, QUESTION)
        except NoAnswer as error:
            raise self._no_answer(model_id, error) from None
        phase.done(
            f"after {answer.first_token_seconds * 1000:.0f} ms, {answer.tokens_per_second:.0f} tokens/s "
            f"(the warm-up before it took {warm_up.total_seconds:.1f} s)"
        )
        text = answer.text or f"({answer.completion_tokens} tokens without printable text)"
        self.report.note(f"{answer.question} -> {text}")
        return answer


def _missing(url: str, wanted: Iterable[str], fetch: Callable[[], Iterable[str]]) -> str:
    """Return the reason to wait for `url`, whose list `fetch` returns; nothing once it has all of `wanted`."""
    try:
        listed = fetch()
    except NoAnswer as error:
        return str(error)
    return "" if set(wanted) <= set(listed) else f"{url} lists {listed}"
