"""The life of each stack that deploys, once: a real engine runs the commands, the tests read what came of them."""

import dataclasses
import os
import pathlib
import stat
import sys
from typing import Any

import pytest
import yaml

from components.facts.choices import ClusterMode
from tests.conftest import recorded, stacks_of
from tests.engine.fake_provider import PROVIDERS, Cloud, Object
from tests.pulumi_project import ROOT, PulumiProject, Run, Step, missing

# Another model of the same pool for each card; a model's weights decide about the disk and with it about the machine.
OTHER_MODELS = {"l4": "Qwen/Qwen3.5-2B", "b200": "google/gemma-4-E4B-it", "cpu": "rayline/tiny-random-qwen3"}


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

    def do(self, name: str, command: str, *more: str, preview: bool = False) -> Run:
        """Run a command and keep what came of it under `name`."""
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


@pytest.fixture(scope="session")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where Python keeps what it compiled: compiling pulumi_gcp takes longer than a deployment, so it is done once."""
    return tmp_path_factory.mktemp("bytecode")


def a_project(folder: pathlib.Path, stack: str, bytecode: pathlib.Path, overrides: Any = None) -> PulumiProject:
    """The project with the stand-ins first on PATH, and none of the machine's own plugins, settings or credentials."""
    absent = missing("pulumi", "pulumi-language-python")
    if absent:
        pytest.skip(f"needs a Pulumi engine; not on PATH: {', '.join(absent)}")
    plugins = folder / "plugins"
    plugins.mkdir()
    for package in PROVIDERS:
        script = plugins / f"pulumi-resource-{package}"
        script.write_text(
            f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tests.engine.fake_provider {package}\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return PulumiProject(
        folder,
        stack,
        environment={
            "FAKE_CLOUD": str(folder / "cloud"),
            "PATH": f"{plugins}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "false",
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(bytecode),
        },
        overrides=overrides,
    )


def a_life(folder: pathlib.Path, stack: str, bytecode: pathlib.Path, overrides: Any = None) -> Life:
    """A stack that has not been deployed yet."""
    project = a_project(folder, stack, bytecode, overrides)
    return Life(stack, project, Cloud(folder / "cloud"))


@pytest.fixture(scope="session", params=stacks_of("create", "existing"))
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bytecode: pathlib.Path) -> Life:
    """Preview, up, refresh, up again, another replica count, another model, an end; for every stack that deploys."""
    stack = request.param
    life = a_life(tmp_path_factory.mktemp(stack), stack, bytecode)
    service = recorded(stack).plan.services[0]
    file = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text())["config"]
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
    cluster = recorded(stack).plan.cluster
    if cluster.mode is ClusterMode.CREATE and cluster.deletion_protection:
        # without the preview the engine would delete all that depends on the cluster before it meets the protection
        life.do("destroy too early", "destroy", preview=True)
        life.project.change("cluster.deletion_protection", "false")
        life.do("unprotect", "up")
    life.do("destroy", "destroy")
    return life


@pytest.fixture(scope="session")
def life_with_a_token(tmp_path_factory: pytest.TempPathFactory, bytecode: pathlib.Path) -> Life:
    """`kind` with the Hugging Face token in Pulumi's configuration; up, another token, gone, up again."""
    life = a_life(
        tmp_path_factory.mktemp("token"), "kind", bytecode, overrides={"hugging_face": {"source": "pulumi-secret"}}
    )
    for name, token in (("up", "hf_firstRecognisableToken"), ("other token", "hf_secondRecognisableToken")):
        life.secrets.add(token)
        life.project.pulumi("config", "set", "--stack", "kind", "--secret", "hugging_face_token", stdin=token)
        life.must(name, "up")
    life.do("destroy", "destroy")
    life.do("up after destroy", "up")
    return life


@pytest.fixture(scope="session")
def life_with_all_of_it(tmp_path_factory: pytest.TempPathFactory, bytecode: pathlib.Path) -> Life:
    """`dev-l4` with a second service on Spot machines and an endpoint on the internet; up, up again and gone."""
    second = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "replicas": 1, "capacity": "spot"}
    overrides = {
        "cluster": {"system_pool": {"max_nodes": 2}},
        "services": {"second": second},
        "endpoint": {"exposure": "public", "domain": "llm.example.com"},
    }
    life = a_life(tmp_path_factory.mktemp("all"), "dev-l4", bytecode, overrides)
    life.must("up", "up")
    life.do("up again", "up", "--expect-no-changes")
    life.do("destroy", "destroy")
    return life
