"""Deploy a stack with a real Pulumi engine and destroy it, with stand-ins for Google and Kubernetes: `make rehearse STACK=name`.

It shows that the engine takes the program: preview, up, up again, destroy. No account and no cluster is used.
Exit codes: 0 all of it went well, 1 it did not, 2 there is no such stack or its configuration is wrong.
"""

import os
import pathlib
import sys
import tempfile
from collections import Counter

from rayline.facts.choices import ClusterMode
from rayline_cli import deploy, offline
from rayline_cli.errors import FailedError, UsageError
from tests.engine.conftest import TOOLS, Life, a_life, started_stand_ins
from tests.engine.fake_provider import CRD
from tests.pulumi_project import missing

COMMANDS = (("preview", "preview"), ("up", "up"), ("up again", "up"), ("destroy", "destroy"))


class RehearsalError(FailedError):
    """The engine or a stand-in did not take the stack."""


def rehearse(stack: str) -> None:
    """Run the commands on a copy of the project and print what each did. Raises UsageError or FailedError."""
    mode = offline.record(stack).plan.cluster.mode
    if mode is ClusterMode.LOCAL:
        raise UsageError(f"stack {stack} runs on this machine and is not deployed. Fix: STACK=NAME of one for a cluster")
    if missing("pulumi"):
        os.environ["PATH"] = f"{deploy.fetch_pulumi().parent}{os.pathsep}{os.environ['PATH']}"
    if absent := missing(*TOOLS):
        raise RehearsalError(f"not on PATH: {', '.join(absent)}. Fix: install Pulumi, https://www.pulumi.com/docs/install")
    # protected objects could not be destroyed
    unprotected = {"cluster": {"deletion_protection": False}} if mode is ClusterMode.CREATE else None
    with tempfile.TemporaryDirectory(prefix="rayline-") as folder, started_stand_ins() as stand_ins:
        life = a_life(pathlib.Path(folder), stack, stand_ins, unprotected)
        for name, command in COMMANDS:
            run = life.do(name, command)
            if run.code != 0:
                raise RehearsalError(f"{name} of {stack} failed with {run.code}:\n{run.output[-4000:]}")
            print(f"{name:<9} {_did(life, name)}", flush=True)
    if life.operations["up again"]:
        raise RehearsalError(f"a second `up` changed something: {life.operations['up again']}")
    if left := {one.type for one in life.left["destroy"]} - {CRD}:
        raise RehearsalError(f"`destroy` left {', '.join(sorted(left))}")
    print(f"{stack}: previewed, deployed, deployed again without a change, and destroyed")


def _did(life: Life, name: str) -> str:
    """Say what a command did, by operation and type."""
    steps = Counter((step.op, step.type.split(":", 1)[1]) for step in life.custom_steps(name))
    if name == "preview":
        return f"{steps.total()} objects to create"
    if not steps:
        return "nothing to change"
    rows = [f"\n  {op} {count} x {kind}" for (op, kind), count in sorted(steps.items())] if name == "up" else []
    return f"{steps.total()} objects{''.join(rows)}"


def main() -> int:
    """Rehearse the stack that the command line names."""
    try:
        rehearse(sys.argv[1])
    except (UsageError, FailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
