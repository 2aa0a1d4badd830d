"""`rayline model add`: a model says about itself what the plan has to know."""

import json
import pathlib
import re
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from rayline.facts.choices import Task
from rayline.models.catalog import FILES, SCHEMA, read_models, shipped_models
from rayline.models.model import GIB, Model
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline.schema.read import read
from rayline.service.types import ServicePlan
from rayline_cli import cli, model_files
from rayline_cli.model_files.layers import DECODERS, LATENT, read_layers
from tests.http_answers import Answering
from tests.model_folders import decoder, write_model

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
TINY = LLAMA | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512}  # fmt: skip
PUBLISHED = pathlib.Path(__file__).with_name("published_models")


@pytest.fixture
def models(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "models"


def run(*arguments: str | pathlib.Path) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app, ["model", *map(str, arguments)])
    return done.exit_code, done.output


def add(folder: pathlib.Path, models: pathlib.Path, *options: str, name: str = "acme/model") -> Model:
    code, text = run("add", folder, "--as", name, "--folder", models, *options)
    assert code == 0, text
    return read_models(models)[name]


def planned(models: pathlib.Path, model: str = "acme/model", **service: Any) -> ServicePlan:
    arguments = {"model": model, "accelerator": "l4"} | service
    return make_plan({"cluster": {"mode": "existing"}, "models": str(models), "services": {"a": arguments}}).services[0]


def refused(models: pathlib.Path, model: str = "acme/model", **service: Any) -> str:
    with pytest.raises(PlanError) as error:
        planned(models, model, **service)
    return str(error.value)


# --- a folder


def test_a_llama_in_a_folder_is_counted_by_its_headers_and_planned(tmp_path, models):
    added = add(write_model(tmp_path / "llama", LLAMA, decoder(LLAMA)), models)
    # the published count of Llama 3.1 8B
    assert added.parameters == 8_030_261_248
    assert added.weights_bytes == 2 * added.parameters
    assert [layer.model_dump(exclude_defaults=True) for layer in added.attention] == [
        {"layers": 32, "kv_heads": 8, "head_dim": 128}
    ]
    assert planned(models).fit.weights_gib == pytest.approx(14.96, abs=0.01)


def test_the_file_has_one_key_a_line_and_names_its_source(tmp_path, models):
    add(write_model(tmp_path / "llama", LLAMA, decoder(LLAMA)), models)
    text = (models / "acme--model.yaml").read_text()
    assert text.startswith("model: acme/model\nsource: config.json and safetensors headers of the folder ")
    assert re.search(r"read on 20\d\d-\d\d-\d\d\n", text)
    assert "\nattention:\n- {layers: 32, kv_heads: 8, head_dim: 128}\n" in text


def test_a_tied_head_and_a_prediction_layer_are_not_loaded(tmp_path, models):
    config = TINY | {"tie_word_embeddings": True}
    plain = add(write_model(tmp_path / "a", config, decoder(config)), models, name="acme/a")
    more = {"mtp.layers.0.proj.weight": ("BF16", (64, 128))}
    drafting = add(write_model(tmp_path / "b", config, {**decoder(config), **more}), models, name="acme/b")
    assert plain.parameters == drafting.parameters
    assert plain.parameters < sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for _, shape in decoder(config).values())
    assert drafting.drafter_bytes == 64 * 128 * 2


def test_a_fine_tune_takes_the_numbers_of_its_base_without_a_network(models):
    code, text = run("add", "gs://my-bucket/tuned", "--like", "Qwen/Qwen3.5-4B", "--folder", models)
    assert code == 0, text
    tuned, base = read_models(models)["gs://my-bucket/tuned"], shipped_models()["Qwen/Qwen3.5-4B"]
    assert (tuned.parameters, tuned.attention, tuned.tool_call_parser) == (
        base.parameters,
        base.attention,
        base.tool_call_parser,
    )
    assert (models / "gs--my-bucket--tuned.yaml").read_text() == "model: gs://my-bucket/tuned\nlike: Qwen/Qwen3.5-4B\n"


