"""Quantizations of weights and of the KV cache: the GPUs that vLLM 0.29.0 has kernels for.

`least` is get_min_capability of the method's class in vllm/model_executor/layers/quantization. `fast` is the compute capability from
which the GPU computes in the format itself: FP8 on Ada and Hopper, FP4 on Blackwell (NVIDIA's CUDA documentation, "Compute
Capabilities"). Below it vLLM unpacks the weights to 16 bits as it multiplies (Marlin): memory is saved, and no time.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizationRow:
    """One value of a checkpoint's `quant_method`, or of the engine's `quantization`."""

    least: float
    source: str
    fast: float | None = None
    below: float | None = None
    """Compute capability from which on there are no kernels again."""
    bytes_per_weight: float | None = None
    """Of a weight of a linear layer, scales included, where the engine quantizes as it loads; None for checkpoints alone."""


QUANTIZATIONS: dict[str, QuantizationRow] = {
    "fp8": QuantizationRow(7.5, "fp8.py:144, online/base.py:116", fast=8.9, bytes_per_weight=1),
    "fp8_per_tensor": QuantizationRow(7.5, "online/base.py:116", fast=8.9, bytes_per_weight=1),
    # one FP32 scale for 128 x 128 weights, or for a channel: under one in a thousand
    "fp8_per_block": QuantizationRow(7.5, "online/base.py:116", fast=8.9, bytes_per_weight=1),
    "fp8_per_channel": QuantizationRow(7.5, "online/base.py:116", fast=8.9, bytes_per_weight=1),
    # these two quantize experts alone (vllm/config/quantization.py:139-147), whose share is not in a model's file: counted whole
    "int8_per_channel_weight_only": QuantizationRow(7.5, "online/base.py:116"),
    "experts_int8": QuantizationRow(8.0, "experts_int8.py:43"),
    # one byte of scale for 32 weights
    "mxfp8": QuantizationRow(7.5, "online/base.py:116", fast=10.0, bytes_per_weight=1 + 1 / 32),
    "nvfp4_per_token": QuantizationRow(10.0, "online/nvfp4.py:92", below=11.0),
    "nvfp4": QuantizationRow(7.5, "modelopt.py:1060", fast=10.0),
    "mxfp4": QuantizationRow(8.0, "mxfp4.py:62", fast=10.0),
    "modelopt": QuantizationRow(8.0, "modelopt.py:407", fast=8.9),
    "awq": QuantizationRow(7.5, "auto_awq.py:231"),
    "gptq": QuantizationRow(6.0, "auto_gptq.py:188"),
    "compressed-tensors": QuantizationRow(7.0, "compressed_tensors/compressed_tensors.py:117"),
    "torchao": QuantizationRow(7.5, "torchao.py:162"),
    "auto-round": QuantizationRow(6.0, "inc/inc.py:268"),
}

# Bytes of one value of the KV cache by the engine's `kv_cache_dtype`; other values are 16 bits.
KV_CACHE_BYTES: dict[str, int] = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "fp8_inc": 1}
# "an FP8 KV cache needs native fp8e4nv (SM89+)" (vllm 0.29.0 vllm/v1/attention/ops/triton_reshape_and_cache_flash.py:399)
LEAST_FOR_FP8_KV_CACHE = 8.9
