"""Each check passes on a service as it was recorded, and fails where one thing in it is broken: one that cannot fail proves nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

import pytest

from rayline.facts.serve_flags import SWITCHES, THROUGHPUT_SETTINGS
from rayline_cli.verify import CheckResult, Outcome, Target, check_switches, summary
from rayline_cli.verify import checks as verify_checks
from tests.unit.verify_service import Service

MANAGERS = "HAProxy: managers and processes"
SERVERS = "HAProxy: replicas as servers"
DEPLOYMENTS = "direct streaming: deployments"
LUA = "direct streaming: router in HAProxy"
TOKENS = "direct streaming: path of the tokens"
THROUGHPUT = "throughput settings of Serve"
EXECUTOR = "vLLM's Ray executor V2"
PARITY = "environment parity"
MODELS, STREAM, KEY = "model list", "streamed completion", "API key"
CONFIGURATION = "declared configuration"


def checks(service: Service) -> dict[str, CheckResult]:
    return {check.name: check for check in check_switches(cast(Target, service))}


def test_a_service_with_everything_on_passes_every_check():
    found = checks(Service())
    # the mp executor is the CPU's, and how others reach the recorded machine is not recorded
    assert found.pop(EXECUTOR).outcome is Outcome.NOT_APPLICABLE
    assert found.pop("reachable from outside").outcome is Outcome.NOT_APPLICABLE
    assert {name: check.evidence for name, check in found.items() if check.outcome is not Outcome.PASS} == {}
    assert all(check.evidence and not check.fix for check in found.values())


def no_manager(service: Service) -> None:
    service.actors = [one for one in service.actors if one["class_name"] != "HAProxyManager"]


def manager_on_another_node(service: Service) -> None:
    next(one for one in service.actors if one["class_name"] == "HAProxyManager")["node_id"] = "f" * 56


def no_haproxy(service: Service) -> None:
    service.look["haproxy"] = []


def two_python_proxies(service: Service) -> None:
    service.actors.append(next(one for one in service.actors if one["class_name"] == "ProxyActor"))


def server_down(service: Service) -> None:
    for row in service.haproxy["stat"]:
        if row["svname"].startswith("SERVE_REPLICA"):
            row["status"] = "DOWN"


def server_missing(service: Service) -> None:
    service.haproxy["config"] = service.haproxy["config"].replace("server SERVE_REPLICA", "server OTHER")


def port_of_another_process(service: Service) -> None:
    for listener in service.look["listeners"]:
        if listener["pid"] == service.model_replica["pid"]:
            listener["pid"] += 100_000


def socket_that_does_not_answer(service: Service) -> None:
    service.haproxy.update(stat=[], error="ConnectionRefusedError: admin.sock")


def ingress_of_ray(service: Service) -> None:
    deployments = service.details["applications"]["llm"]["deployments"]
    deployments["OpenAiIngress"] = deployments.pop("LLMRouter")


def no_lua(service: Service) -> None:
    service.haproxy["config"] = service.haproxy["config"].replace("lua-load-per-thread", "# lua-load-per-thread")
    service.haproxy["config"] = service.haproxy["config"].replace("-via-ingress-request-router", "")


def lua_without_a_router(service: Service) -> None:
    service.haproxy["lua"] = "local ROUTERS = {}"


def other_way(service: Service, to: str) -> None:
    """The bytes of the stream at another server than the replica's behind the router."""
    for one in service.stream["after"]:
        for row in one["stat"]:
            if row["pxname"].endswith("-via-ingress-request-router") and row["svname"].startswith("SERVE_REPLICA"):
                row["svname"] = to


def over_the_fallback(service: Service) -> None:
    other_way(service, "SERVE_PROXY_ACTOR-fallback-1")


def over_rays_ingress(service: Service) -> None:
    other_way(service, "SERVE_REPLICA_llm-OpenAiIngress-x")


def past_the_router(service: Service) -> None:
    for look in ("before", "after"):
        for one in service.stream[look]:
            for row in one["stat"]:
                row["pxname"] = row["pxname"].removesuffix("-via-ingress-request-router")


def stream_of_one_event(service: Service) -> None:
    service.stream["events"] = 1


def stream_without_an_end(service: Service) -> None:
    service.stream["done"] = False


def stream_refused(service: Service) -> None:
    service.stream.update(status=503, text="Ingress request router failed: router_unreachable", events=0, done=False)


