"""`python -m rayline.faults`: every fault on this machine, one after the other under load; the counts go to a receipt.

Takes longer than half an hour: several sessions are started one after the other, each of one or two replicas of a tiny model.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.api_key_manifests import API_KEY_KEY, api_key_secret
from rayline import offline, render
from rayline.bench.receipt import git_state, hardware, versions
from rayline.faults import nodes, scenarios
from rayline.faults.scenarios import Outcome, Scene
from rayline.local import runtime, session
from rayline.local.report import Report, terminal_report
from rayline.local_secrets import secret_values
from rayline.signals import terminable
from rayline.stack_files import read_stack_file

NAME = "tiny"
SERVICE: Mapping[str, Any] = {
    "model": "rayline/tiny-random-qwen3",
    "accelerator": "cpu",
    "served_model_name": NAME,
    # room for streams that outlast a reload
    "max_model_len": 16384,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 1024,
    # events are counted to know how far a stream is
    "stream_interval": 1,
    "env": {"RAY_SERVE_HAPROXY_NBTHREAD": "1"},
}
QUICKER: Mapping[str, str] = {
    "RAY_SERVE_LLM_DEFAULT_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_INGRESS_ROUTER_REPLICAS_PER_NODE": "2",
}
"""Settings that shorten what a fault costs."""
RECEIPT = Path(".rayline/faults/receipt.json")
LONG_STREAM_TOKENS = 12000
SHORT_LIMIT_SECONDS = 10
"""The least longest_stream_seconds that a stack may say; RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S follows from it."""


@dataclass(frozen=True)
class Session:
    """A service, and the faults that it goes through in turn."""

    settings: Mapping[str, Any]
    """Laid over SERVICE."""
    faults: Mapping[str, Callable[[Scene], Outcome]]
    store: bool = False
    """Whether the head's GCS has a store."""
    room: int | None = None
    """For how many replicas this Ray node has CPUs; None: as on any machine, more than are asked for."""

    @property
    def replicas(self) -> int:
        return self.settings.get("replicas", 1)


def _with_two_nodes(fault: Callable[[Scene, nodes.WorkerNode], Outcome]) -> Callable[[Scene], Outcome]:
    def run(scene: Scene) -> Outcome:
        with nodes.two_nodes(scene) as node:
            return fault(scene, node)

    return run


def _longer(scene: Scene) -> Scene:
    return dataclasses.replace(scene, long_tokens=LONG_STREAM_TOKENS)


def _scaled(scene: Scene, replicas: int, fault: str, done: str) -> Outcome:
    return scenarios.changed(scene, fault, done, whole=replicas, replicas=replicas)


SESSIONS: tuple[Session, ...] = (
    Session(
        {"replicas": 2},
        {
            "replica": scenarios.replica_killed,
            "engine": scenarios.engine_killed,
            "router": scenarios.router_killed,
            "haproxy": scenarios.haproxy_killed,
            "manager": scenarios.manager_killed,
            "controller": scenarios.controller_killed,
            "reload": lambda scene: scenarios.reloaded_under_long_streams(_longer(scene), 2),
            "down": lambda scene: _scaled(
                scene, 1, "scaled down, drained", "replicas 2 to 1 while both answer streams"
            ),
            "up": lambda scene: _scaled(scene, 2, "scaled up", "replicas 1 to 2"),
            "roll": lambda scene: scenarios.changed(
                scene,
                "model rolled",
                "max_num_seqs 16 to 8 in place: Serve loads one replica after the other anew",
                whole=2,
                max_num_seqs=8,
            ),
        },
    ),
    Session(
        {"replicas": 2, "env": {**SERVICE["env"], **QUICKER}},
        {
            "engine-quicker": scenarios.engine_killed,
            "one-router-of-two": scenarios.one_router_killed,
            "haproxy-quicker": scenarios.haproxy_killed,
        },
    ),
    Session(
        {"longest_stream_seconds": SHORT_LIMIT_SECONDS},
        {"short-limit": lambda scene: scenarios.reloaded_under_long_streams(_longer(scene), 1)},
    ),
    Session({}, {"worker": _with_two_nodes(nodes.worker_lost)}, room=1),
    Session({}, {"head": _with_two_nodes(nodes.head_lost)}, room=1),
    Session({}, {"head-with-store": _with_two_nodes(nodes.head_lost_with_store)}, room=1, store=True),
)


