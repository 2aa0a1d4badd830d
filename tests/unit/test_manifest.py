"""The RayService that the program declares: what has to be equal is equal, and what would fail silently is not there."""

import re
from typing import Any

import pytest
import yaml

from rayline.facts.labels import llm_deployment
from rayline.facts.serve_flags import SERVE_FLAGS, SWITCHES, Kind
from rayline.service.drain import drain_times
from rayline_cli import plan_cards, render
from rayline_cli.offline import Program, ProgramError
from tests.conftest import stacks_of

L4 = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create}
services:
  qwen:
    model: Qwen/Qwen3.5-4B
    accelerator: l4
"""
GPU_STACKS = stacks_of("create")


def the_service(program: Program) -> dict[str, Any]:
    return render.ray_services(program)[0]


def cluster(service: dict[str, Any]) -> dict[str, Any]:
    return service["spec"]["rayClusterConfig"]


def groups(service: dict[str, Any]) -> list[dict[str, Any]]:
    """The head and every worker group."""
    return [cluster(service)["headGroupSpec"], *cluster(service)["workerGroupSpecs"]]


def pods(service: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["template"]["spec"] for group in groups(service)]


def environment(service: dict[str, Any]) -> dict[str, Any]:
    """Variable -> value, or the reference to a Secret."""
    listed = pods(service)[0]["containers"][0]["env"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in listed}


def serve(service: dict[str, Any]) -> dict[str, Any]:
    return yaml.safe_load(service["spec"]["serveConfigV2"])


def llm(service: dict[str, Any]) -> dict[str, Any]:
    return serve(service)["applications"][0]["args"]["llm_configs"][0]


def replicas(service: dict[str, Any]) -> int:
    """Copies of the model that Serve starts."""
    deployments = serve(service)["applications"][0]["deployments"]
    assert deployments[0]["name"] == llm_deployment(llm(service)["model_loading_config"]["model_id"])
    return deployments[0]["num_replicas"]


# --- environment


def test_the_head_and_every_worker_have_the_same_environment(program):
    for service in render.ray_services(program):
        head, *workers = (pod["containers"][0]["env"] for pod in pods(service))
        assert len(head) >= len(SWITCHES)
        assert workers
        # the head alone talks to its store
        shared = [one for one in head if one["name"] != "RAY_REDIS_CA_CERT"]
        assert all(worker == shared for worker in workers)


EVERY_SOURCE = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create}
head: {store: memorystore}
hugging_face: {source: %s}
services:
  qwen:
    model: Qwen/Qwen3.5-4B
    accelerator: l4
"""


@pytest.mark.parametrize("source", ["existing-secret", "secret-manager, secret: hugging-face"])
def test_a_stack_can_name_no_variable_that_the_kit_sets_without_a_key_for_it(record_file, source):
    text = EVERY_SOURCE % source
    names = {one["name"] for pod in pods(the_service(record_file(text))) for one in pod["containers"][0]["env"]}
    own = {name for name in names if name not in SERVE_FLAGS or SERVE_FLAGS[name].owned}
    assert {"HF_HOME", "PYTHONPATH", "RAYLINE_KEYS_FOLDER", "RAY_REDIS_CA_CERT"} <= own
    for name in own:
        with pytest.raises(ProgramError, match=rf"services\.qwen\.pods\.env\.{name}\b"):
            record_file(f'{text}    pods: {{env: {{{name}: "1"}}}}\n')
    for name in names - own:
        listed = environment(the_service(record_file(f'{text}    pods: {{env: {{{name}: "1"}}}}\n')))
        assert listed[name] == "1"


def test_every_variable_is_named_once_and_is_text_or_a_reference(program):
    for service in render.ray_services(program):
        for pod in pods(service):
            names = [one["name"] for one in pod["containers"][0]["env"]]
            assert len(names) == len(set(names))
            for one in pod["containers"][0]["env"]:
                assert isinstance(one.get("value"), str) != ("secretKeyRef" in one.get("valueFrom", {}))


def test_a_boolean_is_exactly_0_or_1(program):
    for service in render.ray_services(program):
        booleans = {name for name in environment(service) if name in SERVE_FLAGS and SERVE_FLAGS[name].kind is Kind.SWITCH}
        assert booleans >= set(SWITCHES.values())
        assert {environment(service)[name] for name in booleans} <= {"0", "1"}


