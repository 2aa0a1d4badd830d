"""`components/` is a package of its own: Pulumi builds it, starts it as a plugin and asks it for its schema."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

import rayline
from rayline.schema import arguments
from tests.pulumi_project import missing

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict]:
    """The schema, read over gRPC from the plugin as the engine starts it; only `rayline` and not this project is on its path."""
    elsewhere = tmp_path_factory.mktemp("plugin")
    (elsewhere / "rayline").symlink_to(ROOT / "components" / "rayline")
    # -P and an own path: the repository's `rayline` command must not be found in the package's place
    code = f"import sys; sys.path.insert(0, {str(elsewhere)!r}); import runpy; runpy.run_module('pulumi.run.plugin', run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, "rayline", "127.0.0.1:1"],
        cwd=elsewhere,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise AssertionError(f"the plugin did not start: {process.communicate()[1]}")
        channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)])
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        yield json.loads(stub.GetSchema(provider_pb2.GetSchemaRequest(version=0)).schema)
        channel.close()
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_the_plugin_serves_every_public_component(schema: dict) -> None:
    assert set(schema["resources"]) == {f"rayline:index:{name}" for name in rayline.__all__}


def test_a_platform_needs_a_cluster_and_services_and_nothing_else(schema: dict) -> None:
    platform = schema["resources"]["rayline:index:InferencePlatform"]
    assert sorted(platform["requiredInputs"]) == ["cluster", "services"]


def test_every_argument_of_a_service_is_documented_in_the_schema(schema: dict) -> None:
    service = schema["types"]["rayline:index:LlmServiceArgs"]
    undocumented = [name for name, field in service["properties"].items() if not field.get("description")]
    assert undocumented == []
    assert len(service["properties"]) == len(arguments.LlmServiceArgs.__annotations__)


def test_the_card_of_a_service_is_a_closed_choice(schema: dict) -> None:
    values = [entry["value"] for entry in schema["types"]["rayline:index:Accelerator"]["enum"]]
    assert {"l4", "b200", "cpu"} <= set(values)


@pytest.mark.engine
@pytest.mark.slow
def test_the_cli_builds_the_package_and_reads_the_same_schema(schema: dict, tmp_path: pathlib.Path) -> None:
    absent = missing("pulumi", "pulumi-language-python")
    if absent:
        pytest.skip(f"needs a Pulumi engine; not on PATH: {', '.join(absent)}")
    pytest.importorskip("wheel", reason="Pulumi has pip install it, and nothing is fetched here")
    package = tmp_path / "components"
    shutil.copytree(ROOT / "components", package, ignore=shutil.ignore_patterns("__pycache__"))
    # the environment that Pulumi would make, with the SDKs of this one in place of a download
    place = package / "venv"
    venv.create(place, with_pip=False)
    (python,) = (place / "lib").iterdir()
    (python / "site-packages" / "sdks.pth").write_text(sysconfig.get_path("purelib"))
    environment = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the value of "build isolation"
        "PULUMI_HOME": str(tmp_path / "home"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    command = ["pulumi", "package", "get-schema", str(package)]
    done = subprocess.run(command, env=os.environ | environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    read = json.loads(done.stdout)
    for part in ("resources", "types"):
        assert read[part].keys() == schema[part].keys()


def test_the_packages_dependencies_are_those_of_the_program() -> None:
    package = tomllib.loads((ROOT / "components" / "pyproject.toml").read_text())
    program = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    # policies judge programs, the components need none
    pinned = {line.split("==")[0] for line in program if line.startswith("pulumi")} - {"pulumi-policy"}
    assert {line.split(">=")[0] for line in package["project"]["dependencies"]} == pinned
