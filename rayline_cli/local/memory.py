"""Memory of a service on this machine, as measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil

from rayline.service.serve_reading import ServeApplication
from rayline_cli.local.single_node import SingleNode

FOR_RAY_GIB = 2.0
PER_REPLICA_GIB = 2.5
"""Proportional set sizes with Ray 2.60 and vLLM 0.29 on the CPU: 5.4 GiB in all for one replica of a tiny model with
VLLM_CPU_KVCACHE_SPACE=1, of which API server 0.7, engine 0.65, worker 0.7 without the cache, config task 0.65."""


def needed_gib(node: SingleNode, model_folders: Mapping[str, Path]) -> float:
    """Estimate the memory of the service on this machine."""
    return FOR_RAY_GIB + sum(
        application.most_engines * _of_replica_gib(node, application, model_folders) for application in node.serve.applications
    )


def shortage(node: SingleNode, model_folders: Mapping[str, Path]) -> str:
    """Return why the service does not fit now; nothing where it does.

    A service that does not fit would be killed halfway: Ray's memory monitor and the kernel give worse reasons, later.
    """
    needed = needed_gib(node, model_folders)
    available = psutil.virtual_memory().available / 2**30
    if available >= needed:
        return ""
    sizes = ((app.most_engines, _of_replica_gib(node, app, model_folders)) for app in node.serve.applications)
    parts = ", ".join(f"each of {count} replica(s) {gib:.1f}" for count, gib in sizes)
    return (
        f"not enough memory: about {needed:.1f} GiB are needed, {available:.1f} GiB are free. "
        f"Ray takes {FOR_RAY_GIB:g} and {parts}: vLLM {PER_REPLICA_GIB:g}, VLLM_CPU_KVCACHE_SPACE, and the weights. "
        "Fix: end other programs, or declare less"
    )


def _kv_cache_gib(node: SingleNode, application: ServeApplication) -> float:
    declared = application.variables.get("VLLM_CPU_KVCACHE_SPACE", node.env.get("VLLM_CPU_KVCACHE_SPACE"))
    return float(declared) if isinstance(declared, str) and declared else 0.0


def _of_replica_gib(node: SingleNode, application: ServeApplication, model_folders: Mapping[str, Path]) -> float:
    folders = [model_folders[c.model_source] for c in application.llm_configs if c.model_source in model_folders]
    weights = sum(path.stat().st_size for folder in folders for path in folder.glob("*.safetensors"))
    return PER_REPLICA_GIB + _kv_cache_gib(node, application) + weights / 2**30
