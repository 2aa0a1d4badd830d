"""From a RayService to one local node: pure functions, no process."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rayline.service.api_key import GATE_PATH, gate_environment, gate_mounts, gate_volumes
from rayline.service.in_pods import rayline_gate
from rayline_cli.clients.serve import State, lacking, rollout, wanted_resources
from rayline_cli.local import failures
from rayline_cli.local.differences import DIFFERENCES
from rayline_cli.local.environment import START_TIMEOUTS, inherited_env, process_env
from rayline_cli.local.failures import TranslationError
from rayline_cli.local.haproxy import haproxy_wrapper
from rayline_cli.local.ports import PORTS, choose_ports
from rayline_cli.local.single_node import Secrets, SingleNode, read
from rayline_cli.local.translate import Place, Translation, restart_key, translate

FOLDER = Path("/tmp/rayline-00000000")
SECRETS = {
    ("api-key", "api_key"): "sk-secret",
    ("api-key", "previous_api_key"): "sk-before",
    ("hf", "token"): "hf-secret",
    ("ray-token", "auth_token"): "t" * 32,
}


def ray_service() -> dict:
    """What the local stack declares, in small."""
    serve_config = {
        "http_options": {"host": "0.0.0.0", "port": 8000},
        "proxy_location": "EveryNode",
        "applications": [
            {
                "name": "llm",
                "route_prefix": "/",
                "import_path": "ray.serve.llm:build_openai_app",
                "args": {
                    "llm_configs": [
                        {
                            "model_loading_config": {"model_id": "tiny", "model_source": "rayline/tiny-random-qwen3"},
                            "accelerator_config": {"kind": "cpu"},
                            "engine_kwargs": {"max_model_len": 1024},
                            "deployment_config": {"num_replicas": 2},
                        }
                    ]
                },
            }
        ],
    }
    env = [
        {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"},
        {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}},
        *gate_environment(),
    ]

    def group(cpu: str) -> dict:
        container = {
            "name": "ray",
            "env": copy.deepcopy(env),
            "resources": {"requests": {"cpu": cpu}},
            "volumeMounts": gate_mounts(),
        }
        spec = {"containers": [container], "volumes": gate_volumes("tiny")}
        spec["volumes"][1]["secret"]["secretName"] = "api-key"
        return {"rayStartParams": {}, "template": {"metadata": {}, "spec": spec}}

    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "tiny"},
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve_config),
            "rayClusterConfig": {
                "authOptions": {"mode": "token", "secretName": "ray-token"},
                "headGroupSpec": {**group("1"), "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"}},
                "workerGroupSpecs": [{**group("1500m"), "groupName": "cpu", "replicas": 2}],
            },
        },
    }


def head_env(service: dict) -> list[dict]:
    return service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]


def worker(service: dict) -> dict:
    return service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]


def serve_config_of(service: dict) -> dict:
    return yaml.safe_load(service["spec"]["serveConfigV2"])


def with_serve_config(service: dict, config: dict) -> dict:
    return {**service, "spec": {**service["spec"], "serveConfigV2": yaml.safe_dump(config)}}


def translated(node: SingleNode, secrets: Secrets = SECRETS, **changes) -> Translation:
    place = Place(
        ports=node.ports(),
        folder=FOLDER,
        cache_dir=Path("/cache"),
        model_folders={"rayline/tiny-random-qwen3": Path("/cache/tiny")},
        haproxy_binary=Path("/opt/haproxy"),
        own_token="made-up",
    )
    return translate(node, replace(place, **changes), secrets)


# --- one node for head and workers -----------------------------------------------------------------------------------


def test_the_cpus_of_all_workers_are_added_to_the_head():
    # 1500m is rounded up to 2 per worker, as KubeRay does; the head says 0.
    assert read(ray_service()).num_cpus == 4
    assert "--num-cpus=4" in translated(read(ray_service())).ray_start_args


def test_with_the_autoscaler_the_node_has_room_for_all_it_may_add():
    service = ray_service()
    worker(service)["maxReplicas"] = 5
    assert read(service).num_cpus == 4, "without an autoscaler maxReplicas means nothing"
    service["spec"]["rayClusterConfig"]["enableInTreeAutoscaling"] = True
    assert read(service).num_cpus == 10


def test_an_override_of_the_number_of_replicas_wins():
    service = ray_service()
    config = serve_config_of(service)
    assert read(service).serve.most_engines == 2
    config["applications"][0]["deployments"] = [{"name": "LLMServer:tiny", "num_replicas": 3}]
    assert read(with_serve_config(service, config)).serve.most_engines == 3


def test_custom_resources_count_once_per_worker():
    service = ray_service()
    worker(service)["resources"] = {"accelerator_type:CPU": "1", "cpu": "7"}
    worker(service)["rayStartParams"] = {"resources": "'{\"slots\": 3}'"}
    assert read(service).resources == {"slots": 6, "accelerator_type:CPU": 2.0}


def test_a_variable_that_differs_between_head_and_worker_is_refused_by_name():
    service = ray_service()
    head_env(service)[0]["value"] = "0"
    with pytest.raises(
        TranslationError, match="variable RAY_SERVE_ENABLE_HA_PROXY is '0' on the head and '1' in worker group cpu"
    ):
        read(service)


def test_a_variable_that_only_the_head_has_is_refused_by_name():
    service = ray_service()
    head_env(service).append({"name": "ONLY_HERE", "value": "1"})
    with pytest.raises(TranslationError, match="ONLY_HERE is '1' on the head and not set in worker group cpu"):
        read(service)


def test_a_service_that_asks_for_gpus_is_refused():
    service = ray_service()
    worker(service)["template"]["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": "1"}
    config = serve_config_of(service)
    del config["applications"][0]["args"]["llm_configs"][0]["accelerator_config"]
    with pytest.raises(TranslationError) as refused:
        read(with_serve_config(service, config))
    assert "requests 1 nvidia.com/gpu" in str(refused.value), "all reasons at once"
    assert "model tiny: accelerator_config must be {kind: cpu}" in str(refused.value)


def test_ray_start_params_are_passed_on_as_kuberay_does():
    service = ray_service()
    service["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"] |= {
        "object-store-memory": "200000000",
        "no-monitor": "true",
        "disable-usage-stats": "false",
        "include-dashboard": "true",
    }
    args = translated(read(service)).ray_start_args
    assert {"--object-store-memory=200000000", "--no-monitor", "--include-dashboard=true"} <= set(args)
    assert not any("disable-usage-stats" in arg for arg in args)


# --- loopback and ports ----------------------------------------------------------------------------------------------


def test_everything_that_can_be_told_listens_on_loopback():
    result = translated(read(ray_service()))
    assert {"--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"} <= set(result.ray_start_args)
    assert not any("0.0.0.0" in arg for arg in result.ray_start_args)
    assert result.serve_config["http_options"] == {"host": "127.0.0.1", "port": 8000}
    assert result.env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"


def test_declared_ports_are_kept_when_they_are_free():
    declared = read(ray_service()).ports()
    assert choose_ports(declared, lambda port: False) == declared
    assert declared["serve"] == 8000
    assert declared["dashboard"] == 8265
    assert declared["metrics"] == 8080


def test_a_taken_port_moves_up_by_a_hundred_and_the_replicas_by_their_range():
    taken = {8000, 8100, 30017}
    chosen = choose_ports(read(ray_service()).ports(), taken.__contains__)
    assert chosen["serve"] == 8200
    assert chosen["dashboard"] == 8265
    assert chosen["replicas"] == 31000


def test_no_two_services_of_one_session_get_the_same_port():
    everything_low = set(range(1, 20000))
    chosen = choose_ports(read(ray_service()).ports(), everything_low.__contains__)
    assert len(set(chosen.values())) == len(PORTS)


def test_moved_ports_reach_ray_haproxy_and_serve():
    declared = read(ray_service())
    result = translated(declared, ports={name: port + 100 for name, port in declared.ports().items()})
    assert {"--dashboard-port=8365", "--port=6479"} <= set(result.ray_start_args)
    assert result.env["RAY_SERVE_HAPROXY_METRICS_PORT"] == "9201"
    assert (result.env["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"], result.env["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"]) == (
        "30100",
        "31099",
    )
    assert result.serve_config["http_options"]["port"] == 8100


# --- a busy machine --------------------------------------------------------------------------------------------------


def test_what_nobody_here_uses_is_not_started():
    service = ray_service()
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]
    head["rayStartParams"] |= {"no-monitor": "false", "ray-client-server-port": "10001"}
    result = translated(read(service))
    assert result.env["RAY_START_HOOK"] == "rayline_cli.local.ray_start.before_start"
    assert [arg for arg in result.ray_start_args if "monitor" in arg or "client" in arg] == ["--no-monitor"]


def test_agents_have_ports_that_are_known_before_they_start():
    args = translated(read(ray_service())).ray_start_args
    for flag in ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port"):
        assert [arg for arg in args if arg.startswith(f"--{flag}=") and not arg.endswith("=0")], flag


def test_time_outs_of_a_start_are_an_hour_in_their_own_unit():
    env = translated(read(ray_service())).env
    assert env["RAY_DASHBOARD_STARTUP_TIMEOUT_S"] == "3600"
    assert env["RAY_agent_register_timeout_ms"] == "3600000"
    assert START_TIMEOUTS.keys() <= env.keys()


def test_a_declared_time_out_of_a_start_is_kept():
    service = ray_service()
    worker_env = worker(service)["template"]["spec"]["containers"][0]["env"]
    for env in (head_env(service), worker_env):
        env.append({"name": "VLLM_ENGINE_READY_TIMEOUT_S", "value": "7"})
    assert translated(read(service)).env["VLLM_ENGINE_READY_TIMEOUT_S"] == "7"


def test_haproxy_socket_paths_stay_below_its_limit_of_97_characters():
    env = translated(read(ray_service())).env
    for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        path = Path(env[name])
        assert len(str(path.parent / ("n" * 56) / path.name)) <= 97


def test_the_haproxy_wrapper_rewrites_only_binds_to_all_interfaces(tmp_path):
    import subprocess

    config = tmp_path / "haproxy.cfg"
    config.write_text("frontend a\n    bind :9101\nfrontend b\n    bind 127.0.0.1:8000\nlisten stats\n  bind *:8404\n")
    wrapper = tmp_path / "haproxy"
    wrapper.write_text(haproxy_wrapper(Path("/bin/echo")))
    said = subprocess.run(["sh", wrapper, "-db", "-f", config, "-dR"], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["-db", "-f", str(config), "-dR"], "HAProxy gets the arguments unchanged"
    assert config.read_text().count("bind 127.0.0.1:") == 3
    assert "*" not in config.read_text()


# --- model, secrets, environment -------------------------------------------------------------------------------------


def test_a_bundled_model_becomes_a_folder_and_keeps_its_served_name():
    result = translated(read(ray_service()))
    loading = result.serve_config["applications"][0]["args"]["llm_configs"][0]["model_loading_config"]
    assert loading == {"model_id": "tiny", "model_source": "/cache/tiny"}
    assert result.env["HF_HUB_OFFLINE"] == "1"


def test_a_hugging_face_id_is_passed_through_and_may_be_downloaded():
    result = translated(read(ray_service()), model_folders={})
    loading = result.serve_config["applications"][0]["args"]["llm_configs"][0]["model_loading_config"]
    assert loading["model_source"] == "rayline/tiny-random-qwen3"
    assert "HF_HUB_OFFLINE" not in result.env


def test_secrets_become_environment_and_never_arguments():
    result = translated(read(ray_service()))
    assert result.env["HF_TOKEN"] == "hf-secret"
    assert result.env["RAY_AUTH_MODE"] == "token"
    assert result.env["RAY_AUTH_TOKEN"] == "t" * 32
    assert not any("sk-secret" in arg or "tttt" in arg for arg in result.ray_start_args)


def test_a_mounted_secret_becomes_files_and_stands_in_no_environment():
    result = translated(read(ray_service()))
    assert list(result.api_keys.values()) == ["sk-secret"]
    assert result.files == {"secrets/api-key/api_key": "sk-secret", "secrets/api-key/previous_api_key": "sk-before"}
    assert result.env["RAYLINE_KEYS_FOLDER"] == str(FOLDER / "secrets" / "api-key")
    assert not {"sk-secret", "sk-before"} & set(result.env.values())


def test_python_finds_the_gate_where_the_project_has_it():
    declared = read(ray_service())
    assert declared.env["PYTHONPATH"] == GATE_PATH
    assert translated(declared).env["PYTHONPATH"] == str(Path(rayline_gate.__file__).parent)


def test_an_empty_secret_is_not_set_at_all():
    assert "HF_TOKEN" not in translated(read(ray_service()), secrets={**SECRETS, ("hf", "token"): ""}).env


def test_a_missing_secret_is_named():
    with pytest.raises(TranslationError) as refused:
        translated(read(ray_service()), secrets={})
    assert "variable HF_TOKEN needs the key token of Secret hf" in str(refused.value)
    assert "the volume at /etc/rayline/api-keys needs Secret api-key" in str(refused.value)
    assert "authOptions needs the key auth_token of Secret ray-token" in str(refused.value)


def test_without_a_declared_token_ray_gets_its_own():
    # `authOptions: {}` declares none: KubeRay tests mode == "token" and the CRD has no default.
    service = ray_service()
    service["spec"]["rayClusterConfig"]["authOptions"] = {}
    env = translated(read(service)).env
    assert (env["RAY_AUTH_MODE"], env["RAY_AUTH_TOKEN"]) == ("token", "made-up")


def test_the_callers_ray_and_vllm_variables_do_not_leak_in():
    kept = inherited_env(
        {"RAY_ADDRESS": "x", "PYTHONPATH": "/mine", "VLLM_LOGGING_LEVEL": "DEBUG", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C"}
    )
    del kept["TORCH_COMPILE_DISABLE"]  # nothing is compiled
    assert kept == {"LANG": "C", "no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}


def test_what_the_manifest_declares_wins_over_the_callers_variables():
    env = process_env({"LANG": "C", "PATH": "/usr/bin"}, {"LANG": "de", "HTTPS_PROXY": "http://p:1"}, "/venv/bin")
    assert (env["LANG"], env["HTTPS_PROXY"]) == ("de", "http://p:1")
    assert env["PATH"] == "/venv/bin:/usr/bin"
    # a folder of the manifest's own does not take Ray's programs away
    assert process_env({"PATH": "/usr/bin"}, {"PATH": "/opt/bin"}, "/venv/bin")["PATH"] == "/venv/bin:/opt/bin"


def test_this_machine_is_never_reached_through_a_proxy():
    for declared in ({}, {"NO_PROXY": "hub.example.com"}, {"no_proxy": "localhost", "NO_PROXY": "localhost"}):
        env = process_env({"https_proxy": "http://p:1", "no_proxy": "mine.example.com"}, declared, "/venv/bin")
        for name in ("no_proxy", "NO_PROXY"):
            listed = env[name].split(",")
            assert {"127.0.0.1", "localhost"} <= set(listed)
            assert len(set(listed)) == len(listed)
            assert set(declared.get(name, "localhost").split(",")) <= set(listed)
        assert "mine.example.com" in env["no_proxy"]


def test_a_port_that_is_no_number_is_refused_by_its_variable():
    service = ray_service()
    for container in (
        service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0],
        worker(service)["template"]["spec"]["containers"][0],
    ):
        container["env"].append({"name": "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "value": "many"})
    with pytest.raises(TranslationError, match=r"RAY_SERVE_FALLBACK_PROXY_HTTP_PORT is 'many'.*Fix: a number"):
        read(service).ports()


def test_nothing_is_compiled_for_an_eager_engine_or_without_a_compiler(tmp_path: Path):
    assert inherited_env({"PATH": str(tmp_path)}, compiles=True)["TORCH_COMPILE_DISABLE"] == "1"
    compiler = tmp_path / "g++"
    compiler.write_text("")
    compiler.chmod(0o755)
    assert "TORCH_COMPILE_DISABLE" not in inherited_env({"PATH": str(tmp_path)}, compiles=True)
    assert "TORCH_COMPILE_DISABLE" in inherited_env({"PATH": str(tmp_path), "CXX": "clang++"}, compiles=True)
    assert inherited_env({"PATH": str(tmp_path)})["TORCH_COMPILE_DISABLE"] == "1"
    service = ray_service()
    assert not read(service).compiles
    declared = yaml.safe_load(service["spec"]["serveConfigV2"])
    declared["applications"][0]["args"]["llm_configs"][0]["engine_kwargs"]["enforce_eager"] = False
    service["spec"]["serveConfigV2"] = yaml.safe_dump(declared)
    assert read(service).compiles


def test_the_manifest_is_not_changed():
    service = ray_service()
    before = copy.deepcopy(service)
    translated(read(service))
    assert service == before


def test_every_difference_says_what_and_why():
    assert all(difference.what and difference.why for difference in DIFFERENCES)


# --- what a change needs ---------------------------------------------------------------------------------------------


def test_a_changed_application_needs_no_restart():
    service = ray_service()
    config = serve_config_of(service)
    config["applications"][0]["args"]["llm_configs"][0]["engine_kwargs"]["max_model_len"] = 512
    changed = read(with_serve_config(service, config))
    assert restart_key(changed, SECRETS, "salt") == restart_key(read(service), SECRETS, "salt")


def test_new_api_keys_need_no_restart():
    base = restart_key(read(ray_service()), SECRETS, "salt")
    rotated = {**SECRETS, ("api-key", "api_key"): "sk-next", ("api-key", "previous_api_key"): "sk-secret"}
    assert restart_key(read(ray_service()), rotated, "salt") == base


def test_environment_secrets_and_http_options_need_a_restart():
    base = restart_key(read(ray_service()), SECRETS, "salt")
    assert restart_key(read(ray_service()), {**SECRETS, ("hf", "token"): "hf-other"}, "salt") != base
    other = ray_service()
    for env in (head_env(other), worker(other)["template"]["spec"]["containers"][0]["env"]):
        env[0]["value"] = "0"
    assert restart_key(read(other), SECRETS, "salt") != base
    config = serve_config_of(ray_service())
    config["http_options"]["port"] = 9000
    assert restart_key(read(with_serve_config(ray_service(), config)), SECRETS, "salt") != base


# --- how far it is ---------------------------------------------------------------------------------------------------


def details(**changes) -> dict:
    """GET's answer for an application that runs."""
    deployment = {
        "status": "HEALTHY",
        "message": "",
        "target_num_replicas": 1,
        "replicas": [{"state": "RUNNING", "worker_id": "w1"}],
        **changes.pop("deployment", {}),
    }
    app = {
        "status": "RUNNING",
        "message": "",
        "deployed_app_config": {"name": "llm", "args": {"n": 1}, "runtime_env": {}},
        "deployments": {"LLMServer:tiny": deployment},
        **changes,
    }
    return {"applications": {"llm": app}}


