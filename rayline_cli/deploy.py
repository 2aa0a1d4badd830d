"""Deploy a stack to a cluster: check the tools, run Pulumi, and give access to the cluster."""

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
from . import prerequisites
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
    """A deployment lacks something. The message has the fix."""


class NotConfirmed(UsageError):
    """A command that changes a stack has no confirmation."""


def refuse_unready(program: Program, *, services: bool = True) -> None:
    """Raise DeployError with everything that this machine, or the cluster that exists, lacks for a deployment of the stack."""
    if missing := preflights.missing(program):
        raise DeployError("\n  ".join(["this machine is not ready to deploy:", *missing]))
    if program.plan.cluster.mode is ClusterMode.EXISTING:
        # one look at the cluster, before Pulumi waits for it
        with cluster_access(program, None) as kubectl:
            try:
                kubectl("get", "pods", "-o", "name", seconds=LOOK_SECONDS)
            except NotSeen as error:
                raise DeployError(f"the stack's cluster cannot be reached: {error}") from None
            if lacking := prerequisites.missing(kubectl, program, services=services):
                raise DeployError("\n  ".join(["the stack's cluster is not ready for it:", *lacking]))


def is_terminal() -> bool:
    """Return whether a person can be asked."""
    return preflights.Machine.this().terminal


def need_yes(command: str, stack: str, *, yes: bool, as_json: bool = False, terminal: bool | None = None) -> None:
    """Raise NotConfirmed where a command needs a confirmation, and there is no operator to give it."""
    terminal = is_terminal() if terminal is None else terminal
    if not yes and (as_json or not terminal):
        why = "with --json there is no confirmation" if terminal else "there is no terminal to confirm at"
        raise NotConfirmed(f"{why}, and --yes is missing. Fix: rayline {command} --stack {stack} --yes")


def pulumi_command() -> str:
    """Return the Pulumi CLI on PATH, else the SDK's version, installed into this project. Raises DeployError."""
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
        wrong = f"the Pulumi CLI is not on PATH and could not be fetched ({error})"
        raise DeployError(f"{wrong}. Fix: install it, https://www.pulumi.com/docs/install") from None


def run_pulumi(arguments: list[str]) -> int:
    """Run the CLI in the project with this terminal. Ctrl-C reaches it, and it cancels in order. Return the kit's exit code."""
    with _pulumi(arguments) as running:
        while True:
            try:
                code = running.process.wait()
                if code == NO_SUCH_STACK:
                    print(_init(arguments[arguments.index("--stack") + 1]), file=sys.stderr)
                return _exit_code(code, running)
            except KeyboardInterrupt:
                # Pulumi got the signal as well: wait until its state is in order
                running.interrupted = True


# The resources with pods, which wait for objects that the stack names and does not make; their children are in the patterns too.
PODS = tuple(f"**rayline:index:{component}**" for component in ("LlmService", "ServiceRoute", "WeightsMirror"))


def arguments(
    command: str,
    stack: str,
    *,
    yes: bool = False,
    policy_config: pathlib.Path | None = None,
    terminal: bool = True,
    services: bool = True,
) -> list[str]:
    """Return Pulumi's command line for `up`, `preview` or `destroy` of a stack; `services` false leaves out what has pods."""
    line = [command, "--stack", stack]
    line += [] if services else [word for pattern in PODS for word in ("--exclude", pattern)]
    if command != "destroy":
        # the rules are for resources that stay
        line += ["--policy-pack", POLICY_PACK]
        line += ["--policy-pack-config", str(policy_config.resolve())] if policy_config else []
    line += ["--yes"] if yes and command != "preview" else []
    return line if terminal else [*line, "--non-interactive"]


# Outputs that a pipeline may print; the others are secrets or open the cluster.
OUTPUTS = ("cluster_name", "endpoints", "urls", "endpoint_address", "dns_records")
NO_SUCH_STACK = 6
# The outcome of Pulumi's CLI as the kit's (pulumi sdk/go/common/util/cmdutil/exit.go); any other failure is 1.
_EXIT_CODES = {0: 0, 2: 2, 8: 130}
_COLOURS = re.compile(r"<\{%.*?%\}>")