def test_a_file_is_not_overwritten_by_chance(tmp_path, models):
    folder = write_model(tmp_path / "tiny", TINY, decoder(TINY))
    add(folder, models)
    code, text = run("add", folder, "--as", "acme/model", "--folder", models)
    assert code == 2
    assert "exists. Fix: --replace" in text
    add(folder, models, "--replace", "--set", "licence=mit")
    assert read_models(models)["acme/model"].licence == "mit"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config.json": None}, "no config.json. Fix: "),
        ({"config.json": "{"}, "config.json is not JSON"),
        ({"config.json": "[]"}, "config.json is not a map"),
        ({"model.safetensors": None}, "no weights in safetensors files. Fix: "),
        ({"model.safetensors": "\xff" * 64}, "model.safetensors: not a safetensors file"),
    ],
    ids=["no config", "half a config", "a list", "no weights", "no header"],
)
def test_a_folder_that_is_no_model_is_refused_with_a_fix(tmp_path, models, change, message):
    folder = write_model(tmp_path / "tiny", TINY, decoder(TINY))
    for name, text in change.items():
        (folder / name).unlink()
        if text is not None:
            (folder / name).write_text(text, encoding="latin-1")
    code, text = run("add", folder, "--as", "acme/model", "--folder", models)
    assert code == 2
    assert message in text
    assert not models.exists()


def test_a_number_that_the_files_do_not_say_can_be_set(tmp_path, models):
    config = {key: value for key, value in TINY.items() if key != "vocab_size"}
    folder = write_model(tmp_path / "tiny", config, decoder(TINY))
    code, text = run("add", folder, "--folder", models, "--as", "acme/model")
    assert code == 2
    assert "vocab_size: its files do not say it. Fix: --set vocab_size=NUMBER" in text
    assert add(folder, models, "--set", "vocab_size=512").vocab_size == 512


@pytest.mark.parametrize("given", ["vocab", "vocabs=1", "model=x", "attention=[]"])
def test_a_value_that_cannot_be_set_lists_those_that_can(tmp_path, models, given):
    code, text = run(
        "add", write_model(tmp_path / "tiny", TINY, decoder(TINY)), "--as", "a/x", "--folder", models, "--set", given
    )
    assert code == 2
    assert f"--set {given}: KEY=VALUE with one of source, licence" in text


def test_an_address_is_a_model_of_a_service_without_a_further_key(tmp_path, models):
    folder = write_model(tmp_path / "tiny", TINY, decoder(TINY))
    for name in ("gs://my-bucket/tiny", "/models/tiny"):
        add(folder, models, name=name)
        assert planned(models, name).weights.uri == name


def test_a_folder_needs_the_name_under_which_the_service_finds_it(tmp_path, models):
    folder = write_model(tmp_path / "tiny", TINY, decoder(TINY))
    code, text = run("add", folder, "--folder", models)
    assert code == 2
    assert "is a folder here. Fix: --as" in text


