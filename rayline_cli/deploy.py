"""`rayline up` for a stack in a cluster: the tools that have to be there, then Pulumi itself."""

import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rayline.facts.choices import ClusterMode

from . import preflight as preflights
from .clients.kubernetes import Kubectl
from .errors import FailedError, UsageError
from .offline import Program
from .stack_names import PROJECT_ROOT
from .verify.target import NotSeen

TOOLS = PROJECT_ROOT / ".tools"
LOOK_SECONDS = 30.0
# the folder, as Pulumi takes it from the project's root
POLICY_PACK = "policy"


class DeployError(FailedError):
    """Something that a deployment needs is missing; the message says what and where to get it."""


class NotConfirmed(UsageError):
    """A command that changes a stack may not ask, and was not told to go ahead."""


def refuse_unready(program: Program) -> None:
    """Raise DeployError with everything that this machine lacks for a deployment of the stack."""
    missing = preflights.missing(program)
    if missing:
        raise DeployError("\n  ".join(["this machine is not ready to deploy:", *missing]))
    if program.plan.cluster.mode is ClusterMode.EXISTING:
        _look_once(program)


def _look_once(program: Program) -> None:
    """Raise DeployError where the cluster that is to be deployed to cannot be reached, before Pulumi waits for it."""
    with cluster_access(program, None) as kubectl:
        try:
            kubectl("get", "pods", "-o", "name", seconds=LOOK_SECONDS)
        except NotSeen as error:
            raise DeployError(f"the stack's cluster cannot be reached: {error}") from None


def is_terminal() -> bool:
    """Return whether a person can be asked."""
    return preflights.Machine.this().terminal


def need_yes(command: str, stack: str, *, yes: bool, as_json: bool = False, terminal: bool | None = None) -> None:
    """Refuse a command that would have to ask where nobody can answer. Raises NotConfirmed."""
    if terminal is None:
        terminal = is_terminal()
    if yes or (terminal and not as_json):
        return
    why = "with --json nothing is asked" if terminal else "there is no terminal to confirm at"
    raise NotConfirmed(f"{why}, and --yes is not given. Fix: rayline {command} --stack {stack} --yes")


def pulumi_command() -> str:
    """Path of the Pulumi CLI: the one on PATH, else the SDK's own version, installed into this project. Raises DeployError."""
    return shutil.which("pulumi") or str(fetch_pulumi())


def fetch_pulumi() -> pathlib.Path:
    """Install the Pulumi CLI in the SDK's version into this project, and return its path. Raises DeployError."""
    import importlib.metadata

    from pulumi.automation import InvalidVersionError, PulumiCommand
    from semver import VersionInfo

    version = VersionInfo.parse(importlib.metadata.version("pulumi"))
    root = TOOLS / "pulumi"
    if not (root / "bin" / "pulumi").exists():
        print(f"fetching the Pulumi CLI {version} into {root}", file=sys.stderr)
    try:
        return pathlib.Path(PulumiCommand.install(root=str(root), version=version).command)
    except (OSError, subprocess.SubprocessError, InvalidVersionError) as error:
        raise DeployError(
            f"the Pulumi CLI is not on PATH and could not be fetched ({error}): https://www.pulumi.com/docs/install"
        ) from None


def run_pulumi(arguments: list[str]) -> int:
    """Run the CLI in the project with this terminal; Ctrl-C reaches it, and it cancels in order. Returns the kit's exit code."""
    with _pulumi(arguments) as running:
        while True:
            try:
                code = running.process.wait()
                if code == NO_SUCH_STACK:
                    print(_init(arguments[arguments.index("--stack") + 1]), file=sys.stderr)
                return _exit_code(code, running)
            except KeyboardInterrupt:
                # Pulumi got the signal as well: wait until it has put its state in order
                running.interrupted = True


def arguments(
    command: str, stack: str, *, yes: bool = False, policy_config: pathlib.Path | None = None, terminal: bool = True
) -> list[str]:
    """Pulumi's command line for `up`, `preview` or `destroy` of a stack."""
    line = [command, "--stack", stack]
    if command != "destroy":
        # the rules are for what comes, not for what goes
        line += ["--policy-pack", POLICY_PACK]
        line += ["--policy-pack-config", str(policy_config.resolve())] if policy_config else []
    line += ["--yes"] if yes and command != "preview" else []
    return line if terminal else [*line, "--non-interactive"]


# What a pipeline may print; the other outputs are secrets or open the cluster.
OUTPUTS = ("cluster_name", "endpoints", "urls", "endpoint_address", "dns_records")
NO_SUCH_STACK = 6
# The outcome of Pulumi's CLI as the kit's (pulumi sdk/go/common/util/cmdutil/exit.go); any other failure is 1.
_EXIT_CODES = {0: 0, 2: 2, 8: 130}
_COLOURS = re.compile(r"<\{%.*?%\}>")


