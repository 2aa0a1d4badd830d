"""Clients and suites that others wrote, against the kit and against plain vLLM. The Python ones are in .tools/suites (`make suites`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rayline_bench.servers import free_ports
from rayline_cli.local import bundled_models
from tests.serve.serving import API_KEY, PATIENCE, Recorder, get, ray_service, run, wait_until

pytestmark = pytest.mark.suite

SUITES = Path(__file__).parents[3] / ".tools" / "suites" / "bin"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
ENGINE = {"max_model_len": 1024, "max_num_seqs": 16, "max_num_batched_tokens": 1024}
# Tool calls need a parser. The model calls a tool only when a request forces it.
PARSER = {"enable_auto_tool_choice": True, "tool_call_parser": "hermes"}
COMPATCANARY = "compatcanary@0.2.2"
FORMATS = {"openai-chat": "/v1", "anthropic": "/v1"}
"""API formats of llm-comply. Its third, the Responses API with 13 tests, needs tools that a server runs."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible endpoint with the model."""

    url: str

    def suite(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The finished run of a program of .tools/suites."""
        return run_program([str(SUITES / program), *arguments])

    def complied(self, form: str) -> dict[str, list[str]]:
        """The mistakes that llm-comply finds in each test of an API format."""
        options = [
            "--base-url",
            f"{self.url}/v1",
            "--model",
            "tiny",
            "--format",
            form,
            "--json",
            "--timeout",
            str(int(PATIENCE)),
        ]
        done = self.suite("llm-comply", *options)
        # A mistake quotes the answer, which differs from run to run.
        return {
            test["id"]: sorted({kind_of(error) for error in test.get("errors", [])})
            for test in json.loads(done.stdout)["results"]
        }


def kind_of(mistake: str) -> str:
    """A mistake without the answer that it quotes."""
    place, _, says = mistake.partition(": ")
    return f"{place}: {says.split(' is ')[-1]}"


def run_program(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OPENAI_API_KEY": API_KEY, "OPENRESPONSES_API_KEY": API_KEY, "NO_COLOR": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800, check=False)


@pytest.fixture(scope="module")
def suites() -> None:
    if not (SUITES / "schemathesis").exists():
        pytest.skip("needs the suites of requirements/suites.txt: `make suites`")


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    manifest = ray_service(model=MODEL, engine=ENGINE | {"kwargs": PARSER})
    with run(tmp_path_factory.mktemp("kit"), manifest) as served:
        yield Endpoint(served.running.url)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """`vllm serve` with the same model and arguments."""
    folder, port = bundled_models.prepare(MODEL, bundled_models.default_cache_dir(), Recorder()), free_ports(["vllm"])["vllm"]
    arguments = {"model": folder, "served-model-name": "tiny", "host": "127.0.0.1", "port": port, "api-key": API_KEY}
    arguments |= {key.replace("_", "-"): value for key, value in (ENGINE | PARSER).items() if value is not True}
    flags = [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
    log = tmp_path_factory.mktemp("plain") / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "vllm.entrypoints.openai.api_server",
                *flags,
                "--enable-auto-tool-choice",
                "--enforce-eager",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"},
        )
    endpoint = Endpoint(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            return get(f"{endpoint.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        assert wait_until(answers, 300), log.read_text()[-3000:]
        yield endpoint
    finally:
        server.terminate()
        server.wait(60)


def test_litellm_and_langchain_get_answers_streams_tool_calls_and_schemas(suites: None, kit: Endpoint):
    done = kit.suite("python", str(Path(__file__).with_name("suite_clients.py")), f"{kit.url}/v1", "tiny")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.skipif(not shutil.which("npx"), reason="needs npx of Node.js")
def test_compatcanary_finds_everything_of_the_modern_profile(kit: Endpoint):
    options = ["--base-url", f"{kit.url}/v1", "--model", "tiny", "--timeout", str(int(PATIENCE)), "--format", "json"]
    done = run_program(["npx", "--yes", COMPATCANARY, "scan", *options])
    if "npm error" in done.stderr:
        pytest.skip(f"npx could not install {COMPATCANARY}")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["score"] == 100


@pytest.mark.parametrize("form", FORMATS)
def test_llm_comply_finds_no_more_than_in_plain_vllm(suites: None, kit: Endpoint, plain: Endpoint, form: str):
    assert kit.complied(form) == plain.complied(form)


def test_schemathesis_finds_no_more_than_in_plain_vllm(suites: None, kit: Endpoint, plain: Endpoint, tmp_path: Path):
    options = ["--phases", "coverage", "--continue-on-failure", "--request-timeout", str(int(PATIENCE)), "--seed", "1"]
    options += ["--workers", "4", "--header", f"Authorization: Bearer {API_KEY}", "--baseline", str(tmp_path / "baseline.json")]
    first = plain.suite("schemathesis", "run", f"{plain.url}/openapi.json", *options, "--baseline-update")
    assert (tmp_path / "baseline.json").exists(), first.stdout + first.stderr
    done = kit.suite("schemathesis", "run", f"{kit.url}/openapi.json", *options)
    assert done.returncode == 0, done.stdout[-5000:]
