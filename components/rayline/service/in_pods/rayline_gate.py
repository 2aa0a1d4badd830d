"""The gate in front of a service: every request has to bring a key, on every path; a browser's preflight alone has none.

vLLM's own check covers /v1, /v2, /inference and /cohere only (vLLM 0.29, entrypoints/serve/middleware/authenticate.py);
/invocations and /tokenize, among others, are open. This ASGI middleware is put around the whole application with vLLM's
`middleware` argument. It passes a request on or answers 401, and never touches bodies or streams.

A key comes as `Authorization: Bearer KEY` or as `x-api-key: KEY`. Clients of OpenAI and Cohere send the first. Those of Anthropic,
for /v1/messages, send the second (Python SDK 1.17 and its REST examples) or the first (Python SDK 2.0). One valid key is enough,
whatever else a request brings: older Anthropic clients send both headers when both of their variables are set (Python SDK 0.80),
and a proxy such as Google's IAP takes `Authorization` for a token of its own. All keys grant the same, so a second one adds nothing.

A browser's preflight brings no key and passes: OPTIONS with Origin and Access-Control-Request-Method. vLLM's CORSMiddleware is inside
the gate and answers exactly these requests itself (starlette/middleware/cors.py, __call__; vLLM 0.29,
entrypoints/serve/middleware/register.py). No route sees them. Any other OPTIONS needs a key. A 401 does not pass CORSMiddleware, so
it carries Access-Control-Allow-Origin by itself: without it a page sees a network error. It says the same to everybody.

No path is open. HAProxy answers /-/healthz and /-/routes itself, and a replica answers HAProxy's own health checks before
its application is asked (ray/serve/_private/replica.py, _direct_ingress_asgi), so neither needs one.

Keys are the files of a folder, one key each, and may change while requests run: a mounted Secret, or what plays it. The
standard library only: this file is handed to pods as it is.
"""

import hashlib
import hmac
import json
import logging
import os
import time

FOLDER_VARIABLE = "RAYLINE_KEYS_FOLDER"
"""Variable with the folder of the keys."""
SECONDS_BETWEEN_LOOKS = 1.0
"""How long a changed file may stay unnoticed."""

_MESSAGE = "Missing or incorrect API key. Fix: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`."
_OPENAI_BODY = json.dumps(
    {"error": {"message": _MESSAGE, "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}}
).encode()
_ANTHROPIC_BODY = json.dumps({"type": "error", "error": {"type": "authentication_error", "message": _MESSAGE}}).encode()
_ANTHROPIC_PATH = "/v1/messages"
"""vLLM's routes for Anthropic's clients are this one and those below it (entrypoints/anthropic/api_router.py)."""
_HEADERS = (
    (b"content-type", b"application/json"),
    (b"www-authenticate", b"Bearer"),
    (b"access-control-allow-origin", b"*"),
)
_log = logging.getLogger("rayline.gate")


class Keys:
    """The accepted keys: the contents of a folder's files, read again when they change. Unreadable or empty is no key."""

    def __init__(self, folder, clock=time.monotonic):
        self._folder = folder
        self._clock = clock
        self._digests = ()
        self._seen = None
        self._next_look = -1.0

    def accept(self, key):
        """Whether `key` (bytes) is one of them. Takes the same time for a nearly right key as for a wrong one."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + SECONDS_BETWEEN_LOOKS
            self._look()
        digest = hashlib.sha256(key).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found

    def _look(self):
        files, seen = [], []
        try:
            for name in sorted(os.listdir(self._folder)):
                # kubelet keeps the versions of a Secret in hidden folders and swaps a symbolic link
                if not name.startswith("."):
                    path = os.path.join(self._folder, name)
                    about = os.stat(path)
                    files.append(path)
                    seen.append((name, about.st_ino, about.st_mtime_ns, about.st_size))
        except OSError as error:
            seen = str(error)
        if seen == self._seen:
            return
        self._seen = seen
        keys = [key for key in map(_read, files) if key]
        self._digests = tuple(hashlib.sha256(key).digest() for key in keys)
        if not keys:
            _log.error("no API key can be read in %s: every request is refused", self._folder)


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read().strip()
    except OSError:
        return b""


class ApiKeyGate:
    """Pure ASGI middleware. Raises KeyError at start without FOLDER_VARIABLE, so that a mistake never opens the service."""

    def __init__(self, app):
        self.app = app
        self._keys = Keys(os.environ[FOLDER_VARIABLE])

    def __call__(self, scope, receive, send):
        # returns the application's own awaitable: no coroutine of this class lives beside a stream
        if scope["type"] == "lifespan" or _is_preflight(scope) or any(map(self._keys.accept, _keys(scope))):
            return self.app(scope, receive, send)
        return _refuse(scope, send)


def _keys(scope):
    """Yields each key that a request brings. ASGI gives header names in lower case."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield key.strip()
        elif name == b"x-api-key":
            yield value.strip()


def _is_preflight(scope):
    """Tells whether CORSMiddleware answers the request itself: its own condition, word for word."""
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return False
    return {b"origin", b"access-control-request-method"} <= {name for name, _ in scope["headers"]}


async def _refuse(scope, send):
    if scope["type"] == "websocket":
        # before the connection is accepted, so that the server answers the handshake with 403
        await send({"type": "websocket.close", "code": 1008})
        return
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    body = _ANTHROPIC_BODY if f"{path}/".startswith(f"{_ANTHROPIC_PATH}/") else _OPENAI_BODY
    # a list of its own: Serve adds headers to the one that it is given
    headers = [*_HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