def one_replica_with_another_setting(service: Service) -> None:
    group = service.settings[0]
    values = group["values"] | {"RAY_SERVE_USE_GRPC_BY_DEFAULT": False}
    pid, title = group["pids"].pop(), group["titles"].pop()
    service.settings.append({"pids": [pid], "titles": [title], "values": values, "ray": group["ray"]})


def a_ray_without_the_setting(service: Service) -> None:
    for group in service.settings:
        group["values"]["RAY_SERVE_FREEZE_GC_ON_STARTUP"] = None


def no_controller(service: Service) -> None:
    for group in service.settings:
        group["titles"] = [title for title in group["titles"] if "Controller" not in title]


def executor_v1(service: Service) -> None:
    for process in service.look["processes"]:
        process["environ"]["VLLM_USE_RAY_V2_EXECUTOR_BACKEND"] = "0"


def written_as_true(service: Service) -> None:
    service.process("ray::ServeReplica")["environ"]["RAY_SERVE_ENABLE_HA_PROXY"] = "true"


def missing_in_one_process(service: Service) -> None:
    del service.process("ray::HAProxyManager")["environ"]["RAY_SERVE_ENABLE_HA_PROXY"]


def undeclared(service: Service) -> None:
    service.process("ray::ServeController")["environ"]["RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"] = "1"


def secret_of_another_generation(service: Service) -> None:
    service.environment["HF_TOKEN"] = None
    for number, process in enumerate(service.look["processes"]):
        process["environ"]["HF_TOKEN"] = "old" if number == 0 or "Controller" in process["title"] else "new"


def another_model(service: Service) -> None:
    service.models = json.dumps({"data": [{"id": "other"}]})


def replica_that_starts(service: Service) -> None:
    service.model_replica["state"] = "STARTING"


def previous_configuration(service: Service) -> None:
    service.details["applications"]["llm"]["deployed_app_config"]["args"]["llm_configs"][0]["engine_kwargs"] = {}


@pytest.mark.parametrize(
    ("name", "break_it", "evidence"),
    [
        (CONFIGURATION, previous_configuration, "still runs the previous configuration"),
        (CONFIGURATION, replica_that_starts, "0/1 running"),
        (MANAGERS, no_manager, "no HAProxyManager on node"),
        (MANAGERS, manager_on_another_node, "no HAProxyManager on node"),
        (MANAGERS, no_haproxy, "no haproxy process on node"),
        (MANAGERS, two_python_proxies, "one fallback ProxyActor"),
        (SERVERS, server_down, "is not UP"),
        (SERVERS, server_missing, "is not in haproxy.cfg"),
        (SERVERS, port_of_another_process, "on which that replica does not listen"),
        (SERVERS, socket_that_does_not_answer, "ConnectionRefusedError"),
        (SERVERS, replica_that_starts, "no running replica"),
        (SERVERS, no_haproxy, "no haproxy runs"),
        (DEPLOYMENTS, ingress_of_ray, "OpenAiIngress"),
        (LUA, no_lua, "no Lua router in haproxy.cfg of head-0"),
        (LUA, lua_without_a_router, "no Lua router in haproxy.cfg of head-0"),
        (LUA, no_haproxy, "no haproxy runs"),
        (TOKENS, over_the_fallback, "counts 0 from the replica's own server"),
        (TOKENS, over_rays_ingress, "counts 0 from the replica's own server"),
        (TOKENS, past_the_router, "counts 0 from the replica's own server"),
        (TOKENS, stream_refused, "router_unreachable"),
        (TOKENS, no_haproxy, "tokens pass a Python proxy"),
        (THROUGHPUT, one_replica_with_another_setting, "RAY_SERVE_USE_GRPC_BY_DEFAULT=0, not 1"),
        (THROUGHPUT, a_ray_without_the_setting, "RAY_SERVE_FREEZE_GC_ON_STARTUP=None, not 1"),
        (THROUGHPUT, no_controller, "no process found: controller"),
        (EXECUTOR, executor_v1, "VLLM_USE_RAY_V2_EXECUTOR_BACKEND is 0"),
        (PARITY, written_as_true, "RAY_SERVE_ENABLE_HA_PROXY='true' (declared '1') in ray::ServeReplica"),
        (PARITY, missing_in_one_process, "RAY_SERVE_ENABLE_HA_PROXY=None (declared '1') in ray::HAProxyManager"),
        (PARITY, undeclared, "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP='1' (undeclared)"),
        (PARITY, secret_of_another_generation, "HF_TOKEN (a secret) differs"),
        (MODELS, another_model, "lacks tiny"),
        (STREAM, stream_of_one_event, "the stream had 1 events"),
        (STREAM, stream_without_an_end, "without [DONE]"),
        (STREAM, stream_refused, "HTTP 503"),
    ],
)
def test_one_broken_thing_fails_its_check_and_is_named(name: str, break_it: Callable[[Service], None], evidence: str):
    service = Service()
    break_it(service)
    check = checks(service)[name]
    assert check.outcome is Outcome.FAIL, check.evidence
    assert evidence in check.evidence
    assert check.fix


