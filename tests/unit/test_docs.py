"""The documentation is complete, current and honest: what is generated is fresh, what is named exists."""

import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

import rayline
from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.runtimes import RUNTIMES
from rayline.facts.serve_flags import SERVE_FLAGS
from rayline.facts.variables import NO_EFFECT, OWNED
from rayline.models.catalog import shipped_models
from rayline.schema.read import PROVIDER_KEYS
from rayline.schema.texts import field_texts
from rayline_bench.tables import prose
from rayline_cli import cli
from rayline_cli.offline import stack_names
from rayline_cli.stack_names import PROJECT_ROOT as ROOT
from rayline_docs import configuration, high_throughput, pages, words
from rayline_docs.keys import places

MODELS = shipped_models()

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob(".github/*.md"), *ROOT.glob("benchmarks/**/*.md"), *pages.DOCS.rglob("*.md")])
COMMANDS = {name: options for name, _, options, _ in configuration.commands()}
# Folders and files of this repository that a page may name.
OWN_PATH = re.compile(
    r"(?:components|stacks|docs|tests|manifests|images|requirements|policy|benchmarks|tools|\.ci)/[\w./-]*|rayline/[\w/]*\.py"
    r"|Pulumi\.yaml|Makefile|pyproject\.toml|__main__\.py"
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def text_of(name: str) -> str:
    return (pages.DOCS / name).read_text()


def code_of(page: pathlib.Path) -> Iterator[str]:
    """What a page shows as typed: spans, and the lines of blocks that are no diagram."""
    text = page.read_text()
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        if language != "mermaid":
            yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


# --- current and complete ---------------------------------------------------------------------------------------------


def test_the_generated_parts_are_current() -> None:
    assert list(pages.stale()) == [], "run `make docs` and commit the result"


def test_a_stale_page_fails_the_check_and_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "pages", lambda: {tmp_path / "models.md": "something else"})
    monkeypatch.setattr(words, "violations", list)
    stale = CliRunner().invoke(cli.app, ["docs", "--check"])
    assert (stale.exit_code, stale.stdout) == (1, "stale: models.md\n")
    assert CliRunner().invoke(cli.app, ["docs"]).stdout == "written: models.md\n"
    assert CliRunner().invoke(cli.app, ["docs", "--check"]).exit_code == 0


def test_a_marker_that_nothing_generates_is_refused() -> None:
    with pytest.raises(pages.DocsError, match="nothing generates 'prizes'"):
        pages.filled("hardware.md", "<!-- generated: prizes -->\n<!-- end -->")


def test_a_part_without_a_place_is_refused() -> None:
    with pytest.raises(pages.DocsError, match=r"no place for .*logs"):
        pages.filled("models.md", "# Models\n")


def test_every_difference_from_upstream_is_a_row_with_its_reason(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "differences.yaml").write_text('"*.containers[0].name": said\n  out loud\nspec.rayVersion: another\n')
    monkeypatch.setattr(high_throughput, "UPSTREAM_DIFFERENCES", tmp_path / "differences.yaml")
    assert pages.PARTS["upstream-differences.md"]["upstream"]().splitlines()[2:] == [
        "| `*.containers[0].name` | said out loud |",
        "| `spec.rayVersion` | another |",
    ]


def test_every_configuration_key_is_documented() -> None:
    page = text_of("configuration.md")
    for path, arguments in places():
        assert not path or f"### `{path}`\n" in page
        for name, text in field_texts(arguments).items():
            key = PROVIDER_KEYS.get(name, name) if not path else name
            if (path, name) != ("hugging_face", "token"):
                assert re.search(rf"^\| `{re.escape(key)}` \|.*{re.escape(text[:40])}", page, re.MULTILINE), (path, name)


def test_every_command_is_documented_and_has_help() -> None:
    page = text_of("configuration.md")
    for name, text, options, _ in configuration.commands():
        assert text, f"rayline {name} has no help"
        assert f"### `rayline {name}`" in page
        assert prose(text) in page
        for option, _, meaning in options:
            assert meaning, f"rayline {name} {option} has no help"


