"""Run the real Pulumi program for a stack without an engine, and return what it declared.

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
    """What the program declared for one stack, and the plan behind it."""

    stack: str
    plan: Plan
    resources: list[Declared] = field(default_factory=list)

    def of_type(self, suffix: str) -> list[Declared]:
        """Resources whose type ends with `suffix`, for example NodePool."""
        return [resource for resource in self.resources if resource.type.endswith(suffix)]

    def named(self, name: str, suffix: str = "") -> Declared:
        """The one resource with this name (and type suffix). Raises KeyError."""
        found = [r for r in self.resources if r.name == name and r.type.endswith(suffix)]
        if len(found) != 1:
            raise KeyError(f"{len(found)} resources named {name}")
        return found[0]


def is_offline() -> bool:
    """Whether the running program is being recorded rather than deployed."""
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
    """Run `__main__.py` for a stack and return what it declared.

    `config` replaces the stack file. Raises UnknownStack, or ProgramError with the program's own message.
    """
    values, secret = config or read_stack(stack, root)
    project = project_name(root)
    monitor = _Recorder()
    found: dict[str, Any] = {}

    def run() -> None:
        found.update(runpy.run_path(str(root / "__main__.py"), run_name="__main__"))

    with _importable(root), _quiet(), _event_loop(), _no_collection():
        # else the resources hang under the stack that was recorded before this one
        set_root_resource(None)  # type: ignore[arg-type]
        pulumi.runtime.set_mocks(_Echo(), project=project, stack=stack, preview=False, monitor=monitor, organization=OFFLINE)
        pulumi.runtime.set_all_config(values, secret)
        try:
            pulumi.runtime.test(run)()
        except pulumi.RunError as error:
            raise ProgramError(str(error)) from None
    # registrations arrive in any order
    return Program(stack=stack, plan=found["platform"].plan, resources=sorted(monitor.declared, key=lambda one: one.urn))


# What the provider computes and the program hands on.
_TAKEN = {
    "gcp:certificatemanager/certificateMap:CertificateMap": ("name",),
    "gcp:compute/address:Address": ("address",),
    "gcp:compute/globalAddress:GlobalAddress": ("address",),
    "gcp:compute/router:Router": ("name",),
    "gcp:container/cluster:Cluster": ("name", "endpoint"),
    "gcp:container/nodePool:NodePool": ("name",),
    "gcp:redis/instance:Instance": ("host", "authString"),
    "gcp:serviceaccount/account:Account": ("email",),
    "gcp:storage/bucket:Bucket": ("name",),
    "random:index/randomPassword:RandomPassword": ("result",),
}


# The same where it is no text.
_TAKEN_WHOLE: dict[str, dict[str, Any]] = {
    "gcp:redis/instance:Instance": {"port": 6378, "serverCaCerts": [{"cert": "(authority of {name})"}]},
    "gcp:container/cluster:Cluster": {"masterAuth": {"clusterCaCertificate": "(certificate of {name})"}},
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
        outputs = {key: f"({key} of {args.name})" for key in _TAKEN.get(args.typ, ())}
        outputs |= _named(_TAKEN_WHOLE.get(args.typ, {}), args.name)
        return args.resource_id or f"{args.name}-id", outputs | dict(args.inputs)

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
    """Inputs as plain data in a stable order, with every secret text replaced."""
    if isinstance(value, dict):
        if value.get(_SIGNATURE) == _SECRET:
            return _masked(value["value"], secret=True)
        return {key: _masked(value[key], secret) for key in sorted(value)}
    if isinstance(value, list):
        return [_masked(item, secret) for item in value]
    return MASK if secret and value is not None else value


@contextlib.contextmanager
def _importable(root: pathlib.Path) -> Iterator[None]:
    """Pulumi puts the program's folder on sys.path; so does this, for as long as the program runs."""
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Turn the garbage collector off. It would look at Pulumi's SDKs again and again while they load: a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def _event_loop() -> Iterator[None]:
    """A loop of the program's own; one that is left open complains when Python ends."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The SDK prints a failed program's traceback beside raising it; the caller prints the message once."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
