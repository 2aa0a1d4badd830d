"""The command line as a person and a script meet it: help, exit codes, data, and plain text in a pipe."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rayline import cli
from rayline.stack_names import stack_names

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback]
BAD_STACK = """
config:
  cluster: {mode: local}
  services:
    chat: {model: HuggingFaceTB/SmolLM2-135M-Instruct, accelerator: cpu, zones: here, engine_kwargs: {hf_token: hf_x}}
"""


def run(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the project with one good and one bad stack, so that no test writes into the repository."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("components", "rayline"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__main__.py", "Pulumi.yaml"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "stacks").mkdir()
    shutil.copy(ROOT / "stacks" / "Pulumi.local.yaml", copy / "stacks")
    (copy / "stacks" / "Pulumi.broken.yaml").write_text(BAD_STACK)
    return copy


def rayline(project: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with its output in pipes and a terminal that knows colours."""
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    return subprocess.run(
        [sys.executable, "-m", "rayline.cli", *arguments],
        cwd=project,
        env=environment | {"TERM": "xterm-256color", "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_knows_its_version():
    result = run("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"rayline \d+\.\d+\.\d+\n", result.output)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "Example: " in text
    assert re.search(r"Usage: .*" + command, text)


def test_the_commands_are_listed_when_none_is_given():
    result = run()
    assert {"plan", "render", "up", "down", "status", "logs", "key", "verify"} <= set(COMMANDS)
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", result.output)


@pytest.mark.parametrize("command", ["plan", "render", "up", "status", "key", "verify"])
def test_an_unknown_stack_is_a_mistake_of_the_caller_and_the_answer_lists_the_stacks(command):
    result = run(command, "--stack", "prod")
    assert result.exit_code == 2
    assert f"no stack 'prod'; there are: {', '.join(stack_names())}" in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["plan", "render", "up", "permissions"])
def test_an_empty_name_is_no_stack_and_does_not_mean_all(command):
    result = run(command, "--stack", "")
    assert result.exit_code == 2
    assert "no stack ''; there are: " in " ".join(result.output.split())


def test_an_unknown_command_or_option_is_a_mistake_of_the_caller():
    assert run("plann").exit_code == 2
    assert run("plan", "--stak", "local").exit_code == 2


def test_a_configuration_with_mistakes_gives_exit_code_2_and_every_character_of_the_message(project):
    result = rayline(project, "plan", "--stack", "broken")
    assert result.returncode == 2
    assert result.stdout == ""
    # square brackets are part of the message
    assert "services.chat.zones (got 'here'): a list, such as [us-central1-a, us-central1-b]" in result.stderr
    assert "Traceback" not in result.stderr
    assert "hf_x" not in result.stderr


def test_a_plan_in_a_pipe_has_no_spaces_at_the_ends_of_its_lines(project):
    lines = rayline(project, "plan", "--stack", "local").stdout.splitlines()
    assert [line for line in lines if line.startswith("memory")]
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize("command", [["plan"], ["render", "--check"]])
def test_a_broken_stack_does_not_stop_the_others(project, command):
    result = rayline(project, *command)
    assert result.returncode == 2
    assert "local" in result.stdout
    assert "services.chat.zones (got 'here')" in result.stderr
    assert "Traceback" not in result.stderr


def test_nothing_running_is_exit_code_1_for_status(project):
    result = rayline(project, "status", "--stack", "local", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["running"] is False


def test_nothing_running_is_exit_code_1_for_verify_and_leaves_no_trace(project):
    result = rayline(project, "verify")
    assert result.returncode == 1
    assert "nothing runs" in result.stderr
    assert not (project / ".rayline").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--url", "https://a.example", "--stack", "local"], "--url needs no stack. Fix: leave out --stack"),
        (["--url", "llm.example.com"], "an address looks like https://llm.example.com"),
        (["--url", "https://a.example/?api_key=x"], "a key comes from $RAYLINE_API_KEY"),
        (["--service", "other"], "--service other: the stack local has chat"),
        (["--context", "prod"], "--context is for a cluster"),
    ],
)
def test_options_of_verify_that_do_not_go_together_are_a_mistake_of_the_caller(options, message):
    result = run("verify", *options)
    assert result.exit_code == 2
    assert message in re.sub(r"[│\s]+", " ", result.output)


def test_an_address_where_nothing_listens_is_said_once_and_not_for_each_check():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        result = run("verify", "--url", f"http://127.0.0.1:{held.getsockname()[1]}")
    assert result.exit_code == 1
    assert "nothing takes a connection at 127.0.0.1" in " ".join(result.output.split())
    assert "FAIL" not in result.output


def test_stale_manifests_are_exit_code_1_and_written_ones_0(project):
    stale = rayline(project, "render", "--stack", "local", "--check")
    assert (stale.returncode, "make render" in stale.stderr) == (1, True)
    assert not (project / "manifests").exists()
    assert rayline(project, "render", "--stack", "local").returncode == 0
    assert rayline(project, "render", "--stack", "local", "--check").returncode == 0


def test_output_in_a_pipe_is_plain_text(project):
    result = rayline(project, "plan", "--stack", "local")
    assert result.returncode == 0
    assert "\x1b" not in result.stdout + result.stderr
    assert not set("╭╮╰╯│┃") & set(result.stdout.partition("resources")[0])
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in result.stdout


def test_a_plan_as_data_holds_the_decisions_and_no_secret():
    result = run("plan", "--stack", "dev-l4", "--json")
    assert result.exit_code == 0
    [found] = json.loads(result.stdout)
    assert found["stack"] == "dev-l4"
    assert found["plan"]["pools"][0]["name"] == "g2-standard-8"
    service = found["plan"]["services"][0]
    assert (service["gpus"], service["limits"]["max_model_len"]) == (4, 16384)
    assert service["fit"]["concurrency"] > 1
    assert {"type": "kubernetes:ray.io/v1:RayService", "name": "dev-l4-qwen"}.items() <= {
        key: value for one in found["resources"] if one["type"].endswith(":RayService") for key, value in one.items()
    }.items()
    # resources are named and not described: their inputs could hold secrets
    assert {key for one in found["resources"] for key in one} == {"type", "name", "parent", "protect"}


def test_a_plan_for_a_person_says_what_it_costs_and_whether_it_fits():
    text = " ".join(run("plan", "--stack", "dev-l4").output.split())
    for part in ("4 x L4", "g2-standard-8", "$4.05/h", "16,384 tokens", "API key", "ha_proxy on"):
        assert part in text


def test_without_a_stack_all_of_them_are_planned():
    result = run("plan", "--json")
    assert [one["stack"] for one in json.loads(result.stdout)] == stack_names()
