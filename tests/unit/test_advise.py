"""What a plan says before it is paid: a budget, a forecast, the policy, and `rayline advise`."""

import json
import pathlib

import pytest
from typer.testing import CliRunner

from policy.rules import RULES
from rayline.facts.throughput import MEASURED, usd_per_million
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline_cli import cli, estimates, plan_cards
from rayline_cli.policy_config import broken_rules
from tests.conftest import recorded, stacks_of

QWEN = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"}
CREATE = {"project": "my-project", "region": "us-central1", "cluster": {"mode": "create"}}


@pytest.fixture(autouse=True)
def without_aiconfigurator(monkeypatch):
    monkeypatch.setattr(estimates, "installed", lambda: None)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, list(arguments))
    return done.exit_code, done.output


# --- a budget


def with_budget(usd: float, **service):
    return make_plan(CREATE | {"budget": {"usd_per_month": usd}, "services": {"qwen": QWEN | service}})


def test_a_stack_within_its_budget_is_planned():
    # fee $73, e2-standard-16 $391, g2-standard-8 $623 a month
    assert with_budget(1100).services


def test_a_stack_above_its_budget_names_the_parts_with_the_dearest_first():
    with pytest.raises(PlanError) as error:
        with_budget(1000)
    assert str(error.value) == (
        "budget.usd_per_month (got 1000.0): the stack costs $1,087 a month at its highest load: g2-standard-8 $623, "
        "CPU pool e2-standard-16 $391, GKE's fee $73. Fix: fewer replicas, a smaller GPU, spot or flex-start, or a larger budget"
    )


def test_a_budget_counts_every_replica_that_autoscaling_allows():
    with pytest.raises(PlanError, match=r"g2-standard-8 \$2,493"):
        with_budget(1100, autoscaling={"min_replicas": 1, "max_replicas": 4})


def test_a_price_that_is_not_known_is_said_beside_a_budget():
    arguments = CREATE | {"region": "us-east4", "budget": {"usd_per_month": 1e6}}
    made = make_plan(
        arguments | {"services": {"b": {"model": "Qwen/Qwen3.5-4B", "accelerator": "b200", "nodes": {"capacity": "spot"}}}}
    )
    assert made.unpriced
    assert f"budget: the price of {', '.join(made.unpriced)} is not known here and not counted" in made.warnings


def test_a_budget_needs_machines_that_the_stack_pays_for():
    with pytest.raises(PlanError, match=r"budget\.usd_per_month .*only with cluster\.mode create"):
        make_plan({"cluster": {"mode": "existing"}, "budget": {"usd_per_month": 5}, "services": {"qwen": QWEN}})


# --- a forecast


def test_a_forecast_without_a_measurement_says_so():
    card = plan_cards.stack_card(recorded("dev-l4")).services[0]
    assert dict(card.rows)["forecast"] == "not known: no measurement of this model on this GPU is on record"


def test_a_forecast_has_source_load_and_price(record_file):
    text = "cluster: {mode: create}\nservices:\n  q: {model: Qwen/Qwen3.5-9B, accelerator: h100, nodes: {capacity: spot}}\n"
    card = plan_cards.stack_card(record_file(f"gcp:project: my-project\ngcp:region: us-central1\n{text}")).services[0]
    forecast = dict(card.rows)["forecast"]
    assert forecast.startswith("34,470 tokens/s for each busy GPU, prompts and answers, as measured elsewhere (1,024 tokens in")
    assert "gpustack/gpustack" in forecast
    assert forecast.endswith("for a million tokens at the planned price")


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row.model}-{row.accelerator.value}")
def test_every_measurement_has_a_load_and_a_source(row):
    assert 0 < row.least <= row.most
    assert len(row.load.split()) >= 1
    assert len(row.source) > 10


def test_the_published_prices_of_a_million_tokens_follow_from_throughput_and_machine():
    # serving-cost figures of the same studies: $0.12 on g2-standard-8, $0.09 on B200 at $8.055 a GPU hour
    assert usd_per_million(1960, 0.8536) == pytest.approx(0.12, abs=0.005)
    assert usd_per_million(25320, 8.055) == pytest.approx(0.09, abs=0.005)


# --- advise


def test_advice_compares_every_gpu_and_prices_the_load():
    code, text = run("advise", "--model", "Qwen/Qwen3.5-9B", "--requests-per-second", "40", "--json")
    assert code == 0, text
    rows = {row["accelerator"]: row for row in json.loads(text)}
    assert set(rows) == {"l4", "a100-40gb", "a100-80gb", "rtx-pro-6000", "h100", "h200", "b200"}
    # 34,470 tokens a second were measured with answers half as long: 13.5 to 26.9 requests
    assert (rows["h100"]["outlook"]["fewest"], rows["h100"]["replicas"]) == (2, 3)
    assert rows["h100"]["tokens_per_second"] == 34470
    assert rows["l4"]["tokens_per_second"] is None
    assert rows["l4"]["outlook"]["forecast"] is None
    assert rows["l4"]["replicas"] is None
    assert next(iter(rows)) == "h100"


def test_advice_takes_as_many_gpus_as_the_model_needs_and_says_where_none_do():
    code, text = run("advise", "--model", "google/gemma-4-31B-it", "--input", "100000", "--json")
    assert code == 0, text
    gpus = {row["accelerator"]: row["gpus"] for row in json.loads(text)}
    assert gpus["l4"] == 4
    assert gpus["b200"] == 1


def test_advice_as_a_table_says_that_figures_are_others():
    code, text = run("advise", "--model", "Qwen/Qwen3.5-9B")
    assert code == 0, text
    assert "as measured elsewhere" in text
    assert "gpustack" in text
    assert "l4: not known" in text


def test_advice_about_a_model_without_a_file_names_the_command_that_writes_one(tmp_path: pathlib.Path):
    code, text = run("advise", "--model", "acme/none", "--folder", str(tmp_path))
    assert code == 2
    assert "`rayline model add acme/none`" in text


def test_advice_beyond_the_models_context_says_so_once():
    code, text = run("advise", "--model", "Qwen/Qwen3-0.6B", "--input", "50000")
    assert code == 2
    assert "1 to 40960, which is the limit of Qwen/Qwen3-0.6B" in text


# --- the policy


@pytest.mark.parametrize("stack", stacks_of("create", "existing"))
def test_the_kits_own_stacks_pass_the_policy_in_a_plan(stack):
    assert broken_rules(recorded(stack), None) == []


def test_a_plan_ends_with_the_rule_that_up_would_stop_at(record_file, tmp_path):
    image = ", pods: {image: 'registry.example.com/ray:latest'}"
    program = record_file(
        f"gcp:project: my-project\ngcp:region: us-central1\ncluster: {{mode: create}}\nservices:\n  q: {{model: Qwen/Qwen3.5-4B, accelerator: l4{image}}}\n",
        "prod-x",
    )
    broken = broken_rules(program, None)
    (rule,) = {line.removeprefix("policy ").partition(":")[0] for line in broken}
    assert all("registry.example.com/ray:latest" in line for line in broken)
    settings = tmp_path / "policy.json"
    settings.write_text(json.dumps({rule: "advisory"}))
    assert broken_rules(program, settings) == []


def test_a_team_limit_of_gpus_is_checked_in_a_plan(tmp_path):
    settings = tmp_path / "policy.json"
    rule = next(one.name for one in RULES if "max_gpus" in one.settings)
    settings.write_text(json.dumps({rule: {"max_gpus": 0}}))
    code, text = run("plan", "--stack", "dev-l4", "--policy-config", str(settings), "--no-tree")
    assert code == 2
    assert f"policy {rule}" in text
