"""The Job that measures a service in its cluster: its rights, its node, and the calls of kubectl."""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import stat
import subprocess
import sys
from typing import Any

import pytest
from openai_server import Streaming, save_tokenizer

from rayline.facts.labels import SERVICE_LABEL
from rayline.isolation.manifests import network_policies
from rayline_bench import bench_serve, cluster_job, cluster_run
from rayline_bench.arms import laid_over
from rayline_bench.cluster_job import MARK
from rayline_bench.errors import BenchError, BenchUsageError
from rayline_bench.schedule import Point
from rayline_bench.workloads import WORKLOADS, Load
from rayline_cli import offline
from tests.engine import sdk_types

LOADS = [Load(WORKLOADS["tokens"], 64, 256), Load(WORKLOADS["balanced"], 8, 48)]


def program(stack: str, **service: Any) -> offline.Program:
    values, secret = offline.read_stack(stack)
    key = next(key for key in values if key.endswith(":services"))
    services = json.loads(values[key])
    name = next(iter(services))
    values[key] = json.dumps({name: laid_over(services[name], service)})
    return offline.record(stack, config=(values, secret))


@pytest.fixture(scope="module")
def prod() -> cluster_run.ClusterBench:
    return cluster_run.prepare(offline.record("prod-l4"), LOADS, "")


def jobs(run: cluster_run.ClusterBench, repeats: int = 2) -> list[dict[str, Any]]:
    return run.jobs(run.left(cluster_run.new_receipt(run, repeats, "")))


def documents(run: cluster_run.ClusterBench, repeats: int = 2) -> dict[str, dict[str, Any]]:
    """By kind, or kind and end of the name where there are several."""
    found = cluster_job.manifests(run.plan, run.service, jobs(run, repeats))
    return {
        one["kind"] + (one["metadata"]["name"].rpartition("-")[2] if one["kind"] == "NetworkPolicy" else ""): one
        for one in found
    }


def pod_of(run: cluster_run.ClusterBench) -> dict[str, Any]:
    return documents(run)["Job"]["spec"]["template"]["spec"]


def test_every_object_is_of_the_kit_and_of_its_run_in_the_services_namespace(prod):
    found = documents(prod)
    assert {"Job", "NetworkPolicyout", "NetworkPolicyin"} == found.keys()
    name = found["Job"]["metadata"]["name"]
    for document in found.values():
        assert document["metadata"]["namespace"] == "rayline"
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "rayline"
        assert labels["rayline/bench"] == name
        # KubeRay, budgets and the rules between Ray's pods select by it
        assert SERVICE_LABEL not in labels
    assert found["Job"]["spec"]["template"]["metadata"]["labels"] == found["Job"]["metadata"]["labels"]


def test_the_pod_meets_the_restricted_standard_and_writes_into_its_scratch_only(prod):
    pod = pod_of(prod)
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    kinds = {next(key for key in volume if key != "name") for volume in pod["volumes"]}
    assert kinds <= {"emptyDir", "csi", "secret", "projected"}
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp"]
    homes = {entry["value"] for entry in container["env"] if entry["name"] in ("HOME", "HF_HOME", "XDG_CACHE_HOME")}
    assert all(home.startswith("/tmp") for home in homes)
    assert pod["automountServiceAccountToken"] is False


def test_the_pod_runs_the_services_own_image_away_from_gpus_and_from_the_service(prod):
    pod = pod_of(prod)
    assert pod["containers"][0]["image"] == prod.service.image
    assert "tolerations" not in pod
    assert pod["nodeSelector"] == {"rayline/pool": "system"}
    assert "nvidia.com/gpu" not in json.dumps(pod["containers"][0]["resources"])
    apart = pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert apart["labelSelector"]["matchLabels"] == {SERVICE_LABEL: "qwen"}
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {"key": "cloud.google.com/gke-accelerator", "operator": "DoesNotExist"} in terms[0]["matchExpressions"]


