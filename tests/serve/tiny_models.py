"""Write tiny random models of other architectures than the bundled ones. A script, so that torch's memory ends with the process.

    python -P tests/serve/tiny_models.py FOLDER TOKENIZER

Writes FOLDER/granite, FOLDER/gemma and FOLDER/bert. TOKENIZER is the folder of a model with 1,024 tokens, whose tokenizer is copied.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

COMMON: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    # vLLM's attention on the CPU takes heads of 32 and more
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}


def granite() -> Any:
    """Return a hybrid: Mamba 2 and attention in turn, with a mixture of four experts."""
    from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM

    return GraniteMoeHybridForCausalLM(
        GraniteMoeHybridConfig(
            **COMMON,
            layer_types=["mamba", "attention"] * 2,
            mamba_n_heads=8,
            mamba_d_head=16,
            mamba_d_state=16,
            num_local_experts=4,
            num_experts_per_tok=2,
            shared_intermediate_size=64,
        )
    )


def gemma() -> Any:
    """Return a Gemma 3 with three sliding windows of 64 tokens for each layer of full attention."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = [*["sliding_attention"] * 3, "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**COMMON, head_dim=32, sliding_window=64, layer_types=kinds))


def bert() -> Any:
    """Return a classifier with three classes."""
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {key: COMMON[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "dtype")}
    names = {0: "fine", 1: "broken", 2: "unclear"}
    return BertForSequenceClassification(
        BertConfig(
            **sizes, num_hidden_layers=2, max_position_embeddings=512, id2label=names, label2id={v: k for k, v in names.items()}
        )
    )


def main(folder: Path, tokenizer: Path) -> None:
    """Write each model with the tokenizer."""
    import torch

    torch.manual_seed(20260601)
    for make in (granite, gemma, bert):
        here = folder / make.__name__
        make().to(torch.bfloat16).save_pretrained(here)
        for file in (*tokenizer.glob("*token*.json"), *tokenizer.glob("*.jinja")):
            shutil.copy(file, here / file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