WHAT: Mapping[str, str] = {
    "replica": "one of two replicas is killed",
    "engine": "the engine of one of two replicas is killed",
    "router": "the LLMRouter replica is killed",
    "haproxy": "the haproxy process is killed",
    "manager": "the actor that starts HAProxy is killed",
    "controller": "Serve's controller is killed",
    "reload": "HAProxy is reloaded under long streams",
    "down": "replicas 2 to 1",
    "up": "replicas 1 to 2",
    "roll": "a new max_num_seqs, which loads the replicas anew",
    "engine-quicker": "as engine, with health checks every 2 s",
    "one-router-of-two": "one of two LLMRouter replicas is killed",
    "haproxy-quicker": "as haproxy, with health checks every 2 s",
    "short-limit": "as reload, with longest_stream_seconds below the streams' length",
    "worker": "one of two nodes is lost",
    "head": "the head's node is lost, its GCS without a store",
    "head-with-store": "the same with a Redis; needs redis-server on PATH",
}
"""The faults in a line each."""


@contextmanager
def served(one: Session, state_dir: Path, report: Report) -> Iterator[Scene]:
    """The session's service on this machine; down at the end."""

    def up(**more: Any) -> runtime.Running:
        service = {**SERVICE, **one.settings, **more}
        config = {"cluster": {"mode": "local"}, "services": {NAME: service}}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "Pulumi.faults.yaml"
            path.write_text(yaml.safe_dump({"config": config}))
            program = offline.record("faults", config=read_stack_file(path))
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
    return {"hardware": hardware(), "versions": versions()}


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
        raise ReceiptError(
            f"{path} was made with other {' and '.join(differs)}, and rows of two machines do not belong into one table"
        )
    return rows


def receipt(rows: Mapping[str, Mapping[str, Any]], here: Mapping[str, Any]) -> dict[str, Any]:
    """What goes to the file, from its rows by key."""
    return {
        "command": "python -m rayline.faults",
        **here,
        "service": dict(SERVICE),
        "load": {
            "clients": scenarios.CLIENTS,
            "tokens": scenarios.TOKENS,
            "long_clients": scenarios.LONG_CLIENTS,
            "long_tokens": Scene.long_tokens,
        },
        "faults": [rows[key] for one in SESSIONS for key in one.faults if key in rows],
    }


def row(key: str, settings: Mapping[str, Any], outcome: Outcome, git: Mapping[str, Any]) -> dict[str, Any]:
    """One fault of the receipt."""
    counted = {name: value for name, value in vars(outcome).items() if name != "requests"}
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"key": key, "made": made, "git": dict(git), "settings": dict(settings), **counted}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; `--help` says what each means."""
    keys = [key for one in SESSIONS for key in one.faults]
    parser = argparse.ArgumentParser(
        prog="python -m rayline.faults",
        description=__doc__,
        epilog="faults, in their order:\n"
        + "".join(f"  {key:<18} {WHAT[key]}\n" for key in keys)
        + "\nexit codes: 0 every fault was counted, 1 one was not, 2 wrong usage, 130 interrupted"
        + "\nexample: python -m rayline.faults --only router,haproxy --out /tmp/faults.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", metavar="FAULT,...", help="these faults; the receipt keeps what it has of the others")
    parser.add_argument("--out", type=Path, default=RECEIPT, help="default %(default)s")
    parser.add_argument("--state-dir", type=Path, default=Path(".rayline/faults"), help="default %(default)s")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",") if options.only else keys
    if unknown := [key for key in wanted if key not in keys]:
        parser.error(f"--only {','.join(unknown)}: the faults are {', '.join(keys)}")
    here, git = machine(), git_state()
    try:
        rows = earlier_rows(options.out, here)
    except ReceiptError as error:
        parser.error(f"--out: {error}: name another file")
    skipped = False
    try:
        with terminable(), terminal_report(sys.stderr) as report:
            for one in SESSIONS:
                faults = {key: fault for key, fault in one.faults.items() if key in wanted}
                if not faults:
                    continue
                if one.store and shutil.which("redis-server") is None:
                    report.note(f"{', '.join(faults)}: skipped, no redis-server on PATH")
                    skipped = bool(options.only)
                    continue
                with served(one, options.state_dir, report) as scene:
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
                        options.out.parent.mkdir(parents=True, exist_ok=True)
                        options.out.write_text(json.dumps(receipt(rows, here), indent=2) + "\n")
    except (runtime.LocalRuntimeError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was left running", file=sys.stderr)
        return 130
    if options.out.exists():
        print(f"written: {options.out}")
    return 1 if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
