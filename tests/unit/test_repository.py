"""The repository's own files agree with each other: version, licence, hooks, container."""

import importlib.metadata
import json
import pathlib
import re
import sys
import tomllib

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from setuptools.config.pyprojecttoml import read_configuration

import rayline

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = [ROOT, ROOT / "components", ROOT / "benchmarks"]
PROJECTS = [folder / "pyproject.toml" for folder in FOLDERS]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_setuptools_finds_the_one_version_from_each_project_file(project: pathlib.Path) -> None:
    assert "version" not in tomllib.loads(project.read_text())["project"]
    assert read_configuration(project)["project"]["version"] == rayline.__version__


def test_the_installed_version_is_the_sources_version() -> None:
    installed = importlib.metadata.version("rayline-cli")
    assert installed == rayline.__version__, "touch pyproject.toml and run `make check`: the environment is older"


def test_the_newest_changes_and_the_shown_tags_are_of_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest
    assert newest[1] == rayline.__version__
    tags = re.findall(r"@v(\d[\w.]*)", (ROOT / "docs" / "platform-teams.md").read_text())
    assert set(tags) == {rayline.__version__}


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_each_distribution_carries_the_licence_that_it_names(project: pathlib.Path) -> None:
    metadata = tomllib.loads(project.read_text())["project"]
    assert metadata["license"] == "Apache-2.0"
    (name,) = metadata["license-files"]
    text = (project.parent / name).read_text()
    assert text == (ROOT / "LICENSE").read_text()
    assert text.split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert "END OF TERMS AND CONDITIONS" in text
    assert text.rstrip().endswith("limitations under the License.")


def test_hooks_come_from_this_repository_alone() -> None:
    assert [repository["repo"] for repository in HOOKS] == ["local"]


@pytest.mark.parametrize("hook", HOOKS[0]["hooks"], ids=lambda hook: hook["id"])
def test_a_hook_runs_an_installed_tool_as_make_check_does(hook: dict) -> None:
    check = MAKEFILE.split("\ncheck:")[1].split("\n\n")[0].replace("@$(BIN)/", ".venv/bin/")
    tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
    assert (pathlib.Path(sys.executable).parent / tool).exists()
    # what a hook may do otherwise: ruff mends files at a commit, in `make check` it only looks at them
    free = {"$(CODE)", "--fix", "--force-exclude"} | ({"--check"} if tool == "ruff" else set())
    commands = [[word for word in line.split() if word not in free] for line in check.splitlines()]
    assert [word for word in hook["entry"].split() if word not in free] in commands


def test_the_container_has_a_python_of_the_project_and_makes_what_the_makefile_knows() -> None:
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text()
    container = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    python = re.search(r"/python:\d+-(3\.\d+)-", container["image"])
    assert python
    wanted = tomllib.loads(PROJECTS[0].read_text())["project"]["requires-python"]
    assert python[1] in SpecifierSet(wanted)
    target = container["postCreateCommand"].removeprefix("make ").replace(".venv/bin", "$(BIN)")
    assert re.search(rf"^{re.escape(target)}(?= |:)", MAKEFILE, flags=re.MULTILINE), target
