"""What Ray and Serve give up after a time-out of their own is tried once more, and nothing else is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("psutil", reason="needs the `local` extra")

from rayline_cli.clients.serve import ServeApi
from rayline_cli.local import diagnosis, memory
from rayline_cli.local.bring_up import BringUp
from rayline_cli.local.deploying import Deploying
from rayline_cli.local.failures import LocalRuntimeError, RayGaveUp
from rayline_cli.local.single_node import read
from tests.http_answers import Answering
from tests.unit.test_translate import ray_service

SLOW = "Traceback ...\nTimeoutError: HTTP proxies not available after 60s."
WRONG = "Traceback ...\nKeyError: 'llm_configs'"


class Notes:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, name: str, detail: str) -> None: ...

    def done(self, name: str, seconds: float, detail: str) -> None: ...

    def note(self, text: str) -> None:
        self.lines.append(text)


class Dashboard(ThreadingHTTPServer):
    """Answers each PUT with the next of `puts`, and every GET with nothing deployed."""

    def __init__(self, puts: list[tuple[int, str]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.puts = puts
        self.taken: list[Any] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(Answering):
    server: Dashboard

    def do_GET(self) -> None:
        self.answer(200, json.dumps({"applications": {}}))

    def do_PUT(self) -> None:
        self.server.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(*self.server.puts.pop(0))


@pytest.fixture
def put() -> Iterator[Any]:
    """Sends a configuration to a dashboard that gives these answers: (what it took, what was noted)."""
    servers: list[Dashboard] = []

    def send(*answers: tuple[int, str]) -> tuple[list[Any], list[str]]:
        server = Dashboard(list(answers))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        notes = Notes()
        session: Any = SimpleNamespace(supervisor=lambda: object())
        translation: Any = SimpleNamespace(serve_config={"applications": [1]})
        deploying = Deploying(session, ServeApi(server.url, None), translation, notes, watch=None)
        deploying.put(deploying.phase("deployments"))
        return server.taken, notes.lines

    yield send
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_configuration_is_sent_once(put):
    assert put((200, "")) == ([{"applications": [1]}], [])


def test_it_is_sent_once_more_when_serves_proxies_took_too_long(put):
    taken, notes = put((500, SLOW), (200, ""))
    assert taken == [{"applications": [1]}] * 2
    assert notes == ["Serve gave up (TimeoutError: HTTP proxies not available after 60s.): sending serveConfigV2 once more"]


def test_it_is_not_sent_a_third_time(put):
    with pytest.raises(LocalRuntimeError, match="did not take serveConfigV2: TimeoutError: HTTP proxies"):
        put((500, SLOW), (500, SLOW), (200, ""))


@pytest.mark.parametrize("answer", [(500, WRONG), (400, "ValidationError: route_prefix")])
def test_another_failure_is_told_at_once(put, answer):
    with pytest.raises(LocalRuntimeError, match=r"llm_configs|route_prefix"):
        put(answer, (200, ""))


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Any:
    """A start whose attempts fail with these errors, and then succeed: (what it returned, what was noted)."""

    def begin(*errors: Exception) -> tuple[Any, list[str]]:
        left = list(errors)

        def once(*_: Any) -> Any:
            if left:
                raise left.pop(0)
            return "running", "starting"

        monkeypatch.setattr(BringUp, "_start_once", once)
        notes = Notes()
        monkeypatch.setattr(memory, "shortage", lambda *_: "")
        return BringUp(read(ray_service()), {}, tmp_path, tmp_path, {}, notes).run(), notes.lines

    return begin


def test_a_start_that_ray_gave_up_is_tried_once_more_and_told(start):
    found, notes = start(RayGaveUp("Ray ended unexpectedly. Its last words:\nThe current node timed out"))
    assert found == ("running", "starting")
    assert len(notes) == 1
    assert "The current node timed out" in notes[0]
    assert "starting it once more" in notes[0]


def test_a_start_is_not_tried_a_third_time(start):
    with pytest.raises(RayGaveUp, match="second"):
        start(RayGaveUp("first"), RayGaveUp("second"))


def test_a_start_that_failed_for_another_reason_is_not_tried_again(start):
    with pytest.raises(LocalRuntimeError, match="the port is taken"):
        start(LocalRuntimeError("the port is taken"), RayGaveUp("never"))


@pytest.mark.parametrize(
    ("last_words", "kind"),
    [
        ("Exception: The current node timed out during startup.", RayGaveUp),
        ("ValueError: ray_client_server_port must be an integer", LocalRuntimeError),
    ],
)
def test_rays_last_words_say_which_of_them_it_is(last_words: str, kind: type, tmp_path):
    (tmp_path / "out").write_text(last_words)
    session: Any = SimpleNamespace(supervisor=lambda: None, output=tmp_path / "out", log_folder=tmp_path)
    with pytest.raises(LocalRuntimeError, match=last_words[:20]) as raised:
        diagnosis.check_alive(session)
    assert type(raised.value) is kind
