"""A workload in a stack file: what a replica carries of it, whether the replicas are enough, and estimates of aiconfigurator.

recorded_aiconfigurator.csv is pareto.csv of aiconfigurator 0.12.0: Qwen3.5-27B on one H100, 1,024 tokens in and 256 out.
"""

import dataclasses
import json
import math
import pathlib
import sys
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rayline.facts.throughput import MEASURED
from rayline.platform.plan import make_plan
from rayline.service.arguments import WorkloadArgs
from rayline.service.workload import Forecast, measured_forecast, outlook, workload_warnings
from rayline_cli import advise, cli, estimates, plan_cards, plan_markdown, plan_view
from rayline_cli.stack_files import read_stack

ESTIMATED = pathlib.Path(__file__).with_name("recorded_aiconfigurator.csv")
INSTALLED = estimates.installed()
REQUESTS = {"input_tokens": 1024, "output_tokens": 256}
NINE = {"model": "Qwen/Qwen3.5-9B", "accelerator": "h100"}
TWENTY_SEVEN = {"model": "Qwen/Qwen3.5-27B", "accelerator": "h100"}


@pytest.fixture(autouse=True)
def without_aiconfigurator(monkeypatch, tmp_path):
    monkeypatch.setattr(estimates, "installed", lambda: None)
    monkeypatch.setattr(estimates, "PROJECT_ROOT", tmp_path)
    estimates._outcome.cache_clear()


@pytest.fixture
def aiconfigurator(monkeypatch, tmp_path):
    """A command in place of aiconfigurator that writes the recorded table, or ends with an error."""

    def install(body: str = f"import shutil; where.mkdir(parents=True); shutil.copy({str(ESTIMATED)!r}, where / 'pareto.csv')"):
        command = tmp_path / "aiconfigurator"
        lines = [f"#!{sys.executable}", "import pathlib, sys", "print('Loading AIConfigurator version: 0.12.0')"]
        lines += ["where = pathlib.Path(sys.argv[sys.argv.index('--save-dir') + 1], 'Qwen', 'x', 'replica')"]
        lines += [f"calls = pathlib.Path({str(tmp_path / 'calls')!r}).open('a')"]
        lines += ["calls.write(pathlib.Path(sys.argv[sys.argv.index('--yaml-path') + 1]).read_text() + '---\\n')", body]
        command.write_text("\n".join(lines))
        command.chmod(0o755)
        monkeypatch.setattr(estimates, "installed", lambda: str(command))
        return lambda: [call for call in yaml.safe_load_all((tmp_path / "calls").read_text()) if call]

    return install


def planned(service, **workload) -> Any:
    arguments = {"cluster": {"mode": "existing"}, "services": {"q": service | {"workload": REQUESTS | workload}}}
    return make_plan(arguments).services[0]


def seen(service) -> Any:
    assert service.asked.workload
    return estimates.prospect_of(service, service.asked.workload)[0]


def own_warnings(service) -> list[str]:
    return workload_warnings(service, seen(service))


# --- measurements


def test_a_measurement_at_the_same_load_has_no_band():
    service = planned(NINE, output_tokens=128, requests_per_second=40.0)
    forecast = seen(service).forecast
    assert forecast.least == forecast.most == pytest.approx(34470 / 1152)


def test_longer_answers_than_measured_widen_the_band_downwards():
    forecast = seen(planned(NINE, output_tokens=256, requests_per_second=40.0)).forecast
    assert (forecast.least, forecast.most) == (pytest.approx(13.46, abs=0.01), pytest.approx(26.93, abs=0.01))


@pytest.mark.parametrize(("replicas", "enough"), [(1, False), (2, None), (3, True)])
def test_replicas_are_enough_or_not_or_the_band_leaves_it_open(replicas, enough):
    service = planned(NINE | {"replicas": replicas}, requests_per_second=40.0)
    assert seen(service).enough(replicas) is enough
    assert bool(own_warnings(service)) is (enough is False)


def test_the_plan_warns_of_fewer_replicas_than_the_load_needs():
    service = planned(NINE, requests_per_second=40.0)
    (warning,) = own_warnings(service)
    assert warning.startswith("q: workload: it takes 2 to 3 replicas, and the plan has 1 (as measured elsewhere")


def test_the_plan_never_changes_the_replicas():
    assert planned(NINE, requests_per_second=4000.0).replicas == 1