def test_the_index_decides_which_files_are_the_weights(tmp_path, models):
    folder = write_model(tmp_path / "tiny", TINY, decoder(TINY))
    alone = add(folder, models, name="acme/alone").weights_bytes
    (folder / "consolidated.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": "part-1.safetensors"}}))
    assert add(folder, models, name="acme/indexed").weights_bytes == alone
    index.write_text(json.dumps({"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}))
    code, text = run("add", folder, "--as", "acme/half", "--folder", models)
    assert code == 2
    assert "part-2.safetensors of its index is missing. Fix: download the whole model" in text


def test_the_defaults_of_a_class_count_where_config_leaves_them_out(tmp_path, models):
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 12,
        "sliding_window": 1024,
    }
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    added = add(write_model(tmp_path / "gemma", config, decoder(TINY)), models)
    assert [(layer.layers, layer.kv_heads, layer.head_dim, layer.window) for layer in added.attention] == [
        (2, 4, 256, None),
        (10, 4, 256, 1024),
    ]
    assert added.max_context == 131072


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": None}, "config.json has no num_hidden_layers. Fix: "),
        ({"num_attention_heads": None}, "config.json has no num_attention_heads. Fix: "),
        ({"max_position_embeddings": None}, "max_context: its files do not say it. Fix: --set max_context=NUMBER"),
        ({"quantization_config": "fp8"}, "config.json has a value of another type"),
        ({"architectures": 5}, "config.json has a value of another type"),
        ({"model_type": "deepseek_v3"}, "config.json has no kv_lora_rank. Fix: "),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_configuration_with_a_gap_is_refused_and_never_guessed(tmp_path, models, change, message):
    config = {key: value for key, value in (TINY | change).items() if value is not None}
    code, text = run("add", write_model(tmp_path / "tiny", config, decoder(TINY)), "--as", "acme/x", "--folder", models)
    assert code == 2
    assert message in text


def test_a_sentence_transformer_bounds_the_context(tmp_path, models):
    folder = write_model(
        tmp_path / "tiny", TINY, decoder(TINY), modules__json="[]", sentence_bert_config__json='{"max_seq_length": 256}'
    )
    assert add(folder, models).max_context == 256


def test_a_broken_file_can_be_replaced(tmp_path, models):
    models.mkdir()
    (models / "acme--model.yaml").write_bytes(b"\xff- 1")
    add(write_model(tmp_path / "tiny", TINY, decoder(TINY)), models, "--replace")


# --- what an architecture keeps


@pytest.mark.parametrize("file", sorted(PUBLISHED.glob("*.json")), ids=lambda file: file.stem)
def test_a_published_configuration_is_read_as_vllm_reads_it(file):
    row = json.loads(file.read_text())
    attention, recurrent, unknown = read_layers(row["config"].get("text_config") or row["config"])
    assert unknown is None
    kinds = [[layer.layers, layer.token_bytes(1, 2), layer.window] for layer in attention]
    assert sorted(kinds, key=str) == row["vllm"]["attention"]
    assert (recurrent and [recurrent.layers, recurrent.state_bytes]) == row["vllm"]["recurrent"]


def test_every_known_architecture_is_compared_with_vllms_reading():
    configurations = [json.loads(file.read_text())["config"] for file in PUBLISHED.glob("*.json")]
    assert {(config.get("text_config") or config)["model_type"] for config in configurations} >= DECODERS | LATENT


def test_an_unknown_architecture_is_an_upper_bound_and_asks_for_one_number(tmp_path, models):
    config = TINY | {"model_type": "quantum", "sliding_window": 16}
    added = add(write_model(tmp_path / "tiny", config, decoder(config)), models)
    assert added.unknown == (
        "architecture quantum: the KV cache is counted as if every layer kept all keys and values of each token"
    )
    assert [layer.window for layer in added.attention] == [None]
    message = refused(models)
    assert "services.a.engine.max_model_len: required, as the plan cannot derive it: architecture quantum" in message
    chosen = planned(models, engine={"max_model_len": 1024})
    assert chosen.limits.max_model_len == 1024
    assert any("what fits is a guess" in warning for warning in chosen.warnings)


@pytest.mark.parametrize(
    "experts",
    [
        {f"model.layers.0.mlp.experts.{at}.up_proj.weight": ("BF16", (128, 64)) for at in range(4)},
        {"model.layers.0.mlp.experts.gate_up_proj": ("BF16", (4, 64, 128))},
        {"model.layers.0.block_sparse_moe.input_linear.weight": ("BF16", (4, 128, 64))},
    ],
    ids=["one tensor each", "all in one", "Granite"],
)
def test_half_of_the_experts_compute_a_token(tmp_path, models, experts):
    config = TINY | {"num_local_experts": 4, "num_experts_per_tok": 2}
    added = add(write_model(tmp_path / "moe", config, {**decoder(config), **experts}), models)
    assert added.active_parameters == added.parameters - 2 * 128 * 64


def test_an_encoder_keeps_no_cache_and_is_planned_by_its_weights(tmp_path, models):
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 2,
        "num_attention_heads": 12, "vocab_size": 30522, "max_position_embeddings": 512, "torch_dtype": "float32",
    }  # fmt: skip
    tensors = {
        "embeddings.word_embeddings.weight": ("F32", (30522, 384)),
        "encoder.layer.0.output.dense.weight": ("F32", (384, 1536)),
    }
    added = add(write_model(tmp_path / "bert", config, tensors, modules__json="[]"), models)
    assert (added.pooling, added.attention) == (True, [])
    # vLLM loads float32 in 16 bits
    assert added.weights_bytes == 2 * added.parameters
    chosen = planned(models)
    assert chosen.limits.max_model_len == 512
    assert chosen.task is Task.EMBED
    assert chosen.fit.fits


# --- parsers


@pytest.mark.parametrize(
    ("template", "reasoning", "tool"),
    [("{{ tools }}<think>", "qwen3", "hermes"), ("{{ tools }}", None, "hermes"), ("{{ messages }}", None, None)],
    ids=["reasons and calls tools", "calls tools", "talks"],
)
def test_parsers_are_those_that_the_chat_template_shows(tmp_path, models, template, reasoning, tool):
    config = TINY | {"model_type": "qwen3"}
    added = add(write_model(tmp_path / "tiny", config, decoder(config), chat_template__jinja=template), models)
    assert (added.reasoning_parser, added.tool_call_parser) == (reasoning, tool)


# --- quantization


def quantized(tmp_path: pathlib.Path, **quantization: Any) -> pathlib.Path:
    return write_model(tmp_path / "quantized", TINY | {"quantization_config": quantization}, decoder(TINY, "F8_E4M3"))


def test_a_quantized_checkpoint_has_the_size_of_its_files(tmp_path, models):
    whole = add(write_model(tmp_path / "whole", TINY, decoder(TINY)), models, name="acme/whole")
    small = add(quantized(tmp_path, quant_method="fp8"), models, name="acme/small")
    assert small.parameters == whole.parameters
    assert small.weights_bytes == whole.weights_bytes - (whole.linear_parameters or 0)
    assert (small.quantization, small.linear_parameters) == ("fp8", None)


def test_four_bits_in_a_word_are_eight_parameters(tmp_path, models):
    tensors = {
        **decoder(TINY),
        "model.layers.0.mlp.up_proj.qweight": ("I32", (64, 16)),
        "model.layers.0.mlp.up_proj.scales": ("F16", (1, 128)),
    }
    del tensors["model.layers.0.mlp.up_proj.weight"]
    config = TINY | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    whole = add(write_model(tmp_path / "whole", TINY, decoder(TINY)), models, name="acme/whole")
    assert add(write_model(tmp_path / "awq", config, tensors), models).parameters == whole.parameters


def test_a_quantization_that_vllm_lacks_is_refused(tmp_path, models):
    code, text = run("add", quantized(tmp_path, quant_method="bitsandbytes"), "--as", "acme/x", "--folder", models)
    assert code == 2
    assert "vLLM 0.29 has no quantization bitsandbytes. Fix: a checkpoint in one of fp8" in text


def test_nvfp4_below_blackwell_saves_memory_and_is_warned_of(tmp_path, models):
    add(quantized(tmp_path, quant_method="modelopt", quant_algo="NVFP4"), models)
    assert any("saves memory and no time" in warning for warning in planned(models).warnings)
    assert not any("saves memory" in warning for warning in planned(models, accelerator="b200", nodes={}).warnings)


def test_the_kv_cache_of_a_checkpoint_is_taken(tmp_path, models):
    quantization = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    add(quantized(tmp_path, **quantization), models)
    add(write_model(tmp_path / "whole", TINY, decoder(TINY)), models, name="acme/whole")
    assert planned(models).fit.layout.block_bytes * 2 == planned(models, "acme/whole").fit.layout.block_bytes


# --- the engine's arguments in the fit


@pytest.fixture
def qwen(tmp_path: pathlib.Path, models: pathlib.Path) -> pathlib.Path:
    """Qwen3-8B by its published configuration."""
    config = json.loads((PUBLISHED / "Qwen--Qwen3-8B.json").read_text())["config"]
    add(write_model(tmp_path / "qwen", config, decoder(config)), models, name="Qwen/Qwen3-8B")
    return models


def test_a_quantized_load_and_cache_make_room(qwen):
    def tokens(**kwargs: Any) -> int:
        engine = {"max_model_len": 8192, "gpu_memory_utilization": 0.9, "kwargs": kwargs}
        return planned(qwen, "Qwen/Qwen3-8B", engine=engine).fit.kv_cache_tokens

    # akamaslabs/vllm-benchmark: 22,880, 67,424 and 134,864 tokens on an L4
    assert tokens() == pytest.approx(22_880, rel=0.10)
    assert tokens(quantization="fp8") == pytest.approx(67_424, rel=0.10)
    assert tokens(quantization="fp8", kv_cache_dtype="fp8") == pytest.approx(134_864, rel=0.10)


def test_a_drafter_takes_weights_and_a_cache_of_its_own(qwen):
    def fit(**kwargs: Any):
        return planned(qwen, "Qwen/Qwen3-8B", accelerator="h100", engine={"kwargs": kwargs}).fit

    drafting = {"method": "draft_model", "model": "Qwen/Qwen3-0.6B", "num_speculative_tokens": 4}
    alone, with_drafter = fit(), fit(speculative_config=drafting)
    assert with_drafter.weights_gib - alone.weights_gib == pytest.approx(1.12)
    # 256 KiB a token for 144 (akamaslabs/vllm-benchmark 17)
    assert (alone.layout.block_bytes, with_drafter.layout.block_bytes) == (16 * 144 * 1024, 16 * 256 * 1024)
    assert fit(speculative_config={"method": "ngram", "num_speculative_tokens": 4}).weights_gib == alone.weights_gib


def test_a_drafter_without_a_file_is_refused_with_the_command_that_writes_one(qwen):
    config = {"method": "eagle3", "model": "acme/eagle", "num_speculative_tokens": 4}
    message = refused(qwen, "Qwen/Qwen3-8B", engine={"kwargs": {"speculative_config": config}})
    assert "engine.kwargs.speculative_config.model (got 'acme/eagle'): no file describes it" in message
    assert "`rayline model add acme/eagle`" in message


def test_a_drafter_that_reads_the_models_own_cache_takes_weights_alone(tmp_path, models):
    text = TINY | {"model_type": "gemma4_text", "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
    config = {"architectures": ["Gemma4AssistantForCausalLM"], "model_type": "gemma4_assistant", "text_config": text}
    added = add(write_model(tmp_path / "assistant", config, decoder(TINY)), models, name="acme/assistant")
    assert (added.attention, added.unknown) == ([], None)

    def fit(**kwargs: Any):
        return planned(models, "google/gemma-4-E2B-it", engine={"kwargs": kwargs}).fit

    alone, drafting = fit(), fit(speculative_config={"model": "acme/assistant", "num_speculative_tokens": 2})
    assert drafting.weights_gib - alone.weights_gib == pytest.approx(added.weights_bytes / GIB)
    assert drafting.layout == alone.layout


@pytest.mark.parametrize("size", ["0.8B", "2B", "4B", "9B", "27B"])
def test_the_own_prediction_layer_of_qwen_takes_its_weights_and_a_cache(models, size):
    def fit(**kwargs: Any):
        engine = {"max_model_len": 8192, "kwargs": kwargs}
        return planned(models, f"Qwen/Qwen3.5-{size}", accelerator="h200", engine=engine).fit

    models.mkdir()
    drafter, alone = shipped_models()[f"Qwen/Qwen3.5-{size}"].drafter_bytes, fit()
    drafting = fit(speculative_config={"method": "mtp", "num_speculative_tokens": 1})
    assert drafter
    assert drafting.weights_gib - alone.weights_gib == pytest.approx(drafter / GIB)
    assert drafting.sequences(8192) < alone.sequences(8192)


def test_a_prediction_layer_without_a_size_is_warned_of(qwen):
    config = {"method": "mtp", "num_speculative_tokens": 1}
    warnings = planned(qwen, "Qwen/Qwen3-8B", accelerator="h100", engine={"kwargs": {"speculative_config": config}}).warnings
    assert any("has no drafter_bytes" in warning for warning in warnings)


@pytest.mark.parametrize("config", [{"method": "ngram"}, {"method": "[ngram]"}, {"model": "ngram"}], ids=str)
def test_drafting_from_the_prompt_needs_no_model(qwen, config):
    kwargs = {"speculative_config": config | {"num_speculative_tokens": 4}}
    assert planned(qwen, "Qwen/Qwen3-8B", engine={"kwargs": kwargs}).fit.fits


def test_a_quantization_for_one_family_of_gpus_is_refused_on_others(qwen):
    engine = {"kwargs": {"quantization": "nvfp4_per_token"}}
    assert "vLLM has no nvfp4_per_token kernels for l4" in refused(qwen, "Qwen/Qwen3-8B", engine=engine)
    assert "vLLM has no nvfp4_per_token kernels for rtx-pro-6000" in refused(
        qwen, "Qwen/Qwen3-8B", engine=engine, accelerator="rtx-pro-6000"
    )
    assert planned(qwen, "Qwen/Qwen3-8B", engine=engine, accelerator="b200").fit.fits


def test_lora_slots_take_memory_by_rank(qwen):
    def weights(**adapters: Any) -> float:
        keys = {"adapters": adapters} if adapters else {}
        return planned(qwen, "Qwen/Qwen3-8B", accelerator="h100", **keys).fit.weights_gib

    # 36 layers; inputs and outputs of q, k, v, o, gate, up and down at rank 16, in 16 bits
    width = 36 * (3 * 4096 + 4096 + 2 * 1024 + 4096 + 4096 + 2 * 4096 + 2 * 12288 + 12288 + 4096)
    place = "gs://acme/adapters"
    assert weights(location=place, max_active=1) - weights() == pytest.approx(16 * width * 2 / GIB)
    assert weights(location=place) - weights() == pytest.approx(4 * 16 * width * 2 / GIB)
    assert weights(location=place, max_rank=32, max_loaded=100) - weights() == pytest.approx(8 * 16 * width * 2 / GIB)


def test_adapters_need_an_architecture_that_vllm_has_lora_for(tmp_path, models, qwen):
    adapters = {"location": "gs://acme/adapters"}
    assert planned(qwen, "Qwen/Qwen3-8B", accelerator="h100", adapters=adapters).has_adapters
    add(write_model(tmp_path / "tiny", TINY | {"architectures": ["FalconForCausalLM"]}, decoder(TINY)), models)
    why = "vLLM has no LoRA for FalconForCausalLM, the architecture of acme/model. Fix: leave `adapters` out"
    assert why in refused(models, adapters=adapters)
    assert planned(models).fit.fits


def test_several_gpus_leave_memory_beside_vllm(qwen):
    engine = {"tensor_parallel_size": 2}
    assert planned(qwen, "Qwen/Qwen3-8B", engine=engine).limits.gpu_memory_utilization == 0.88
    assert planned(qwen, "Qwen/Qwen3-8B").limits.gpu_memory_utilization == 0.92
    # with few sequences, too, the manifest has the share that the fit counts
    large = planned(qwen, "google/gemma-4-31B-it", engine={"tensor_parallel_size": 4})
    assert large.fit.usable_gib / large.fit.memory_gib == pytest.approx(large.limits.gpu_memory_utilization)
    told = planned(qwen, "Qwen/Qwen3-8B", engine=engine | {"gpu_memory_utilization": 0.95}).warnings
    assert any("0.88 is the most that leaves it" in warning for warning in told)


# --- for editors


@pytest.fixture(scope="module")
def editor() -> jsonschema.Draft202012Validator:
    """The check that an editor makes by the shipped schema."""
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("file", sorted(FILES.glob("*.yaml")), ids=lambda file: file.stem)
def test_an_editor_accepts_a_shipped_file_which_names_the_schema(editor, file):
    text = file.read_text()
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert list(editor.iter_errors(yaml.safe_load(text))) == []
    # YAML 1.2, which editors read, has no such numbers
    assert not re.search(r": \d+_\d", text)


def test_an_editor_accepts_what_the_command_writes_into_the_project(editor, tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(model_files, "SCHEMA", tmp_path / "components" / "schema.json")
    models = tmp_path / "stack" / "models"
    add(write_model(tmp_path / "tiny", TINY, decoder(TINY)), models)
    assert run("add", "acme/tuned", "--like", "acme/model", "--folder", models)[0] == 0
    for file in models.iterdir():
        text = file.read_text()
        assert text.startswith("# yaml-language-server: $schema=../../components/schema.json\nmodel: ")
        assert list(editor.iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 0},
        {"head": 3},
        {"quantization": "none"},
        {"heads": None},
        {"attention": [{"layers": 1}]},
        {"vocab_size": "1_024"},
    ],
    ids=str,
)
def test_an_editor_refuses_what_the_plan_refuses(editor, change):
    file = yaml.safe_load((FILES / "Qwen--Qwen3.5-4B.yaml").read_text())
    assert list(editor.iter_errors(file | change))
    _, problems = read(Model, file | change)
    assert problems


def test_an_editor_needs_all_numbers_or_the_model_that_has_them(editor):
    assert list(editor.iter_errors({"model": "acme/tuned"}))
    assert list(editor.iter_errors({"model": "acme/tuned", "like": "Qwen/Qwen3.5-4B", "licence": "mit"})) == []


# --- files with mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "models/a.yaml: not a map"),
        ("1: x\n", "models/a.yaml: not a map"),
        ("model: acme/a\nlike: [a]\n", "models/a.yaml: like"),
        ("a: [\n", "models/a.yaml: cannot be read"),
        ("model: acme/a\nlike: acme/none\n", "models/a.yaml: like (got 'acme/none'): no such model"),
        ("model: acme/a\nlike: Qwen/Qwen3.5-4B\nheads: 0\n", "models/a.yaml: heads (got 0): at least 1"),
        ("model: acme/a\nlike: Qwen/Qwen3.5-4B\nhead: 3\n", "models/a.yaml: head (got 3): no such key; did you mean heads?"),
    ],
)
def test_a_mistake_in_a_models_file_names_the_file_and_the_key(models, text, message):
    models.mkdir()
    (models / "a.yaml").write_text(text)
    assert message in refused(models, "Qwen/Qwen3.5-4B")


