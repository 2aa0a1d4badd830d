"""The gate in front of a service: every request has to bring a key, on every path.

vLLM's own check covers /v1, /v2, /inference and /cohere only (vLLM 0.29, entrypoints/serve/middleware/authenticate.py);
/invocations and /tokenize, among others, are open. This ASGI middleware is put around the whole application with vLLM's
`middleware` argument. It passes a request on or answers 401, and never touches bodies or streams.

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

_BODY = json.dumps(
    {
        "error": {
            "message": "Missing or incorrect API key: send it as `Authorization: Bearer KEY`.",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
    }
).encode()
_HEADERS = (
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"www-authenticate", b"Bearer"),
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
        if scope["type"] == "lifespan" or self._keys.accept(_bearer(scope)):
            return self.app(scope, receive, send)
        return _refuse(scope, send)


def _bearer(scope):
    """The key that a request brings, b"" without one. ASGI gives header names in lower case."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            return key.strip() if scheme.lower() == b"bearer" else b""
    return b""


async def _refuse(scope, send):
    if scope["type"] == "websocket":
        # before the connection is accepted, so that the server answers the handshake with 403
        await send({"type": "websocket.close", "code": 1008})
        return
    # a list of its own: Serve adds headers to the one that it is given
    await send({"type": "http.response.start", "status": 401, "headers": list(_HEADERS)})
    await send({"type": "http.response.body", "body": _BODY})
