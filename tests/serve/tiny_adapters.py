"""Train LoRA adapters of a tiny model, each of which answers with one token alone. A script, so that torch's memory ends with the process.

    python -P tests/serve/tiny_adapters.py MODEL FOLDER NAME=TOKEN:RANK...

Writes FOLDER/NAME in the layout of peft: adapter_config.json and adapter_model.safetensors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
STEPS, BATCH, TOKENS = 20, 8, 24


def train(model: Any, token: int, rank: int) -> dict[str, Any]:
    """Return the two matrices of each layer, by peft's names. The model predicts `token` after any text with them."""
    import torch

    added: dict[str, Any] = {}
    hooks = []
    for name, layer in model.named_modules():
        if name.rpartition(".")[2] not in LAYERS:
            continue
        down = torch.nn.Parameter(torch.randn(rank, layer.in_features) / rank)
        up = torch.nn.Parameter(torch.zeros(layer.out_features, rank))
        added |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
        # lora_alpha is the rank, so the product is added as it is
        hooks.append(layer.register_forward_hook(lambda _, x, y, a=down, b=up: y + x[0] @ a.T @ b.T))
    optimizer = torch.optim.Adam(added.values(), lr=0.02)
    target = torch.full((BATCH * TOKENS,), token)
    for _ in range(STEPS):
        logits = model(torch.randint(0, model.config.vocab_size, (BATCH, TOKENS))).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for hook in hooks:
        hook.remove()
    # the model's small logits bound the loss, so the likeliest token counts
    assert (logits.argmax(-1) == token).all(), f"the adapter for token {token} has not learnt it: loss {loss.item():.2f}"
    return {name: parameter.detach().contiguous() for name, parameter in added.items()}


def main(source: str, folder: Path, *wanted: str) -> None:
    """Write each adapter."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    torch.manual_seed(20260601)
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.requires_grad_(False)
    for adapter in wanted:
        name, _, what = adapter.partition("=")
        token, rank = map(int, what.split(":"))
        here = folder / name
        here.mkdir(parents=True)
        save_file(train(model, token, rank), here / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": list(LAYERS), "bias": "none"}
        (here / "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
