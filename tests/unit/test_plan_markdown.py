"""The plan as a comment: everything that the terminal shows, as text that Markdown leaves alone, and never too long."""

import dataclasses
import io
import json
import re
from html import unescape

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from rayline_cli import offline
from rayline_cli.offline import Program
from rayline_cli.plan_cards import stack_card
from rayline_cli.plan_markdown import LIMIT, bounded, escaped, markdown
from rayline_cli.plan_view import program_view


def shown(text: str) -> str:
    """What a reader sees of a comment."""
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)
    return unescape(re.sub(r"<[^>]+>", "", html))


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def labelled() -> Program:
    """A stack with labels and variables of its own."""
    values, secret = offline.read_stack("dev-l4")
    cluster, services = (json.loads(values[f"rayline:{name}"]) for name in ("cluster", "services"))
    cluster["labels"] = {"team": "search", "cost": "llm"}
    services["qwen"]["pods"] = {"env": {"NCCL_DEBUG": "INFO", "VLLM_LONG": "x" * 100}}
    changed = {"rayline:cluster": json.dumps(cluster), "rayline:services": json.dumps(services)}
    return offline.record("dev-l4", config=(values | changed, secret))


def test_the_labels_and_variables_that_a_stack_sets_are_shown_in_a_terminal_and_in_a_comment(labelled) -> None:
    in_terminal = Console(width=200, record=True, file=io.StringIO())
    in_terminal.print(program_view(labelled, plain=True))
    for text in (in_terminal.export_text(), shown(markdown([labelled]))):
        assert "labels team=search, cost=llm" in text
        assert re.search(r"env +NCCL_DEBUG=INFO, VLLM_LONG \(set\)", words(text))
        assert "xxxx" not in text
        # what the kit sets is in docs/configuration.md
        assert "RAY_SERVE_ENABLE_HA_PROXY" not in text


def test_a_value_that_may_hold_a_secret_is_never_shown(labelled) -> None:
    [service] = labelled.plan.services
    pods = service.asked.pods.model_copy(update={"env": {"DB_PASSWORD": "hunter2", "NCCL_DEBUG": "INFO"}})
    secret = dataclasses.replace(service, asked=service.asked.model_copy(update={"pods": pods}))
    plan = dataclasses.replace(labelled.plan, services=(secret,))
    text = shown(markdown([dataclasses.replace(labelled, plan=plan)]))
    assert "DB_PASSWORD (set)" in text
    assert "hunter2" not in text


def test_a_stack_without_labels_and_variables_has_no_empty_lines_for_them(stack) -> None:
    card = stack_card(stack("dev-l4"))
    assert not [fact for fact in card.facts if fact.startswith("labels")]
    assert "env" not in dict(card.services[0].rows)


def test_a_comment_has_all_that_the_card_in_a_terminal_has(program) -> None:
    card, seen = stack_card(program), words(shown(markdown([program])))
    for text in [card.stack, card.where, card.cost, *card.facts, *card.warnings]:
        assert words(text) in seen
    for service in card.services:
        assert words(service.title) in seen
        for label, text in service.rows:
            assert f"{label} {words(text)}" in seen


def test_each_stack_is_a_heading_and_each_service_a_table(stack) -> None:
    text = markdown([stack("dev-l4"), stack("local")])
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == ["dev-l4", "local"]
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<table>") == 2
    assert "<li>qwen: " in html


@pytest.mark.parametrize(
    "text",
    ["a | b", "*a* _b_ `c` ~~d~~", "[a](b) <img src=x>", "$1 and $2", "&amp;", "a\\b", "# a", "@team look", "#12", "x__y__z"],
)
def test_a_text_is_shown_as_it_is_in_a_cell(text: str) -> None:
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"| h |\n|---|\n| {escaped(text)} |\n")
    [cell] = re.findall(r"<td>(.*)</td>", html)
    assert "<" not in cell
    assert unescape(cell) == text


@pytest.mark.parametrize("text", ["@team", "owner/name and #12", "$5 to $6"])
def test_nobody_is_notified_and_nothing_becomes_a_link_or_a_formula(text: str) -> None:
    assert not re.search(r"(?<![\w\\])[@#$](?=\w)", escaped(text).replace("&#", ""))


def test_a_line_end_cannot_leave_its_cell() -> None:
    assert "\n" not in escaped("a\nb\r\n| c")


def test_a_comment_is_never_longer_than_github_takes(stack) -> None:
    programs = [stack("prod-b200")] * 60
    assert sum(len(markdown([one])) for one in programs) > LIMIT
    text = markdown(programs)
    assert len(text) <= LIMIT
    assert re.search(r"_\d+ more lines do not fit into a comment: `rayline plan` shows them\._\n$", text)


def test_what_decides_is_kept_when_there_is_little_room(stack) -> None:
    text = markdown([stack("prod-l4")], limit=1500)
    assert len(text) <= 1500
    card = stack_card(stack("prod-l4"))
    for wanted in [card.stack, card.cost, *card.warnings]:
        assert words(wanted) in words(shown(text))


@pytest.mark.parametrize("limit", [100, 101, 150, 1000])
def test_lines_are_kept_whole(limit: int) -> None:
    lines = ["x" * 40] * 50
    text = bounded(lines, limit)
    assert len(text) <= limit
    assert {line for line in text.splitlines() if line.startswith("x")} <= {"x" * 40}


def test_what_fits_is_left_as_it_is() -> None:
    assert bounded(["a", "b"], 4) == "a\nb\n"
