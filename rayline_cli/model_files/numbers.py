"""Read the numbers of a model's config.json, whose names differ between families."""

from collections.abc import Iterable, Mapping
from typing import Any

Config = Mapping[str, Any]

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads")
WIDTH = ("hidden_size", "n_embd", "d_model")
CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")


def number(values: Config, names: Iterable[str]) -> int | None:
    """Return the first of these keys that has a whole number other than zero; None where none has."""
    return next((values[name] for name in names if type(values.get(name)) is int and values[name]), None)