def test_no_secret_is_shown_by_the_check_that_compares_them():
    service = Service()
    secret_of_another_generation(service)
    said = checks(service)[PARITY]
    assert "old" not in said.evidence
    assert "new" not in said.evidence.replace("start new", "")


# --- switches that the stack file turns off ---------------------------------------------------------------------------


def with_switch_off(switch: str) -> Service:
    """Declared off, and all the same on."""
    service = Service()
    service.switches[switch] = False
    return service


@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("ha_proxy", MANAGERS),
        ("ha_proxy", SERVERS),
        ("direct_streaming", DEPLOYMENTS),
        ("direct_streaming", LUA),
        ("direct_streaming", TOKENS),
        ("throughput_optimized", THROUGHPUT),
        ("ray_executor_v2", EXECUTOR),
    ],
)
def test_a_switch_declared_off_that_is_on_fails(switch: str, name: str):
    check = checks(with_switch_off(switch))[name]
    assert check.outcome is Outcome.FAIL
    assert check.evidence.startswith("declared off, yet")


def without_direct_streaming() -> Service:
    service = with_switch_off("direct_streaming")
    ingress_of_ray(service)
    no_lua(service)
    over_rays_ingress(service)
    return service


@pytest.mark.parametrize("name", [DEPLOYMENTS, LUA, TOKENS])
def test_a_switch_declared_off_and_seen_off_is_off_and_no_pass(name: str):
    check = checks(without_direct_streaming())[name]
    assert check.outcome is Outcome.OFF
    assert check.fix == "switches.direct_streaming: true turns it on"


@pytest.mark.parametrize("name", [DEPLOYMENTS, LUA, TOKENS])
def test_the_same_fails_where_every_switch_is_expected_on(name: str):
    service = without_direct_streaming()
    service.switches = service.expected.all_on().switches  # type: ignore[assignment]
    assert checks(service)[name].outcome is Outcome.FAIL


def test_throughput_settings_declared_off_and_seen_off_are_off():
    service = with_switch_off("throughput_optimized")
    for group in service.settings:
        group["values"] = {
            name: name not in ("RAY_SERVE_USE_GRPC_BY_DEFAULT", "RAY_SERVE_FREEZE_GC_ON_STARTUP")
            for name in THROUGHPUT_SETTINGS
        } | {"RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": 1}
    assert checks(service)[THROUGHPUT].outcome is Outcome.OFF


def test_a_setting_that_the_stack_names_by_itself_is_expected_as_it_is_named():
    service = Service()
    service.environment["RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE"] = "1"
    for group in service.settings:
        group["values"]["RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE"] = 1
    assert checks(service)[THROUGHPUT].outcome is Outcome.PASS


# --- on a GPU: the shapes are vLLM's (vllm/v1/executor/ray_executor_v2.py), no GPU was there to record them -------------


def on_a_gpu(executor: str, actor: str) -> Service:
    service = Service(on_gpu=True)
    log = f"replica_llm_LLMServer_tiny_{service.model_replica['replica_id']}.log"
    service.look["executors"] = {log: f"vllm.v1.executor.{executor}"}
    service.actors.append({"class_name": actor, "state": "ALIVE", "node_id": service.actors[0]["node_id"]})
    return service


def test_on_a_gpu_the_executors_workers_are_the_evidence():
    check = checks(on_a_gpu("ray_executor_v2.RayExecutorV2", "RayWorkerProc"))[EXECUTOR]
    assert check.outcome is Outcome.PASS
    assert "1 RayWorkerProc" in check.evidence


@pytest.mark.parametrize(
    ("executor", "actor"),
    [
        ("ray_executor.RayDistributedExecutor", "RayWorkerWrapper"),
        ("ray_executor_v2.RayExecutorV2", "RayWorkerWrapper"),
        ("ray_executor.RayDistributedExecutor", "RayWorkerProc"),
    ],
)
def test_on_a_gpu_the_old_executor_fails(executor: str, actor: str):
    assert checks(on_a_gpu(executor, actor))[EXECUTOR].outcome is Outcome.FAIL