def test_two_files_of_one_model_are_refused(models):
    models.mkdir()
    for name in ("a", "b"):
        (models / f"{name}.yaml").write_text("model: acme/a\nlike: Qwen/Qwen3.5-4B\n")
    assert "models/b.yaml: model (got 'acme/a'): models/a.yaml describes it already" in refused(models, "Qwen/Qwen3.5-4B")


@pytest.mark.parametrize("name", ["none", "x" * 300], ids=["missing", "too long"])
def test_a_folder_that_does_not_exist_is_refused(tmp_path, name):
    assert f"models (got '{tmp_path / name}'): no such folder" in refused(tmp_path / name, "Qwen/Qwen3.5-4B")


def test_a_model_without_a_file_names_the_command_that_writes_one(models):
    models.mkdir()
    assert "`rayline model add acme/none` writes a file with its numbers" in refused(models, "acme/none")


def test_the_list_has_the_kits_models_and_those_of_the_folder(tmp_path, models):
    add(write_model(tmp_path / "tiny", TINY, decoder(TINY)), models)
    code, text = run("list", "--folder", models, "--json")
    assert code == 0
    assert {"acme/model", *shipped_models()} == {row["model"] for row in json.loads(text)}


# --- the hub


class _Hub(Answering):
    protocol_version = "HTTP/1.1"
    folder: pathlib.Path
    gated_for: str | None = None
    commit = "851bf6e8" * 5

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.gated_for and self.headers["Authorization"] != f"Bearer {self.gated_for}":
            return self.answer(403, b"{}", **{"X-Error-Code": "GatedRepo"})
        if re.fullmatch(r"/api/models/acme/model(/revision/(main|851bf6e8\w*))?", path):
            info = {
                "id": "acme/model", "sha": self.commit, "gated": "auto" if self.gated_for else False, "private": False,
                "cardData": {"license": "llama3.1"}, "tags": [], "downloads": 0, "likes": 0,
                "siblings": [{"rfilename": file.name} for file in self.folder.iterdir()],
            }  # fmt: skip
            return self.answer(200, json.dumps(info).encode())
        if path.startswith("/api/models/acme/model/revision/"):
            return self.answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        asked = re.fullmatch(r"/acme/model/resolve/[^/]+/(.+)", path)
        file = self.folder / asked[1] if asked else None
        if asked and file and file.is_file():
            return self.content(file)
        code = "EntryNotFound" if asked else "RepoNotFound"
        return self.answer(404 if asked else 401, b"{}", **{"X-Error-Code": code})

    def content(self, file: pathlib.Path) -> None:
        size, span = file.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        first, last = (int(span[1]), min(int(span[2]), size - 1)) if span else (0, size - 1)
        with file.open("rb") as stream:
            stream.seek(first)
            # no more than the client asks for: the file is 16 GB of holes
            body = stream.read(last - first + 1) if span or size < 1 << 20 else b""
        headers = {"ETag": f'"{file.name}"', "X-Repo-Commit": self.commit, "Accept-Ranges": "bytes"}
        if span:
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self.answer(206 if span else 200, body, **headers)


