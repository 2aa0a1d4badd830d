"""`components/` is a package of its own: Pulumi builds it, starts it as a plugin and asks it for its schema."""

import asyncio
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pulumi
import pytest
import yaml
from google.protobuf import struct_pb2
from pulumi.provider.experimental.util import camel_case
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc, resource_pb2, resource_pb2_grpc

import rayline
from rayline import InferencePlatform
from rayline.schema.base import Arguments
from rayline.schema.texts import field_texts
from rayline_cli.offline import ProgramError
from rayline_docs.keys import places
from tests.pulumi_project import missing

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Monitor(resource_pb2_grpc.ResourceMonitorServicer):
    """As much of an engine as a plugin asks before it makes a component."""

    def SupportsFeature(self, request: Any, context: Any) -> Any:
        return resource_pb2.SupportsFeatureResponse(hasSupport=True)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[provider_pb2_grpc.ResourceProviderStub]:
    """The plugin as the engine starts it; only `rayline` and not this project is on its path."""
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
        yield provider_pb2_grpc.ResourceProviderStub(channel)
        channel.close()
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture(scope="module")
def schema(plugin: provider_pb2_grpc.ResourceProviderStub) -> dict:
    """The schema that the plugin serves."""
    return json.loads(plugin.GetSchema(provider_pb2.GetSchemaRequest(version=0)).schema)


@pytest.fixture(scope="module")
def refusal(plugin: provider_pb2_grpc.ResourceProviderStub) -> Iterator[Callable[[dict[str, Any]], str]]:
    """What the plugin says to the arguments of an InferencePlatform of a program in any language."""
    monitor = grpc.server(futures.ThreadPoolExecutor(1))
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(Monitor(), monitor)
    address = f"127.0.0.1:{monitor.add_insecure_port('127.0.0.1:0')}"
    monitor.start()

    def said(arguments: dict[str, Any]) -> str:
        inputs = struct_pb2.Struct()
        inputs.update(arguments)
        kind = "rayline:index:InferencePlatform"
        request = provider_pb2.ConstructRequest(
            project="p", stack="s", name="test", type=kind, inputs=inputs, monitorEndpoint=address
        )
        with pytest.raises(grpc.RpcError) as caught:
            plugin.Construct(request, timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        return caught.value.details()  # type: ignore[attr-defined]

    yield said
    monitor.stop(None)


def test_the_plugin_serves_every_public_component(schema: dict) -> None:
    assert set(schema["resources"]) == {f"rayline:index:{name}" for name in rayline.__all__}


def test_a_platform_needs_a_cluster_and_services_and_nothing_else(schema: dict) -> None:
    platform = schema["resources"]["rayline:index:InferencePlatform"]
    assert sorted(platform["requiredInputs"]) == ["cluster", "services"]


PARTS = sorted({arguments for path, arguments in places() if path}, key=lambda arguments: arguments.__name__)


@pytest.mark.parametrize("arguments", PARTS, ids=lambda arguments: arguments.__name__)
def test_the_schema_has_every_key_with_its_text(schema: dict, arguments: type[Arguments]) -> None:
    served = schema["types"][f"rayline:index:{arguments.__name__}"]
    texts = field_texts(arguments)
    assert {name: field["description"] for name, field in served["properties"].items()} == {
        camel_case(name): text for name, text in texts.items()
    }


def test_the_card_of_a_service_is_a_closed_choice(schema: dict) -> None:
    values = [entry["value"] for entry in schema["types"]["rayline:index:Accelerator"]["enum"]]
    assert {"l4", "b200", "cpu"} <= set(values)


# keys of a service, as Python writes them -> what is said to them
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"replica": 4}, "services.qwen.replica (got 4): no such key; did you mean replicas?"),
    ({"accelerator": "L4"}, "services.qwen.accelerator (got 'L4'): did you mean l4?"),
    ({"replicas": "4"}, "services.qwen.replicas (got '4'): a whole number, without quotes"),
    ({"replicas": 0}, "services.qwen.replicas (got 0): 1 to 1000 replicas"),
    ({"engine": 5}, "services.qwen.engine (got 5): a map, such as {max_model_len: 8192}"),
    (
        {"engine": {"max_modle_len": 8192}},
        "services.qwen.engine.max_modle_len (got 8192): no such key; did you mean max_model_len?",
    ),
    ({"max_model_len": 8192}, "services.qwen.max_model_len (got 8192): no such key; did you mean engine.max_model_len?"),
    (
        {"engine": {"max_model_len": 1_000_000}},
        "services.qwen.engine.max_model_len (got 1000000): 1 to 262144, which is the limit of Qwen/Qwen3.5-4B",
    ),
    ({"pods": {"env": {"HTTPTimeout": 5}}}, "services.qwen.pods.env.HTTPTimeout (got 5): text; put it in quotes"),
]


def platform(service: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a platform with one service."""
    return {"cluster": {"mode": "existing"}, "services": {"qwen": {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"} | service}}


def camel(value: Any) -> Any:
    """Return what other languages write: maxModelLen. Variables keep their names."""
    if not isinstance(value, dict):
        return value
    return {camel_case(key): one if key == "env" else camel(one) for key, one in value.items()}


@pytest.mark.parametrize(("service", "said"), MISTAKES, ids=[str(service) for service, _ in MISTAKES])
def test_a_stack_file_and_programs_in_every_language_hear_the_same(
    refusal: Callable[[dict[str, Any]], str], record_file: Callable[..., Any], service: dict[str, Any], said: str
) -> None:
    with pytest.raises(ProgramError) as in_a_stack_file:
        record_file(yaml.safe_dump(platform(service)))
    assert str(in_a_stack_file.value).splitlines()[1:] == [said]
    with pytest.raises(pulumi.RunError) as in_python:
        InferencePlatform("test", platform(service))
    assert str(in_python.value).splitlines()[1:] == [said]
    assert refusal(camel(platform(service))).splitlines()[1:] == [said]


def test_a_value_that_is_not_known_yet_is_refused_in_words() -> None:
    async def program() -> None:
        InferencePlatform("test", platform({"replicas": pulumi.Output.from_input(4)}))

    says = "services.qwen.replicas: a plain value, not an Output: the plan needs it before anything is created"
    with pytest.raises(pulumi.RunError, match=says):
        asyncio.run(program())


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
    wanted = {re.split("[=>]=", line)[0] for line in program if line.startswith(("pulumi", "pydantic"))}
    assert {line.split(">=")[0] for line in package["project"]["dependencies"]} == wanted - {"pulumi-policy"}


def test_a_built_package_has_the_files_that_it_reads(tmp_path: pathlib.Path):
    source = tmp_path / "components"
    shutil.copytree(ROOT / "components", source, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build"))
    code = f"from setuptools import build_meta; print(build_meta.build_wheel({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        packed = set(wheel.namelist())
    package = source / "rayline"
    read = {
        *(package / "models" / "files").glob("*.yaml"),
        *(package / "facts" / name for name in ("runtime.json", "prices.json")),
    }
    assert len(read) > 10
    assert {str(file.relative_to(source)) for file in read} <= packed