# --- the key ---------------------------------------------------------------------------------------------------------


def test_verify_probes_listed_and_unlisted_routes_without_the_key():
    service = Service()
    assert checks(service)[KEY].outcome is Outcome.PASS
    assert {("POST", "/invocations"), ("POST", "/tokenize"), ("GET", "/v1/models"), ("GET", "/metrics")} <= set(service.asked)
    assert ("POST", "/v1/responses/x/cancel") in service.asked


@pytest.mark.parametrize("path", ["/invocations", "/tokenize", "/v1/models", "/metrics", "/v1/responses/x/cancel"])
def test_one_open_path_fails_and_is_named(path: str):
    check = checks(Service(open_paths={path}))[KEY]
    assert check.outcome is Outcome.FAIL
    assert f"{path}: HTTP 200" in check.evidence
    assert "gate" in check.fix


def test_a_service_that_tells_none_of_its_routes_fails():
    assert checks(Service(routes={}))[KEY].outcome is Outcome.FAIL


def test_a_service_without_a_gate_is_said_to_be_open():
    check = checks(Service(api_key=False))[KEY]
    assert (check.outcome, "open" in check.evidence) == (Outcome.NOT_APPLICABLE, True)


# --- without a model -------------------------------------------------------------------------------------------------


def test_model_checks_do_not_apply_to_an_application_without_a_model():
    service = Service()
    service.serve_config["applications"][0]["args"] = {}
    found = checks(service)
    judged = {name for name, check in found.items() if check.outcome is not Outcome.NOT_APPLICABLE}
    assert judged == {CONFIGURATION, MANAGERS, THROUGHPUT, PARITY}
    assert {found[name].outcome for name in judged} == {Outcome.PASS}


# --- from outside ----------------------------------------------------------------------------------------------------


def test_from_outside_only_what_a_client_sees_is_judged():
    found = checks(Service(inside=False))
    judged = {name for name, check in found.items() if check.outcome is not Outcome.NOT_APPLICABLE}
    assert judged == {DEPLOYMENTS, MODELS, STREAM, KEY}
    assert {found[name].outcome for name in judged} == {Outcome.PASS}


def test_from_outside_rays_own_front_is_recognised():
    service = Service(inside=False)
    del service.routes["/invocations"]
    assert checks(service)[DEPLOYMENTS].outcome is Outcome.FAIL


def test_from_outside_rays_own_front_is_that_of_a_model_with_text_though_it_has_all_routes():
    service = Service(inside=False)
    service.routes["/v1/embeddings"] = ["post"]
    assert checks(service)[STREAM].outcome is Outcome.PASS


# --- as a whole ------------------------------------------------------------------------------------------------------


def test_a_check_that_cannot_be_made_fails_and_stops_no_other():
    service = Service()
    service.details = {}
    found = checks(service)
    assert found[CONFIGURATION].outcome is Outcome.FAIL
    assert found[STREAM].outcome is Outcome.PASS


def test_what_settles_is_looked_at_again():
    service = Service(settles_seconds=30)
    looks: list[bool] = []
    first = service.look
    broken = {**first, "haproxy": []}

    def run(job, real=service.run_client):
        if job["do"] == "look":
            looks.append(True)
            service.look = broken if len(looks) == 1 else first
        return real(job)

    service.run_client = run  # type: ignore[method-assign]
    assert checks(service)[MANAGERS].outcome is Outcome.PASS
    assert len(looks) == 2


def test_what_settles_is_looked_at_again_also_after_a_first_look_that_took_long(monkeypatch: pytest.MonkeyPatch):
    service = Service(settles_seconds=30)
    now = [0.0]
    monkeypatch.setattr(verify_checks.time, "monotonic", lambda: now[0])
    first = service.look

    def run(job, real=service.run_client):
        if job["do"] == "look":
            service.look = first if now[0] else {**first, "haproxy": []}
            now[0] += 60 if not now[0] else 0
        return real(job)

    service.run_client = run  # type: ignore[method-assign]
    assert checks(service)[MANAGERS].outcome is Outcome.PASS


def test_the_summary_counts_what_is_off_apart():
    text = summary(list(checks(without_direct_streaming()).values()))
    assert "3 off, not proven" in text
    assert len(SWITCHES) == 4
