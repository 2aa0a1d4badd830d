"""The conversations of the agentic workload, against a server that streams like vLLM and records the requests."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the `local` extra")
pytest.importorskip("transformers", reason="needs the `local` extra")

from openai_server import Streaming, save_tokenizer

from rayline_bench import agentic_load

TURNS, TOKENS_OUT = 3, 4
ARGUMENTS = [
    "--turns",
    str(TURNS),
    "--shared-tokens",
    "20",
    "--own-tokens",
    "10",
    "--tokens-in",
    "5",
    "--tokens-out",
    str(TOKENS_OUT),
]


class Mark:
    """Remembers how many requests the server had seen when the measured part began."""

    def __init__(self, server: Streaming) -> None:
        self._server = server

    def begin(self) -> None:
        self.before = len(self._server.requests)

    def end(self) -> None:
        self.until = len(self._server.requests)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def job(server: Streaming, tokenizer: Path, **changes: Any) -> dict[str, Any]:
    return {
        "url": server.url,
        "model": "tiny",
        "tokenizer": str(tokenizer),
        "concurrency": 2,
        "requests": 12,
        "warmup": 2,
        "seed": 7,
        "arguments": ARGUMENTS,
    } | changes


def test_a_session_sends_its_whole_conversation_under_one_name(tokenizer, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with Streaming().running() as server:
        mark = Mark(server)
        result = agentic_load.run(job(server, tokenizer), mark)
    measured = server.requests[mark.before :]
    sessions = {one["session"] for one in measured}
    assert (mark.before, mark.until, len(sessions)) == (2, 14, 4)
    assert {one["key"] for one in measured} == {"Bearer sk-test"}
    for name in sessions:
        turns = [one["body"]["messages"] for one in measured if one["session"] == name]
        assert [len(messages) for messages in turns] == [2, 4, 6]
        assert turns[1][:2] == turns[0]
        assert turns[1][2] == {"role": "assistant", "content": "w0 w1 w2 w3 "}
        assert turns[2][:4] == turns[1]
    assert (result["completed"], result["failed"], result["output_tokens"]) == (12, 0, 12 * TOKENS_OUT)


def test_each_turn_has_figures_of_its_own(tokenizer):
    with Streaming().running() as server:
        result = agentic_load.run(job(server, tokenizer), Mark(server))
    assert [one["turn"] for one in result["by_turn"]] == [1, 2, 3]
    assert [one["input_tokens_mean"] for one in result["by_turn"]] == [39, 48, 57]
    assert all(one["completed"] == 4 for one in result["by_turn"])
    assert all(one["ttft_p50_ms"] > 0 for one in result["by_turn"])
    assert result["tpot_p50_ms"] >= 0


def test_equal_seeds_send_equal_prompts_and_other_seeds_send_others(tokenizer):
    def sent(seed: int) -> list[str]:
        with Streaming().running() as server:
            agentic_load.run(job(server, tokenizer, seed=seed), Mark(server))
        return sorted(json.dumps(one["body"]["messages"]) for one in server.requests)

    assert sent(7) == sent(7)
    assert not set(sent(7)) & set(sent(8))


def test_system_prompts_have_a_part_that_all_sessions_share(tokenizer):
    with Streaming().running() as server:
        agentic_load.run(job(server, tokenizer), Mark(server))
    systems = {one["body"]["messages"][0]["content"] for one in server.requests}
    assert len({" ".join(text.split()[:20]) for text in systems}) == 1
    assert len(systems) == len({one["session"] for one in server.requests})


def test_a_failed_turn_ends_its_conversation_and_the_turns_after_it_count_as_failed(tokenizer):
    with Streaming(fails_at_turn=2).running() as server:
        result = agentic_load.run(job(server, tokenizer, warmup=0), Mark(server))
    assert {one["turn"] for one in server.requests} == {1, 2}
    assert (result["completed"], result["failed"]) == (4, 8)
    assert "HTTP 500" in result["errors"][0]
