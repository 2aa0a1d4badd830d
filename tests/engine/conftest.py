"""The life of each stack that deploys, once: a real engine runs the commands, the tests read what came of them."""

import contextlib
import dataclasses
import os
import pathlib
import shlex
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest
import yaml

from rayline.facts.choices import ClusterMode
from rayline_cli import deploy
from tests.conftest import recorded, stacks_of
from tests.engine import plugin
from tests.engine.fake_provider import PROVIDERS, Cloud, Object
from tests.pulumi_project import ROOT, PulumiProject, Run, Step, missing

TOOLS = ("pulumi", "pulumi-language-python")

# Another model of the same pool for each card; a model's weights decide about the disk and with it about the machine.
OTHER_MODELS = {"l4": "Qwen/Qwen3.5-2B", "b200": "google/gemma-4-E4B-it", "cpu": "Qwen/Qwen3-0.6B"}


@dataclasses.dataclass
class Life:
    """What one stack went through, command after command."""

    stack: str
    project: PulumiProject
    cloud: Cloud
    runs: dict[str, Run] = dataclasses.field(default_factory=dict)
    operations: dict[str, list[dict[str, Any]]] = dataclasses.field(default_factory=dict)
    """What the stand-ins did in each command, as they log it."""
    left: dict[str, list[Object]] = dataclasses.field(default_factory=dict)
    """What the cloud held after each command."""
    secrets: set[str] = dataclasses.field(default_factory=set)
    """Every secret value there has been."""
    over: threading.Event = dataclasses.field(default_factory=threading.Event)
    """Set when no test will read it any more."""

    def do(self, name: str, command: str, *more: str, preview: bool = False) -> Run:
        """Run a command and keep what came of it under `name`."""
        if self.over.is_set():
            raise RuntimeError(f"{name} of {self.stack}: the tests are over")
        before = len(self.cloud.operations())
        run = self.runs[name] = self.project.operate(command, *more, preview=preview)
        self.operations[name] = self.cloud.operations()[before:]
        self.left[name] = list(self.cloud.objects())
        self.secrets |= {
            value
            for one in self.cloud.of_type(":RandomPassword")
            for value in (one.plain_outputs["result"], one.plain_outputs["bcryptHash"])
        }
        return run

    def must(self, name: str, command: str, *more: str) -> None:
        """Like do, where everything after it makes no sense if it fails."""
        run = self.do(name, command, *more)
        assert run.code == 0, f"{name} of {self.stack} failed:\n{run.output[-10000:]}"

    def custom_steps(self, name: str) -> list[Step]:
        """A command's steps on objects, without components, providers and the stack itself."""
        return [step for step in self.runs[name].steps if step.type.startswith(("gcp:", "kubernetes:", "random:"))]

    def written(self) -> dict[str, str]:
        """Everything that a command left on disk or printed: state with its history, stack file, event log, output."""
        files = {
            str(path.relative_to(self.project.folder.parent)): path.read_text()
            for path in [*self.project.state.rglob("*"), *self.project.folder.glob("stacks/*"), self.project.events]
            if path.is_file()
        }
        return files | {f"output of {name}": run.output for name, run in self.runs.items()}


