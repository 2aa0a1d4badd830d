"""`env` takes what a company sets, past the proxy where that has to be, and says what does nothing."""

import functools
import http.server
import os
import shutil
import subprocess
import threading
import urllib.request
from typing import Any

import httpx
import pytest
import requests

from rayline.isolation.manifests import network_policies
from rayline.models.mirror_manifests import mirror_jobs
from rayline.platform.plan import make_plan
from rayline.platform.types import Plan
from rayline.schema.check import PlanError

SERVICES: dict[str, dict[str, Any]] = {
    "create": {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"},
    "existing": {"model": "Qwen/Qwen3.5-0.8B", "accelerator": "cpu", "pods": {"image": "mine/cpu:1"}},
    "local": {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "accelerator": "cpu"},
}
PROXY = {"HTTPS_PROXY": "http://proxy.example.com:3128"}


def plan(mode: str = "create", more: dict[str, Any] | None = None, *, env: Any = None, **groups: Any) -> Plan:
    """The plan of a service with these variables and groups of keys."""
    service = SERVICES[mode] | groups
    if env:
        service["pods"] = service.get("pods", {}) | {"env": env}
    google = {"project": "my-project", "region": "us-central1"} if mode == "create" else {}
    return make_plan(google | {"cluster": {"mode": mode}, "services": {"qwen": service}} | (more or {}))


def env_of(made: Plan) -> dict[str, str]:
    return made.services[0].env


def warnings(made: Plan) -> list[str]:
    return [warning for warning in made.warnings if warning.startswith("qwen: pods.env.")]


@pytest.mark.parametrize("mode", ["create", "existing", "local"])
def test_a_variable_is_taken_as_it_is(mode):
    given = {
        "NCCL_DEBUG": "INFO",
        "OTEL_SERVICE_NAME": "chat",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example.com:4317",
        "HF_ENDPOINT": "https://hub.example.com",
        "HF_HUB_DISABLE_XET": "1",
        "TORCH_COMPILE_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "DEBUG",
        "RAY_worker_niceness": "0",
        "RAY_START_ULIMIT_OPEN_FILES": "100000",
        "RAY_RAYLET_GDB": "1",
        "RAY_RUNTIME_ENV_PIP_CACHE_SIZE_GB": "5",
        "GOOGLE_APPLICATION_CREDENTIALS": "/etc/keys/key.json",
        "_lower": "a b\nc",
    }
    made = plan(mode, env=given)
    assert given.items() <= env_of(made).items()
    assert warnings(made) == []


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("RAY_SERVE_HAPROXY_NBTHREADS", "Ray 2.60.0 does not read it; did you mean RAY_SERVE_HAPROXY_NBTHREAD?"),
        ("RAY_ENABLE_TIMELINE", "Ray 2.60.0 does not read it; did you mean RAY_enable_timeline?"),
        ("RAYLLM_UNHEARD_OF_THING", "Ray 2.60.0 does not read it"),
        ("VLLM_ATTENTION_BACKEND", "vLLM 0.29.0 does not read it"),
        ("VLLM_LOGING_LEVEL", "vLLM 0.29.0 does not read it; did you mean VLLM_LOGGING_LEVEL?"),
        ("RAY_SERVE_LLM_ROUTER_MIN_REPLICAS", "Ray parses it and nothing uses it"),
        ("RAY_SERVE_DEFAULT_HTTP_HOST", "the kit states the address in serveConfigV2"),
    ],
)
def test_a_variable_that_does_nothing_is_taken_with_a_warning(name, warning):
    made = plan(env={name: "8"})
    assert env_of(made)[name] == "8"
    assert warnings(made) == [f"qwen: pods.env.{name} has no effect: {warning}"]


def test_nothing_is_said_of_variables_of_a_runtime_whose_table_is_not_here():
    assert warnings(plan(env={"RAY_UNHEARD_OF_THING": "1"}, pods={"runtime": "2.56.0"})) == []


@pytest.mark.parametrize("value", ["hf_abcdefgh", "sk-abcdefgh", "http://a:b@c", "-----BEGIN PRIVATE KEY-----"])
def test_a_refusal_does_not_repeat_a_secret(value):
    services: tuple[dict[str, Any], ...] = (
        {"pods": {"env": {"SOMETHING": value}}},
        {"pods": {"env": {"RAY_SERVE_SESSION_ID_HEADER_KEY": value}}},
        {"pods": {"env": {"RAY_AUTH_TOKEN": value}}},
        {"engine": {"kwargs": {"additional_config": {"deep": [{"er": value}]}}}},
        {"engine": {"kwargs": {"middleware": value}}},
        {"api": {"served_model_name": value}},
        {"nodes": {"machine_type": value}},
        {"pods": {"runtime": value}},
    )
    for service in services:
        with pytest.raises(PlanError) as caught:
            plan(**service)
        assert value not in str(caught.value)


