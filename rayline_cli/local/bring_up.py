"""Bring a RayService up on this machine: reuse the session that runs, or start a new one, until it has answered."""

from __future__ import annotations

import os
import secrets as random_secrets
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rayline.models.catalog import is_hub_id
from rayline_cli.clients.openai import Answer
from rayline_cli.clients.serve import ServeApi, ServeUnreachable
from rayline_cli.local import bundled_models, diagnosis, failures, memory
from rayline_cli.local import session as sessions
from rayline_cli.local.deploying import Deploying, serve_api
from rayline_cli.local.environment import process_env
from rayline_cli.local.failures import LocalRuntimeError, RayGaveUp
from rayline_cli.local.haproxy import HAPROXY_WRAPPER_NAME, haproxy_binary, haproxy_wrapper
from rayline_cli.local.ports import address, choose_ports
from rayline_cli.local.session import Session, Starting
from rayline_cli.local.single_node import Secrets, SingleNode
from rayline_cli.local.supervisor import stand_behind_other_sessions
from rayline_cli.local.target import LocalTarget
from rayline_cli.local.translate import Place, Translation, restart_key, translate
from rayline_cli.local.waiting import Phase, Stuck, Watch
from rayline_cli.progress import Report
from rayline_cli.questions import PooledAnswer
from rayline_cli.verify import CheckResult, Outcome, check_switches, summary


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    url: str
    """Base URL of the OpenAI-compatible endpoint, without /v1."""
    dashboard_url: str
    model_ids: Sequence[str]
    routes: Mapping[str, Sequence[str]]
    """Models of each path before /v1."""
    needs_api_key: bool
    answer: Answer | PooledAnswer | None
    """None where no model is served: an application without LLMConfigs."""
    checks: Sequence[CheckResult]
    already_running: bool
    """Whether nothing had to be started or changed."""
    seconds: float
    """From the call to the answer."""
    state_dir: Path
    log_folder: Path
    ports: Mapping[str, int]
    leash: object = None
    """With `outlives_caller=False` the session ends when this object goes away."""