def test_in_a_cluster_of_ones_own_a_single_node_is_enough():
    run = cluster_run.prepare(offline.record("kind"), LOADS[:1], "")
    pod = pod_of(run)
    assert "nodeSelector" not in pod
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in pod["affinity"]["podAntiAffinity"]


def test_the_job_sees_the_services_volumes_and_writes_to_none():
    volumes = [
        {"name": "models", "mount_path": "/models", "claim": "models", "read_only": True},
        {"name": "cache", "mount_path": "/cache", "claim": "cache"},
    ]
    changed = program("kind", pods={"volumes": volumes}, weights={"location": "/models/smollm2"})
    run = cluster_run.prepare(changed, LOADS[:1], "")
    pod = pod_of(run)
    mounted = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted["models"] == {"name": "models", "mountPath": "/models", "readOnly": True}
    assert mounted["cache"] == {"name": "cache", "mountPath": "/cache", "readOnly": True}
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}} in pod["volumes"]
    assert jobs(run)[0]["tokenizer"] == "/models/smollm2"


def test_the_key_comes_from_its_secret_and_is_nowhere_else(prod):
    env = {entry["name"]: entry for entry in pod_of(prod)["containers"][0]["env"]}
    assert env["OPENAI_API_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "qwen-api-key", "key": "api_key"}}
    open_service = cluster_run.prepare(program("kind", api={"key": False}), LOADS[:1], "")
    assert "OPENAI_API_KEY" not in {entry["name"] for entry in pod_of(open_service)["containers"][0]["env"]}


def test_the_way_to_the_workers_is_open_at_the_endpoints_port_only(prod):
    found = documents(prod)
    out, into = found["NetworkPolicyout"]["spec"], found["NetworkPolicyin"]["spec"]
    job_labels = found["Job"]["spec"]["template"]["metadata"]["labels"]
    assert out["podSelector"]["matchLabels"].items() <= job_labels.items()
    assert into["ingress"][0]["from"][0]["podSelector"] == out["podSelector"]
    assert out["egress"][0]["to"][0]["podSelector"] == into["podSelector"]
    assert out["egress"][0]["ports"] == into["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8000}]
    # the same pods as the kit's own rule for clients of the service
    worker = next(one for one in network_policies(prod.plan, prod.plan.isolation) if one["metadata"]["name"] == "qwen-worker")
    assert into["podSelector"] == worker["spec"]["podSelector"]


def test_without_network_policies_there_are_none():
    values, secret = offline.read_stack("kind")
    values["rayline:isolation"] = json.dumps({"network_policies": False})
    run = cluster_run.prepare(offline.record("kind", config=(values, secret)), LOADS[:1], "")
    assert documents(run).keys() == {"Job"}


def test_points_are_sent_to_the_service_load_by_load_through_the_repeats(prod):
    found = jobs(prod)
    assert [(one["concurrency"], one["requests"], one["warmup"]) for one in found] == [(64, 256, 64), (8, 48, 8)] * 2
    assert {one["url"] for one in found} == {"http://qwen-serve-svc:8000"}
    assert {(one["model"], one["tokenizer"]) for one in found} == {(prod.service.served_model_name, "Qwen/Qwen3.5-4B")}
    assert len({one["seed"] for one in found}) == 4


def test_every_command_of_the_job_is_one_that_vllm_bench_serve_takes(prod):
    serve = pytest.importorskip("vllm.benchmarks.serve", reason="needs the `local` extra")
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    serve.add_cli_args(parser)
    commands = [line.partition(" && ")[0] for line in script_of(prod).splitlines()[1:]]
    assert len(commands) == 4
    for command, job in zip(commands, jobs(prod), strict=True):
        program = shlex.split(command)
        compile(program[3], "the Job's program", "exec")
        assert program[3] == cluster_job.BENCH_SERVE
        parsed: Any = parser.parse_args(program[4:])
        assert (parsed.base_url, parsed.num_prompts, parsed.num_warmups) == (job["url"], job["requests"], job["warmup"])


TOKENS = {"NetworkPolicy": "kubernetes:networking.k8s.io/v1:NetworkPolicy", "Job": "kubernetes:batch/v1:Job"}


def faults(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What Kubernetes' schema says is wrong, as far as Pulumi's SDK carries it: names, nesting, types, required fields."""
    resource = sdk_types.resource_class(TOKENS[document["kind"]])
    assert resource is not None
    return sdk_types.mistakes(sdk_types.input_class(resource), document)


def test_every_object_fits_kubernetes_schema(prod):
    found = documents(prod)
    assert {name: faults(document) for name, document in found.items()} == {name: [] for name in found}
    found["Job"]["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesytem"] = True
    assert "readOnlyRootFilesytem" in str(faults(found["Job"]))


def test_names_fit_and_the_job_ends_whatever_happens(prod):
    job = documents(prod)["Job"]
    assert len(job["metadata"]["name"]) <= 63
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert job["spec"]["activeDeadlineSeconds"] >= 4 * 60 * cluster_job.MINUTES_PER_POINT
    assert len(cluster_job.run_name("a" * 60, [])) <= 63


def test_a_service_that_cannot_be_measured_is_refused_with_the_reason():
    with pytest.raises(BenchUsageError, match="parked"):
        cluster_run.prepare(program("prod-l4", park=True), LOADS, "")
    with pytest.raises(BenchUsageError, match="context of 8114 tokens"):
        cluster_run.prepare(program("prod-l4", engine={"max_model_len": 4096}), [Load(WORKLOADS["prefill-heavy"], 16, 16)], "")
    for workload in ("echo", "agentic"):
        with pytest.raises(BenchUsageError, match="for this machine only"):
            cluster_run.prepare(offline.record("prod-l4"), [Load(WORKLOADS[workload], 16, 96)], "")
    with pytest.raises(BenchUsageError, match="stack prod-l4 has no such one"):
        cluster_run.prepare(offline.record("prod-l4"), LOADS, "absent")


# --- the script in the pod ---------------------------------------------------------------------------------------------


def script_of(run: cluster_run.ClusterBench) -> str:
    return pod_of(run)["containers"][0]["command"][2]


def in_folder(script: str, folder: pathlib.Path) -> str:
    """Let the script write its results into a folder in place of the pod's /tmp."""
    return script.replace("--result-dir /tmp", f"--result-dir {folder}").replace("cat /tmp", f"cat {folder}")


FAKE_PYTHON = """#!{python}
import json, pathlib, sys
given = dict(zip(sys.argv, sys.argv[1:]))
print("a table of vLLM's")
if given["--max-concurrency"] == "8":
    sys.exit("no such host")
(pathlib.Path(given["--result-dir"]) / given["--result-filename"]).write_text(json.dumps({{"completed": 7, "key": "a b"}}))
"""


def test_the_script_measures_each_point_and_goes_on_after_one_that_fails(prod, tmp_path):
    executable(tmp_path / "python", FAKE_PYTHON.format(python=sys.executable))
    script = in_folder(script_of(prod), tmp_path)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "NODE_NAME": "n"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    marked = [text.removeprefix(MARK) for text in done.stdout.splitlines() if text.startswith(MARK)]
    assert re.fullmatch(r"machine \d+ n", marked[0])
    found = dict(text.split(" ", 1) for text in marked[1:])
    assert {number: json.loads(result) for number, result in found.items()} == {
        "0": {"completed": 7, "key": "a b"},
        "1": None,
        "2": {"completed": 7, "key": "a b"},
        "3": None,
    }


@pytest.mark.slow
def test_the_script_measures_a_server_with_vllms_own_load_generator(tmp_path, monkeypatch):
    pytest.importorskip("vllm", reason="needs the `local` extra")
    save_tokenizer(tmp_path)
    with Streaming(tokens_out=8).running() as server:
        workload = dataclasses.replace(
            WORKLOADS["tokens"], arguments=("--dataset-name", "random", "--random-input-len", "5", "--random-output-len", "8")
        )
        load = Load(workload, 2, 6).job(Point(1, 1, "tokens", 2, "service"))
        job = load | {"url": server.url, "model": "tiny", "tokenizer": str(tmp_path)}
        script = in_folder(cluster_job.script([job]), tmp_path).replace("python -u", f"{sys.executable} -u")
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment |= {"OPENAI_API_KEY": "sk-test", "NODE_NAME": "n", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    marked = [text.removeprefix(MARK) for text in done.stdout.splitlines() if text.startswith(MARK)]
    assert [text.partition(" ")[0] for text in marked] == ["machine", "0"], done.stdout + done.stderr
    figures = bench_serve.figures(json.loads(marked[1].removeprefix("0 ")))
    assert (figures["completed"], figures["failed"], figures["output_tokens"]) == (6, 0, 48)
    assert figures["ttft_p99_ms"] > 0
    assert {one["key"] for one in server.requests} == {"Bearer sk-test"}
    assert len(server.requests) >= 6 + 2, "the warm-up counts too"


# --- kubectl -----------------------------------------------------------------------------------------------------------

FAKE_KUBECTL = """#!{python}
import json, pathlib, sys
home = pathlib.Path({home!r})
arguments = sys.argv[1:]
with (home / "calls").open("a") as calls:
    calls.write(json.dumps(arguments) + "\\n")
answers = json.loads((home / "answers.json").read_text())
rest = arguments[arguments.index("--namespace") + 2:]
if rest[0] == "create":
    (home / "created.json").write_text(sys.stdin.read())
elif rest[0] == "get":
    answer = answers[rest[1]]
    if isinstance(answer, str):
        print(answer, file=sys.stderr)
        sys.exit(1)
    # a list of answers is used up one by one, the last one stays
    count = home / f"gets-{{rest[1]}}"
    gets = int(count.read_text()) if count.exists() else 0
    count.write_text(str(gets + 1))
    print(json.dumps(answer[min(gets, len(answer) - 1)]))
elif rest[0] == "logs":
    count = home / "read"
    read = int(count.read_text()) if count.exists() else 0
    count.write_text(str(read + 1))
    said = answers["logs"][min(read, len(answers["logs"]) - 1)]
    if said is None:
        sys.exit("unexpected EOF")
    print(said, end="")
"""

READY = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
NOTHING: dict[str, Any] = {"items": []}
PENDING = {
    "metadata": {"name": "p"},
    "status": {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}],
    },
}
RUNNING = {"metadata": {"name": "p"}, "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}}
MISSING_SECRET = {
    "metadata": {"name": "p"},
    "status": {
        "phase": "Pending",
        "containerStatuses": [
            {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "qwen-api-key" not found'}}}
        ],
    },
}
RESULT = {
    "completed": 256,
    "failed": 0,
    "duration": 8.0,
    "request_throughput": 32.0,
    "total_output_tokens": 25_600,
    "output_throughput": 3200.0,
    "total_input_tokens": 12_800,
    **{f"p{share}_{metric}_ms": 80.0 for metric in ("ttft", "tpot", "e2el") for share in (50, 90, 99)},
}


def done(number: int, result: dict[str, Any] | None = RESULT) -> str:
    return f"vllm's own words\n{MARK}{number} {json.dumps(result)}\n"


BEGIN = f"vllm says hello\n{MARK}machine 8 n\n"
WHOLE = BEGIN + done(0) + done(1)
GOES_ON: dict[str, Any] = {"status": {"active": 1}}
COMPLETE: dict[str, Any] = {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}
FAILED: dict[str, Any] = {"status": {"conditions": [{"type": "Failed", "status": "True", "message": "BackoffLimit"}]}}


def executable(path: pathlib.Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def phase(self, name: str, detail: str) -> None:
        self.lines.append(f"{name}: {detail}")

    def done(self, name: str, seconds: float, detail: str) -> None:
        self.lines.append(f"{name} done: {detail}")

    def note(self, text: str) -> None:
        self.lines.append(text)


class Cluster:
    """A kubectl on PATH that answers from a file and records its arguments."""

    def __init__(self, home: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._home = home
        (home / "bin").mkdir()
        executable(home / "bin" / "kubectl", FAKE_KUBECTL.format(python=sys.executable, home=str(home)))
        monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(cluster_run, "POLL_SECONDS", 0.0)
        self.report = Recorder()
        self.answers(pods=[{"items": [RUNNING]}], logs=[WHOLE])

    def answers(self, **changes: Any) -> None:
        said = {"rayservice": [READY], "jobs": [NOTHING], "events": [NOTHING], "job": [COMPLETE]} | changes
        (self._home / "answers.json").write_text(json.dumps({"logs": [WHOLE], "pods": [{"items": [RUNNING]}]} | said))

    def measure(self, run: cluster_run.ClusterBench, repeats: int = 2) -> Any:
        self.receipt = cluster_run.new_receipt(run, repeats, "rayline bench --stack prod-l4")
        self.path = self._home / "receipt.json"
        cluster_run.measure(run, self.receipt, self.path, self.report)
        return cluster_run.receipts.read(self.path)

    def calls(self) -> list[list[str]]:
        return [json.loads(text) for text in (self._home / "calls").read_text().splitlines()]

    def verbs(self) -> list[str]:
        return [" ".join(call[call.index("--namespace") + 2 :][:2]) for call in self.calls()]

    def created(self) -> list[dict[str, Any]]:
        return json.loads((self._home / "created.json").read_text())["items"]


@pytest.fixture
def cluster(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def one_load() -> cluster_run.ClusterBench:
    return cluster_run.prepare(offline.record("prod-l4"), LOADS[:1], "")


def test_the_job_is_created_followed_and_removed_and_its_points_are_in_the_receipt(cluster, one_load):
    found = cluster.measure(one_load)
    assert [point.repeat for point in found.points] == [1, 2]
    assert found.points[0].load["output_tokens_per_second"] == 3200.0
    assert found.points[0].cpu_seconds == {}
    assert found.hardware == {"load generator": {"cores": 8, "node": "n"}}
    assert found.ended_at
    assert found.arms["service"].facts["env RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert [one["kind"] for one in cluster.created()] == ["NetworkPolicy", "NetworkPolicy", "Job"]
    verbs = cluster.verbs()
    name = cluster.created()[-1]["metadata"]["name"]
    assert verbs.index("get rayservice") < verbs.index("create -f") < verbs.index(f"logs job/{name}")
    assert verbs[-1].startswith("delete")
    # kubectl ends with an error for a flag that it does not have
    removals = [call for call in cluster.calls() if "delete" in call]
    assert {argument for call in removals for argument in call if argument.startswith("--")} == {
        "--namespace",
        "--selector",
        "--ignore-not-found",
    }


def test_while_there_is_no_node_the_reason_is_shown(cluster, one_load):
    cluster.answers(pods=[NOTHING, {"items": [PENDING]}, {"items": [RUNNING]}])
    cluster.measure(one_load)
    assert "start: no node for it yet: 0/2 nodes are available" in cluster.report.lines


def test_the_log_is_read_until_the_job_has_ended_and_nothing_counts_twice(cluster, one_load):
    cluster.answers(logs=[BEGIN, BEGIN + done(0), WHOLE], job=[GOES_ON, GOES_ON, COMPLETE])
    assert [point.repeat for point in cluster.measure(one_load).points] == [1, 2]


def test_a_log_that_breaks_off_is_taken_up_again(cluster, one_load):
    cluster.answers(logs=[BEGIN + done(0), None, None, WHOLE], job=[GOES_ON, GOES_ON, COMPLETE])
    assert [point.repeat for point in cluster.measure(one_load).points] == [1, 2]


def test_a_log_that_never_comes_back_is_given_up(cluster, one_load):
    cluster.answers(logs=[BEGIN + done(0), None], job=[GOES_ON])
    with pytest.raises(BenchError, match="unexpected EOF"):
        cluster.measure(one_load)
    assert cluster.verbs()[-1].startswith("delete")


def test_a_job_that_ends_early_is_an_error_with_its_last_words_and_keeps_what_was_measured(cluster, one_load):
    cluster.answers(logs=[BEGIN + done(0) + "MemoryError\n"], job=[FAILED])
    with pytest.raises(BenchError, match=r"Failed BackoffLimit(?s:.*)MemoryError"):
        cluster.measure(one_load)
    kept = cluster_run.receipts.read(cluster.path)
    assert [point.repeat for point in kept.points] == [1]
    assert kept.ended_at is None
    assert cluster.verbs()[-1].startswith("delete")


def test_a_run_that_goes_on_measures_the_missing_points_only(cluster, one_load):
    cluster.answers(logs=[BEGIN + done(0)], job=[FAILED])
    with pytest.raises(BenchError):
        cluster.measure(one_load)
    assert [point.repeat for point in one_load.left(cluster_run.receipts.read(cluster.path))] == [2]


def test_a_point_that_failed_in_the_job_fails_the_run_after_the_others(cluster, one_load):
    cluster.answers(logs=[BEGIN + "HTTP 401\n" + done(0, None) + done(1)])
    with pytest.raises(BenchError, match=r"tokens at 64, repeat 1 of 2(?s:.*)HTTP 401"):
        cluster.measure(one_load)
    assert [point.repeat for point in cluster.receipt.points] == [2]


def test_a_pod_that_can_never_start_is_an_error_at_once(cluster, one_load):
    cluster.answers(pods=[{"items": [MISSING_SECRET]}])
    with pytest.raises(BenchError, match='secret "qwen-api-key" not found'):
        cluster.measure(one_load)
    assert cluster.verbs()[-1].startswith("delete")


def test_a_service_that_is_not_ready_is_not_measured(cluster, one_load):
    waiting = {"type": "Ready", "status": "False", "reason": "Initializing", "message": "no endpoints"}
    cluster.answers(rayservice=[{"status": {"conditions": [waiting]}}])
    with pytest.raises(BenchError, match=r"not ready.*no endpoints"):
        cluster.measure(one_load)
    assert "create -f" not in cluster.verbs()


def test_beside_another_benchmark_none_is_begun(cluster, one_load):
    cluster.answers(jobs=[{"items": [{"metadata": {"name": "other"}, "status": {"active": 1}}]}])
    with pytest.raises(BenchError, match="another benchmark is running, Job other"):
        cluster.measure(one_load)
    assert "create -f" not in cluster.verbs()


def test_the_message_of_kubectl_is_the_reason(cluster, one_load):
    cluster.answers(rayservice='rayservices.ray.io "qwen" not found')
    with pytest.raises(BenchError, match='"qwen" not found'):
        cluster.measure(one_load)


def test_without_kubectl_the_way_out_is_named(cluster, one_load, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match=r"kubectl is not on PATH.*--dry-run"):
        cluster.measure(one_load)


def test_the_stacks_context_and_namespace_are_used(cluster):
    values, secret = offline.read_stack("kind")
    key = next(key for key in values if key.endswith(":cluster"))
    values[key] = json.dumps(json.loads(values[key]) | {"context": "kind-here"})
    run = cluster_run.prepare(offline.record("kind", config=(values, secret)), LOADS[:1], "")
    assert (run.kubectl().context, run.kubectl().namespace) == ("kind-here", run.plan.namespace)