def refusal(**service: Any) -> str:
    with pytest.raises(PlanError) as caught:
        plan(**service)
    return str(caught.value)


def test_a_refusal_of_a_variable_says_where_else_a_secret_may_be():
    assert "or keep it in a file of a volume (`pods.volumes`) and give the file's path" in refusal(env={"JIRA_KEY": "ABC"})
    assert env_of(plan(env={"JIRA_KEY": "/secrets/jira"}))["JIRA_KEY"] == "/secrets/jira"
    said = refusal(env={"OTEL_EXPORTER_OTLP_HEADERS": "x-honeycomb-team=KEY"})
    assert "let a collector in the cluster add the headers" in said
    assert "KEY" not in said


@pytest.mark.parametrize(("group", "part"), [("pods", "env"), ("engine", "kwargs")])
def test_a_token_in_the_place_of_a_key_is_refused_and_not_repeated(group: str, part: str):
    said = refusal(**{group: {part: {"hf_abcdefgh1": "x"}}})
    assert said.startswith(f"services.qwen.{group}.{part}: a Hugging Face token as a")
    assert "hf_abcdefgh1" not in said


def test_ordinary_keys_of_engine_arguments_are_taken():
    given = {"additional_config": {"rules": [{"key": "temperature", "value": 1}]}, "compilation_config": {"pass": "fuse"}}
    assert given.items() <= plan(engine={"kwargs": given}).services[0].engine_kwargs.items()


def test_where_the_kit_has_no_cache_the_stack_places_it():
    volumes = [{"name": "cache", "mount_path": "/cache", "claim": "weights"}]
    assert env_of(plan(env={"HF_HOME": "/cache/hub"}, pods={"volumes": volumes}))["HF_HOME"] == "/cache/hub"
    assert env_of(plan("existing", env={"HF_HOME": "/cache/hub"}))["HF_HOME"] == "/cache/hub"


def test_without_a_key_python_looks_where_the_stack_says():
    made = plan(env={"PYTHONPATH": "/code"}, api={"key": False})
    assert env_of(made)["PYTHONPATH"] == "/code"


# --- proxies


def past(made: Plan) -> list[str]:
    env = env_of(made)
    assert env["NO_PROXY"] == env["no_proxy"]
    return env["NO_PROXY"].split(",")


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_pods_services_and_the_metadata_server_are_reached_past_a_proxy(name):
    assert past(plan(env={name: "http://proxy.example.com:3128"})) == [
        "localhost", "127.0.0.1", "::1", ".svc", ".cluster.local", "metadata.google.internal", "169.254.169.254",
        "10.0.0.0/18", "10.4.0.0/14", "10.0.64.0/20",
    ]  # fmt: skip


def test_what_the_stack_sends_past_the_proxy_stays_and_comes_first():
    given = PROXY | {"NO_PROXY": "hub.example.com, .corp.example.com", "no_proxy": "localhost"}
    listed = past(plan(env=given))
    assert listed[:3] == ["hub.example.com", ".corp.example.com", "localhost"]
    assert len(set(listed)) == len(listed)


def test_without_a_proxy_nothing_is_added():
    assert not {"NO_PROXY", "no_proxy"} & set(env_of(plan()))
    assert env_of(plan(env={"NO_PROXY": "a"}))["NO_PROXY"] == "a"
    assert "no_proxy" not in env_of(plan(env={"HTTPS_PROXY": ""}))


def test_on_this_machine_only_the_machine_itself_is_past_the_proxy():
    assert past(plan("local", env=PROXY)) == ["localhost", "127.0.0.1", "::1"]


def test_the_ranges_of_a_cluster_that_exists_have_to_be_named():
    (warning,) = warnings(plan("existing", env=PROXY))
    assert "NO_PROXY names no address range" in warning
    for ranges in ("10.0.0.0/8", "*"):
        assert warnings(plan("existing", env=PROXY | {"NO_PROXY": ranges})) == []


