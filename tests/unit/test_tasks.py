"""Services whose model gives vectors, an order of documents or classes in place of text."""

import json
import pathlib
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from rayline.facts.choices import Task
from rayline.models.catalog import read_models
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline.service.reading import RayService
from rayline.service.serve_config import serve_config
from rayline.service.types import ServicePlan
from rayline_bench.errors import BenchUsageError, refuse_pooling
from rayline_cli import advise, cli, offline, plan_cards, render
from rayline_cli.errors import UsageError
from rayline_cli.questions import QUESTIONS
from rayline_cli.verify import Outcome, View, check_switches
from tests.model_folders import write_model
from tests.unit.verify_service import Service

BERT = {
    "source": "a test", "architecture": "BertModel", "parameters": 22_000_000, "weights_bytes": 44_000_000, "hidden_size": 384,
    "intermediate_size": 1536, "vocab_size": 30522, "heads": 12, "max_context": 512, "pooling": True, "at_hugging_face": False,
}  # fmt: skip
QWEN = BERT | {
    "architecture": "Qwen3ForCausalLM", "max_context": 32768, "attention": [{"layers": 28, "kv_heads": 8, "head_dim": 128}],
}  # fmt: skip
MODELS = {
    "bert": BERT,
    "reranker": BERT | {"architecture": "BertForSequenceClassification", "labels": 1},
    "classifier": BERT | {"architecture": "BertForSequenceClassification", "labels": 3},
    "tokens": BERT | {"architecture": "BertForTokenClassification"},
    "qwen-embedding": QWEN,
    "qwen-chat": QWEN | {"pooling": False, "reasoning_parser": "qwen3", "tool_call_parser": "hermes"},
}