SENT = {"applications": [{"name": "llm", "args": {"n": 1}}]}


def test_running_with_the_sent_configuration_is_ready():
    assert rollout(details(), SENT).state is State.READY


def test_running_with_the_previous_configuration_is_not_ready():
    said = rollout(details(), {"applications": [{"name": "llm", "args": {"n": 2}}]})
    assert said.state is State.WAITING
    assert "previous configuration" in said.detail


def test_running_with_a_replica_missing_is_not_ready():
    said = rollout(details(deployment={"target_num_replicas": 2}), SENT)
    assert said.state is State.WAITING
    assert "LLMServer:tiny 1/2 running" in said.detail


def test_an_application_that_is_no_longer_declared_must_be_gone():
    found = details()
    found["applications"]["old"] = found["applications"]["llm"]
    assert rollout(found, SENT).state is State.WAITING


@pytest.mark.parametrize(
    "deployment",
    [
        {"status": "DEPLOY_FAILED", "message": "no"},
        {"status": "UPDATING", "message": "A replica failed to start with exception. Retrying 2 more time(s). Error: no"},
    ],
)
def test_the_first_failure_ends_the_wait(deployment):
    said = rollout(details(status="DEPLOYING", deployment=deployment), SENT)
    assert said.state is State.FAILED
    assert "no" in said.detail