@pytest.fixture
def server():
    """A server of this machine, as a Ray node's agent is for its probe."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as listening:
        thread = threading.Thread(target=functools.partial(listening.serve_forever, poll_interval=0.05))
        thread.start()
        yield listening.server_address[1]
        listening.shutdown()
        thread.join()


@pytest.fixture
def behind_a_proxy(monkeypatch):
    """The variables of a pod whose proxy does not answer."""
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    env = {name: value for name, value in env_of(plan(env=proxies)).items() if "proxy" in name.lower()}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env


def test_http_clients_reach_their_own_pod_past_the_proxy(server, behind_a_proxy):
    address = f"http://localhost:{server}/"
    assert requests.get(address, timeout=5).ok
    assert httpx.get(address, timeout=5).is_success
    assert urllib.request.urlopen(address, timeout=5).status == 200
    if wget := shutil.which("wget"):
        # KubeRay's readiness probe
        command = [wget, "--tries", "1", "-T", "4", "-q", "-O-", address]
        assert subprocess.run(command, env=os.environ | behind_a_proxy, capture_output=True, check=False).returncode == 0
        without = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        assert subprocess.run(command, env=without, capture_output=True, check=False).returncode != 0


def test_http_clients_reach_pods_and_the_metadata_server_past_the_proxy(behind_a_proxy):
    listed = behind_a_proxy["no_proxy"]
    for host in ("10.4.7.9:8265", "qwen-head-svc.rayline.svc:8265", "metadata.google.internal", "169.254.169.254"):
        assert requests.utils.should_bypass_proxies(f"http://{host}/", no_proxy=listed)
    assert not requests.utils.should_bypass_proxies("https://huggingface.co/", no_proxy=listed)


def egress(made: Plan) -> set[int]:
    """Ports to anywhere outside, of every pod."""
    assert made.isolation
    policies = network_policies(made, made.isolation)
    rules = next(one for one in policies if one["metadata"]["name"] == "internet-egress")["spec"]["egress"]
    return {port["port"] for rule in rules if "to" not in rule for port in rule["ports"]}


def test_the_network_lets_pods_out_to_the_addresses_that_the_stack_names():
    assert egress(plan()) == {53, 443}
    env = PROXY | {"HF_ENDPOINT": "http://hub.example.com", "http_proxy": "proxy.example.com:8080"}
    env |= {"LOCAL": "http://localhost:1234", "NONE": "gs://bucket/x", "TEXT": "a:b", "MANY": "http://[bad"}
    engine = {"otlp_traces_endpoint": "grpc://collector.example.com:4317", "hf_overrides": {"a": ["https://x:8443/y"]}}
    assert egress(plan(env=env, engine={"kwargs": engine})) == {53, 443, 80, 3128, 8080, 4317, 8443}


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
@pytest.mark.parametrize("address", ["otel:4317", "http://otel:4317", "grpc://otel:4317", "10.0.0.9:4317"])
def test_the_port_of_a_collector_is_open_with_and_without_a_scheme(name, address):
    assert egress(plan(env={name: address})) == {53, 443, 4317}
    assert egress(plan(engine={"kwargs": {"otlp_traces_endpoint": address}})) == {53, 443, 4317}


@pytest.mark.parametrize("address", ["http://otel:port", "otel:port", "http://otel:0", "http://otel:70000"])
def test_a_port_that_is_no_number_is_refused(address):
    places = (("pods", "env", "OTEL_EXPORTER_OTLP_ENDPOINT"), ("engine", "kwargs", "otlp_traces_endpoint"))
    for group, part, name in places:
        said = refusal(**{group: {part: {name: address}}})
        assert said.startswith(f"services.qwen.{group}.{part}.{name} (got '{address}'): the port of an address is a number")


def test_the_copy_of_weights_downloads_as_its_service_does():
    env = PROXY | {"HF_ENDPOINT": "https://hub.example.com", "NCCL_DEBUG": "INFO"}
    made = plan(more={"weights": {"bucket": "my-models"}}, env=env, weights={"source": "gcs-fuse"})
    (job,) = mirror_jobs(made.mirrors, bucket="my-models", namespace="rayline", hugging_face=made.hugging_face)
    listed = {one["name"]: one["value"] for one in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert listed == PROXY | {
        "HF_ENDPOINT": "https://hub.example.com",
        "NO_PROXY": env_of(made)["NO_PROXY"],
        "no_proxy": env_of(made)["no_proxy"],
    }