def test_all_four_switches_are_on_in_every_stack(program):
    for service in render.ray_services(program):
        assert [environment(service)[variable] for variable in SWITCHES.values()] == ["1", "1", "1", "1"]


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_that_is_off_is_said_to_be_off(record_file, switch):
    off = {switch} | ({"throughput_optimized", "direct_streaming"} if switch == "ha_proxy" else set())
    key = "" if switch == "ray_executor_v2" or switch == "throughput_optimized" else "    api: {key: false}\n"
    said = ", ".join(f"{name}: false" for name in sorted(off))
    service = the_service(record_file(L4 + f"    switches: {{{said}}}\n" + key))
    for name, variable in SWITCHES.items():
        assert environment(service)[variable] == ("0" if name in off else "1")


def test_variables_of_a_stack_file_reach_every_container(record_file):
    service = the_service(record_file(L4 + '    pods: {env: {RAY_SERVE_HAPROXY_NBTHREAD: "8"}}\n'))
    assert environment(service)["RAY_SERVE_HAPROXY_NBTHREAD"] == "8"


CPU = """
cluster: {mode: local}
services:
  tiny:
    model: rayline/tiny-random-qwen3
    accelerator: cpu
"""


@pytest.mark.parametrize(("cpus", "threads"), [(0.25, "1"), (1, "1"), (3.5, "3"), (4, None), (8, None)])
def test_haproxy_has_no_more_threads_than_a_worker_has_cpus(record_file, cpus, threads):
    service = the_service(record_file(CPU + f"    workers: {{cpus: {cpus}}}\n"))
    assert environment(service).get("RAY_SERVE_HAPROXY_NBTHREAD") == threads, "None: Ray's own 4"


def test_threads_of_haproxy_that_a_stack_asks_for_are_not_reduced(record_file):
    service = the_service(record_file(CPU + '    pods: {env: {RAY_SERVE_HAPROXY_NBTHREAD: "4"}}\n'))
    assert environment(service)["RAY_SERVE_HAPROXY_NBTHREAD"] == "4"


def test_a_stack_can_have_each_token_by_itself(record_file):
    assert llm(the_service(record_file(CPU)))["engine_kwargs"]["stream_interval"] == 4
    one = the_service(record_file(CPU + "    engine: {stream_interval: 1}\n"))
    assert llm(one)["engine_kwargs"]["stream_interval"] == 1


def test_the_engines_metrics_go_through_ray_unless_a_stack_says_otherwise(record_file):
    assert "log_engine_metrics" not in llm(the_service(record_file(CPU))), "on by default in Ray Serve LLM"
    off = the_service(record_file(CPU + "    engine: {log_engine_metrics: false}\n"))
    assert llm(off)["log_engine_metrics"] is False


def test_a_secret_is_in_a_manifest_by_reference_only(record_file):
    program = record_file(L4 + "hugging_face: {source: existing-secret, secret_name: my-token}\n")
    service = the_service(program)
    assert environment(service)["HF_TOKEN"] == {"secretKeyRef": {"name": "my-token", "key": "hf_api_token"}}
    assert cluster(service)["authOptions"] == {"mode": "token", "secretName": "qwen-ray-auth"}
    # every reference is to a Secret that the program makes, or that the stack names
    known = set(render.secrets(program)) | {"my-token"}
    assert set(re.findall(r"'secretKeyRef': {'key': '\w+', 'name': '([\w-]+)'}", str(_sorted(service)))) <= known


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", GPU_STACKS)
def test_the_keys_and_the_gate_are_files_of_every_worker_and_of_no_head(stack, name):
    for service in render.ray_services(stack(name)):
        head, *workers = pods(service)
        assert "api-keys" not in str(head.get("volumes"))
        for pod in workers:
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            assert volumes["api-keys"]["secret"]["secretName"] == f"{service['metadata']['name']}-api-key"
            [gate] = [
                m
                for m in stack(name).of_type(":ConfigMap")
                if m.inputs["metadata"]["name"] == volumes["api-key-gate"]["configMap"]["name"]
            ]
            assert gate.inputs["immutable"] is True
            mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
            assert mounts["api-key-gate"]["mountPath"] == environment(service)["PYTHONPATH"]
            assert mounts["api-keys"]["mountPath"] == environment(service)["RAYLINE_KEYS_FOLDER"]
            assert all("subPath" not in mount for mount in mounts.values()), "kubelet never updates such a file"