@pytest.fixture
def models(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with a file of each model."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name, model in MODELS.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"model": f"/models/{name}"} | model))
    return folder


def planned(models: pathlib.Path, model: str, **service: Any) -> ServicePlan:
    arguments = {"model": f"/models/{model}", "accelerator": "l4"} | service
    return make_plan({"cluster": {"mode": "existing"}, "models": str(models), "services": {"a": arguments}}).services[0]


def refused(models: pathlib.Path, model: str, **service: Any) -> str:
    with pytest.raises(PlanError) as error:
        planned(models, model, **service)
    return str(error.value)


def engine_of(service: ServicePlan) -> dict[str, Any]:
    return serve_config(service)["applications"][0]["args"]["llm_configs"][0]["engine_kwargs"]


@pytest.mark.parametrize(
    ("model", "task", "convert"),
    [
        ("bert", Task.EMBED, "embed"),
        ("qwen-embedding", Task.EMBED, "embed"),
        ("reranker", Task.RERANK, "classify"),
        ("classifier", Task.CLASSIFY, "classify"),
    ],
)
def test_the_task_is_that_of_the_models_file(models, model, task, convert):
    service = planned(models, model)
    engine = engine_of(service)
    assert service.task is task
    assert (engine["runner"], engine["convert"]) == ("pooling", convert)
    assert not engine["enable_prefix_caching"]
    # with one of more than 1 vLLM's engine dies of the first answer
    assert "stream_interval" not in engine


def test_a_model_that_generates_has_no_runner_and_keeps_its_parsers(models):
    engine = engine_of(planned(models, "qwen-chat"))
    assert {"runner", "convert"}.isdisjoint(engine)
    assert (engine["reasoning_parser"], engine["tool_call_parser"]) == ("qwen3", "hermes")
    assert engine["stream_interval"] == 4


@pytest.mark.parametrize(
    ("model", "task", "engine"),
    [
        ("qwen-chat", "embed", {"runner": "pooling", "convert": "embed"}),
        ("bert", "rerank", {"runner": "pooling", "convert": "embed"}),
        ("qwen-embedding", "generate", {"runner": "generate"}),
        ("reranker", "classify", {"runner": "pooling", "convert": "classify"}),
    ],
)
def test_the_stacks_task_wins(models, model, task, engine):
    service = planned(models, model, task=task)
    assert service.task.value == task
    assert engine.items() <= engine_of(service).items()
    if task != "generate":
        assert {"reasoning_parser", "tool_call_parser", "enable_auto_tool_choice"}.isdisjoint(engine_of(service))


def test_overrides_make_a_reranker_of_a_model_that_generates(models):
    overrides = {"architectures": ["Qwen3ForSequenceClassification"], "classifier_from_token": ["no", "yes"]}
    service = planned(models, "qwen-chat", task="rerank", engine={"kwargs": {"hf_overrides": overrides}})
    assert engine_of(service)["convert"] == "classify"


@pytest.mark.parametrize(
    ("model", "service", "message"),
    [
        ("bert", {"task": "generate"}, "generates no text. Fix: task embed"),
        ("classifier", {"task": "generate"}, "generates no text. Fix: task classify"),
        ("reranker", {"task": "embed"}, "a classifier without vectors. Fix: task rerank"),
        ("classifier", {"task": "rerank"}, "has 3 classes, and a reranker has one"),
        ("bert", {"task": "classify"}, "has no classifier"),
        ("qwen-chat", {"task": "rerank"}, "scores no pairs"),
        ("tokens", {}, "BertForTokenClassification gives a value for each token"),
        ("bert", {"engine": {"stream_interval": 1}}, "engine.stream_interval"),
        ("bert", {"engine": {"enable_prefix_caching": True}}, "an encoder keeps no KV cache"),
        ("bert", {"engine": {"max_num_batched_tokens": 256}}, "an encoder computes a prompt in one step"),
        ("bert", {"engine": {"kwargs": {"tool_call_parser": "hermes"}}}, "is of generation, and the task is embed"),
        ("bert", {"traffic": {"routing": "sessions"}}, "sessions share no KV cache with task embed"),
        ("classifier", {"api": {"key": False}, "switches": {"direct_streaming": False}}, "no route of task classify"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(models, model, service, message):
    assert message in refused(models, model, **service)


def test_an_encoder_on_the_cpu_has_no_kv_cache(models):
    cpu = {"accelerator": "cpu", "pods": {"image": "example.com/cpu:1"}}
    service = planned(models, "bert", **cpu)
    assert service.kv_cache_gib == 0
    assert service.fit.fits
    assert "an encoder keeps no KV cache" in refused(models, "bert", **cpu, engine={"kv_cache_gib": 2})


def test_an_encoder_works_on_the_prompts_of_one_step(models):
    service = planned(models, "bert", engine={"max_num_batched_tokens": 4096, "max_num_seqs": 64})
    assert service.fit.sequences(512) == 8
    assert service.fit.sequences(16) == 64
    assert service.fit.kv_cache_tokens == 0


def test_a_step_holds_a_whole_prompt_and_no_logits_take_memory(models):
    pooling, chat = planned(models, "qwen-embedding"), planned(models, "qwen-chat")
    assert pooling.limits.max_num_batched_tokens >= pooling.limits.max_model_len
    step = pooling.limits.max_num_batched_tokens
    chat = planned(models, "qwen-chat", engine={"max_num_batched_tokens": step, "max_num_seqs": pooling.limits.max_num_seqs})
    assert pooling.fit.activation_gib < chat.fit.activation_gib


def test_a_decoder_that_pools_caches_prefixes_where_the_stack_says_so(models):
    assert planned(models, "qwen-embedding", engine={"enable_prefix_caching": True}).prefix_caching


@pytest.fixture
def reranked(models: pathlib.Path, record_file) -> offline.Program:
    service = {"model": "/models/bert", "accelerator": "cpu", "task": "rerank"}
    return record_file(yaml.safe_dump({"cluster": {"mode": "local"}, "models": str(models), "services": {"a": service}}))


def test_the_manifest_names_the_task_and_the_card_the_routes(reranked):
    (manifest,) = render.ray_services(reranked)
    assert RayService(manifest).task is Task.RERANK
    card = dict(plan_cards.stack_card(reranked).services[0].rows)
    assert card["task"] == "rerank: POST /v1/rerank, /v1/score"
    assert "no KV cache" in card["memory per worker"]


def test_a_manifest_of_others_has_the_task_of_vllms_arguments(reranked):
    (manifest,) = render.ray_services(reranked)
    del manifest["metadata"]["annotations"]["rayline/task"]
    assert RayService(manifest).task is Task.EMBED
    assert RayService({}).task is Task.GENERATE


def test_a_benchmark_of_generated_tokens_refuses_another_task():
    refuse_pooling("stack a", Task.GENERATE)
    with pytest.raises(BenchUsageError, match="stack a has task embed"):
        refuse_pooling("stack a", Task.EMBED)


def test_advice_is_of_generated_tokens_alone(models):
    load = {"input_tokens": 100, "output_tokens": 1}
    question = advise.question(None, None, load, model="/models/bert", models=str(models), region=None)
    with pytest.raises(UsageError, match="it has task embed"):
        advise.compare(question)


# --- the questions of `up` and `verify`

VECTORS = {"data": [{"embedding": [1.0, 0.0]}, {"embedding": [0.8, 0.6]}, {"embedding": [0.0, 1.0]}]}
ORDER = {"results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0.25}]}
CLASSES = {"data": [{"label": "fine", "probs": [0.75, 0.25]}]}


def test_right_answers_are_read():
    assert QUESTIONS[Task.EMBED].answer(VECTORS) == "3 vectors of 2 values; the first is 0.80 near the second, 0.00 the third"
    assert QUESTIONS[Task.RERANK].answer(ORDER).startswith("The central bank")
    assert QUESTIONS[Task.CLASSIFY].answer(CLASSES) == "fine (0.75), one of 2"


@pytest.mark.parametrize(
    ("task", "answer", "message"),
    [
        (Task.EMBED, {"data": []}, "0 vectors"),
        (Task.EMBED, {"data": [{"embedding": [0.0, 0.0]}] * 3}, "a vector of zeros"),
        (Task.EMBED, {"data": [{"embedding": [float("nan")]}] * 3}, "no numbers"),
        (Task.EMBED, {"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}, {"embedding": [1.0]}]}, "vectors of"),
        (Task.RERANK, {"results": ORDER["results"][::-1]}, "not in order"),
        (Task.RERANK, {"results": ORDER["results"][:1]}, "not in order"),
        (Task.CLASSIFY, {"data": [{"label": "fine", "probs": []}]}, "no numbers"),
        (Task.CLASSIFY, {"error": "none"}, "another form"),
    ],
)
def test_wrong_answers_are_no_answers(task, answer, message):
    with pytest.raises(ValueError, match=message):
        QUESTIONS[task].answer(answer)


def pooling(task: Task, answer: Any, **more: Any) -> Service:
    """A service whose model pools, and its answer to the question of the task."""
    service = Service(task=task, **more)
    service.stream |= {"events": 0, "done": False, "whole": json.dumps(answer)}
    return service


def result(service: Service, name: str) -> tuple[Outcome, str]:
    check = next(check for check in check_switches(service) if check.name == name)  # pyright: ignore[reportArgumentType]
    return check.outcome, check.evidence


def test_a_pooled_answer_proves_a_service_that_streams_nothing():
    service = pooling(Task.EMBED, VECTORS)
    names = [check.name for check in check_switches(service)]  # pyright: ignore[reportArgumentType]
    assert "streamed completion" not in names
    outcome, evidence = result(service, "pooled answer")
    assert outcome is Outcome.PASS
    assert "POST /v1/embeddings" in evidence
    outcome, evidence = result(service, "direct streaming: path of the tokens")
    assert outcome is Outcome.PASS
    assert "bytes of an answer came" in evidence


@pytest.mark.parametrize("name", ["pooled answer", "direct streaming: path of the tokens"])
def test_an_answer_without_meaning_fails(name):
    outcome, evidence = result(pooling(Task.EMBED, {"data": []}), name)
    assert outcome is Outcome.FAIL
    assert "0 vectors" in evidence


def test_the_route_of_the_task_needs_the_key():
    service = pooling(Task.CLASSIFY, CLASSES, open_paths={"/classify"})
    outcome, evidence = result(service, "API key")
    assert outcome is Outcome.FAIL
    assert "POST /classify: HTTP 200" in evidence


def test_the_task_of_an_address_is_the_one_whose_routes_it_has():
    service = pooling(Task.GENERATE, VECTORS, inside=False)
    assert View(service).task is Task.GENERATE  # pyright: ignore[reportArgumentType]
    # a pooling model of vLLM has the one and not the other
    service.routes["/v1/embeddings"] = service.routes.pop("/v1/completions")
    assert View(service).task is Task.EMBED  # pyright: ignore[reportArgumentType]
    assert result(service, "pooled answer")[0] is Outcome.PASS


# --- rayline model add


@pytest.mark.parametrize(
    ("more", "labels"), [({"num_labels": 1}, 1), ({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3), ({}, 2)]
)
def test_a_classifiers_file_counts_its_classes(tmp_path, more, labels):
    config = {
        "architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 384, "intermediate_size": 1536,
        "num_hidden_layers": 2, "num_attention_heads": 12, "vocab_size": 30522, "max_position_embeddings": 512,
    } | more  # fmt: skip
    model = write_model(tmp_path / "bert", config, {"classifier.weight": ("F32", (labels, 384))})
    done = CliRunner().invoke(cli.app, ["model", "add", str(model), "--as", "acme/bert", "--folder", str(tmp_path / "models")])
    assert done.exit_code == 0, done.output
    added = read_models(tmp_path / "models")["acme/bert"]
    assert (added.pooling, added.labels) == (True, labels)
