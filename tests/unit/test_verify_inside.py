"""What is sent into pods: it runs with a bare Python, sees what is there, and lets no secret out."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from rayline_cli.verify import inside

HERE = {"pids": [os.getpid()], "logs": "/no/such/folder", "key": "sk-1", "token": "t-1"}


def test_it_runs_where_only_python_is(tmp_path: pathlib.Path):
    script = pathlib.Path(inside.__file__).read_text() + "\nprint(json.dumps(run({'do': 'look'}, {'pids': []})))\n"
    done = subprocess.run(
        # isolated and without site-packages, as poor as any image
        [sys.executable, "-I", "-S", "-"],
        input=script,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert json.loads(done.stdout)["processes"] == []


@pytest.fixture
def child() -> Iterator[subprocess.Popen]:
    """A process with two variables and a password among its arguments."""
    code = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--redis-password=hidden"],
        env={"SHOWN": "1", "HIDDEN": "sk-hidden", "OTHER": "not asked for"},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


def test_of_a_process_only_its_name_and_the_named_variables_come_out(child: subprocess.Popen):
    assert child.stdout is not None
    port = int(child.stdout.readline())
    place = HERE | {"pids": [child.pid]}
    look = {"do": "look", "names": ["SHOWN", "ABSENT"], "secret_names": ["HIDDEN"]}
    seen = inside.run(look | {"salt": "a"}, place)
    (process,) = seen["processes"]
    assert process["title"] == sys.executable
    assert set(process["environ"]) == {"SHOWN", "HIDDEN"}
    assert process["environ"]["SHOWN"] == "1"
    assert "hidden" not in json.dumps(seen)
    assert seen["listeners"] == [{"address": "127.0.0.1", "port": port, "pid": child.pid, "title": sys.executable}]
    # the same value has the same digest on every node of one look, and another one in the next
    again = inside.run(look | {"salt": "a"}, place)
    other = inside.run(look | {"salt": "b"}, place)
    assert again["processes"] == seen["processes"]
    assert other["processes"][0]["environ"]["HIDDEN"] != process["environ"]["HIDDEN"]


STAT = """# pxname,svname,qcur,bout,status,check_status,req_tot,addr,
http_frontend,FRONTEND,,9000,OPEN,,12,,
http-llm,SERVE_REPLICA_a,0,0,UP,L7OK,0,127.0.0.1:30000,
http-llm-via-ingress-request-router,SERVE_REPLICA_a,0,8000,UP,,5,127.0.0.1:30000,