@dataclass(frozen=True)
class Deployed:
    """What one command of Pulumi did, for `--json`."""

    stack: str
    command: str
    exit_code: int
    """The kit's: 0 done, 1 failed, 2 wrong command, 130 interrupted."""
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    planned: dict[str, int] = field(default_factory=dict)
    """Resources by what the preview announced: create, update, replace, delete, same."""
    changes: dict[str, int] = field(default_factory=dict)
    """Resources by what was done; empty where it did not come to that."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """Outputs of the stack that are no secret."""


def operate(line: list[str]) -> Deployed:
    """Run a command line of `arguments` without a terminal. What Pulumi prints goes to stderr, what it did is returned."""
    command, _, stack = line[:3]
    with tempfile.TemporaryDirectory(prefix="rayline-") as folder:
        log = pathlib.Path(folder) / "events.jsonl"
        begin = time.monotonic()
        with _pulumi([*line, "--event-log", str(log)], quiet=True) as running:
            code, said = running.wait()
        seconds = time.monotonic() - begin
        planned, changes, errors = _events(log)
    if code != 0 and not errors:
        # it failed before there was an engine, which alone writes events
        errors = [one for one in said if one.startswith("error:")] or said[-3:]
    if code == NO_SUCH_STACK:
        errors = [*errors, _init(stack)]
        print(errors[-1], file=sys.stderr)
    return Deployed(
        stack=stack,
        command=command,
        exit_code=_exit_code(code, running),
        seconds=round(seconds, 1),
        planned=planned,
        changes=changes,
        errors=errors,
        outputs=_outputs(stack) if command == "up" else {},
    )


def _init(stack: str) -> str:
    return f"the state has no stack {stack}. Fix: pulumi stack init {stack}, or pulumi login to where it is"


def _exit_code(code: int, running: "_Running") -> int:
    return 130 if code and running.interrupted else _EXIT_CODES.get(code, 1)


def _events(log: pathlib.Path) -> tuple[dict[str, int], dict[str, int], list[str]]:
    planned: dict[str, int] = {}
    changes: dict[str, int] = {}
    errors: list[str] = []
    for line in log.read_text().splitlines() if log.exists() else []:
        event = json.loads(line)
        if summary := event.get("summaryEvent"):
            (planned if summary.get("isPreview") else changes).update(summary.get("resourceChanges") or {})
        if (said := event.get("diagnosticEvent")) and said.get("severity") == "error":
            errors.append(_COLOURS.sub("", said["message"]).strip())
        if (broken := event.get("policyEvent")) and broken.get("enforcementLevel") == "mandatory":
            name = broken.get("resourceUrn", "").rpartition("::")[2]
            errors.append(f"policy {broken['policyName']}: {name}: {_COLOURS.sub('', broken['message']).strip()}")
    # the preview and the deployment after it say the same
    return planned, changes, list(dict.fromkeys(errors))


def _outputs(stack: str) -> dict[str, Any]:
    done = subprocess.run(
        [pulumi_command(), "stack", "output", "--json", "--stack", stack, "--non-interactive"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    known = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}
    return {name: known[name] for name in OUTPUTS if name in known}


@dataclass
class _Running:
    """A CLI that runs."""

    process: subprocess.Popen[str]
    interrupted: bool = False

    def wait(self) -> tuple[int, list[str]]:
        """Its exit code and the last lines of what it said on stderr, which are passed on."""
        last: collections.deque[str] = collections.deque(maxlen=50)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.write(line)
            last.append(line.strip())
        return self.process.wait(), [line for line in last if line]


@contextlib.contextmanager
def _pulumi(arguments: list[str], *, quiet: bool = False) -> Iterator[_Running]:
    """The CLI, started in the project. SIGTERM, with which pipelines end a job, is passed to it as Ctrl-C.

    `quiet` leaves stdout to the caller: what Pulumi says goes to stderr. It is in a session of its own then, so that it gets
    a Ctrl-C once, from here, whether a terminal sends it to all processes or a pipeline to the first: a second one makes
    Pulumi leave its lock and what is under way.
    """
    process = subprocess.Popen(
        [pulumi_command(), *arguments],
        cwd=PROJECT_ROOT,
        text=True,
        env=os.environ | {"PULUMI_DEBUG_COMMANDS": "true"} if quiet else None,  # gives --event-log
        stdin=subprocess.DEVNULL if quiet else None,
        stdout=sys.stderr if quiet else None,
        stderr=subprocess.PIPE if quiet else None,
        start_new_session=quiet,
    )
    running = _Running(process)

    def end(number: int, frame: Any) -> None:
        if not running.interrupted:
            running.interrupted = True
            process.send_signal(signal.SIGINT)

    signals = (signal.SIGTERM, signal.SIGINT) if quiet else (signal.SIGTERM,)
    before = {one: signal.signal(one, end) for one in signals}
    try:
        yield running
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def cluster_access(program: Program, context: str | None) -> Iterator[Kubectl]:
    """kubectl for the stack's cluster: the context if one is named, else the one that the stack itself is deployed with.

    For a cluster that the stack makes that is its own kubeconfig, which Pulumi keeps: the current context may be another
    cluster's. Raises DeployError.
    """
    cluster, namespace = program.plan.cluster, program.plan.namespace
    if context or cluster.mode is not ClusterMode.CREATE:
        yield Kubectl(namespace, context or cluster.args.context, cluster.args.kubeconfig)
        return
    with tempfile.TemporaryDirectory(prefix="rayline-") as folder:
        path = pathlib.Path(folder) / "kubeconfig"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(_kubeconfig(program.stack))
        yield Kubectl(namespace, None, str(path))


def _kubeconfig(stack: str) -> str:
    done = subprocess.run(
        [pulumi_command(), "stack", "output", "kubeconfig", "--show-secrets", "--stack", stack],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    said = done.stderr.strip()
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout
    if "no stack named" in said:
        raise DeployError(_init(stack))
    if done.returncode == 0 or "does not have output property" in said:
        raise DeployError(f"stack {stack} is not deployed, so there is no cluster. Fix: rayline up --stack {stack}")
    raise DeployError(
        f"Pulumi cannot read stack {stack}: {said[-500:]}\nFix: log in to the stack's backend (pulumi login), or name a "
        "kubectl context of yours with --context"
    )
