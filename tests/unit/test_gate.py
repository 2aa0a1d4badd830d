"""The gate in front of a service: a request without a valid key gets no further, on whatever path."""

import ast
import asyncio
import importlib
import inspect
import itertools
import json
import os
import pathlib
import sys

import pytest

from rayline.service import in_pods
from rayline.service.api_key import (
    ADAPTER_GATE_MIDDLEWARE,
    GATE_FOLDER,
    GATE_MIDDLEWARE,
    GATE_SOURCE,
    KEYS_VARIABLE,
    PROXY_GATE,
    gate_config_map,
    gate_name,
)
from rayline.service.in_pods import rayline_gate
from rayline.service.in_pods.rayline_gate import SECONDS_BETWEEN_LOOKS, ApiKeyGate, Keys

PATHS = [
    "/v1/models",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/classify",
    "/invocations",
    "/tokenize",
    "/health",
    "/metrics",
    "/",
    "//invocations",
    "",
]


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for part in (b"one ", b"two"):
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    (tmp_path / "api_key").write_text("sk-now")
    (tmp_path / "previous_api_key").write_text("sk-before\n")
    monkeypatch.setenv(KEYS_VARIABLE, str(tmp_path))
    return tmp_path


def ask(gate, headers=(), path="/v1/models", kind="http", method="POST") -> list[dict]:
    """What the server is told to send for one request."""
    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    async def receive():
        raise AssertionError("the gate never reads a request")

    asyncio.run(gate({"type": kind, "method": method, "path": path, "headers": list(headers)}, receive, send))
    return sent


def bearer(key: str, scheme: str = "Bearer") -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", f"{scheme} {key}".encode())]


def status(sent: list[dict]) -> int:
    return sent[0]["status"]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_is_answered_without_a_key_and_every_path_with_one(folder, path):
    gate = ApiKeyGate(application)
    assert status(ask(gate, path=path)) == 401
    assert status(ask(gate, bearer("sk-now"), path)) == 200
    assert status(ask(gate, bearer("sk-before"), path)) == 200


@pytest.mark.parametrize(
    "headers",
    [
        bearer("sk-no"),
        bearer("sk-now-and-more"),
        bearer(""),
        bearer("sk-now", "Basic"),
        [(b"authorization", b"sk-now")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"x-api-key", b"sk-no")],
        [(b"x-api-key", b"")],
        [(b"x-api-key", b"Bearer sk-now")],
        [(b"api-key", b"sk-now")],
        [(b"x-goog-api-key", b"sk-now")],
        [(b"proxy-authorization", b"Bearer sk-now")],
        [(b"cookie", b"x-api-key=sk-now")],
        [*bearer("sk-no"), (b"x-api-key", b"sk-no")],
    ],
)
def test_what_is_not_a_valid_key_in_its_header_is_refused(folder, headers):
    for path in ("/v1/models", "/v1/messages"):
        assert status(ask(ApiKeyGate(application), headers, path)) == 401


@pytest.mark.parametrize("key", ["sk-now", "sk-before", " sk-now "])
def test_a_key_is_taken_as_anthropics_clients_send_it(folder, key):
    for path in PATHS:
        assert status(ask(ApiKeyGate(application), [(b"x-api-key", key.encode())], path)) == 200


@pytest.mark.parametrize(
    "headers",
    [
        [*bearer("a-token-of-the-proxy"), (b"x-api-key", b"sk-now")],
        [(b"x-api-key", b"sk-no"), *bearer("sk-now")],
        [*bearer("sk-no"), *bearer("sk-now")],
        [*bearer("user:password", "Basic"), (b"x-api-key", b"sk-before")],
    ],
)
def test_one_valid_key_is_enough_beside_others(folder, headers):
    assert status(ask(ApiKeyGate(application), headers)) == 200


def test_the_scheme_may_be_written_in_any_case(folder):
    assert status(ask(ApiKeyGate(application), bearer("sk-now", "bearer"))) == 200


OPENAI = ["/v1/models", "/v1/chat/completions", "/v1/message", "/v1/messages_of_others", "/tokenize", ""]
ANTHROPIC = ["/v1/messages", "/v1/messages/", "/v1/messages/count_tokens", "/v1/messages/render"]


@pytest.mark.parametrize("path", [*OPENAI, *ANTHROPIC])
def test_a_refusal_has_the_shape_that_the_clients_of_its_path_read(folder, path):
    start, body = ask(ApiKeyGate(application), path=path)
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(body["body"])).encode()
    assert (headers[b"content-type"], headers[b"www-authenticate"]) == (b"application/json", b"Bearer")
    answer = json.loads(body["body"])
    if path in ANTHROPIC:
        assert (answer.keys(), answer["type"]) == ({"type", "error"}, "error")
        assert (answer["error"].keys(), answer["error"]["type"]) == ({"type", "message"}, "authentication_error")
    else:
        assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert "Authorization: Bearer KEY" in answer["error"]["message"]
    assert "x-api-key: KEY" in answer["error"]["message"]