@pytest.mark.parametrize("name", [*SERVE_FLAGS, *OWNED, *NO_EFFECT])
def test_every_serve_variable_is_documented(name: str) -> None:
    assert f"`{name}`" in text_of("configuration.md")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_in_both_tables(name: str) -> None:
    # the second table says what fits a card, so it lists what a cluster can serve
    assert text_of("models.md").count(f"| `{name}`") == 1 + MODELS[name].at_hugging_face


@pytest.mark.parametrize("name", [*stack_names(), *RUNTIMES])
def test_every_stack_and_runtime_is_documented(name: str) -> None:
    assert name in text_of("configuration.md")


@pytest.mark.parametrize("machine", [m.name for spec in ACCELERATORS.values() for m in spec.machines])
def test_every_machine_type_is_documented(machine: str) -> None:
    assert f"`{machine}`" in text_of("hardware.md")


def test_every_class_of_the_component_package_is_in_its_table() -> None:
    table = text_of("platform-teams.md").partition("| Class | What it makes |")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.partition(" | ")[0])]
    assert sorted(listed) == sorted(rayline.__all__)


def test_every_stack_says_what_it_is() -> None:
    assert [name for name, text in configuration.stacks() if not text.endswith(".")] == []


# --- what is named exists ---------------------------------------------------------------------------------------------


@every_page
def test_every_relative_link_leads_somewhere(page: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def anchors(page: pathlib.Path) -> set[str]:
    """Anchors as GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_file_that_a_page_names_exists(page: pathlib.Path) -> None:
    for code in code_of(page):
        for path in re.findall(rf"(?<![\w./@<-])(?:{OWN_PATH.pattern})", code):
            if not re.search(r"<|team-a", code) and "@v" not in code:
                assert (ROOT / path).exists(), f"{path} in {code!r}"


@every_page
def test_every_command_that_a_page_names_is_real(page: pathlib.Path) -> None:
    for code in code_of(page):
        for typed in re.findall(r"(?:^|[(;&|])\s*rayline ([a-z][^#|;&)]*)", code):
            command = next((name for name in COMMANDS if f"{typed} ".startswith(f"{name} ")), None)
            assert command, code
            known = " ".join(names for names, _, _ in COMMANDS[command])
            for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", typed):
                assert f"`{option}`" in known, code


@every_page
def test_no_page_starts_a_python_module(page: pathlib.Path) -> None:
    """Commands are `rayline ...` or `make ...`. The changes name what there was before."""
    if page.name != "CHANGELOG.md":
        assert [code for code in code_of(page) if re.search(r"python3? -m", code)] == []


@every_page
def test_every_name_in_a_python_example_is_defined(page: pathlib.Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE):
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "-"]
        found = subprocess.run(command, input=block, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout


@every_page
def test_every_make_target_that_a_page_names_is_real(page: pathlib.Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for code in code_of(page):
        for target in re.findall(r"(?<!\S)make ([a-z-]+)\b", code):
            assert target in targets, code


@every_page
def test_every_pulumi_output_that_a_page_reads_is_exported(page: pathlib.Path) -> None:
    exported = set(re.findall(r'pulumi\.export\("(\w+)"', (ROOT / "__main__.py").read_text()))
    for name in re.findall(r"pulumi stack output (\w+)", page.read_text()):
        assert name in exported


# --- honest -----------------------------------------------------------------------------------------------------------

# A figure that others published, and what has to stand beside it so that nobody takes it for this kit's.
CONTEXTS = {
    r"11\.1 ?x": "echo",
    r"88 ?%": "echo",
    r"8\.9 ?x": "without a model",
    r"2\.86 ?x": "gpt-oss-20b",
    r"24(?:\.8)? ?x": "unbatched",
    r"(?<![\d.])5x": "not published",
    r"(?<![\d.])8x\b": "not published",
}


@every_page
def test_no_published_figure_stands_without_its_context(page: pathlib.Path) -> None:
    for paragraph in re.split(r"\n\s*\n|\n(?=\|)", page.read_text()):
        for figure, context in CONTEXTS.items():
            if re.search(figure, paragraph):
                assert context in paragraph, f"{figure} in {paragraph!r}"
