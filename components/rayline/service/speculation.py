"""Decide how tokens are drafted that the model then checks several at a time. Refuse what the model cannot do."""

from collections.abc import Mapping
from typing import Any

from rayline.facts.choices import Speculation
from rayline.models.model import Model
from rayline.service.arguments import SpeculationArgs
from rayline.service.request import ServiceRequest

# vLLM 0.29's names (vllm/config/speculative.py)
METHODS = {Speculation.NGRAM: "ngram", Speculation.MTP: "mtp", Speculation.DRAFT: "draft_model"}


def plan_speculation(request: ServiceRequest, model: Model, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine's arguments with those of engine.speculation."""
    speculation = request.arguments.engine.speculation
    if speculation is None:
        return dict(kwargs)
    if "speculative_config" in kwargs:
        request.refuse("engine.kwargs.speculative_config", "engine.speculation says the same. Fix: one of them", None)
    _check_method(request, model, speculation)
    config: dict[str, Any] = {"method": METHODS[speculation.method], "num_speculative_tokens": speculation.tokens}
    if speculation.model is not None:
        config["model"] = speculation.model
    # each answer then counts its accepted tokens, which `rayline verify` reads
    return {"speculative_config": config, "per_request_spec_decode_metrics": "summary"} | dict(kwargs)


def _check_method(request: ServiceRequest, model: Model, speculation: SpeculationArgs) -> None:
    method, name = speculation.method, request.arguments.model
    if method is Speculation.MTP and model.drafter_bytes is None:
        fix = "Fix: method ngram, or draft with a smaller model of the same vocabulary"
        request.refuse(
            "engine.speculation.method", f"the file of {name} has no drafter_bytes, so no layer predicts tokens. {fix}"
        )
    if method is Speculation.DRAFT and speculation.model is None:
        request.refuse("engine.speculation.model", "required with method draft. Fix: a smaller model of the same vocabulary")
    elif method is not Speculation.DRAFT and speculation.model is not None:
        request.refuse("engine.speculation.model", f"only with method draft, and it is {method.value}. Fix: leave it out")
    drafter = request.models.get(speculation.model or "")
    if drafter and drafter.vocab_size != model.vocab_size:
        sizes = f"it has {drafter.vocab_size:,} tokens, and {name} has {model.vocab_size:,}"
        request.refuse("engine.speculation.model", f"{sizes}. Fix: a model with the same vocabulary")
    elif drafter and not drafter.at_hugging_face and not drafter.model.startswith("/"):
        # Ray downloads the model of the service alone
        request.refuse(
            "engine.speculation.model", "vLLM reads it from Hugging Face or from a folder of the pods. Fix: one of them"
        )
    elif drafter and drafter.pooling:
        request.refuse("engine.speculation.model", "it generates no text. Fix: a model that generates")
