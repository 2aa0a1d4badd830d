"""`rayline faults`: every fault on this machine, one after the other under load; the counts go to a receipt.

Takes longer than half an hour: several sessions are started one after the other, each of one or two replicas of a tiny model.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayline.service.api_key import API_KEY_KEY, api_key_secret
from rayline_bench.arms import laid_over
from rayline_bench.errors import BenchError, BenchUsageError
from rayline_bench.faults import nodes, scenarios
from rayline_bench.faults.scenarios import Outcome, Scene
from rayline_bench.receipt import git_state, hardware, versions
from rayline_cli import offline, render
from rayline_cli.local import runtime, session
from rayline_cli.local_secrets import secret_values
from rayline_cli.progress import Report, terminal_report
from rayline_cli.stack_files import full_key

NAME = "tiny"
SERVICE: Mapping[str, Any] = {
    "model": "rayline/tiny-random-qwen3",
    "accelerator": "cpu",
    "api": {"served_model_name": NAME},
    "engine": {
        # room for streams that outlast a reload
        "max_model_len": 16384,
        "max_num_seqs": 16,
        "max_num_batched_tokens": 1024,
        # events are counted to know how far a stream is
        "stream_interval": 1,
    },
    "pods": {"env": {"RAY_SERVE_HAPROXY_NBTHREAD": "1"}},
}
QUICKER: Mapping[str, str] = {
    "RAY_SERVE_LLM_DEFAULT_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_INGRESS_ROUTER_REPLICAS_PER_NODE": "2",
}
"""Settings that shorten what a fault costs."""
LONG_STREAM_TOKENS = 12000
SHORT_LIMIT_SECONDS = 10
"""The least rollout.longest_stream_seconds that a stack may say; RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S follows from it."""


Inject = Callable[[Scene], Outcome]


@dataclass(frozen=True)
class Session:
    """A service, and the faults that it goes through in turn."""

    settings: Mapping[str, Any]
    """Laid over SERVICE."""
    faults: Mapping[str, tuple[str, Inject]]
    """Key -> the fault in a line, and what injects it."""
    store: bool = False
    """Whether the head's GCS has a store."""
    room: int | None = None
    """For how many replicas this Ray node has CPUs; None: as on any machine, more than are asked for."""

    @property
    def replicas(self) -> int:
        return self.settings.get("replicas", 1)


def _with_two_nodes(fault: Callable[[Scene, nodes.WorkerNode], Outcome]) -> Inject:
    def inject(scene: Scene) -> Outcome:
        with nodes.two_nodes(scene) as node:
            return fault(scene, node)

    return inject


def _reloaded(replicas: int) -> Inject:
    return lambda scene: scenarios.reloaded_under_long_streams(
        dataclasses.replace(scene, long_tokens=LONG_STREAM_TOKENS), replicas
    )


def _changed(fault: str, done: str, whole: int, **settings: Any) -> Inject:
    return lambda scene: scenarios.changed(scene, fault, done, whole=whole, **settings)


SESSIONS: tuple[Session, ...] = (
    Session(
        {"replicas": 2},
        {
            "replica": ("one of two replicas is killed", scenarios.replica_killed),
            "engine": ("the engine of one of two replicas is killed", scenarios.engine_killed),
            "router": ("the LLMRouter replica is killed", scenarios.router_killed),
            "haproxy": ("the haproxy process is killed", scenarios.haproxy_killed),
            "manager": ("the actor that starts HAProxy is killed", scenarios.manager_killed),
            "controller": ("Serve's controller is killed", scenarios.controller_killed),
            "reload": ("HAProxy is reloaded under long streams", _reloaded(2)),
            "down": (
                "replicas 2 to 1",
                _changed("scaled down, drained", "replicas 2 to 1 while both answer streams", 1, replicas=1),
            ),
            "up": ("replicas 1 to 2", _changed("scaled up", "replicas 1 to 2", 2, replicas=2)),
            "roll": (
                "a new engine.max_num_seqs, which loads the replicas anew",
                _changed(
                    "model rolled",
                    "max_num_seqs 16 to 8 in place: Serve loads one replica after the other anew",
                    2,
                    engine={"max_num_seqs": 8},
                ),
            ),
        },
    ),
    Session(
        {"replicas": 2, "pods": {"env": QUICKER}},
        {
            "engine-quicker": ("as engine, with health checks every 2 s", scenarios.engine_killed),
            "one-router-of-two": ("one of two LLMRouter replicas is killed", scenarios.one_router_killed),
            "haproxy-quicker": ("as haproxy, with health checks every 2 s", scenarios.haproxy_killed),
        },
    ),
    Session(
        {"rollout": {"longest_stream_seconds": SHORT_LIMIT_SECONDS}},
        {"short-limit": ("as reload, with rollout.longest_stream_seconds below the streams' length", _reloaded(1))},
    ),
    Session({}, {"worker": ("one of two nodes is lost", _with_two_nodes(nodes.worker_lost))}, room=1),
    Session({}, {"head": ("the head's node is lost, its GCS without a store", _with_two_nodes(nodes.head_lost))}, room=1),
    Session(
        {},
        {"head-with-store": ("the same with a Redis; needs redis-server on PATH", _with_two_nodes(nodes.head_lost_with_store))},
        room=1,
        store=True,
    ),
)
WHAT: Mapping[str, str] = {key: what for one in SESSIONS for key, (what, _) in one.faults.items()}