def test_autoscaling_counts_with_its_most_replicas():
    scaling = {"autoscaling": {"min_replicas": 1, "max_replicas": 3}}
    assert own_warnings(planned(NINE | scaling, requests_per_second=40.0)) == []


def test_users_that_the_kv_cache_cannot_hold_are_a_warning_without_any_forecast():
    service = planned(TWENTY_SEVEN | {"replicas": 2}, concurrent_users=70)
    held = 2 * seen(service).at_once
    assert held < 70
    (warning,) = own_warnings(service)
    assert f"2 replicas hold {held} requests of 1,280 tokens at once" in warning
    assert own_warnings(planned(TWENTY_SEVEN | {"replicas": 3}, concurrent_users=70)) == []


def test_a_latency_that_nobody_measured_is_not_known():
    service = planned(NINE | {"replicas": 9}, requests_per_second=40.0, time_per_output_token_ms=30.0)
    assert seen(service).forecast is None or seen(service).forecast.within is None
    assert seen(service).enough(9) is None


def test_a_measurement_that_kept_the_bound_answers_for_prompts_as_long():
    row = next(row for row in MEASURED if row.token_ms == 75)
    bounded = {"requests_per_second": 0.2, "time_per_output_token_ms": 80.0, "input_tokens": 4000}
    service = planned(NINE, **bounded)
    asked = service.asked.model_copy(update={"model": row.model, "accelerator": row.accelerator})
    forecast = measured_forecast(dataclasses.replace(service, asked=asked), WorkloadArgs(**REQUESTS | bounded))
    assert forecast
    assert forecast.within is True


def test_users_within_a_bound_are_no_more_than_the_measured_speed_serves():
    # 512 sequences fit, and the measured speed serves far fewer of 2,000 tokens within the bound
    forecast = Forecast("a test", least=2.0, most=2.0, within=True, first_token_ms=1000.0, token_ms=10.0)
    service = planned(NINE, concurrent_users=100, time_per_output_token_ms=15.0)
    prospect = outlook(service, service.asked.workload, forecast)
    seconds = 1 + 256 * 0.010
    assert prospect.fewest == prospect.most == math.ceil(100 / int(2.0 * seconds))


def test_users_within_a_bound_are_not_known_without_the_times_of_a_request():
    forecast = Forecast("a test", least=2.0, most=2.0, within=True, token_ms=10.0)
    service = planned(NINE, concurrent_users=100, time_per_output_token_ms=15.0)
    assert outlook(service, service.asked.workload, forecast).enough(50) is None


# --- estimates


def test_the_recorded_table_is_read(aiconfigurator):
    calls = aiconfigurator()
    prospect = seen(planned(TWENTY_SEVEN, requests_per_second=10.0))
    forecast = prospect.forecast
    assert forecast.source == "aiconfigurator 0.12.0, vLLM 0.24.0 tables"
    # no more requests at once than this plan's engine takes
    assert forecast.at_once == 32 == prospect.at_once
    assert forecast.least < 3.704 < forecast.most
    assert (prospect.fewest, prospect.most) == (3, 4)
    (call,) = calls()
    assert (call["replica"]["system_name"], call["replica"]["isl"], call["replica"]["osl"]) == ("h100_sxm", 1024, 256)


def test_a_latency_bound_takes_the_highest_load_within_it(aiconfigurator):
    aiconfigurator()
    forecast = seen(planned(TWENTY_SEVEN, concurrent_users=100, time_per_output_token_ms=30.0)).forecast
    assert (forecast.at_once, forecast.within) == (20, True)
    assert forecast.token_ms < 30


def test_a_bound_below_one_request_is_not_met_by_any_number_of_replicas(aiconfigurator):
    aiconfigurator()
    service = planned(TWENTY_SEVEN | {"replicas": 50}, requests_per_second=1.0, time_per_output_token_ms=10.0)
    assert seen(service).enough(50) is False
    (warning,) = own_warnings(service)
    assert "125 ms to the first token and 19.2 ms for the next, more than the bound" in warning


def test_an_estimate_is_kept_for_the_next_plan(aiconfigurator):
    calls = aiconfigurator()
    first = seen(planned(TWENTY_SEVEN, requests_per_second=10.0))
    estimates._outcome.cache_clear()
    assert seen(planned(TWENTY_SEVEN, requests_per_second=10.0)) == first
    assert len(calls()) == 1


