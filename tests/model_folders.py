"""Make folders as Hugging Face's transformers writes them, with weights that are holes: names, types and shapes alone are read."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from rayline_cli.model_files.weights import BITS

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def write_model(folder: pathlib.Path, config: Mapping[str, Any], tensors: Tensors, **files: str) -> pathlib.Path:
    """Write a model of sparse files. `files` are others by their names, with `__` for a dot. Return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + at)
    return folder


def decoder(config: Mapping[str, Any], dtype: str = "BF16") -> Tensors:
    """Return the tensors of a plain decoder, as Llama, Mistral and Qwen2 have them."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {"model.embed_tokens.weight": ("BF16", (config["vocab_size"], hidden))}
    for at in range(config["num_hidden_layers"]):
        shapes = {
            "self_attn.q_proj": (queries, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, queries),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        tensors |= {f"model.layers.{at}.{name}.weight": (dtype, shape) for name, shape in shapes.items()}
        norms = ("input_layernorm", "post_attention_layernorm")
        tensors |= {f"model.layers.{at}.{name}.weight": ("BF16", (hidden,)) for name in norms}
    tensors["model.norm.weight"] = ("BF16", (hidden,))
    tensors["lm_head.weight"] = ("BF16", (config["vocab_size"], hidden))
    return tensors
