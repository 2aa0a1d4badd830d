"""Decide the task of a service: text, vectors, documents by relevance, or classes. Refuse what has no meaning beside it."""

from collections.abc import Mapping
from typing import Any

from rayline.facts.choices import Routing, Task
from rayline.models.model import Model
from rayline.service.request import ServiceRequest
from rayline.service.types import ServicePlan

# The routes of vLLM 0.29 for each task, the one that proves it first; there is no /v1/classify.
ROUTES: Mapping[Task, tuple[str, ...]] = {
    Task.EMBED: ("/v1/embeddings", "/v1/rerank", "/v1/score"),
    Task.RERANK: ("/v1/rerank", "/v1/score"),
    Task.CLASSIFY: ("/classify",),
}
# Ends of architectures, as vLLM 0.29 has them (vllm/config/model.py, _SUFFIX_TO_DEFAULTS).
GENERATING = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
CLASSIFYING = ("ForSequenceClassification", "ClassificationModel")
# They give a value for each token, which /pooling alone returns.
OF_TOKENS = ("ForTokenClassification", "ForRewardModel", "ForRewardModeling", "RewardModel")
# Engine arguments of generation.
OF_GENERATION = (
    *("reasoning_parser", "reasoning_config", "tool_call_parser", "enable_auto_tool_choice", "tool_parser_plugin"),
    *("speculative_config", "structured_outputs_config", "generation_config", "override_generation_config"),
)


def plan_task(request: ServiceRequest, model: Model, kwargs: Mapping[str, Any]) -> Task:
    """Return the task of the stack, else that of the model's file. Refuses a task that the model does not have."""
    architecture = _architecture(model, kwargs)
    classifies = architecture.endswith(CLASSIFYING)
    task = request.arguments.task or _default(model, classifies)
    name, fix = request.arguments.model, ""
    if model.pooling and architecture.endswith(OF_TOKENS):
        request.refuse("model", f"{architecture} gives a value for each token. Fix: a model with vectors or classes", name)
    elif task is Task.GENERATE and model.pooling and not architecture.endswith(GENERATING):
        fix = f"{name} generates no text. Fix: task {_default(model, classifies).value}, or a model that generates"
    elif task is Task.EMBED and classifies:
        fix = f"{name} is a classifier without vectors. Fix: task {_default(model, classifies).value}, or an embedding model"
    elif task is Task.CLASSIFY and not classifies:
        fix = f"{name} has no classifier. Fix: a model whose architecture ends with ForSequenceClassification"
    elif task is Task.RERANK and not (classifies or model.pooling):
        fix = f"{name} scores no pairs. Fix: a reranker, an embedding model, or engine.kwargs.hf_overrides with its `architectures`"
    elif task is Task.RERANK and classifies and model.labels not in (None, 1) and "hf_overrides" not in kwargs:
        fix = f"{name} has {model.labels} classes, and a reranker has one. Fix: task classify, or a reranker"
    if fix:
        request.refuse("task", fix)
    if task is not Task.GENERATE:
        _refuse_generation(request, model, task, kwargs)
    return task


def _architecture(model: Model, kwargs: Mapping[str, Any]) -> str:
    """Return the architecture that vLLM loads. `hf_overrides` makes a reranker of a model that generates, for example."""
    overrides = kwargs.get("hf_overrides")
    wanted = overrides.get("architectures") if isinstance(overrides, Mapping) else None
    return str(wanted[0]) if isinstance(wanted, list) and wanted else model.architecture or ""


def _default(model: Model, classifies: bool) -> Task:
    if not model.pooling:
        return Task.GENERATE
    if not classifies:
        return Task.EMBED
    return Task.RERANK if model.labels == 1 else Task.CLASSIFY


def _refuse_generation(request: ServiceRequest, model: Model, task: Task, kwargs: Mapping[str, Any]) -> None:
    """Refuse the keys that only generation has."""
    why = f"is of generation, and the task is {task.value}. Fix: leave it out"
    # vLLM 0.29's engine dies of the first answer (vllm/v1/engine/output_processor.py, make_request_output)
    request.refuse_if_said("engine", ("stream_interval",), why)
    request.refuse_if_said("engine", ("speculation",), why, value=None)
    for key in OF_GENERATION:
        if key in kwargs:
            request.refuse(f"engine.kwargs.{key}", why, None)
    if request.arguments.adapters and not model.pooling:
        request.refuse("adapters", f"an adapter {why}", None)
    if request.arguments.traffic.routing is not Routing.ROUND_ROBIN:
        request.refuse("traffic.routing", f"sessions share no KV cache with task {task.value}. Fix: leave it out")
    if request.scales_by_latency:
        request.refuse("autoscaling.time_to_first_token_ms", f"a token {why}")
    if request.arguments.workload:
        request.refuse(
            "workload", f"the forecast is of generated tokens, and the task is {task.value}. Fix: leave it out", None
        )
    if not model.keeps_cache:
        if request.arguments.engine.caches_prefixes(task):
            request.refuse("engine.enable_prefix_caching", "an encoder keeps no KV cache. Fix: leave it out")
        if request.on_cpu:
            request.refuse_if_said("engine", ("kv_cache_gib",), "an encoder keeps no KV cache. Fix: leave it out")
    if task is not Task.EMBED and not request.arguments.switches.direct_streaming:
        why = f"Ray's own ingress has no route of task {task.value}: turn it on, or leave it out"
        request.refuse("switches.direct_streaming", why)


def task_arguments(service: ServicePlan) -> dict[str, Any]:
    """Return vLLM's arguments of the task: those of a parser for a model that generates, else runner and conversion."""
    model, arguments = service.model, dict[str, Any]()
    if service.task is not Task.GENERATE:
        classifies = _architecture(model, service.engine_kwargs).endswith(CLASSIFYING)
        return {"runner": "pooling", "convert": "classify" if classifies else "embed"}
    if model.pooling:
        # vLLM takes a model with a folder of sentence-transformers for an embedding model
        arguments["runner"] = "generate"
    if model.reasoning_parser:
        arguments["reasoning_parser"] = model.reasoning_parser
    if model.tool_call_parser:
        arguments |= {"enable_auto_tool_choice": True, "tool_call_parser": model.tool_call_parser}
    return arguments