def test_engine_arguments_that_change_the_speed_reach_the_estimate(aiconfigurator):
    calls = aiconfigurator()
    engine = {"tensor_parallel_size": 2, "kwargs": {"quantization": "fp8", "kv_cache_dtype": "fp8"}}
    seen(planned(TWENTY_SEVEN | {"engine": engine}, requests_per_second=10.0))
    (call,) = calls()
    replica = call["replica"]
    assert (replica["agg_tp_candidates"], replica["total_gpus"]) == ([2], 2)
    assert (replica["gemm_quant_mode"], replica["kvcache_quant_mode"]) == ("fp8", "fp8")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("sys.exit('KeyError: no such table')", "no estimate for this model on this GPU"),
        ("sys.exit('urllib.error.URLError: no network')", "lacks the model's config.json"),
        ("import time; time.sleep(60)", "did not end within 1 s"),
    ],
)
def test_a_failed_estimate_is_not_known_with_its_reason(aiconfigurator, monkeypatch, body, reason):
    aiconfigurator(body)
    monkeypatch.setattr(estimates, "TIME_LIMIT", 1 if "sleep" in body else 60)
    service = planned(TWENTY_SEVEN, requests_per_second=10.0)
    prospect, said = estimates.prospect_of(service, service.asked.workload)
    assert prospect.forecast is None
    assert reason in said


def test_config_json_in_the_hub_cache_stands_for_the_model(aiconfigurator, monkeypatch, tmp_path):
    from huggingface_hub import constants

    folder = tmp_path / "models--Qwen--Qwen3.5-27B" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    calls = aiconfigurator()
    seen(planned(TWENTY_SEVEN, requests_per_second=10.0))
    assert calls()[0]["replica"]["model_path"] == str(folder)


@pytest.mark.slow
@pytest.mark.skipif(INSTALLED is None, reason="needs aiconfigurator: `make forecast`")
def test_the_real_aiconfigurator_gives_the_recorded_figures(monkeypatch):
    monkeypatch.setattr(estimates, "installed", lambda: INSTALLED)
    forecast = seen(planned(TWENTY_SEVEN, requests_per_second=10.0)).forecast
    assert forecast.source == "aiconfigurator 0.12.0, vLLM 0.24.0 tables"
    assert forecast.at_once == 32
    assert forecast.most == pytest.approx(3.704 * estimates.MOST, rel=0.01)


@pytest.mark.parametrize(
    ("estimated", "measured"),
    # Qwen3-0.6B on H100, as Anyscale measured it; Qwen3.5-9B on H100 with 1,024 tokens in and 128 out (gpustack), 36.442 requests/s
    [(15958, 11257), (1068, 1166), (36.442 * 1152, 34470)],
)
def test_the_band_of_an_estimate_holds_what_was_measured(estimated, measured):
    assert estimated * estimates.LEAST <= measured * 1.0001
    assert measured <= estimated * estimates.MOST * 1.0001


# --- in the plan card, in Markdown, and in advise

STACK = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create}
services:
  q:
    model: Qwen/Qwen3.5-9B
    accelerator: h100
    nodes: {capacity: spot}
    workload: {input_tokens: 1024, output_tokens: 256, requests_per_second: 40}