"""


@pytest.fixture
def haproxy(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen]:
    """A process that looks like HAProxy, with a configuration, a Lua file and an admin socket."""
    (tmp_path / "router.lua").write_text("local ROUTERS = {}")
    config = tmp_path / "haproxy.cfg"
    config.write_text(f"global\n    stats socket {tmp_path}/a.sock mode 666\n    lua-load-per-thread {tmp_path}/router.lua\n")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "a.sock"))
    server.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                assert client.recv(100) == b"show stat\n"
                client.sendall(STAT.encode())

    threading.Thread(target=serve, daemon=True).start()
    process = subprocess.Popen(
        ["haproxy", "-c", "echo; read line", "-f", str(config)],
        executable="/bin/sh",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_haproxys_configuration_and_counters_are_read(haproxy: subprocess.Popen, tmp_path: pathlib.Path):
    (one,) = inside.run({"do": "look"}, HERE | {"pids": [haproxy.pid]})["haproxy"]
    assert (one["path"], one["pids"], one["error"]) == (str(tmp_path / "haproxy.cfg"), [haproxy.pid], "")
    assert one["lua"] == "local ROUTERS = {}"
    assert one["stat"][2] == {
        "pxname": "http-llm-via-ingress-request-router",
        "svname": "SERVE_REPLICA_a",
        "addr": "127.0.0.1:30000",
        "status": "UP",
        "check_status": "",
        "bout": "8000",
        "req_tot": "5",
    }


def test_a_socket_that_nobody_serves_is_told(haproxy: subprocess.Popen, tmp_path: pathlib.Path):
    (tmp_path / "a.sock").unlink()
    (one,) = inside.run({"do": "look"}, HERE | {"pids": [haproxy.pid]})["haproxy"]
    assert one["error"].startswith("FileNotFoundError")
    assert one["config"]


def test_what_logs_say_of_executors_and_the_controller(tmp_path: pathlib.Path, child: subprocess.Popen):
    (tmp_path / "serve").mkdir()
    (tmp_path / "serve/replica_llm_LLMServer--tiny_abc.log").write_text(
        "INFO Using executor class: <class 'vllm.v1.executor.ray_executor_v2.RayExecutorV2'>\n"
    )
    seen = inside.run({"do": "look"}, HERE | {"logs": str(tmp_path)})
    assert seen["executors"] == {"replica_llm_LLMServer--tiny_abc.log": "vllm.v1.executor.ray_executor_v2.RayExecutorV2"}
    assert seen["throughput_said"] is False
    (tmp_path / "serve/controller_1.log").write_text("Throughput optimized Ray Serve enabled with the following")
    assert inside.run({"do": "look"}, HERE | {"logs": str(tmp_path)})["throughput_said"] is True


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what it was sent, or a stream."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = json.dumps({"path": self.path, "authorization": self.headers.get("authorization")}).encode()
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        events = ['{"choices": [{"text": "a"}]}'] * sent.get("events", 3)
        events += ['{"error": {"message": "engine died"}}'] if sent.get("error") else ["[DONE]"]
        self.send_response(200 if sent["stream"] else 400)
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write("".join(f"data: {event}\n\n" for event in events).encode())
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_key_goes_to_the_endpoint_and_rays_token_to_the_dashboard(address: str):
    place = HERE | {"dashboard": address, "serve": address}

    def sent(base: str, auth: bool) -> str | None:
        (said,) = inside.run({"do": "ask", "base": base, "requests": [{"path": "/", "auth": auth}]}, place)
        return json.loads(said["text"])["authorization"]

    assert (sent("dashboard", True), sent("serve", True), sent(address, True)) == ("Bearer t-1", "Bearer sk-1", "Bearer sk-1")
    assert (sent("dashboard", False), sent("serve", False)) == (None, None)


def test_in_a_pod_the_key_is_the_mounted_file(address: str, tmp_path: pathlib.Path):
    (tmp_path / "api_key").write_text("sk-mounted\n")
    place = HERE | {"key": None, "key_file": str(tmp_path / "api_key")}
    (said,) = inside.run({"do": "ask", "base": address, "requests": [{"path": "/"}]}, place)
    assert json.loads(said["text"])["authorization"] == "Bearer sk-mounted"


def test_every_answer_is_an_answer_also_none(address: str):
    requests = [{"path": "/missing"}, {"path": "/moved"}]
    missing, moved = inside.run({"do": "ask", "base": address, "requests": requests}, HERE)
    assert (missing["status"], moved["status"]) == (404, 302)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (nobody,) = inside.run({"do": "ask", "base": f"http://127.0.0.1:{port}", "requests": [{"path": "/"}]}, HERE)
    assert nobody["status"] == 0
    assert "refused" in nobody["text"]


def test_a_stream_is_counted(address: str):
    def stream(**body: object) -> dict:
        return inside.run({"do": "stream", "base": address, "path": "/v1/completions", "body": body | {"stream": True}}, HERE)

    good = stream(events=3)
    assert (good["status"], good["events"], good["done"]) == (200, 3, True)
    assert good["bytes"] > 100
    broken = stream(events=1, error=True)
    assert (broken["events"], broken["done"]) == (1, False)
    assert "engine died" in broken["text"]


def test_which_ports_take_a_connection(address: str):
    port = int(address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as one:
        closed = one.getsockname()[1]
    asked = [["127.0.0.1", port], ["127.0.0.1", closed]]
    assert inside.run({"do": "connect", "addresses": asked}, HERE) == [True, False]