@pytest.fixture
def hub(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hub]]:
    """A server that speaks as Hugging Face does, with Llama's shape; the environment points the client at it."""
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    handler = type("_OneHub", (_Hub,), {"folder": write_model(tmp_path / "hub", LLAMA, decoder(LLAMA))})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_at_hugging_face_is_read_without_its_weights(hub, models):
    code, text = run("add", "acme/model", "--folder", models)
    assert code == 0, text
    added = read_models(models)["acme/model"]
    assert (added.parameters, added.licence, added.gated) == (8_030_261_248, "llama3.1", False)
    assert "acme/model at 851bf6e8" in added.source
    assert planned(models).fit.fits


def test_a_gated_model_says_what_opens_it(hub, models, monkeypatch):
    hub.gated_for = "hf_good"
    code, text = run("add", "acme/model", "--folder", models)
    assert code == 2
    assert "gated, and there is no token that opens it. Fix: accept its licence" in text
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    code, text = run("add", "acme/model", "--folder", models)
    assert code == 0, text
    assert "hf_good" not in text
    assert read_models(models)["acme/model"].gated


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("acme/other",), "no such model, or it is private. Fix: check the name"),
        (("acme/model", "--revision", "v9"), "no revision v9. Fix: a commit, tag or branch"),
        (("a/b/c",), "a/b/c: no Hugging Face id"),
    ],
)
def test_what_the_hub_does_not_have_is_said(hub, models, arguments, message):
    code, text = run("add", *arguments, "--folder", models)
    assert code == 2, text
    assert message in text


def test_a_hub_that_is_away_is_a_failure_with_its_address(hub, models, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, text = run("add", "acme/model", "--folder", models)
    assert code == 1
    assert "Fix: " in text
    assert "Traceback" not in text


def test_a_folder_that_is_no_fine_tune_of_the_base_is_refused(models, tmp_path):
    folder = write_model(tmp_path / "llama", LLAMA, decoder(LLAMA))
    code, text = run("add", str(folder), "--as", "acme/other", "--like", "Qwen/Qwen3.5-4B", "--folder", models)
    assert code == 2, text
    assert "has 8.03 billion parameters, and Qwen/Qwen3.5-4B has 4." in text
    assert "Fix: leave --like out" in text