def test_no_key_is_in_any_environment(program):
    for service in render.ray_services(program):
        assert "VLLM_API_KEY" not in environment(service)
        assert "api-key" not in str([value for value in environment(service).values() if isinstance(value, dict)])


@pytest.mark.parametrize("written", ["mine.Logger", "[mine.Logger]"])
@pytest.mark.parametrize("api_key", ["true", "false"])
def test_a_middleware_is_a_list_however_it_is_written(record_file, written, api_key):
    file = f"{L4}    api: {{key: {api_key}}}\n    engine: {{kwargs: {{middleware: {written}}}}}\n"
    gate = ["rayline_gate.ApiKeyGate"] if api_key == "true" else []
    # vLLM goes through it one by one: a text would be letters
    assert llm(the_service(record_file(file)))["engine_kwargs"]["middleware"] == ["mine.Logger", *gate]


def test_the_gate_stands_outside_the_middlewares_of_a_stack(record_file):
    assert llm(the_service(record_file(L4)))["engine_kwargs"]["middleware"] == ["rayline_gate.ApiKeyGate"]
    service = the_service(record_file(L4 + "    engine: {kwargs: {middleware: [mine.Logger]}}\n"))
    # vLLM puts each around those before it (entrypoints/serve/middleware/register.py)
    assert llm(service)["engine_kwargs"]["middleware"] == ["mine.Logger", "rayline_gate.ApiKeyGate"]


ADAPTERS = "    adapters: {location: gs://acme/adapters/, max_loaded: 8, max_rank: 64}\n"
FORWARD_BODY = "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY"


def test_adapters_are_bounded_in_ray_and_in_vllm_alike(record_file):
    service = the_service(record_file(L4 + ADAPTERS))
    assert llm(service)["lora_config"] == {"dynamic_lora_loading_path": "gs://acme/adapters", "max_num_adapters_per_replica": 8}
    wanted = {"enable_lora": True, "max_loras": 4, "max_cpu_loras": 8, "max_lora_rank": 64}
    assert wanted.items() <= llm(service)["engine_kwargs"].items()


def test_fewer_loaded_adapters_than_the_default_bound_the_active_ones(record_file):
    service = the_service(record_file(L4 + "    adapters: {location: gs://acme/a, max_loaded: 2}\n"))
    assert llm(service)["engine_kwargs"]["max_loras"] == 2


def test_only_a_service_with_adapters_sends_bodies_to_the_router(record_file):
    assert environment(the_service(record_file(L4 + ADAPTERS)))[FORWARD_BODY] == "1"
    assert FORWARD_BODY not in environment(the_service(record_file(L4)))
    assert not {"lora_config", "enable_lora"} & set(str(llm(the_service(record_file(L4)))).split("'"))


def test_the_gate_of_adapters_is_a_file_beside_the_other(record_file):
    program = record_file(L4 + ADAPTERS)
    service = the_service(program)
    assert llm(service)["engine_kwargs"]["middleware"] == ["rayline_adapter_gate.AdapterGate"]
    volumes = {volume["name"]: volume for volume in pods(service)[1]["volumes"]}
    [gate] = [
        each
        for each in program.of_type(":ConfigMap")
        if each.inputs["metadata"]["name"] == volumes["api-key-gate"]["configMap"]["name"]
    ]
    assert set(gate.inputs["data"]) == {"rayline_gate.py", "rayline_adapter_gate.py"}
    without = llm(the_service(record_file(L4 + ADAPTERS + "    api: {key: false}\n")))
    assert "middleware" not in without["engine_kwargs"]


def test_a_service_without_keys_has_no_gate(record_file):
    service = the_service(record_file(L4 + "    api: {key: false}\n"))
    assert "middleware" not in llm(service)["engine_kwargs"]
    assert not {"PYTHONPATH", "RAYLINE_KEYS_FOLDER"} & set(environment(service))
    assert not [volume for pod in pods(service) for volume in pod.get("volumes", []) if "key" in volume["name"]]


def test_a_new_api_key_changes_nothing_of_the_ray_service(record_file):
    assert the_service(record_file(L4)) == the_service(record_file(L4 + "    api: {key_generation: 7}\n"))