def test_a_page_of_another_origin_can_read_that_its_key_is_wrong(folder):
    for path in ("/v1/chat/completions", "/v1/messages"):
        start, _ = ask(ApiKeyGate(application), [(b"origin", b"https://chat.example.com"), *bearer("sk-no")], path)
        assert start["status"] == 401
        assert (b"access-control-allow-origin", b"*") in start["headers"]


PREFLIGHT = [(b"origin", b"https://chat.example.com"), (b"access-control-request-method", b"POST")]


@pytest.mark.parametrize(
    ("allowed_origins", "answer"),
    [(["*"], 200), (["https://chat.example.com"], 200), (["https://other.example.com"], 400), ([], 400)],
)
def test_no_request_without_a_key_reaches_a_route_a_preflight_neither(folder, allowed_origins, answer):
    """The gate around starlette's CORSMiddleware, as in vLLM, with every mixture of methods and headers."""
    cors = pytest.importorskip("starlette.middleware.cors", reason="starlette comes with the `local` extra")
    routes_asked: list[str] = []

    async def routes(scope, receive, send):
        routes_asked.append(scope["method"])
        await application(scope, receive, send)

    inside = cors.CORSMiddleware(routes, allow_origins=allowed_origins, allow_methods=["*"], allow_headers=["*"])
    offered = [*PREFLIGHT, (b"access-control-request-headers", b"authorization,x-api-key"), *bearer("sk-no")]
    mixtures = [list(some) for size in range(len(offered) + 1) for some in itertools.combinations(offered, size)]
    for method, headers in itertools.product(("OPTIONS", "options", "GET", "HEAD", "POST", "DELETE"), mixtures):
        [start, *_] = ask(ApiKeyGate(inside), headers, method=method)
        preflight = method == "OPTIONS" and set(PREFLIGHT) <= set(headers)
        assert start["status"] == (answer if preflight else 401)
        if preflight:
            assert (b"access-control-allow-origin" in dict(start["headers"])) == (answer == 200)
    assert routes_asked == []


def test_a_handshake_that_looks_like_a_preflight_needs_a_key(folder):
    sent = ask(ApiKeyGate(application), PREFLIGHT, kind="websocket", method="OPTIONS")
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_one_refusal_leaves_nothing_behind_for_the_next(folder):
    gate = ApiKeyGate(application)
    first = ask(gate)
    expected = list(first[0]["headers"])
    # as Serve does, which adds a request's id to every answer
    first[0]["headers"].append((b"x-request-id", b"1"))
    assert ask(gate)[0]["headers"] == expected


def test_a_web_socket_without_a_key_is_closed_before_it_opens(folder):
    assert ask(ApiKeyGate(application), kind="websocket") == [{"type": "websocket.close", "code": 1008}]
    assert status(ask(ApiKeyGate(application), bearer("sk-now"), kind="websocket")) == 200


def test_start_up_and_shut_down_events_pass(folder):
    assert status(ask(ApiKeyGate(application), kind="lifespan")) == 200


def test_an_answer_passes_in_the_parts_that_it_came_in(folder):
    parts = [message.get("body") for message in ask(ApiKeyGate(application), bearer("sk-now"))[1:]]
    assert parts == [b"one ", b"two", b""]


def test_a_gate_without_a_folder_stops_the_server_from_starting(monkeypatch):
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    with pytest.raises(KeyError):
        ApiKeyGate(application)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_without_a_readable_key_nobody_comes_in(folder, clock):
    for path in folder.iterdir():
        path.write_text("")
    assert not Keys(str(folder), clock).accept(b"")
    assert not Keys(str(folder / "missing"), clock).accept(b"")
    assert not Keys(str(folder / "missing"), clock).accept(b"sk-now")


def test_a_new_key_is_taken_within_a_second_and_the_oldest_one_refused(folder, clock):
    keys = Keys(str(folder), clock)
    assert keys.accept(b"sk-now")
    for name, key in (("previous_api_key", "sk-now"), ("api_key", "sk-next")):
        (folder / ".new").write_text(key)
        (folder / ".new").replace(folder / name)
    assert not keys.accept(b"sk-next"), "the folder is not read for every request"
    clock.now += SECONDS_BETWEEN_LOOKS
    assert keys.accept(b"sk-next")
    assert keys.accept(b"sk-now")
    assert not keys.accept(b"sk-before")


def test_keys_that_vanish_are_no_longer_accepted(folder, clock):
    keys = Keys(str(folder), clock)
    assert keys.accept(b"sk-now")
    (folder / "api_key").unlink()
    clock.now += SECONDS_BETWEEN_LOOKS
    assert not keys.accept(b"sk-now")
    assert keys.accept(b"sk-before")
    (folder / "previous_api_key").unlink()
    clock.now += SECONDS_BETWEEN_LOOKS
    assert not keys.accept(b"sk-before")


