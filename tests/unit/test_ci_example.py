"""The pipeline in docs/examples: its commands exist, and no code of a stranger's pull request sees credentials."""

import re
from typing import Any

import pytest
import yaml

from rayline_cli.offline import stack_names
from rayline_docs import configuration, pages
from tests.conftest import ROOT

TEXT = (pages.DOCS / "examples" / "github-deploy.yml").read_text()
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
JOBS: dict[str, dict[str, Any]] = WORKFLOW["jobs"]
COMMANDS = {name: " ".join(names for names, _, _ in options) for name, _, options, _ in configuration.commands()}


def lines(job: str) -> list[str]:
    return [line for step in JOBS[job]["steps"] for line in step.get("run", "").splitlines()]


ALL_LINES = [line for job in JOBS for line in lines(job)]


def test_every_rayline_command_exists_with_its_options() -> None:
    found = [words for line in ALL_LINES for words in re.findall(r"\.venv/bin/rayline ([^|>;]*)", line)]
    assert len(found) >= 2
    for words in found:
        command, *rest = words.split()
        assert command in COMMANDS
        for option in (word for word in rest if word.startswith("-")):
            assert f"`{option}`" in COMMANDS[command], words


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("$(BIN)", ".venv/bin")
    targets = {target for line in makefile.splitlines() if ":" in line for target in line.partition(":")[0].split()}
    found = [target for line in ALL_LINES for target in re.findall(r"\bmake (\S+)", line)]
    assert found
    assert set(found) <= targets


def test_the_stack_and_the_policy_pack_exist() -> None:
    assert WORKFLOW["env"]["STACK"] in stack_names()
    for line in ALL_LINES:
        for pack in re.findall(r"--policy-pack (\S+)", line):
            assert (ROOT / pack / "PulumiPolicy.yaml").exists()


def test_the_cli_is_of_the_sdks_version() -> None:
    [pinned] = re.findall(r"^pulumi==(\S+)", (ROOT / "requirements" / "base.txt").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r'pulumi-version: "([^"]+)"', TEXT)) == {pinned}


def test_a_deployment_is_confirmed_alone_and_never_cancelled_by_the_next() -> None:
    up = JOBS["up"]
    assert any("rayline up" in line and "--yes" in line for line in lines("up"))
    assert up["concurrency"] == {"group": f"deploy-{WORKFLOW['env']['STACK']}", "cancel-in-progress": False}
    assert up["if"] == "github.event_name == 'push'"


@pytest.mark.parametrize("job", JOBS)
def test_a_strangers_pull_request_never_runs_with_credentials(job: str) -> None:
    text = yaml.safe_dump(JOBS[job])
    if "id-token" in text or "secrets." in text:
        assert "head.repo.full_name == github.repository" in JOBS[job]["if"] or "'push'" in JOBS[job]["if"]
        assert JOBS[job]["environment"]


def test_the_plan_of_a_fork_is_shown_without_writing_to_the_pull_request() -> None:
    steps = JOBS["plan"]["steps"]
    [comment] = [step for step in steps if "gh pr comment" in step.get("run", "")]
    assert "head.repo.full_name == github.repository" in comment["if"]
    assert any("GITHUB_STEP_SUMMARY" in line for line in lines("plan"))


def test_what_the_repository_has_to_give_is_named_in_the_page() -> None:
    page = (pages.DOCS / "ci.md").read_text()
    for name in re.findall(r"\b(?:vars|secrets)\.(\w+)", TEXT):
        assert f"`{name}`" in page


def test_no_value_of_a_pull_request_is_pasted_into_a_shell() -> None:
    assert not [line for line in ALL_LINES if "${{" in line]
