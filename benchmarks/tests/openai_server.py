"""A stand-in for vLLM's server, and a tokenizer, for tests of load generators."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Streaming:
    """A server that streams chat completions of `tokens_out` tokens and records the requests."""

    def __init__(self, fails_at_turn: int | None = None, tokens_out: int = 4) -> None:
        self.requests: list[dict[str, Any]] = []
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if "messages" not in body:  # vLLM's bench calls /tokenize to compare both counts
                    self.send_error(401)
                    return
                turn = sum(message["role"] == "user" for message in body["messages"])
                with lock:
                    server.requests.append(
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
                pieces: list[dict[str, Any]] = [{"choices": [{"delta": {"content": f"w{n} "}}]} for n in range(tokens_out)]
                pieces.append({"choices": [], "usage": {"prompt_tokens": 30 + 9 * turn, "completion_tokens": tokens_out}})
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


def save_tokenizer(folder: Path) -> Path:
    """Write a tokenizer of 201 words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"word{n}": n for n in range(200)} | {"?": 200}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(folder)
    return folder
