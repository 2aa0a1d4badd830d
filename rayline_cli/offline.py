"""Run the real Pulumi program for a stack without an engine, and return the resources that it declared.

A recorder, not an engine: no state, no diff, no providers. It sees what the SDK sends to an engine (type, inputs, parent,
dependencies, protect, time-outs), because it stands where the engine's resource monitor would.
"""

import asyncio
import contextlib
import gc
import io
import pathlib
import runpy
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import mocks
from pulumi.runtime.rpc import deserialize_properties
from pulumi.runtime.settings import set_root_resource

from rayline.platform.types import Plan
from rayline_cli.stack_files import Configuration, ProgramError, UnknownStack, project_name, read_stack, read_stack_file
from rayline_cli.stack_names import PROJECT_ROOT, stack_names

# the command line takes them from here
__all__ = ["PROJECT_ROOT", "ProgramError", "UnknownStack", "read_stack", "read_stack_file", "stack_names"]

# The organization that the program sees; no Pulumi Cloud organization can have this name.
OFFLINE = "rayline offline"


@dataclass(frozen=True)
class Declared:
    """One resource that the program declared."""

    type: str
    name: str
    urn: str
    parent: str
    inputs: dict[str, Any]
    dependencies: tuple[str, ...]
    protect: bool
    retain_on_delete: bool
    custom: bool
    provider: str
    ignore_changes: tuple[str, ...]
    create_timeout: str
    delete_timeout: str


@dataclass
class Program:
    """The resources that the program declared for one stack, and the plan behind them."""

    stack: str
    plan: Plan
    resources: list[Declared] = field(default_factory=list)

    def of_type(self, suffix: str) -> list[Declared]:
        """Return the resources whose type ends with `suffix`, for example NodePool."""
        return [resource for resource in self.resources if resource.type.endswith(suffix)]

    def named(self, name: str, suffix: str = "") -> Declared:
        """Return the only resource with this name and type suffix. Raises KeyError."""
        matches = [resource for resource in self.of_type(suffix) if resource.name == name]
        if len(matches) != 1:
            raise KeyError(f"{len(matches)} resources named {name}")
        return matches[0]


def is_offline() -> bool:
    """Return whether the running program is recorded, and not deployed."""
    return pulumi.get_organization() == OFFLINE


def record_all(stacks: Iterable[str], root: pathlib.Path = PROJECT_ROOT) -> tuple[list[Program], dict[str, ProgramError]]:
    """Record several stacks. Return the programs, and the error of each stack that is refused.

    A stack that is refused does not stop the others. Raises UnknownStack, and ProgramError where Pulumi.yaml is wrong.
    """
    project_name(root)
    programs: list[Program] = []
    refused: dict[str, ProgramError] = {}
    for stack in stacks:
        try:
            programs.append(record(stack, root))
        except ProgramError as error:
            refused[stack] = error
    return programs, refused


def record(stack: str, root: pathlib.Path = PROJECT_ROOT, config: Configuration | None = None) -> Program:
    """Run `__main__.py` for a stack and return the resources that it declared.

    `config` replaces the stack file. Raises UnknownStack, or ProgramError with the program's own message.
    """
    values, secret = config or read_stack(stack, root)
    project = project_name(root)
    monitor = _Recorder()
    outcome: dict[str, Any] = {}

    def run() -> None:
        outcome.update(runpy.run_path(str(root / "__main__.py"), run_name="__main__"))

    with _surroundings(root):
        # else the resources hang under the stack that was recorded before this one
        set_root_resource(None)  # type: ignore[arg-type]
        pulumi.runtime.set_mocks(_Echo(), project=project, stack=stack, preview=False, monitor=monitor, organization=OFFLINE)
        pulumi.runtime.set_all_config(values, secret)
        try:
            pulumi.runtime.test(run)()
        except pulumi.RunError as error:
            raise ProgramError(str(error)) from None
    # registrations arrive in any order
    return Program(stack, outcome["platform"].plan, sorted(monitor.declared, key=lambda resource: resource.urn))