@dataclass(frozen=True)
class Deployed:
    """The result of one command of Pulumi, for `--json`."""

    stack: str
    command: str
    exit_code: int
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    planned: dict[str, int] = field(default_factory=dict)
    """Resources by their planned operation: create, update, replace, delete, same."""
    changes: dict[str, int] = field(default_factory=dict)
    """Resources by the operation that was done; empty where there was no deployment."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """Outputs of the stack that are no secret."""


def operate(line: list[str]) -> Deployed:
    """Run a command line of `arguments` without a terminal, with Pulumi's output on stderr. Return the result."""
    command, _, stack = line[:3]
    with tempfile.TemporaryDirectory(prefix="rayline-") as folder:
        log = pathlib.Path(folder) / "events.jsonl"
        begin = time.monotonic()
        with _pulumi([*line, "--event-log", str(log)], quiet=True) as running:
            code, output = running.wait()
        seconds = time.monotonic() - begin
        planned, changes, errors = _events(log)
    if code != 0 and not errors:
        # it failed before there was an engine, which alone writes events
        errors = [line for line in output if line.startswith("error:")] or output[-3:]
    if code == NO_SUCH_STACK:
        errors = [*errors, _init(stack)]
        print(errors[-1], file=sys.stderr)
    outputs = _outputs(stack) if command == "up" else {}
    return Deployed(stack, command, _exit_code(code, running), errors, round(seconds, 1), planned, changes, outputs)


def _init(stack: str) -> str:
    return f"the state has no stack {stack}. Fix: pulumi stack init {stack}, or pulumi login to its backend"


def _exit_code(code: int, running: "_Running") -> int:
    return 130 if code and running.interrupted else _EXIT_CODES.get(code, 1)


def _events(log: pathlib.Path) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """Return the planned operations, the operations that were done, and the errors of Pulumi's event log."""
    planned: dict[str, int] = {}
    changes: dict[str, int] = {}
    errors: list[str] = []
    for line in log.read_text().splitlines() if log.exists() else []:
        event = json.loads(line)
        if summary := event.get("summaryEvent"):
            (planned if summary.get("isPreview") else changes).update(summary.get("resourceChanges") or {})
        if (diagnostic := event.get("diagnosticEvent")) and diagnostic.get("severity") == "error":
            errors.append(_COLOURS.sub("", diagnostic["message"]).strip())
        if (broken := event.get("policyEvent")) and broken.get("enforcementLevel") == "mandatory":
            name = broken.get("resourceUrn", "").rpartition("::")[2]
            errors.append(f"policy {broken['policyName']}: {name}: {_COLOURS.sub('', broken['message']).strip()}")
    # the preview and the deployment after it say the same
    return planned, changes, list(dict.fromkeys(errors))


def _stack_output(stack: str, *options: str) -> subprocess.CompletedProcess[str]:
    line = [pulumi_command(), "stack", "output", *options, "--stack", stack, "--non-interactive"]
    return subprocess.run(line, cwd=PROJECT_ROOT, capture_output=True, text=True)


def _outputs(stack: str) -> dict[str, Any]:
    done = _stack_output(stack, "--json")
    outputs = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}
    return {name: outputs[name] for name in OUTPUTS if name in outputs}


@dataclass
class _Running:
    """A CLI process."""

    process: subprocess.Popen[str]
    interrupted: bool = False

    def wait(self) -> tuple[int, list[str]]:
        """Return the exit code and the last lines of stderr. Pass stderr on."""
        last: collections.deque[str] = collections.deque(maxlen=50)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            sys.stderr.write(line)
            last.append(line.strip())
        return self.process.wait(), [line for line in last if line]


@contextlib.contextmanager
def _pulumi(arguments: list[str], *, quiet: bool = False) -> Iterator[_Running]:
    """Start the CLI in the project. SIGTERM, with which pipelines end a job, is passed to it as Ctrl-C.

    `quiet` sends Pulumi's output to stderr. The CLI is in a session of its own then, so that it gets a Ctrl-C once, from here,
    whether a terminal sends it to all processes or a pipeline to the first. After a second one Pulumi leaves its lock behind.
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
    before = {each: signal.signal(each, end) for each in signals}
    try:
        yield running
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def cluster_access(program: Program, context: str | None) -> Iterator[Kubectl]:
    """Yield kubectl for the stack's cluster: with `context` where there is one, else with the deployment's own access.

    A cluster that the stack makes has its own kubeconfig, which Pulumi keeps: the current context may be another cluster's.
    Raises DeployError.
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
    done = _stack_output(stack, "kubeconfig", "--show-secrets")
    output = done.stderr.strip()
    if done.returncode == 0 and done.stdout.strip():
        return done.stdout
    if "no stack named" in output:
        raise DeployError(_init(stack))
    if done.returncode == 0 or "does not have output property" in output:
        raise DeployError(f"stack {stack} is not deployed, so there is no cluster. Fix: rayline up --stack {stack}")
    fix = "log in to the stack's backend (pulumi login), or name a kubectl context with --context"
    raise DeployError(f"Pulumi cannot read stack {stack}: {output[-500:]}\nFix: {fix}")
