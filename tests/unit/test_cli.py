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

from rayline_cli import cli, offline, place
from rayline_cli.local.session import Session
from rayline_cli.stack_names import stack_names

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands if command.callback]
BAD_STACK = """
config:
  cluster: {mode: local}
  services:
    chat: {model: HuggingFaceTB/SmolLM2-135M-Instruct, accelerator: cpu, nodes: {zones: here}, engine: {kwargs: {hf_token: hf_x}}}
"""


def run(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of the project with one good and one bad stack, so that no test writes into the repository."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("components", "rayline_cli"):
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
        [sys.executable, "-m", "rayline_cli.cli", *arguments],
        cwd=project,
        env=environment
        | {"TERM": "xterm-256color", "PYTHONPATH": f"{project}:{project / 'components'}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_knows_its_version():
    result = run("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"rayline \d+\.\d+\.\d+\n", result.output)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_exit_codes_and_json(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "Example: " in text
    assert "Exit codes: 0 " in text
    assert "--json" in text or command in ("docs", "faults")
    assert re.search(r"Usage: .*" + command, text)


def test_the_commands_are_listed_when_none_is_given():
    result = run()
    assert {"plan", "render", "up", "down", "status", "logs", "key", "verify"} <= set(COMMANDS)
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", result.output)


@pytest.mark.parametrize("command", ["plan", "render", "up", "status", "key", "verify"])
def test_an_unknown_stack_is_exit_code_2_and_the_message_lists_the_stacks(command):
    result = run(command, "--stack", "prod")
    assert result.exit_code == 2
    assert f"no stack 'prod'. Fix: one of {', '.join(stack_names())}" in " ".join(result.output.split())


@pytest.mark.parametrize("command", ["plan", "render", "up", "permissions"])
def test_an_empty_name_is_no_stack_and_does_not_mean_all(command):
    result = run(command, "--stack", "")
    assert result.exit_code == 2
    assert "no stack ''. Fix: one of " in " ".join(result.output.split())


def test_an_unknown_command_or_option_is_exit_code_2():
    assert run("plann").exit_code == 2
    assert run("plan", "--stak", "local").exit_code == 2


def test_a_configuration_with_mistakes_gives_exit_code_2_and_every_character_of_the_message(project):
    result = rayline(project, "plan", "--stack", "broken")
    assert result.returncode == 2
    assert result.stdout == ""
    # square brackets are part of the message
    assert "services.chat.nodes.zones (got 'here'): a list, such as [us-central1-a, us-central1-b]" in result.stderr
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
    assert "services.chat.nodes.zones (got 'here')" in result.stderr
    assert "Traceback" not in result.stderr


def test_nothing_running_is_exit_code_1_for_status(project):
    result = rayline(project, "status", "--stack", "local", "--json")
    assert result.returncode == 1
    assert json.loads(result.stdout)["running"] is False


@pytest.mark.parametrize("command", ["status", "logs", "key", "verify"])
def test_commands_without_a_running_service_name_the_fix_and_leave_no_files(monkeypatch, tmp_path, command):
    monkeypatch.setattr(cli.common, "STATE", tmp_path)
    result = run(command)
    assert result.exit_code == 1
    assert re.search(r"nothing runs for stack local\. Fix: \S+ up --stack local\n", result.output)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["status", "logs", "key", "verify", "down"])
def test_a_folder_that_is_left_over_makes_no_stack_of_its_name(monkeypatch, tmp_path, command):
    monkeypatch.setattr(cli.common, "STATE", tmp_path)
    folder = tmp_path / "local" / "gone"
    folder.mkdir(parents=True)
    for left in ("lock", "secrets.json", "ray-start.log"):
        (folder / left).write_text("{}")
    result = run(command, "--stack", "gone")
    assert result.exit_code == 2
    assert "no stack 'gone'. Fix: one of " in " ".join(result.output.split())


def test_a_stack_with_a_saved_session_is_on_this_machine(tmp_path):
    assert not place.is_here("dev-l4", tmp_path)
    assert place.is_here("local", tmp_path)
    ended = Session("id", tmp_path, tmp_path, {}, "", "", supervisor_pid=0, supervisor_started=0, started_at=0, num_cpus=1)
    ended.save()
    assert place.is_here("dev-l4", tmp_path)
    assert place.is_here("a stack without a file", tmp_path)


def test_an_unknown_component_of_a_stack_on_this_machine_is_refused_with_the_known_ones():
    result = run("logs", "--component", "operator")
    assert result.exit_code == 2
    known = "ray, dashboard, controller, replica, haproxy"
    assert f"--component operator: unknown. Fix: one of {known}\n" in result.output


@pytest.mark.parametrize("command", ["status", "logs", "key", "verify"])
def test_a_context_is_refused_for_a_stack_on_this_machine(command):
    result = run(command, "--context", "prod")
    assert result.exit_code == 2
    assert "--context is for a cluster" in re.sub(r"[│\s]+", " ", result.output)


FAILURES = [
    *((command, "--stack", "prod") for command in ("plan", "render", "status", "verify", "permissions", "logs", "key")),
    ("up", "--stack", "prod"),
    ("up", "--stack", "dev-l4"),
    ("down", "--stack", "prod"),
    ("down", "--stack", "dev-l4"),
    ("permissions",),
    ("plan", "--markdown"),
    ("plan", "--stak", "local"),
    ("status", "--service", "other"),
    ("status", "--stack", "kind", "--context", "nowhere"),
    ("verify", "--stack", "kind", "--context", "nowhere"),
    ("verify",),
    ("logs",),
    ("key",),
    ("key", "--previous"),
    ("advise",),
    ("advise", "--model", "acme/none"),
    ("verify", "--url", "llm.example.com"),
]


@pytest.mark.parametrize("command", FAILURES, ids=" ".join)
def test_a_command_that_fails_prints_one_json_value_that_says_why(monkeypatch, tmp_path, command):
    monkeypatch.setattr(cli.common, "STATE", tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    result = run(*command, "--json")
    said = json.loads(result.stdout)
    assert said["exit_code"] == result.exit_code
    assert result.exit_code in (1, 2)
    [error] = said["errors"]
    # the words on stderr are the same, in the width of a terminal
    assert " ".join(error.split())[:60] in re.sub(r"[│\s]+", " ", result.stderr)


def test_every_command_with_json_is_tried_where_it_fails():
    # the laboratory's commands have tests of their own
    with_json = {name for name in COMMANDS if "--json" in run(name, "--help").output} - {"bench"}
    assert with_json == {command[0] for command in FAILURES}


def test_plan_json_of_several_stacks_has_plans_and_refusals(project):
    result = rayline(project, "plan", "--json")
    said = json.loads(result.stdout)
    assert result.returncode == said["exit_code"] == 2
    assert [one["stack"] for one in said["plans"]] == ["local"]
    assert list(said["refused"]) == ["broken"]
    assert "services.chat.nodes.zones" in said["refused"]["broken"]
    assert said["errors"] == list(said["refused"].values())


def test_stale_manifests_as_data_are_there_beside_a_stack_that_is_refused(project):
    said = json.loads(rayline(project, "render", "--check", "--json").stdout)
    assert (said["exit_code"], list(said["files"]), list(said["refused"])) == (2, ["local"], ["broken"])


def test_an_interrupted_command_says_so_as_data(monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(offline, "record_all", interrupt)
    result = run("plan", "--json")
    assert result.exit_code == json.loads(result.stdout)["exit_code"] == 130


def test_a_folder_that_cannot_be_written_to_is_said_in_words(monkeypatch):
    monkeypatch.setattr(cli.common, "STATE", pathlib.Path("/sys"))  # where not even root can make a folder
    result = run("up", "--json")
    assert result.exit_code == 1
    [error] = json.loads(result.stdout)["errors"]
    assert re.fullmatch(r"/sys/local: .*\. Fix: (give this user the right to it|use a folder that can be written to)", error)


@pytest.mark.parametrize("command", ["status", "status --json", "plan --help", "--help"])
@pytest.mark.parametrize("output", ["> /dev/full", ">&-", "2>&-", "| true"])
def test_an_output_that_takes_nothing_gives_no_traceback(command, output):
    line = f"{sys.executable} -m rayline_cli.cli {command} {output}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if output == "> /dev/full":
        assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device. Fix: free some space\n")


def test_a_reader_that_stops_early_ends_a_plan_quietly():
    line = f"{sys.executable} -m rayline_cli.cli plan | head -1"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""


def test_down_has_the_same_keys_here_as_for_a_cluster(monkeypatch, tmp_path):
    monkeypatch.setattr(cli.common, "STATE", tmp_path)
    said = json.loads(run("down", "--json").stdout)
    assert said == {"stack": "local", "command": "down", "exit_code": 0, "errors": [], "stopped": False}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--url", "https://a.example", "--stack", "local"], "--url needs no stack. Fix: leave out --stack"),
        (["--url", "llm.example.com"], "Fix: write it like https://llm.example.com"),
        (["--url", "http://[::1"], "Fix: write it like https://llm.example.com"),
        (["--url", "http://a.example:http"], "Fix: write it like https://llm.example.com"),
        (["--url", "https://a.example/?api_key=x"], "a key comes from $RAYLINE_API_KEY"),
        (["--service", "other"], "--service other: stack local has none. Fix: one of chat"),
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
    assert (service["asked"]["replicas"], service["asked"]["engine"]["stream_interval"]) == (4, 4)
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
