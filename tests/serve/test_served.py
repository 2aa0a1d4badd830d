"""All switches on: what is declared is what runs, and only this machine can reach it."""

from __future__ import annotations

import os

import grpc
import httpx
import psutil
import pytest

from rayline_cli.clients.openai import Answer
from rayline_cli.local import runtime
from rayline_cli.local.differences import LISTENS_ON_ALL_INTERFACES
from rayline_cli.local.session import SECRETS_FOLDER, environ
from rayline_cli.verify import Outcome
from tests.serve.serving import API_KEY, PATIENCE, SWITCHES, TOKEN, Served, get, listeners, post


def test_up_ends_with_an_answer_from_the_model(served: Served):
    answer = served.running.answer
    assert isinstance(answer, Answer)
    assert answer.completion_tokens > 1
    assert answer.first_token_seconds > 0
    assert answer.tokens_per_second > 0


def test_up_reports_its_phases_in_order(served: Served):
    phases = ["model", "Ray", "deployments", "replicas", "HAProxy", "first token", "switches"]
    assert served.report.phases_done()[:7] == phases


def test_every_switch_is_seen_where_it_takes_effect(served: Served):
    outcomes = {check.name: check.outcome for check in served.running.checks}
    # RayExecutorV2 needs a GPU: on the CPU Serve itself chooses the mp executor, and the check says so.
    assert outcomes.pop("vLLM's Ray executor V2") is Outcome.NOT_APPLICABLE
    assert set(outcomes.values()) == {Outcome.PASS}, served.running.checks


def test_every_actor_of_serve_has_the_declared_switches(served: Served):
    titles = ("ray::Serve", "ray::HAProxyManager", "ray::ProxyActor")
    actors = {
        process.pid: process.cmdline()[0]
        for process in served.session.processes()
        if process.cmdline()[:1] and process.cmdline()[0].startswith(titles)
    }
    assert len(actors) >= 5, actors
    for pid, title in actors.items():
        found = environ(pid)
        assert {name: found.get(name) for name in SWITCHES} == SWITCHES, title


def test_what_nobody_uses_does_not_run(served: Served):
    commands = [" ".join(process.cmdline()) for process in served.session.processes()]
    assert any("raylet" in command for command in commands)
    assert [command for command in commands if "ray.util.client.server" in command or "/autoscaler/" in command] == []


def test_only_this_machine_can_connect(served: Served):
    found = listeners(served.session.processes())
    assert {port for _, _, port in found} >= {served.running.ports[name] for name in ("serve", "dashboard", "gcs")}
    open_to_others = [
        (title, address)
        for title, address, _ in found
        if address not in {"127.0.0.1", "::1", "::ffff:127.0.0.1"} and not title.startswith(tuple(LISTENS_ON_ALL_INTERFACES))
    ]
    assert open_to_others == []


def test_what_others_can_connect_to_asks_for_rays_token(served: Served):
    # The one listener Ray puts on all interfaces unpickles what it is sent, so nobody without the token may call it.
    exposed = [port for _, address, port in listeners(served.session.processes()) if address in {"::", "0.0.0.0"}]
    assert exposed, "Ray keeps everything on loopback by now: remove LISTENS_ON_ALL_INTERFACES"
    for port in exposed:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", timeout=PATIENCE)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
ANSWERED = [
    ("GET", "/v1/models", None),
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/invocations", CHAT),
    ("POST", "/tokenize", {"model": "tiny", "prompt": "hello"}),
    ("GET", "/health", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ANSWERED)
def test_every_path_is_answered_with_the_key_and_refused_without(served: Served, method, path, body):
    def ask(headers: dict[str, str]) -> httpx.Response:
        return httpx.request(method, served.running.url + path, json=body, headers=headers, trust_env=False, timeout=PATIENCE)

    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {API_KEY}"}):
        refused = ask(headers)
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
    assert ask({"Authorization": f"Bearer {API_KEY}"}).status_code == 200


def test_many_refusals_stay_refusals(served: Served):
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        answers = [client.get(f"{served.running.url}/v1/models") for _ in range(200)]
    assert {answer.status_code for answer in answers} == {401}
    assert len({len(answer.headers) for answer in answers}) == 1


def test_a_replica_asked_past_haproxy_asks_for_the_key_as_well(served: Served):
    first = served.running.ports["replicas"]
    ports = {
        port
        for title, _, port in listeners(served.session.processes())
        if "LLMServer" in title and first <= port < first + 1000
    }
    assert ports
    for port in ports:
        url = f"http://127.0.0.1:{port}"
        assert post(f"{url}/invocations", json=CHAT).status_code == 401
        assert get(f"{url}/-/healthz").status_code == 200, "HAProxy's own check brings no key"


def test_what_probes_and_balancers_ask_needs_no_key(served: Served):
    assert get(f"{served.running.url}/-/healthz").status_code == 200


def test_no_process_has_the_key_in_its_environment(served: Served):
    processes = served.session.processes()
    assert processes
    for process in processes:
        assert API_KEY not in environ(process.pid).values(), process


def test_the_dashboard_asks_for_rays_token(served: Served):
    url = f"{served.running.dashboard_url}/api/serve/applications/"
    assert get(url).status_code == 401
    assert get(url, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_no_secret_is_in_arguments_reports_state_or_logs(served: Served):
    for process in served.session.processes():
        assert not any(secret in " ".join(process.cmdline()) for secret in (API_KEY, TOKEN))
    assert not any(secret in line for line in served.report.lines for secret in (API_KEY, TOKEN))
    mounted = served.session.folder / SECRETS_FOLDER
    for folder in (served.state_dir, served.session.folder):
        for path in folder.rglob("*"):
            if path.is_file() and mounted in path.parents:
                # what kubelet would mount from memory: for the owner alone
                assert path.stat().st_mode & 0o077 == 0
            elif path.is_file():
                content = path.read_bytes()
                assert not any(secret.encode() in content for secret in (API_KEY, TOKEN)), path


def test_nothing_is_written_to_the_folders_every_ray_shares(served: Served):
    def opened(process: psutil.Process) -> list[str]:
        try:
            return [file.path for file in process.open_files()]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return []

    paths = [path for process in served.session.processes() for path in opened(process)]
    assert paths
    assert not [path for path in paths if path.startswith(("/tmp/ray/", "/tmp/haproxy-serve/"))]


def test_status_says_what_runs(served: Served):
    status = runtime.status(served.state_dir)
    assert status.running
    assert status.healthy
    assert status.detail == "serving"
    assert status.replicas == {"LLMServer:tiny": "1/1", "LLMRouter": "1/1"}
    assert status.url == served.running.url
    assert status.processes > 10
    assert status.memory_gib > 1


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ("controller", "Deploying new app 'llm'"),
        ("replica", "EngineCore"),
        ("haproxy", "Starting HAProxy"),
        ("ray", "Ray runtime started"),
    ],
)
def test_logs_of_each_component_can_be_read(served: Served, component: str, expected: str):
    assert expected in "\n".join(runtime.logs(served.state_dir, component=component, lines=400))


def test_the_system_outlives_the_command_that_started_it(served: Served):
    supervisor = served.session.supervisor()
    assert supervisor is not None
    assert os.getsid(supervisor.pid) == supervisor.pid, "its own process session: a closed terminal does not end it"


def test_up_again_checks_and_changes_nothing(served: Served):
    before = {process.pid for process in served.session.processes() if "LLMServer" in " ".join(process.cmdline())}
    again = served.up(served.manifest)
    assert again.already_running
    after = {process.pid for process in served.session.processes() if "LLMServer" in " ".join(process.cmdline())}
    assert before == after
    assert before