def test_a_new_ray_token_is_a_secret_of_its_own_and_so_a_new_ray_cluster(record_file):
    program = record_file(L4 + "    rollout: {ray_token_generation: 3}\n")
    assert cluster(the_service(program))["authOptions"]["secretName"] == "qwen-ray-auth-3"
    assert {"qwen-ray-auth-2", "qwen-ray-auth-3"} == {name for name in render.secrets(program) if "ray-auth" in name}


def test_a_new_ray_token_that_nothing_will_read_is_warned_of(record_file):
    taken_up = record_file(L4 + "    rollout: {ray_token_generation: 2}\n").plan.warnings
    waits = record_file(L4 + "    rollout: {ray_token_generation: 2, strategy: none}\n").plan.warnings
    assert [one for one in waits if "rollout.ray_token_generation 2 with strategy none" in one]
    assert not [one for one in taken_up if "ray_token_generation" in one]


def test_a_plan_says_which_keys_are_valid(record_file):
    program = record_file(L4 + "    api: {key_generation: 3}\n")
    access = dict(plan_cards.rows(program.plan, program.plan.services[0], program.plan.pools[0]))["access"]
    assert access == "API key of generation 3, and the previous one"


def test_no_container_gets_a_token_that_nobody_asked_for(program):
    for service in render.ray_services(program):
        assert "HF_TOKEN" not in environment(service)


# --- drain


def test_each_drain_timeout_outlasts_the_previous_one():
    for longest in range(10, 86401):
        drain = drain_times(longest)
        assert longest == drain.stream <= drain.replica <= drain.haproxy <= drain.gateway < drain.ray < drain.pod
        assert drain.pod <= drain.cluster