def test_a_replica_without_a_place_is_told_apart_from_one_that_starts():
    message = "Deployment has 1 replicas that have taken more than 30s to be scheduled."
    said = rollout(details(status="DEPLOYING", deployment={"status": "UPDATING", "message": message}), SENT)
    assert said.state is State.WAITING
    assert said.unscheduled


TWO_CPUS_EACH = {"target_num_replicas": 3, "required_resources": {"CPU": 2, "memory": 0}}


def test_replicas_that_do_not_fit_are_told_with_both_numbers():
    wanted = wanted_resources(details(deployment=TWO_CPUS_EACH))
    assert wanted["CPU"] == 6
    assert lacking(wanted, {"CPU": 4.0}) == "All replicas together request 6 CPU, and this Ray has 4."
    assert lacking(wanted, {"CPU": 6.0}) == ""


def test_a_placement_group_counts_with_all_its_bundles_and_the_replica_in_the_first():
    bundles = [{"CPU": 1}, {"CPU": 1, "accelerator_type:L4": 0.001}]
    wanted = wanted_resources(details(deployment={**TWO_CPUS_EACH, "deployment_config": {"placement_group_bundles": bundles}}))
    assert wanted["CPU"] == 6
    assert "0.003 accelerator_type:L4, and this Ray has 0." in lacking(wanted, {"CPU": 9.0})


