"""The generated parts of docs/models.md: the models, and the GPUs on which each fits."""

from rayline.facts import defaults
from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.choices import Accelerator
from rayline.models.catalog import shipped_models
from rayline.models.model import GIB, Model
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline.service.fit import GPU_BLOCK_TOKENS, kv_layout, weights_gib
from rayline.service.types import LoadedModel, MemoryFit
from rayline_bench.tables import NOTHING, code, table

MODELS = shipped_models()


def _bytes(value: float) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{value / size:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{value:.0f} B"


def _token_bytes(model: Model) -> int:
    """Return the KV cache of one token in the full-attention layers, BF16, on one GPU."""
    return sum(2 * layers.kv_heads * layers.head_dim * 2 * layers.layers for layers in model.attention if layers.window is None)


def _fixed_bytes(model: Model) -> int:
    """Return the other memory of a long request: sliding windows at 2,048 tokens a step, linear-attention states."""
    layout = kv_layout(LoadedModel(model), tensor_parallel_size=1, prefix_caching=True, block_tokens=GPU_BLOCK_TOKENS)
    length = model.max_context
    growing = sum(
        count * -(-length // block) for kind, count, block, window in layout.groups if kind == "full" and window is None
    )
    return (layout.blocks_per_request(length, 2 * 2048) - growing) * layout.block_bytes


def _models_part() -> str:
    rows = []
    for name, model in MODELS.items():
        layout = kv_layout(LoadedModel(model), tensor_parallel_size=1, prefix_caching=True, block_tokens=GPU_BLOCK_TOKENS)
        fixed = _fixed_bytes(model)
        block_tokens = next(block for kind, _, block, _ in layout.groups if kind == "full")
        parsers = [text for text in (model.reasoning_parser, model.tool_call_parser) if text]
        rows.append(
            (
                code(name) + (" (bundled)" if model.bundled else ""),
                model.licence + (", gated" if model.gated else ""),
                _bytes(weights_gib(LoadedModel(model)) * GIB) + ("" if model.loaded_gib else " (computed)"),
                _bytes(_token_bytes(model)),
                f"{block_tokens:,}",
                _bytes(fixed) if fixed else "none",
                f"{model.max_context:,}",
                " / ".join(code(text) for text in parsers) or NOTHING,
                code(model.min_vllm),
                model.source,
            )
        )
    header = (
        "Model",
        "Licence",
        "Loaded",
        "KV cache per token",
        "Tokens per block",
        "Held per sequence besides",
        "Longest context",
        "Reasoning / tool parser",
        "vLLM from",
        "Source",
    )
    return table(header, rows)


def planned_fit(model_id: str, accelerator: Accelerator, tensor_parallel_size: int) -> MemoryFit | None:
    """Return the plan's fit in an existing cluster, or None where the GPU memory is too small."""
    service = {"model": model_id, "accelerator": accelerator, "engine": {"tensor_parallel_size": tensor_parallel_size}}
    try:
        plan = make_plan({"cluster": {"mode": "existing"}, "services": {"model": service}})
    except PlanError as error:
        if not all("does not fit" in problem.message for problem in error.problems):
            raise
        return None
    return plan.services[0].fit


def _fit_part() -> str:
    rows = []
    for name in (name for name, model in MODELS.items() if model.at_hugging_face):
        cells = []
        for accelerator, spec in ACCELERATORS.items():
            fit = planned_fit(name, accelerator, 1)
            if fit:
                cells.append(_fit_cell(fit, min(defaults.MAX_MODEL_LEN, MODELS[name].max_context)))
                continue
            most = max(machine.gpus for machine in spec.machines)
            for size in (2, 4, 8):
                if size <= most and (fit := planned_fit(name, accelerator, size)):
                    cells.append(f"not on one GPU; on {size}: {_fit_cell(fit, defaults.MAX_MODEL_LEN)}")
                    break
            else:
                cells.append("does not fit")
        rows.append((code(name), *cells))
    return table(("Model", *(code(accelerator.value) for accelerator in ACCELERATORS)), rows)


def _fit_cell(fit: MemoryFit, usual_context: int) -> str:
    context = fit.limits.max_model_len
    at = "" if context == usual_context else f" at {context:,}"
    return f"{fit.longest_context:,} / {fit.concurrency:,.1f}{at}"


PARTS = {"models": _models_part, "fit": _fit_part}
