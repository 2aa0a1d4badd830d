"""A model: what the plan has to know about it. Each is a file in models/files, or in a folder of the caller."""

from typing import Annotated

from rayline.facts.quantizations import QUANTIZATIONS
from rayline.schema.base import Arguments, Count, Domain, Line, between, form

BF16 = 2  # bytes
FP32 = 4
GIB = 2**30

Version = Annotated[str, form(r"\d+\.\d+(\.\d+)?", "a version such as 0.29.0", 20)]
Quantization = Annotated[
    str, Domain(f"one of {', '.join(QUANTIZATIONS)}", lambda value: value in QUANTIZATIONS, {"enum": sorted(QUANTIZATIONS)})
]


class AttentionLayers(Arguments):
    """Layers that own a KV cache. Layers that share another layer's cache are not counted."""

    layers: Count
    """Number of such layers."""
    kv_heads: Count
    """KV heads of a layer; 1 with latent attention."""
    head_dim: Count
    """Values of a key head. With latent attention: of the one compressed vector of a token."""
    value_dim: Count | None = None
    """Values of a value head, where it is not head_dim."""
    window: Count | None = None
    """Tokens of a sliding window; none for full attention."""
    latent: bool = False
    """Latent attention (MLA): one vector for keys and values, whole on every GPU."""

    def token_bytes(self, tensor_parallel_size: int, value_bytes: int) -> int:
        """Return the bytes of one token in one layer on one GPU. Each GPU has at least one KV head."""
        if self.latent:
            return self.head_dim * value_bytes
        heads = max(1, self.kv_heads // tensor_parallel_size)
        return heads * (self.head_dim + (self.value_dim or self.head_dim)) * value_bytes


class RecurrentLayers(Arguments):
    """Layers with a state for each sequence, whatever its length: linear attention, Mamba, short convolutions."""

    layers: Count
    """Number of such layers."""
    state_bytes: Count
    """Bytes of one sequence in one layer, on one GPU that holds all heads."""


class Model(Arguments):
    """One model."""

    model: Line
    """Its id at Hugging Face, a gs:// address or a folder: the `model` of a service."""
    source: Line
    """Where the numbers were read."""
    licence: Line = "unknown"
    """Licence, as the model's card names it."""
    architecture: Line | None = None
    """Class in config.json's `architectures`."""
    parameters: Count
    """Parameters that vLLM loads."""
    active_parameters: Count | None = None
    """Parameters that compute one token, in a mixture of experts. Default: all."""
    weights_bytes: Count
    """Bytes of the weights that vLLM loads, over all GPUs of a replica."""
    linear_parameters: Count | None = None
    """Parameters in linear layers, which `quantization: fp8` makes smaller as it loads. Default: all but twice the embedding."""
    loaded_gib: Annotated[float, between(0, unit="GiB")] | None = None
    """What a start-up log of vLLM said ("Model loading took"), GiB. It goes before weights_bytes."""
    drafter_bytes: Count | None = None
    """Bytes of the multi-token-prediction layers, which vLLM loads with a `speculative_config` of method mtp."""
    quantization: Quantization | None = None
    """Quantization of the checkpoint."""
    kv_cache_dtype: Line | None = None
    """Type of the KV cache that the checkpoint requires; none for 16 bits."""
    hidden_size: Count
    """Width of the residual stream."""
    intermediate_size: Count
    """Width of the MLP for one token: of all experts that are active, in a mixture of experts."""
    vocab_size: Count
    """Tokens of the vocabulary."""
    heads: Count
    """Attention heads of one layer, which vLLM splits over the GPUs of a replica."""
    attention: list[AttentionLayers] = []
    """Layers with a KV cache; none in an encoder."""
    recurrent: RecurrentLayers | None = None
    """Layers with a state for each sequence."""
    max_context: Count
    """The model's own limit, tokens."""
    encoder_profiling_gib: Annotated[float, between(0, unit="GiB")] = 0.0
    """What vLLM's profiling run holds for images, beside the activations of the text model. GiB."""
    gated: bool = False
    """Whether its download needs a token."""
    vision: bool = False
    """Whether it takes images."""
    pooling: bool = False
    """Whether it gives embeddings or scores in place of text."""
    labels: Count | None = None
    """Classes of a classifier; 1 for a model that scores a pair of texts."""
    reasoning_parser: Line | None = None
    """vLLM's parser of its reasoning; none for a model that does not reason."""
    tool_call_parser: Line | None = None
    """vLLM's parser of its tool calls; none for a model that calls no tools."""
    min_vllm: Version = "0.8.5"
    """First version of vLLM that runs it."""
    bundled: bool = False
    """Whether the local runtime has it and needs no download."""
    at_hugging_face: bool = True
    """Whether Hugging Face has it."""
    unknown: Line | None = None
    """What its files did not say; a service then sets engine.max_model_len itself."""

    @property
    def keeps_cache(self) -> bool:
        """Whether a layer keeps a cache of earlier tokens. An encoder has none."""
        return bool(self.attention or self.recurrent)

    def tensor_parallel_sizes(self) -> list[int]:
        """Return the numbers of GPUs over which vLLM can split the heads of every layer.

        Query heads are split evenly (vllm 0.29.0 vllm/config/model.py:1413). KV heads are split evenly too, or each is copied to as
        many GPUs (vllm/model_executor/models/qwen3.py:89). The vector of latent attention is whole on each.
        """
        return [
            size
            for size in range(1, self.heads + 1)
            if self.heads % size == 0
            and all(layer.latent or layer.kv_heads % size == 0 or size % layer.kv_heads == 0 for layer in self.attention)
        ]
