"""A handler for servers that stand in for an API on this machine."""

from http.server import BaseHTTPRequestHandler
from typing import Any


class Answering(BaseHTTPRequestHandler):
    """Sends whole answers, and writes nothing to the terminal."""

    def answer(self, status: int, body: str | bytes = b"", **headers: str) -> None:
        """Send one answer; `_` in a header's name stands for a dash."""
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...