@contextmanager
def served(one: Session, state_dir: Path, report: Report) -> Iterator[Scene]:
    """The session's service on this machine; down at the end."""

    def up(**more: Any) -> runtime.Running:
        service = laid_over(laid_over(SERVICE, one.settings), more)
        values = {"cluster": {"mode": "local"}, "services": {NAME: service}}
        config = {full_key(name): json.dumps(value) for name, value in values.items()}
        program = offline.record("faults", config=(config, []))
        secrets.update(secret_values(render.secrets(program), state_dir))
        manifest = render.ray_services(program)[0]
        cluster = manifest["spec"]["rayClusterConfig"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            declared = group["template"]["spec"]["containers"][0]["env"]
            declared += [{"name": name, "value": value} for name, value in extra.items()]
        if one.room is not None:
            cluster["workerGroupSpecs"][0]["maxReplicas"] = one.room
        return runtime.up(manifest, state_dir=state_dir, secrets=secrets, report=report)

    def loaded() -> session.Session:
        found = session.load(state_dir)
        if found is None:
            raise runtime.LocalRuntimeError("the session is gone")
        return found

    secrets: dict[tuple[str, str], str] = {}
    extra: dict[str, str] = {}
    stack = ExitStack()
    if one.store:
        extra = stack.enter_context(nodes.store("redis-server"))
    try:
        running = up()
        yield Scene(loaded, running.url, NAME, secrets[api_key_secret(NAME), API_KEY_KEY], up)
    finally:
        runtime.down(state_dir, report)
        stack.close()


class ReceiptError(Exception):
    """Nothing can be added to the file; the message says why."""


def machine() -> dict[str, Any]:
    """What all rows of a receipt have in common."""
    return {"hardware": hardware(), "versions": versions(), "service": dict(SERVICE)}


def earlier_rows(path: Path, here: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a receipt that is there, by key; they stay until they are counted again. Raises ReceiptError."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        differs = [name for name in here if found[name] != here[name]]
        rows = {row["key"]: row for row in found["faults"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise ReceiptError(f"{path} is no receipt of this command") from None
    if differs:
        raise ReceiptError(f"{path} was made with other {' and '.join(differs)}, and such rows do not belong into one table")
    return rows


def receipt(rows: Mapping[str, Mapping[str, Any]], here: Mapping[str, Any]) -> dict[str, Any]:
    """What goes to the file, from its rows by key."""
    return {
        "command": "rayline faults",
        **here,
        "load": {
            "clients": scenarios.CLIENTS,
            "tokens": scenarios.TOKENS,
            "long_clients": scenarios.LONG_CLIENTS,
            "long_tokens": Scene.long_tokens,
        },
        "faults": [rows[key] for key in WHAT if key in rows],
    }


def row(key: str, settings: Mapping[str, Any], outcome: Outcome, git: Mapping[str, Any]) -> dict[str, Any]:
    """One fault of the receipt."""
    counted = {name: value for name, value in vars(outcome).items() if name != "requests"}
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"key": key, "made": made, "git": dict(git), "settings": dict(settings), **counted}


def measure(only: str, path: Path, state_dir: Path) -> None:
    """Inject each fault of `only` (names with commas; empty: all) and write the receipt. Raises BenchUsageError or BenchError."""
    keys = [key for one in SESSIONS for key in one.faults]
    wanted = only.split(",") if only else keys
    if unknown := [key for key in wanted if key not in keys]:
        raise BenchUsageError(f"--only {','.join(unknown)}: there is no such fault. Fix: name some of {', '.join(keys)}")
    here, git = machine(), git_state()
    try:
        rows = earlier_rows(path, here)
    except ReceiptError as error:
        raise BenchUsageError(f"--receipt: {error}. Fix: name another file") from None
    skipped = []
    try:
        with terminal_report(sys.stderr) as report:
            for one in SESSIONS:
                faults = {key: inject for key, (_, inject) in one.faults.items() if key in wanted}
                if not faults:
                    continue
                if one.store and shutil.which("redis-server") is None:
                    report.note(f"{', '.join(faults)}: skipped, no redis-server on PATH")
                    skipped += faults
                    continue
                with served(one, state_dir, report) as scene:
                    _measure_session(one, faults, scene, report, rows, lambda: _write(path, receipt(rows, here)), git)
    except (runtime.LocalRuntimeError, TimeoutError) as error:
        raise BenchError(str(error)) from None
    if only and skipped:
        raise BenchError(f"{', '.join(skipped)}: not measured. Fix: install redis-server")


def _measure_session(
    one: Session,
    faults: Mapping[str, Inject],
    scene: Scene,
    report: Report,
    rows: dict[str, Any],
    keep: Callable[[], None],
    git: Mapping[str, Any],
) -> None:
    whole = one.replicas
    for key, fault in faults.items():
        report.phase("fault", f"{key}: waiting for {whole} replicas behind one HAProxy")
        scene.settle(whole)
        report.phase("fault", key)
        outcome = fault(scene)
        whole = len(scene.replicas())
        rows[key] = row(key, one.settings, outcome, git)
        report.note(
            f"{outcome.fault}: {outcome.sent} sent, {outcome.answered} answered, failed "
            f"{dict(outcome.failed) or 0}; recovery {outcome.recovery_seconds} s"
        )
        # written each time: what was counted is kept when a later fault does not end
        keep()


def _write(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