@pytest.mark.parametrize("longest", [10, 300, 7200])
def test_each_stage_of_the_drain_outlasts_the_one_before(record_file, longest):
    service = the_service(record_file(L4 + f"    rollout: {{longest_stream_seconds: {longest}}}\n"))
    haproxy = int(environment(service)["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"])
    ray = int(environment(service)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    grace = {pod["terminationGracePeriodSeconds"] for pod in pods(service)}
    assert len(grace) == 1
    replica = llm(service)["deployment_config"]["graceful_shutdown_timeout_s"]
    assert longest <= replica <= haproxy < ray < grace.pop() <= service["spec"]["rayClusterDeletionDelaySeconds"]


def test_no_container_stops_ray_before_it_drains(program):
    for service in render.ray_services(program):
        for pod in pods(service):
            for container in pod["containers"]:
                assert "lifecycle" not in container
                # a shell in front of `ray start` would swallow SIGTERM
                assert not {"command", "args"} & set(container)


# --- identity, place and health of pods


def token_users(service: dict[str, Any]) -> dict[str, list[str]]:
    """Volumes with a Kubernetes token -> the containers that mount them, in every pod of the service."""
    found: dict[str, list[str]] = {}
    autoscaler = {"name": "autoscaler", **cluster(service)["autoscalerOptions"]}
    for index, pod in enumerate(pods(service)):
        for volume in pod.get("volumes", []):
            if "serviceAccountToken" in str(volume):
                # KubeRay puts the sidecar into the head's pod
                containers = [*pod["containers"], *([autoscaler] if index == 0 else [])]
                found[volume["name"]] = [one["name"] for one in containers if volume["name"] in str(one.get("volumeMounts"))]
    return found


def test_the_autoscaler_alone_has_a_token_for_the_api_server(program):
    for service in render.ray_services(program):
        assert all(pod["automountServiceAccountToken"] is False for pod in pods(service))
        assert token_users(service) == {"autoscaler-token": ["autoscaler"]}
        mount = cluster(service)["autoscalerOptions"]["volumeMounts"][0]
        assert (mount["mountPath"], mount["readOnly"]) == ("/var/run/secrets/kubernetes.io/serviceaccount", True)


def test_head_and_workers_have_accounts_of_their_own_that_stay_through_upgrades(program):
    for service in render.ray_services(program):
        name = service["metadata"]["name"]
        assert [pod["serviceAccountName"] for pod in pods(service)] == [f"{name}-head", f"{name}-worker"]


def test_services_of_the_namespace_do_not_fill_the_environment(program):
    for service in render.ray_services(program):
        assert all(pod["enableServiceLinks"] is False for pod in pods(service))


def test_workers_are_spread_over_zones_and_nodes_only_where_that_is_possible(program):
    for service in render.ray_services(program):
        spread = pods(service)[1]["topologySpreadConstraints"]
        assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
        for one in spread:
            assert one["whenUnsatisfiable"] == "ScheduleAnyway"
            # each cluster of an upgrade by itself
            assert one["matchLabelKeys"] == ["ray.io/cluster"]
            assert one["labelSelector"]["matchLabels"]["rayline/service"] == service["metadata"]["name"]


def test_workers_that_share_a_replica_are_not_driven_into_different_zones(record_file):
    service = the_service(record_file(L4 + "    engine: {pipeline_parallel_size: 4}\n"))
    spread = pods(service)[1]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname"]


def test_one_slow_answer_makes_no_pod_unready_and_a_dead_node_is_restarted_only_after_minutes(program):
    for service in render.ray_services(program):
        for pod in pods(service):
            ready, alive = (pod["containers"][0][kind] for kind in ("readinessProbe", "livenessProbe"))
            assert ready["failureThreshold"] >= 3
            assert ready["timeoutSeconds"] >= 10 <= alive["timeoutSeconds"]
            assert alive["failureThreshold"] * alive["periodSeconds"] >= 600


def test_everything_that_prometheus_may_read_has_a_named_port(record_file):
    for switches, expected in (("", 9101), ("    pods: {env: {RAY_SERVE_HAPROXY_METRICS_PORT: '9200'}}\n", 9200)):
        head, workers = (
            {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
            for pod in pods(the_service(record_file(L4 + switches)))
        )
        assert head["haproxy-metrics"] == workers["haproxy-metrics"] == expected
        assert (head["metrics"], head["as-metrics"], head["dash-metrics"]) == (8080, 44217, 44227)
        assert len(set(head.values())) == len(head)


def test_without_haproxy_there_is_no_port_for_its_metrics(record_file):
    off = "    switches: {ha_proxy: false, throughput_optimized: false, direct_streaming: false}\n"
    off += "    api: {key: false}\n"
    assert "haproxy-metrics" not in str(the_service(record_file(L4 + off)))


# --- what KubeRay needs


def test_worker_groups_state_what_the_operator_would_write_back(program):
    for service in render.ray_services(program):
        for group in cluster(service)["workerGroupSpecs"]:
            assert group["scaleStrategy"] == {}
            assert group["template"]["metadata"]["labels"] == {"rayline/service": service["metadata"]["name"]}


def test_every_ray_pod_carries_the_label_that_selectors_use(program):
    for service in render.ray_services(program):
        assert service["metadata"]["labels"]["rayline/service"] == service["metadata"]["name"]
        for group in groups(service):
            assert group["template"]["metadata"]["labels"]["rayline/service"] == service["metadata"]["name"]


def test_the_head_and_the_workers_carry_the_labels_of_a_stack(record_file):
    service = the_service(record_file(L4 + "    pods: {labels: {team: search, kueue.x-k8s.io/queue-name: llm}}\n"))
    labels = {"team": "search", "kueue.x-k8s.io/queue-name": "llm", "rayline/service": "qwen"}
    assert [group["template"]["metadata"]["labels"] for group in groups(service)] == [labels, labels]


def test_the_head_works_on_nothing_and_serves_nobody(program):
    for service in render.ray_services(program):
        assert cluster(service)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert service["spec"]["excludeHeadPodFromServeSvc"] is True


def test_the_head_does_not_tolerate_gpu_nodes_and_asks_for_no_gpu(program):
    for service in render.ray_services(program):
        head = pods(service)[0]
        assert "tolerations" not in head
        assert "nvidia.com/gpu" not in str(head["containers"][0]["resources"])


@pytest.mark.parametrize("name", GPU_STACKS)
def test_the_head_runs_on_the_cpu_pool_and_workers_on_theirs(stack, name):
    program = stack(name)
    head, workers = pods(the_service(program))
    assert head["nodeSelector"] == {"rayline/pool": "system"}
    assert workers["nodeSelector"]["rayline/pool"] == program.plan.pools[0].name
    assert workers["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_the_ports_that_kuberay_looks_for_are_named_and_one_number_everywhere(program):
    for service in render.ray_services(program):
        head, *workers = (
            {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]} for pod in pods(service)
        )
        assert {"gcs-server", "dashboard", "client", "serve"} <= set(head)
        assert {head["serve"], *(ports["serve"] for ports in workers)} == {serve(service)["http_options"]["port"]}
        probe = pods(service)[1]["containers"][0]["readinessProbe"]["exec"]["command"][-1]
        assert f":{head['serve']}/-/healthz" in probe


def test_the_autoscaler_is_version_2_and_may_take_all_workers_away(program):
    for service, plan in zip(render.ray_services(program), program.plan.services, strict=True):
        assert cluster(service)["enableInTreeAutoscaling"] is True
        assert cluster(service)["autoscalerOptions"]["version"] == "v2"
        for group in cluster(service)["workerGroupSpecs"]:
            assert 0 == group["minReplicas"] < group["replicas"] <= group["maxReplicas"] == plan.workers.max_workers


def test_the_ray_version_is_that_of_the_image(record_file):
    for version in ("2.60.0", "2.56.0"):
        service = the_service(record_file(L4 + f'    pods: {{runtime: "{version}"}}\n'))
        assert cluster(service)["rayVersion"] == version
        assert pods(service)[0]["containers"][0]["image"].startswith(f"rayproject/ray-llm:{version}-")


def test_nothing_exposes_the_dashboard(program):
    for service in render.ray_services(program):
        head = cluster(service)["headGroupSpec"]
        assert not {"serviceType", "enableIngress", "headService", "ingressOptions"} & set(head)
        assert "serveService" not in service["spec"]
        assert cluster(service)["authOptions"]["mode"] == "token"


def test_pods_meet_the_restricted_pod_security_standard(program):
    for service in render.ray_services(program):
        for pod in pods(service):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in pod["containers"]:
                assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


# --- shapes


@pytest.mark.parametrize("name", GPU_STACKS)
def test_a_gpu_group_says_which_card_it_brings(stack, name):
    service = the_service(stack(name))
    card = llm(service)["accelerator_type"]
    assert cluster(service)["workerGroupSpecs"][0]["resources"] == {f"accelerator_type:{card}": "1"}


@pytest.mark.parametrize(
    ("tensor", "pipeline", "gpus", "workers"), [(1, 1, 1, 2), (2, 1, 2, 2), (4, 1, 4, 2), (1, 4, 1, 8), (4, 2, 4, 4)]
)
def test_parallel_sizes_become_workers_that_hold_them(record_file, tensor, pipeline, gpus, workers):
    engine = f"{{tensor_parallel_size: {tensor}, pipeline_parallel_size: {pipeline}}}"
    service = the_service(record_file(L4 + f"    replicas: 2\n    engine: {engine}\n"))
    group = cluster(service)["workerGroupSpecs"][0]
    resources = group["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == str(gpus)
    assert group["replicas"] == workers
    assert llm(service)["engine_kwargs"]["tensor_parallel_size"] == tensor
    assert llm(service)["engine_kwargs"]["pipeline_parallel_size"] == pipeline
    assert replicas(service) == 2


def test_memory_is_requested_and_limited_alike_so_that_ray_knows_it(program):
    for service in render.ray_services(program):
        for pod in pods(service):
            resources = pod["containers"][0]["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_the_limits_of_the_engine_are_always_said(program):
    for service, plan in zip(render.ray_services(program), program.plan.services, strict=True):
        arguments = llm(service)["engine_kwargs"]
        assert arguments["max_model_len"] == plan.limits.max_model_len
        assert arguments["max_num_seqs"] == plan.limits.max_num_seqs
        assert arguments["max_num_batched_tokens"] == plan.limits.max_num_batched_tokens
        if plan.machine:
            assert arguments["gpu_memory_utilization"] == plan.limits.gpu_memory_utilization


def test_a_cpu_service_is_the_same_service_without_a_gpu(stack):
    service = the_service(stack("local"))
    assert llm(service)["accelerator_config"] == {"kind": "cpu"}
    assert "accelerator_type" not in llm(service)
    assert llm(service)["engine_kwargs"]["enforce_eager"] is True
    assert environment(service)["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert "nvidia" not in str(service)


def test_one_application_with_one_model_answers_at_the_root(program):
    for service in render.ray_services(program):
        applications = serve(service)["applications"]
        assert [application["route_prefix"] for application in applications] == ["/"]
        assert len(applications[0]["args"]["llm_configs"]) == 1
        assert serve(service)["proxy_location"] == "EveryNode"


def test_further_engine_arguments_and_names_are_passed_on(record_file):
    service = the_service(
        record_file(
            L4 + "    engine: {kwargs: {enforce_eager: true}}\n    api: {served_model_name: qwen}\n"
            "    weights: {location: gs://bucket/qwen}\n    pods: {image: mirror/ray-llm:1}\n"
        )
    )
    assert llm(service)["engine_kwargs"]["enforce_eager"] is True
    assert llm(service)["model_loading_config"] == {"model_id": "qwen", "model_source": "gs://bucket/qwen"}
    assert {pod["containers"][0]["image"] for pod in pods(service)} == {"mirror/ray-llm:1"}


def test_kv_cache_that_leaves_the_gpu_gets_memory_of_the_machine(record_file):
    program = record_file(L4 + "    engine: {kv_offload_gib: 8}\n")
    assert llm(the_service(program))["engine_kwargs"]["kv_offloading_size"] == 8
    card = dict(plan_cards.rows(program.plan, program.plan.services[0], program.plan.pools[0]))
    assert "and 8 GiB of the machine for what leaves it" in card["memory per GPU"]
    assert "kv_offloading_size" not in llm(the_service(record_file(L4)))["engine_kwargs"]


def test_volumes_are_mounted_on_the_head_the_workers_and_the_autoscaler(record_file):
    service = the_service(
        record_file(
            L4 + "    api: {key: false}\n    pods:\n      volumes:\n"
            "        - {name: cache, mount_path: /cache, claim: weights}\n"
            "        - {name: host, mount_path: /opt/ray, host_path: /mnt/ray, read_only: true}\n"
            "isolation: {pod_security: privileged}\n"
        )
    )
    # `readOnly: false` would be a zero value, which the operator leaves out when it writes the list back
    mounts = [{"name": "cache", "mountPath": "/cache"}, {"name": "host", "mountPath": "/opt/ray", "readOnly": True}]
    for pod in pods(service):
        assert [volume for volume in pod["volumes"] if volume["name"] != "autoscaler-token"] == [
            {"name": "cache", "persistentVolumeClaim": {"claimName": "weights"}},
            {"name": "host", "hostPath": {"path": "/mnt/ray"}},
        ]
        assert pod["containers"][0]["volumeMounts"] == mounts
    assert cluster(service)["autoscalerOptions"]["volumeMounts"][1:] == mounts


def test_another_number_of_replicas_leaves_the_models_configuration_alone(record_file):
    # Serve takes a change of an application's `args` for new code and reloads every replica
    few, many = (the_service(record_file(L4 + f"    replicas: {count}\n")) for count in (2, 5))
    assert (replicas(few), replicas(many)) == (2, 5)
    assert llm(few) == llm(many)


@pytest.mark.parametrize(("asked", "request_"), [("0.25", "250m"), ("1", "1"), ("1.5", "1500m")])
def test_a_worker_may_ask_for_a_fraction_of_a_cpu_and_still_holds_its_replica(record_file, asked, request_):
    service = the_service(
        record_file(f"""
cluster: {{mode: existing}}
services:
  chat:
    model: HuggingFaceTB/SmolLM2-135M-Instruct
    accelerator: cpu
    pods: {{image: "cpu:1"}}
    workers: {{cpus: {asked}}}
""")
    )
    (group,) = cluster(service)["workerGroupSpecs"]
    assert group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == request_
    assert group["rayStartParams"] == {"num-cpus": "1"}, "a replica's placement asks Ray for one CPU"


@pytest.mark.parametrize(("strategy", "kind"), [("new-cluster", "NewCluster"), ("none", "None")])
def test_the_upgrade_strategy_is_always_said(record_file, strategy, kind):
    service = the_service(record_file(L4 + f"    rollout: {{strategy: {strategy}}}\n"))
    assert service["spec"]["upgradeStrategy"] == {"type": kind}


@pytest.mark.parametrize(("card", "label"), [("a100-40gb", "nvidia-tesla-a100"), ("a100-80gb", "nvidia-a100-80gb")])
def test_both_a100_are_one_type_for_ray_and_two_for_kubernetes(record_file, card, label):
    service = the_service(record_file(L4.replace("accelerator: l4", f"accelerator: {card}")))
    assert llm(service)["accelerator_type"] == "A100"
    workers = cluster(service)["workerGroupSpecs"][0]
    assert workers["resources"] == {"accelerator_type:A100": "1"}
    assert workers["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-accelerator"] == label