def test_replicas_are_waited_for_where_ray_does_not_say_what_it_has():
    assert lacking(wanted_resources(details(deployment=TWO_CPUS_EACH)), None) == ""


def test_a_failure_of_the_previous_configuration_is_not_the_new_ones():
    failed = {"status": "UPDATING", "message": "A replica failed to start with exception. Error: old"}
    before = details(deployment=failed)
    building = details(status="DEPLOYING", deployment=failed)
    assert rollout(building, SENT, before).state is State.WAITING
    again = details(status="DEPLOYING", deployment={**failed, "message": failed["message"] + " and new"})
    assert rollout(again, SENT, before).state is State.FAILED


# --- the real reason -------------------------------------------------------------------------------------------------


def test_the_innermost_exception_is_the_reason():
    text = (
        "A replica failed to start with exception. Error:\n"
        "ray.exceptions.RayTaskError(RuntimeError): ray::ServeReplica:llm:LLMServer:tiny\n"
        "RuntimeError: Traceback (most recent call last):\n"
        '  File "replica.py", line 1, in x\n'
        "RuntimeError: Failed to create vLLM engine config: 1 validation error for ModelConfig\n"
        "  Value error, max_model_len (100000) is too long [type=value_error, input_value=A((), {'m': 1}), input_type=A]\n"
        "    For further information visit somewhere\n"
    )
    assert failures.root_cause(text) == (
        "RuntimeError: Failed to create vLLM engine config: 1 validation error for ModelConfig "
        "Value error, max_model_len (100000) is too long"
    )