def test_a_mounted_secret_is_read_as_kubelet_lays_it_out(tmp_path, clock):
    """kubelet's atomic writer: files are links into ..data, which is a link to a dated folder, and the link is swapped."""

    def version(name: str, key: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "api_key").write_text(key)
        os.symlink(name, tmp_path / "..data_tmp")
        os.rename(tmp_path / "..data_tmp", tmp_path / "..data")

    version("..2026_01", "sk-one")
    os.symlink("..data/api_key", tmp_path / "api_key")
    keys = Keys(str(tmp_path), clock)
    assert keys.accept(b"sk-one")
    version("..2026_02", "sk-two")
    clock.now += SECONDS_BETWEEN_LOOKS
    assert keys.accept(b"sk-two")
    assert not keys.accept(b"sk-one")


def test_what_runs_in_pods_needs_the_standard_library_only():
    modules = [path for path in pathlib.Path(in_pods.__file__).parent.glob("*.py") if path.stem != "__init__"]
    assert modules
    for path in modules:
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [f"{'.' * node.level}{node.module}"]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        # the other gates stand beside the first; Ray's own processes alone import that of its proxy, and the autoscaling policy
        of_ray = {"rayline_proxy_gate": {"ray", "starlette"}, "rayline_scaling": {"ray"}}.get(path.stem, set())
        assert names <= {*sys.stdlib_module_names, "rayline_gate", *of_ray}, path


def test_the_config_map_holds_the_gate_that_is_tested_here():
    config_map = gate_config_map("qwen", "rayline")
    [(name, source)] = config_map["data"].items()
    assert source == pathlib.Path(rayline_gate.__file__).read_text() == GATE_SOURCE
    module, _, attribute = GATE_MIDDLEWARE.rpartition(".")
    assert name == f"{module}.py"
    assert getattr(rayline_gate, attribute) is ApiKeyGate
    assert rayline_gate.FOLDER_VARIABLE == KEYS_VARIABLE


def test_the_gate_of_adapters_is_outside_of_what_is_added_later(folder, monkeypatch):
    applications = pytest.importorskip("starlette.applications")
    responses = pytest.importorskip("starlette.responses")
    routing = pytest.importorskip("starlette.routing")
    client = pytest.importorskip("starlette.testclient")
    monkeypatch.syspath_prepend(str(pathlib.Path(in_pods.__file__).parent))
    gate = importlib.import_module(ADAPTER_GATE_MIDDLEWARE.rpartition(".")[0]).AdapterGate
    loaded = []

    class Loader:
        """As Ray's loader of adapters, which is put around the finished application."""

        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            if scope["type"] == "http":
                loaded.append(scope["path"])
            await self.app(scope, receive, send)

    async def answer(request):
        return responses.PlainTextResponse("answer")

    app = applications.Starlette(routes=[routing.Route("/v1/models", answer)])
    app.add_middleware(gate)
    # vLLM builds the stack at once, and Ray has it built again
    app.middleware_stack = app.build_middleware_stack()
    app.middleware_stack = None
    app.add_middleware(Loader)
    with client.TestClient(app) as served:
        assert served.get("/v1/models").status_code == 401
        assert loaded == []
        assert served.get("/v1/models", headers={"x-api-key": "sk-now"}).text == "answer"
        assert loaded == ["/v1/models"]


def test_the_config_map_of_adapters_has_both_gates():
    sources = gate_config_map("qwen", "rayline", adapters=True)["data"]
    assert sources["rayline_gate.py"] == GATE_SOURCE
    assert "class AdapterGate(ApiKeyGate)" in sources["rayline_adapter_gate.py"]
    assert gate_name("qwen", adapters=True) != gate_name("qwen")


def test_the_gate_of_rays_proxy_stands_in_front_of_every_path_but_the_proxys_own(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(GATE_FOLDER))
    module, _, _ = PROXY_GATE.rpartition(".")
    gate = importlib.import_module(module).ProxyGate(application)
    for path in PATHS:
        assert status(ask(gate, path=path)) == 401
        assert status(ask(gate, bearer("sk-now"), path=path)) == 200
    # as uvicorn recognizes an application of ASGI 3
    assert inspect.iscoroutinefunction(gate.__call__)
    # HAProxy sends its health check without a key
    assert status(ask(gate, path="/-/healthz", method="GET")) == 200
    assert status(ask(gate, path="/-/healthz/", method="GET")) == 401


def test_only_a_service_that_scales_to_zero_has_the_gate_of_rays_proxy():
    config_map = gate_config_map("qwen", "rayline", at_proxy=True)
    assert list(config_map["data"]) == ["rayline_gate.py", f"{PROXY_GATE.rpartition('.')[0]}.py"]
    assert config_map["metadata"]["name"] == gate_name("qwen", at_proxy=True) != gate_name("qwen")


def test_another_gate_is_another_config_map(monkeypatch):
    before = gate_name("qwen")
    monkeypatch.setattr("rayline.service.api_key.GATE_SOURCE", GATE_SOURCE + "# changed\n")
    assert gate_name("qwen") != before
