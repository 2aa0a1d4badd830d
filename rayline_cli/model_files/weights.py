"""Count a model's weights from the headers of its safetensors files: names, types and shapes, without the weights."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rayline_cli.errors import UsageError

from .folders import ModelFolder
from .numbers import LAYERS, number

# Bits of one value by its name in a header (huggingface/safetensors, safetensors/src/tensor.rs, Dtype).
BITS = {
    **{"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
# What a quantized checkpoint has beside the weights: scales, zero points, order of groups.
_BESIDE = re.compile(r"(scale|scales|scale_inv|scale_2|qzeros|g_idx|zero_point|input_amax|weight_shape|inv_freq|position_ids)$")
_PACKED = re.compile(r"(qweight|weight_packed|_blocks)$")
_VISION = re.compile(r"(^|\.)(visual|vision\w*|audio\w*|multi_modal_projector|embed_vision|embed_audio)\.")
_EMBEDDING = re.compile(r"(^|\.)(embed\w*|lm_head|wte|word_embeddings|shared)\.")
INDEX = "model.safetensors.index.json"
# Of the first request for a header, as huggingface_hub has it (SAFETENSORS_MAX_HEADER_LENGTH is what the format allows).
HEADER_BYTES = 100_000
# Routed experts, one tensor each or all in one; Granite's have a name of their own.
_EXPERTS = re.compile(r"\.(experts|block_sparse_moe\.(input|output)_linear)\.")
_LAYER = re.compile(r"(^|\.)(layers|layer|h|blocks)\.(\d+)\.")


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors header."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """Values as stored; packed ones count once."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.values * BITS.get(self.dtype, 16) // 8


@dataclass(frozen=True)
class Weights:
    """The weights that vLLM loads. Bytes and parameters over all GPUs of a replica."""

    parameters: int
    active_parameters: int | None
    linear_parameters: int | None
    loaded_bytes: int
    drafter_bytes: int | None
    vision: bool


def headers_of(folder: ModelFolder, sizes: Mapping[str, int]) -> list[Tensor]:
    """Return the tensors of a folder's safetensors files. Raises UsageError for a file that is none, or is missing."""
    tensors: list[Tensor] = []
    for name in _files(folder, sizes):
        try:
            # Google refuses a range of an empty file
            beginning = folder.read(name, HEADER_BYTES) if sizes[name] else b""
            if len(beginning) < 8:
                raise ValueError("it has no header")
            size = 8 + int.from_bytes(beginning[:8], "little")
            if size > sizes[name]:
                raise ValueError("its header is longer than the file")
            # most headers are within the first request
            header = json.loads((beginning if size <= len(beginning) else folder.read(name, size))[8:size])
            tensors += [
                Tensor(tensor, entry["dtype"], tuple(entry["shape"]))
                for tensor, entry in header.items()
                if tensor != "__metadata__"
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{folder.place}: {name}: not a safetensors file ({error}). Fix: download it again") from None
    return tensors


def _files(folder: ModelFolder, sizes: Mapping[str, int]) -> list[str]:
    """Return the files of the index, else all: a folder may hold the same weights in another form beside."""
    if INDEX not in sizes:
        single = "model.safetensors"
        return (
            [single] if single in sizes else sorted(name for name in sizes if name.endswith(".safetensors") and "/" not in name)
        )
    try:
        names = sorted(set(json.loads(folder.read(INDEX, sizes[INDEX]))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder.place}: {INDEX}: not an index of safetensors files ({error}). Fix: download it again"
        ) from None
    if missing := [name for name in names if name not in sizes]:
        raise UsageError(f"{folder.place}: {', '.join(missing)} of its index is missing. Fix: download the whole model")
    return names


def count(tensors: Iterable[Tensor], text: Mapping[str, Any], whole: Mapping[str, Any]) -> Weights:
    """Count the weights of a model. `text` is its text configuration, `whole` all of config.json."""
    layers = number(text, LAYERS) or 1 << 30
    quantization = whole.get("quantization_config") or text.get("quantization_config") or {}
    packed = _values_in_a_byte(quantization)
    tied = bool(text.get("tie_word_embeddings", whole.get("tie_word_embeddings", False)))
    # vLLM loads a float32 checkpoint in 16 bits
    halved = (
        str(text.get("dtype") or text.get("torch_dtype") or whole.get("torch_dtype") or "") == "float32" and not quantization
    )
    parameters = experts = linear = loaded = drafting = 0
    vision = False
    for tensor in tensors:
        name, size = tensor.name, tensor.size // (2 if halved and tensor.dtype == "F32" else 1)
        layer = _LAYER.search(name)
        is_vision = _VISION.search(name) is not None
        if re.search(r"(^|\.)(mtp|nextn|eagle)\.", name) or (not is_vision and layer and int(layer[3]) >= layers):
            drafting += size
            continue
        if tied and name.endswith("lm_head.weight"):
            continue
        vision |= is_vision
        loaded += size
        if _BESIDE.search(name):
            continue
        values = tensor.values * (packed(tensor) if packed else 1)
        parameters += values
        if _EXPERTS.search(name) and "shared" not in name:
            experts += values
        if (
            tensor.dtype in ("BF16", "F16", "F32")
            and len(tensor.shape) > 1
            and layer
            and not (is_vision or _EMBEDDING.search(name))
        ):
            linear += values
    if not parameters:
        raise UsageError("no weights in safetensors files. Fix: convert them, or write the file by hand (docs/models.md)")
    share = active_share(text)
    active = round(parameters - experts * (1 - share)) if share and experts else None
    return Weights(parameters, active, None if quantization else linear or None, loaded, drafting or None, vision)


def active_share(text: Mapping[str, Any]) -> float | None:
    """Return the share of the experts that compute one token; None for a dense model."""
    names = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")
    total = number(text, names) or 1
    return active_experts(text) / total if total > 1 else None


def active_experts(text: Mapping[str, Any]) -> int:
    """Return the routed experts that compute one token; 0 for a dense model."""
    names = ("num_experts_per_tok", "experts_per_token", "top_k_experts", "moe_top_k", "moe_topk", "num_selected_experts")
    return number(text, names) or 0


def _values_in_a_byte(quantization: Mapping[str, Any]) -> Any:
    """Return how many values one stored value holds, as a function of the tensor; None where nothing is packed."""
    if not quantization:
        return None
    groups = quantization.get("config_groups")
    group = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
    bits = quantization.get("bits") or quantization.get("w_bit") or (group.get("weights") or {}).get("num_bits") or 4

    def packed(tensor: Tensor) -> int:
        if tensor.dtype == "I32" and _PACKED.search(tensor.name):
            return 32 // int(bits)
        # two values of four bits, in NVFP4's weights and MXFP4's blocks
        return 2 if tensor.dtype == "U8" and (_PACKED.search(tensor.name) or tensor.name.endswith("weight")) else 1

    return packed