# Outputs of a provider that the program hands on. {name} is the resource's name.
_OUTPUTS: dict[str, dict[str, Any]] = {
    "gcp:certificatemanager/certificateMap:CertificateMap": {"name": "(name of {name})"},
    "gcp:compute/address:Address": {"address": "(address of {name})"},
    "gcp:compute/globalAddress:GlobalAddress": {"address": "(address of {name})"},
    "gcp:compute/router:Router": {"name": "(name of {name})"},
    "gcp:container/cluster:Cluster": {
        "name": "(name of {name})",
        "endpoint": "(endpoint of {name})",
        "masterAuth": {"clusterCaCertificate": "(certificate of {name})"},
    },
    "gcp:container/nodePool:NodePool": {"name": "(name of {name})"},
    "gcp:redis/instance:Instance": {
        "host": "(host of {name})",
        "authString": "(authString of {name})",
        "port": 6378,
        "serverCaCerts": [{"cert": "(authority of {name})"}],
    },
    "gcp:serviceaccount/account:Account": {"email": "(email of {name})"},
    "gcp:storage/bucket:Bucket": {"name": "(name of {name})"},
    "random:index/randomPassword:RandomPassword": {"result": "(result of {name})"},
}


def _named(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _named(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item, name) for item in value]
    return value.replace("{name}", name) if isinstance(value, str) else value


class _Echo(mocks.Mocks):
    """Answers every registration with the resource's own inputs, and with the outputs that other resources take.

    Without those the SDK drops the inputs made of them, and with them the dependencies.
    """

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict]:
        return args.resource_id or f"{args.name}-id", _named(_OUTPUTS.get(args.typ, {}), args.name) | dict(args.inputs)

    def call(self, args: mocks.MockCallArgs) -> tuple[dict, list]:
        return {"number": "(number of the project)"} if args.token.endswith(":getProject") else {}, []


class _Recorder(mocks.MockMonitor):
    """The SDK's own stand-in for an engine's monitor, which also keeps the resource options."""

    def __init__(self) -> None:
        super().__init__(_Echo())
        self.declared: list[Declared] = []

    def RegisterResource(self, request: Any) -> Any:
        response = super().RegisterResource(request)
        if request.type != "pulumi:pulumi:Stack":
            self.declared.append(
                Declared(
                    type=request.type,
                    name=request.name,
                    urn=response.urn,
                    parent=request.parent,
                    inputs=_masked(deserialize_properties(request.object)),
                    dependencies=tuple(request.dependencies),
                    protect=request.protect,
                    retain_on_delete=request.retainOnDelete,
                    custom=request.custom,
                    provider=request.provider,
                    ignore_changes=tuple(request.ignoreChanges),
                    create_timeout=request.customTimeouts.create,
                    delete_timeout=request.customTimeouts.delete,
                )
            )
        return response


# How the SDK marks a secret on the wire (pulumi/runtime/rpc.py).
_SIGNATURE, _SECRET = "4dabf18193072939515e22adb298388d", "1b47061264138c4ac30d75fd1eb44270"
MASK = "[secret]"


def _masked(value: Any, secret: bool = False) -> Any:
    """Return inputs as plain data in a stable order, with MASK in place of each secret."""
    if isinstance(value, dict):
        if value.get(_SIGNATURE) == _SECRET:
            return _masked(value["value"], secret=True)
        return {key: _masked(value[key], secret) for key in sorted(value)}
    if isinstance(value, list):
        return [_masked(item, secret) for item in value]
    return MASK if secret and value is not None else value


@contextlib.contextmanager
def _surroundings(root: pathlib.Path) -> Iterator[None]:
    """Give the program what Pulumi gives it, for as long as it runs: its folder on sys.path, and an event loop."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    sys.path.insert(0, str(root))
    # the collector would look at Pulumi's SDKs again and again while they load: a quarter of the time
    collects = gc.isenabled()
    gc.disable()
    # the SDK prints a failed program's traceback beside raising it; the caller prints the message once
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            yield
        finally:
            if collects:
                gc.enable()
            sys.path.remove(str(root))
            # a loop that is left open complains when Python ends
            asyncio.set_event_loop(None)
            loop.close()
