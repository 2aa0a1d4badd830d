"""The rules of words hold for pages and code, and each rule finds its mistake."""

import pytest
from typer.testing import CliRunner

from rayline_cli import cli
from rayline_docs import pages, words

LONG = "The plan sizes " + "every replica " * 11 + "twice."


def test_pages_and_clean_folders_keep_the_rules() -> None:
    assert words.violations() == []


def test_a_violation_fails_the_check_and_is_listed_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "pages", dict)
    monkeypatch.setattr(words, "violations", lambda: ["docs/ci.md:3: 'nobody': write the role"])
    check = CliRunner().invoke(cli.app, ["docs", "--check"])
    assert (check.exit_code, check.stdout) == (1, "docs/ci.md:3: 'nobody': write the role\n")
    assert "Fix: rewrite them" in check.stderr


@pytest.mark.parametrize("page", [LONG, f"Short.\n\n- Short.\n- {LONG}\n", f"1. [{LONG[:-1]}](security.md).", f"Short. {LONG}"])
def test_a_long_sentence_is_a_violation(page: str) -> None:
    (line,) = words.in_page(page)
    assert "26 words, at most 25" in line


@pytest.mark.parametrize(
    "page",
    [
        f"# {LONG}",
        f"| {LONG} |",
        f"```sh\n{LONG}\n```",
        f"<!-- generated: keys -->\n\n{LONG}\n\n<!-- end -->",
        f"The command is `{LONG}`.",
        "Every replica. " * 26,
        "Every replica; " * 26,
    ],
    ids=["heading", "table", "code", "generated part", "code span", "two sentences", "semicolon"],
)
def test_headings_tables_code_and_generated_parts_may_be_long(page: str) -> None:
    assert list(words.in_page(page)) == []


def test_a_violation_names_its_line() -> None:
    assert [line.partition(":")[0] for line in words.in_page(f"# Title\n\n```\ncode\n```\n\n- Short.\n- {LONG}\n")] == ["8"]


@pytest.mark.parametrize(
    "text",
    [
        '"a key of somebody"',
        '"""the plan\n    knows the GPU"""',
        '("the kit "\n    f"knows it")',
        "None  # it is\n# told twice",
    ],
)
def test_a_refused_phrase_is_found_across_line_breaks(text: str) -> None:
    (line,) = words.in_code(f'"""Module."""\n\nTEXT = {text}\n')
    assert line.startswith("3: ")


@pytest.mark.parametrize(
    "docstring", ["The price.", "Whether it fits.", "(name, price) of each.", "Returns the price.", "KV cache."]
)
def test_a_functions_docstring_starts_with_a_verb(docstring: str) -> None:
    (line,) = words.in_code(f'"""Module."""\ndef price() -> int:\n    """{docstring}"""\n')
    assert line.startswith("2: the docstring of price() starts with")


def test_public_names_without_a_docstring_are_violations() -> None:
    code = "class Pool:\n    def size(self): ...\n    def _own(self): ...\n    @property\n    def name(self): ...\n"
    assert list(words.in_code(code)) == [
        "1: the module has no docstring",
        "1: class Pool has no docstring",
        "2: size() has no docstring",
    ]


def test_the_sentence_of_a_policy_rule_is_its_docstring() -> None:
    assert list(words.in_code('"""Module."""\n@rule("Pods cannot become root")\ndef pods_are_not_root(): ...\n')) == []


def test_tests_need_no_docstring() -> None:
    assert list(words.in_code("def test_a_pool_has_a_zone(): ...\n", tests=True)) == []


@pytest.mark.parametrize("word", ["Return", "Process", "Bring", "Pass"])
def test_a_verb_is_a_verb(word: str) -> None:
    assert words.is_verb(word)
