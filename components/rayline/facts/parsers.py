"""vLLM's parsers of reasoning and tool calls, by the `model_type` of a model's text.

`rayline model add` proposes them; the model's file has the last word. Names: vllm 0.29.0 vllm/reasoning/__init__.py and
vllm/tool_parsers/__init__.py. Families: vllm-project/recipes, docs/features/tool_calling.md and reasoning_outputs.md.
"""

from typing import NamedTuple


class Parsers(NamedTuple):
    """Parsers of one family. `reasons` is what the chat template of a model that reasons has in it.

    A reasoning parser on a model that does not reason turns off JSON schemas and forced tool calls without a word.
    """

    tool: str | None = None
    reasoning: str | None = None
    reasons: str = "<think>"


PARSERS: dict[str, Parsers] = {
    "qwen2": Parsers("hermes"),
    "qwen2_5_vl_text": Parsers("hermes"),
    "qwen3": Parsers("hermes", "qwen3"),
    "qwen3_moe": Parsers("hermes", "qwen3"),
    "qwen3_next": Parsers("hermes", "qwen3"),
    "qwen3_vl_text": Parsers("hermes", "qwen3"),
    "qwen3_vl_moe_text": Parsers("hermes", "qwen3"),
    "qwen3_5_text": Parsers("qwen3_coder", "qwen3"),
    "qwen3_5_moe_text": Parsers("qwen3_coder", "qwen3"),
    "llama": Parsers("llama3_json"),
    "llama4_text": Parsers("llama4_pythonic"),
    "mistral": Parsers("mistral"),
    "mistral3": Parsers("mistral"),
    "mixtral": Parsers("mistral"),
    "gemma4_text": Parsers("gemma4", "gemma4", "<|channel>"),
    "gpt_oss": Parsers("openai", "openai_gptoss", "<|channel|>"),
    "deepseek_v3": Parsers("deepseek_v3", "deepseek_r1"),
    "deepseek_v32": Parsers("deepseek_v32", "deepseek_v3"),
    "deepseek_v4": Parsers("deepseek_v4", "deepseek_v4"),
    "kimi_k2": Parsers("kimi_k2", "kimi_k2"),
    "glm4_moe": Parsers("glm45", "glm45"),
    "minimax_m2": Parsers("minimax_m2", "minimax_m2"),
    "mimo": Parsers("mimo", "mimo"),
    "nemotron_h": Parsers("qwen3_coder", "nemotron_v3"),
    "granite": Parsers("granite"),
    "granitemoehybrid": Parsers("granite4"),
    "seed_oss": Parsers("seed_oss", "seed_oss"),
    "olmo3": Parsers("olmo3", "olmo3"),
    "jamba": Parsers("jamba"),
    "lfm2": Parsers("lfm2"),
    "phi3": Parsers("phi4_mini_json"),
}