@dataclass(frozen=True)
class BringUp:
    """One `up`: a declared node, its place on this machine, and the report."""

    node: SingleNode
    secrets: Secrets
    state_dir: Path
    cache_dir: Path
    model_folders: Mapping[str, Path]
    report: Report
    started: float = field(default_factory=time.monotonic)

    def run(self) -> tuple[Running, Starting | None]:
        """Return the service that answers, and its session's leash where a session was started."""
        session = sessions.load(self.state_dir)
        if session and (reason := self._why_restart(session)):
            self.report.note(f"restarting Ray: {reason}")
            sessions.stop(session)
            session = None
        return (self._apply(session), None) if session else self._start()

    def _translate(self, ports: Mapping[str, int], folder: Path, own_token: str) -> Translation:
        place = Place(ports, folder, self.cache_dir, self.model_folders, haproxy_binary(self.node), own_token)
        return translate(self.node, place, self.secrets)

    # --- a session that runs -----------------------------------------------------------------------------------------

    def _why_restart(self, session: Session) -> str:
        """Return why the declared node needs a new session; nothing where this one can continue."""
        if session.supervisor() is None:
            return "the previous session has died"
        if not session.ready:
            return "the previous session never became ready"
        if session.restart_key != restart_key(self.node, self.secrets, session.salt):
            return "environment, rayStartParams or http_options changed, which needs new processes"
        if self.node.num_cpus_wanted > session.num_cpus:
            return f"the service requests {self.node.num_cpus_wanted} Ray CPUs, and this Ray has {session.num_cpus}"
        api = serve_api(session)
        try:
            phase = Phase(self.report, "Ray", diagnosis.watch(session, self.report))
            phase.during(lambda: api.details(timeout_seconds=None), "the dashboard of the Ray that runs")
            return ""
        except (ServeUnreachable, LocalRuntimeError) as error:
            return f"the previous session's dashboard does not answer ({error})"
        finally:
            api.close()

    def _apply(self, session: Session) -> Running:
        """Deploy into the running session. It is kept even if the new applications fail, as in a cluster."""
        translation = self._translate(session.ports, session.folder, session.variable("RAY_AUTH_TOKEN") or "")
        watch = diagnosis.watch(session, self.report)
        deploying = Deploying(session, serve_api(session), translation, self.report, watch)
        same = deploying.is_deployed()
        if sessions.write_secrets(session.folder, translation.files):
            self.report.note("a Secret changed; the running service takes the new keys within a second or two")
        if same:
            self.report.note("already running with this configuration; checking it again")
        else:
            self.report.note("sending the changed serveConfigV2 to the running Ray")
            deploying.send()
        return self._finish(deploying, already_running=same)

    # --- a new session -----------------------------------------------------------------------------------------------

    def _start(self) -> tuple[Running, Starting]:
        """Start a session that answers, once more where Ray gives up by itself."""
        if problem := memory.shortage(self.node, self.model_folders):
            raise LocalRuntimeError(problem)
        try:
            return self._start_once()
        except RayGaveUp as error:
            self.report.note(f"{error}\nThat was a time-out of Ray's own: starting it once more")
            return self._start_once()

    def _start_once(self) -> tuple[Running, Starting]:
        folder = sessions.session_folder(self.state_dir)
        starting = watch = None
        try:
            starting, translation = self._launch(folder)
            session = starting.session
            watch = diagnosis.watch(session, self.report)
            api = ServeApi(address(session.ports["dashboard"]), translation.auth_token)
            deploying = Deploying(session, api, translation, self.report, watch)
            phase = deploying.phase("Ray")
            deploying.details(phase)
            phase.done(f"Ray head with {self.node.num_cpus} CPUs, dashboard {api.url}")
            deploying.send()
            running = self._finish(deploying, already_running=False)
            # Not before: beside busy programs a start would take ten times as long. With a service that scales to zero one may
            # come at any time, while requests wait.
            if not self.node.serve.scales_to_zero:
                stand_behind_other_sessions(session.supervisor_pid)
            deploying.session.changed(ready=True)
            return running, starting
        except BaseException as error:
            # Whatever happened, also Ctrl-C: first keep what explains it, then leave nothing behind.
            _clean_up(error, starting, folder, watch)
            raise

    def _launch(self, folder: Path) -> tuple[Starting, Translation]:
        """Start Ray in a new folder, on ports that are free."""
        declared = self.node.ports()
        sessions.make_folder(folder)
        salt = sessions.new_id()
        with sessions.reserved_ports(folder, lambda is_taken: choose_ports(declared, is_taken)) as reserved:
            ports = reserved.ports
            if moved := [f"{name} {declared[name]} -> {port}" for name, port in ports.items() if port != declared[name]]:
                self.report.note(f"ports already in use on this machine: {', '.join(moved)}")
            translation = self._translate(ports, folder, random_secrets.token_urlsafe(32))
            if binary := haproxy_binary(self.node):
                wrapper = folder / HAPROXY_WRAPPER_NAME
                wrapper.write_text(haproxy_wrapper(binary))
                wrapper.chmod(0o700)
            sessions.write_secrets(folder, translation.files)
            starting = sessions.start(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *translation.ray_start_args],
                session_id=sessions.new_id(),
                state_dir=self.state_dir,
                folder=folder,
                env=process_env(os.environ, translation.env, str(Path(sys.executable).parent), compiles=self.node.compiles),
                ports=ports,
                hold=[reserved.hold],
                restart_key=restart_key(self.node, self.secrets, salt),
                salt=salt,
                num_cpus=self.node.num_cpus,
            )
        return starting, translation

    # --- both --------------------------------------------------------------------------------------------------------

    def _finish(self, deploying: Deploying, *, already_running: bool) -> Running:
        """Send the first question and check the switches of the service."""
        answer = deploying.first_answer(self.node)
        session, translation = deploying.session, deploying.translation
        phase = deploying.phase("switches")
        target = LocalTarget(session, self.node, translation)
        checks = phase.during(lambda: check_switches(target), "evidence that each declared switch is on")
        phase.done(summary(checks))
        for check in checks:
            if check.outcome is Outcome.FAIL:
                self.report.note(f"check failed: {check.name}: {check.evidence}. {check.fix}")
        deploying.api.close()
        return Running(
            url=address(session.ports["serve"]),
            dashboard_url=address(session.ports["dashboard"]),
            model_ids=self.node.serve.model_ids,
            routes={application.prefix: application.model_ids for application in self.node.serve.applications},
            needs_api_key=bool(translation.api_keys),
            answer=answer,
            checks=checks,
            already_running=already_running,
            seconds=time.monotonic() - self.started,
            state_dir=session.state_dir,
            log_folder=session.log_folder,
            ports=dict(session.ports),
        )


def _clean_up(error: BaseException, starting: Starting | None, folder: Path, watch: Watch | None) -> None:
    """Leave nothing of a failed start behind but the reason. Raises LocalRuntimeError where there is more to report."""
    logs = last_words = ""
    if starting is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        if isinstance(error, Exception):
            kept, last_words = diagnosis.keep_logs(starting.session), diagnosis.last_words(starting.session)
            logs = f"\nLogs: {kept}" if kept else ""
        sessions.stop(starting.session)
    if isinstance(error, Stuck):
        raise Stuck(f"{error}\nRay's last words:\n{last_words}{logs}") from None
    if isinstance(error, LocalRuntimeError):
        busy = f"\n{watch.busy}" if watch and watch.busy and failures.timed_out(str(error)) else ""
        raise type(error)(f"{error}{busy}{logs}") from None


def prepare_models(node: SingleNode, cache_dir: Path, report: Report) -> dict[str, Path]:
    """Write the bundled models that are missing. Return the folder of each model that is on this machine."""
    sources = node.serve.model_sources
    if not sources:
        return {}
    phase = Phase(report, "model")
    folders = {}
    for source in sources:
        phase.waits_for(source)
        if folder := bundled_models.prepare(source, cache_dir, report):
            folders[source] = folder
    phase.done(
        ", ".join(
            f"{source}{' (from Hugging Face)' if source not in folders and is_hub_id(source) else ''}" for source in sources
        )
    )
    return folders