"""


def test_the_plan_card_says_load_band_verdict_and_price(record_file):
    program = record_file(STACK)
    rows = dict(plan_cards.stack_card(program).services[0].rows)
    assert rows["forecast"].endswith(
        "13.5 to 26.9 requests/s of the workload for each replica, latency not known (derived from it)"
    )
    assert rows["workload"] == (
        "40 requests/s of 1,024 + 256 tokens; replicas needed 2 to 3, planned 1: not enough; "
        "$0.10 for a million tokens at this load with 3 replicas"
    )
    data = plan_view.program_json(program)["plan"]["services"][0]["workload"]
    assert (data["fewest"], data["most"]) == (2, 3)
    assert "replicas needed 2 to 3, planned 1: not enough" in plan_markdown.markdown([program])


def price_line(record_file, rate: float, more: str) -> str:
    text = STACK.replace("requests_per_second: 40", f"requests_per_second: {rate:g}") + more
    return dict(plan_cards.stack_card(record_file(text)).services[0].rows).get("workload", "")


def test_the_price_is_that_of_the_replicas_that_run(record_file):
    scaling = "    autoscaling: {{min_replicas: {}, max_replicas: {}}}\n"
    assert price_line(record_file, 5, scaling.format(4, 6)).endswith("with 4 replicas"), "four always run"
    assert price_line(record_file, 200, scaling.format(1, 2)).endswith("with 15 replicas"), "two could not carry it"
    assert price_line(record_file, 40, "    park: true\n") == "", "nothing runs"


def test_the_plan_card_names_the_command_that_adds_estimates(record_file):
    card = plan_cards.stack_card(record_file(STACK.replace("3.5-9B", "3.5-27B")))
    assert (
        "not known: no measurement of this load is on record; `make forecast` adds" in dict(card.services[0].rows)["forecast"]
    )


def test_a_service_without_a_workload_has_no_such_line(record_file):
    card = plan_cards.stack_card(record_file(STACK[: STACK.index("    workload")]))
    assert "workload" not in dict(card.services[0].rows)


def ask(monkeypatch, tmp_path, *options: str, text: str = STACK):
    """Run `rayline advise --stack test` for a stack file."""
    file = tmp_path / "Pulumi.test.yaml"
    file.write_text("config:\n" + "".join(f"  {line}\n" for line in text.strip().splitlines()))
    monkeypatch.setattr(advise, "read_stack", lambda stack: read_stack(stack, file=file))
    done = CliRunner().invoke(cli.app, ["advise", "--stack", "test", *options])
    return done.exit_code, done.output


def test_advice_takes_model_load_and_region_from_a_stack_file(monkeypatch, tmp_path):
    code, text = ask(monkeypatch, tmp_path, "--json")
    assert code == 0, text
    (h100,) = [row for row in json.loads(text) if row["accelerator"] == "h100"]
    assert (h100["outlook"]["workload"]["requests_per_second"], h100["replicas"]) == (40, 3)


def test_an_option_goes_before_the_stack_file(monkeypatch, tmp_path):
    code, text = ask(monkeypatch, tmp_path, "--concurrent-users", "100", "--json")
    assert code == 0, text
    workload = json.loads(text)[0]["outlook"]["workload"]
    assert (workload["concurrent_users"], workload["requests_per_second"]) == (100, None)


def test_a_stack_with_several_services_needs_the_name_of_one(monkeypatch, tmp_path):
    two = STACK + "  r: {model: Qwen/Qwen3.5-4B, accelerator: l4}\n"
    code, text = ask(monkeypatch, tmp_path, text=two)
    assert code == 2
    assert "one of q, r" in text
    assert ask(monkeypatch, tmp_path, "--service", "r", text=two)[0] == 0


def test_a_mistake_in_the_workload_has_its_place_in_the_stack_file(monkeypatch, tmp_path):
    code, text = ask(monkeypatch, tmp_path, text=STACK.replace("1024", "no"))
    assert code == 2
    assert "services.q.workload: input_tokens" in text


def test_two_kinds_of_load_are_refused_with_both_names():
    options = ["--model", "Qwen/Qwen3.5-4B", "--requests-per-second", "2", "--concurrent-users", "5"]
    done = CliRunner().invoke(cli.app, ["advise", *options])
    assert done.exit_code == 2
    assert "--requests-per-second and --concurrent-users exclude each other" in " ".join(done.output.split()).replace("│ ", "")


def test_advice_puts_a_gpu_above_the_bound_behind_those_within(aiconfigurator):
    aiconfigurator()
    options = ["--model", "Qwen/Qwen3.5-27B", "--requests-per-second", "10", "--time-per-output-token-ms", "10"]
    done = CliRunner().invoke(cli.app, ["advise", *options, "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)
    assert rows[0]["accelerator"] == "l4"
    estimated = [row for row in rows if row["outlook"]["forecast"]]
    assert {row["accelerator"] for row in estimated} >= {"h100", "b200"}
    assert all(row["outlook"]["forecast"]["within"] is False for row in estimated)
    assert rows[-len(estimated) :] == estimated, "behind those that are not known"
    assert all(row["usd_per_month"] is None for row in estimated)


def test_prices_follow_from_the_load_and_not_from_full_replicas():
    service = planned(NINE, requests_per_second=20.0)
    prospect = outlook(service, service.asked.workload, measured_forecast(service, service.asked.workload))
    price = 2 * 5.0 / (20 * 1280 * 3600) * 1e6
    assert prospect.usd_per_million(2, 5.0) == pytest.approx((price, price))
