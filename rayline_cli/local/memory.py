"""Memory of a service on this machine, as measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

from rayline_cli.local.single_node import SingleNode

FOR_RAY_GIB = 2.0
PER_REPLICA_GIB = 2.5
"""Proportional set sizes with Ray 2.60 and vLLM 0.29 on the CPU: 5.4 GiB in all for one replica of a tiny model with
VLLM_CPU_KVCACHE_SPACE=1, of which API server 0.7, engine 0.65, worker 0.7 without the cache, config task 0.65."""


def needed_gib(node: SingleNode, model_folders: Mapping[str, Path]) -> float:
    """Estimate the memory of the service on this machine."""
    return FOR_RAY_GIB + node.serve.most_engines * _of_replica_gib(node, model_folders)


def shortage(node: SingleNode, model_folders: Mapping[str, Path]) -> str:
    """Return why the service does not fit now; nothing where it does.

    A service that does not fit would be killed halfway: Ray's memory monitor and the kernel give worse reasons, later.
    """
    needed = needed_gib(node, model_folders)
    available = psutil.virtual_memory().available / 2**30
    if available >= needed:
        return ""
    return (
        f"not enough memory: about {needed:.1f} GiB are needed, {available:.1f} GiB are free. "
        f"Ray takes {FOR_RAY_GIB:g} and each of {node.serve.most_engines} replica(s) "
        f"{_of_replica_gib(node, model_folders):.1f}: vLLM {PER_REPLICA_GIB:g}, "
        f"VLLM_CPU_KVCACHE_SPACE {_kv_cache_gib(node):g}, and the weights. Fix: end other programs, or declare less"
    )


def _kv_cache_gib(node: SingleNode) -> float:
    declared = node.env.get("VLLM_CPU_KVCACHE_SPACE")
    return float(declared) if isinstance(declared, str) and declared else 0.0


def _of_replica_gib(node: SingleNode, model_folders: Mapping[str, Path]) -> float:
    weights = (path.stat().st_size for folder in model_folders.values() for path in folder.glob("*.safetensors"))
    return PER_REPLICA_GIB + _kv_cache_gib(node) + sum(weights) / 2**30
