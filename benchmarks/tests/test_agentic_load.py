"""The conversations of the agentic workload, against a server that streams like vLLM and remembers what it was asked."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="needs the `local` extra")
pytest.importorskip("transformers", reason="needs the `local` extra")

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


class Streaming:
    """An OpenAI-like server."""

    def __init__(self, fails_at_turn: int | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                turn = sum(message["role"] == "user" for message in body["messages"])
                with lock:
                    server.asked.append(
                        {
                            "session": self.headers["x-session-id"],
                            "key": self.headers["authorization"],
                            "turn": turn,
                            "body": body,
                        }
                    )
                if turn == fails_at_turn:
                    self.send_error(500)
                    return
                self.send_response(200)
                self.end_headers()
                pieces: list[dict[str, Any]] = [
                    {"choices": [{"delta": {"content": f"w{n} "}}]} for n in range(TOKENS_OUT)
                ]
                pieces.append(
                    {"choices": [], "usage": {"prompt_tokens": 30 + 9 * turn, "completion_tokens": TOKENS_OUT}}
                )
                for piece in pieces:
                    self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Streaming"]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class Mark:
    """Remembers how many requests the server had seen when the measured part began."""

    def __init__(self, server: Streaming) -> None:
        self._server = server

    def begin(self) -> None:
        self.before = len(self._server.asked)

    def end(self) -> None:
        self.until = len(self._server.asked)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"word{n}": n for n in range(200)} | {"?": 200}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(folder)
    return folder


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
    measured = server.asked[mark.before :]
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


def test_figures_are_told_for_each_turn(tokenizer):
    with Streaming().running() as server:
        result = agentic_load.run(job(server, tokenizer), Mark(server))
    assert [one["turn"] for one in result["by_turn"]] == [1, 2, 3]
    assert [one["input_tokens_mean"] for one in result["by_turn"]] == [39, 48, 57]
    assert all(one["completed"] == 4 for one in result["by_turn"])
    assert all(one["ttft_p50_ms"] > 0 for one in result["by_turn"])
    assert result["tpot_p50_ms"] >= 0


def test_the_same_seed_asks_the_same_and_another_one_does_not(tokenizer):
    def asked(seed: int) -> list[str]:
        with Streaming().running() as server:
            agentic_load.run(job(server, tokenizer, seed=seed), Mark(server))
        return sorted(json.dumps(one["body"]["messages"]) for one in server.asked)

    assert asked(7) == asked(7)
    assert not set(asked(7)) & set(asked(8))


def test_system_prompts_have_a_part_that_all_sessions_share(tokenizer):
    with Streaming().running() as server:
        agentic_load.run(job(server, tokenizer), Mark(server))
    systems = {one["body"]["messages"][0]["content"] for one in server.asked}
    assert len({" ".join(text.split()[:20]) for text in systems}) == 1
    assert len(systems) == len({one["session"] for one in server.asked})


def test_a_failed_turn_ends_its_conversation_and_all_that_was_left_of_it_counts_as_failed(tokenizer):
    with Streaming(fails_at_turn=2).running() as server:
        result = agentic_load.run(job(server, tokenizer, warmup=0), Mark(server))
    assert {one["turn"] for one in server.asked} == {1, 2}
    assert (result["completed"], result["failed"]) == (4, 8)
    assert "HTTP 500" in result["errors"][0]