def test_a_useless_message_sends_us_to_the_engines_log():
    message = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
    log = "(EngineCore pid=7) ERROR 11-21 11:12:53 [core.py:1374] ValueError: To serve at least one request ..."
    assert failures.root_cause(message, log) == "ValueError: To serve at least one request ..."


def test_a_process_killed_for_memory_is_recognised():
    assert failures.memory_ran_out("Task was killed due to the node running low on memory.")
    assert not failures.memory_ran_out("ValueError: max_model_len")


@pytest.mark.parametrize(
    "text",
    [
        "TimeoutError: HTTP proxies not available after 60s.",
        "RuntimeError: Timed out waiting for node info for node_id=ab",
        "Exception: The current node timed out during startup. This could happen because ...",
        "RuntimeError: HAProxy (pid=7) did not take over the admin socket within 30 seconds. stderr: ",
        "RuntimeError: Did not receive response from front-end process within 5 minutes",
        "Module ServeHead failed to start. Timeout after 30 seconds.",
        "ray.exceptions.GetTimeoutError: Get timed out: some object(s) not ready.",
        "Deadline Exceeded",
    ],
)
def test_a_time_out_of_rays_own_is_recognised(text: str):
    assert failures.timed_out(text)


@pytest.mark.parametrize(
    "text",
    [
        "ValueError: max_model_len (100000) is greater than the derived max_model_len",
        "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
        "OSError: [Errno 98] Address already in use",
        "ValueError: unknown argument request_timeout_s",
    ],
)
def test_other_failures_are_none(text: str):
    assert not failures.timed_out(text)