@contextlib.contextmanager
def started_stand_ins() -> Iterator[pathlib.Path]:
    """Start the process that starts the stand-ins, and give its socket."""
    with tempfile.TemporaryDirectory(prefix="rayline-") as folder:  # pytest's own may be too long for a socket's name
        path = pathlib.Path(folder) / "stand-ins"
        command = [sys.executable, "-m", "tests.engine.fake_provider", str(path)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            try:
                yield path
            finally:
                process.terminate()


@pytest.fixture(scope="session")
def stand_ins() -> Iterator[pathlib.Path]:
    """The socket of the process that starts the stand-ins."""
    absent = missing(*TOOLS)
    if absent:
        pytest.skip(f"needs a Pulumi engine; not on PATH: {', '.join(absent)}")
    with started_stand_ins() as path:
        yield path


def a_project(folder: pathlib.Path, stack: str, stand_ins: pathlib.Path, overrides: Any = None) -> PulumiProject:
    """The project with the stand-ins first on PATH, and none of the machine's own plugins, settings or credentials."""
    plugins, cloud = folder / "plugins", folder / "cloud"
    plugins.mkdir()
    for package in PROVIDERS:
        script = plugins / f"pulumi-resource-{package}"
        asks = [sys.executable, "-IS", plugin.__file__, str(stand_ins), package, str(cloud)]
        script.write_text(f"#!/bin/sh\nexec {shlex.join(asks)}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return PulumiProject(
        folder,
        stack,
        environment={
            "PATH": f"{plugins}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "false",
            "PYTHONDONTWRITEBYTECODE": "",  # compiling pulumi_gcp takes longer than a deployment
        },
        overrides=overrides,
    )


def a_life(folder: pathlib.Path, stack: str, stand_ins: pathlib.Path, overrides: Any = None) -> Life:
    """A stack that has not been deployed yet."""
    return Life(stack, a_project(folder, stack, stand_ins, overrides), Cloud(folder / "cloud"))


def life_of_a_stack(life: Life) -> None:
    """Preview, up, refresh, up again, another replica count, another model, an end."""
    plan = recorded(life.stack).plan
    service = plan.services[0]
    file = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{life.stack}.yaml").read_text())["config"]
    given = file["services"][service.name]
    life.do("preview", "preview")
    life.must("up", "up")
    life.do("refresh", "refresh", "--expect-no-changes")
    life.do("up again", "up", "--expect-no-changes")
    replicas = given.get("replicas", 1)
    life.project.change(f"services.{service.name}.replicas", str(replicas - 1 or 2))
    life.do("other replicas", "up")
    life.project.change(f"services.{service.name}.model", OTHER_MODELS[given["accelerator"]])
    life.do("other model", "up")
    if plan.cluster.mode is ClusterMode.CREATE and plan.cluster.args.deletion_protection:
        # without the preview the engine would delete all that depends on the cluster before it meets the protection
        life.do("destroy too early", "destroy", preview=True)
        life.project.change("cluster.deletion_protection", "false")
        life.do("unprotect", "up")
    life.do("destroy", "destroy")


def life_with_tokens(life: Life) -> None:
    """Up, another token, gone, up again."""
    for name, token in (("up", "hf_firstRecognisableToken"), ("other token", "hf_secondRecognisableToken")):
        life.secrets.add(token)
        life.project.pulumi("config", "set", "--stack", life.stack, "--secret", "hugging_face_token", stdin=token)
        life.must(name, "up")
    life.do("destroy", "destroy")
    life.do("up after destroy", "up")


def short_life(life: Life) -> None:
    """Up, up again and gone."""
    life.must("up", "up")
    life.do("up again", "up", "--expect-no-changes")
    life.do("destroy", "destroy")


def life_in_two_steps(life: Life) -> None:
    """Up without what has pods, up with it, up again and gone."""
    line = deploy.arguments("up", life.stack, services=False)
    excluded = [word for word in line if word == "--exclude" or word.startswith("**")]
    life.must("up without services", "up", *excluded)
    life.must("up", "up")
    life.do("up again", "up", "--expect-no-changes")
    life.do("destroy", "destroy")


# The lives: the stack, what is laid over its configuration, and what it goes through.
LIVES: dict[str, tuple[str, Any, Callable[[Life], None]]] = {
    **{stack: (stack, None, life_of_a_stack) for stack in stacks_of("create", "existing")},
    "token": ("kind", {"hugging_face": {"source": "pulumi-secret"}}, life_with_tokens),
    "two steps": (
        "kind",
        {
            "gcp:project": "my-project",
            "gcp:region": "us-central1",
            "cluster": {"gke": True, "deletion_protection": False},
            "endpoint": {"exposure": "public", "domain": "llm.example.com"},
            "hugging_face": {"source": "secret-manager", "secret": "hf"},
            "weights": {"bucket": "my-models"},
            "services": {"chat": {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "weights": {"source": "gcs-fuse"}}},
        },
        life_in_two_steps,
    ),
    "all": (
        "dev-l4",
        {
            "cluster": {"system_pool": {"max_nodes": 2}},
            "services": {
                "second": {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "replicas": 1, "nodes": {"capacity": "spot"}}
            },
            "endpoint": {"exposure": "public", "domain": "llm.example.com"},
        },
        short_life,
    ),
}


def asked_for(item: pytest.Item) -> set[str]:
    """The lives that a test reads."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    names = {
        "life": parameters.get("life"),
        "life_with_a_token": "token",
        "life_with_all_of_it": "all",
        "life_in_a_gke_cluster": "two steps",
    }
    return {names[fixture] for fixture in getattr(item, "fixturenames", ()) if fixture in names}


@pytest.fixture(scope="session")
def lives(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stand_ins: pathlib.Path
) -> Iterator[Callable[[str], Life]]:
    """The lives that the selected tests read, led side by side: most of a command happens in one process after another."""
    asked = set().union(*(asked_for(item) for item in request.session.items))
    over = threading.Event()

    def lead(name: str, folder: pathlib.Path) -> Life:
        stack, overrides, course = LIVES[name]
        life = a_life(folder, stack, stand_ins, overrides)
        life.over = over
        course(life)
        return life

    for stack in stacks_of("create", "existing"):
        recorded(stack)  # here, as one process records one program at a time
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        led = {name: pool.submit(lead, name, tmp_path_factory.mktemp(name)) for name in LIVES if name in asked}
        yield lambda name: led[name].result()
        over.set()
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session", params=stacks_of("create", "existing"))
def life(request: pytest.FixtureRequest, lives: Callable[[str], Life]) -> Life:
    """The life of every stack that deploys."""
    return lives(request.param)


@pytest.fixture(scope="session")
def life_with_a_token(lives: Callable[[str], Life]) -> Life:
    """`kind` with the Hugging Face token in Pulumi's configuration."""
    return lives("token")


@pytest.fixture(scope="session")
def life_in_a_gke_cluster(lives: Callable[[str], Life]) -> Life:
    """`kind` in a GKE cluster that exists, with what Google has around it, in two steps."""
    return lives("two steps")


@pytest.fixture(scope="session")
def life_with_all_of_it(lives: Callable[[str], Life]) -> Life:
    """`dev-l4` with a second service on Spot machines and an endpoint on the internet."""
    return lives("all")
