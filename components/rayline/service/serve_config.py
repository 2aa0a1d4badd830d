"""Make the Serve configuration of a service: an application for each model, with vLLM's arguments."""

import json
from hashlib import sha256
from typing import Any

from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.choices import Accelerator, Task
from rayline.facts.labels import ROUTER, SERVE_PORT, llm_deployment
from rayline.models import manifests as weights
from rayline.service.adapters import lora_config, lora_kwargs
from rayline.service.api_key import KEYS_VARIABLE, SCALING_POLICY, gate_middleware, keys_path
from rayline.service.disaggregation import application as disaggregated
from rayline.service.drain import drain_times
from rayline.service.scale import surge_percent
from rayline.service.tasks import task_arguments
from rayline.service.traffic import traffic_settings
from rayline.service.types import ServicePlan


def serve_config(service: ServicePlan) -> dict[str, Any]:
    """Return the Serve configuration. Direct streaming takes exactly one model for each application."""
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},
        "logging_config": {"enable_access_log": False},
        "applications": [_application(model) for model in service.models],
    }


def _application(service: ServicePlan) -> dict[str, Any]:
    llm: dict[str, Any] = {"model_loading_config": {"model_id": service.served_model_name, "model_source": service.weights.uri}}
    if service.accelerator is Accelerator.CPU:
        llm["accelerator_config"] = {"kind": "cpu"}
    else:
        llm["accelerator_type"] = ACCELERATORS[service.accelerator].ray_type
    llm["engine_kwargs"] = _engine_kwargs(service)
    if service.asked.adapters:
        llm["lora_config"] = lora_config(service.asked.adapters)
    if not service.asked.engine.log_engine_metrics:
        llm["log_engine_metrics"] = False
    deployment: dict[str, Any] = {
        # always 1: a change of `args` makes Serve reload every replica, so the count stands below
        "num_replicas": 1,
        "graceful_shutdown_timeout_s": drain_times(service.asked.rollout.longest_stream_seconds).replica,
    }
    if service.accelerator is Accelerator.CPU:
        # the placement group's one CPU is the replica's; the actor requests none beside it
        deployment["ray_actor_options"] = {"num_cpus": 0}
    llm["deployment_config"] = deployment
    if variables := _own_environment(service):
        llm["runtime_env"] = {"env_vars": variables}
    place = {"name": service.application, "route_prefix": service.prefix or "/"}
    if service.asked.disaggregation:
        return place | disaggregated(service, service.asked.disaggregation, llm)
    return place | {
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [llm]},
        "deployments": _deployments(service),
    }


def engine_digest(service: ServicePlan) -> str:
    """Return a text that changes with the arguments of the engines, and with no count of replicas."""
    arguments = _application(service)["args"]
    return sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:16]


def kv_cache_variable(service: ServicePlan) -> dict[str, str]:
    """Return vLLM's variable for the size of the KV cache of a replica on the CPU, GiB."""
    return {} if service.kv_cache_gib is None else {"VLLM_CPU_KVCACHE_SPACE": str(service.kv_cache_gib)}


def _own_environment(service: ServicePlan) -> dict[str, str]:
    """Return the variables of a further model's replicas that differ from those of the pod."""
    if not service.is_further:
        return {}
    keys = {KEYS_VARIABLE: keys_path(service.application)} if service.asked.api.key else {}
    return keys | kv_cache_variable(service)


def _deployments(service: ServicePlan) -> list[dict[str, Any]]:
    """Return the settings of deployments. All except routing change without a new replica."""
    model = {"name": llm_deployment(service.served_model_name)} | _replicas(service) | traffic_settings(service.asked.traffic)
    if not service.spare_replicas:
        return [model]
    model["max_surge_percent"] = surge_percent(service.spare_replicas, service.most_replicas)
    # The router holds the engine's arguments too. It must not stop before the next one answers: requests would get 503.
    return [model, {"name": ROUTER, "max_surge_percent": 100}] if service.on("direct_streaming") else [model]


def _replicas(service: ServicePlan) -> dict[str, Any]:
    """Return the fixed count, or the bounds and the target of Serve's autoscaling.

    Without `traffic.max_in_progress`, `max_ongoing_requests` stays at the 1e9 of Ray Serve LLM: a replica does not count
    what waits for a slot, so a limit hides load from the autoscaling; vLLM has its own queue.
    """
    scaling = service.autoscaling
    if scaling is None:
        return {"num_replicas": service.replicas}
    bounds: dict[str, Any] = {
        "min_replicas": scaling.min_replicas,
        "max_replicas": scaling.max_replicas,
        "target_ongoing_requests": scaling.target_ongoing_requests,
        "upscale_delay_s": scaling.upscale_delay_seconds,
        "downscale_delay_s": scaling.downscale_delay_seconds,
    }
    if scaling.to_zero:
        # a new RayCluster, or a changed model, counts as running only after one replica has loaded it
        bounds["initial_replicas"] = 1
    if scaling.downscale_to_zero_delay_seconds is not None:
        bounds["downscale_to_zero_delay_s"] = scaling.downscale_to_zero_delay_seconds
    if scaling.time_to_first_token_ms is not None:
        told = {
            "model": service.served_model_name,
            "bound_ms": scaling.time_to_first_token_ms,
            "prometheus": scaling.prometheus,
        }
        bounds["policy"] = {"policy_function": SCALING_POLICY, "policy_kwargs": told}
    return {"autoscaling_config": bounds}


def _engine_kwargs(service: ServicePlan) -> dict[str, Any]:
    limits = service.limits
    kwargs: dict[str, Any] = {
        "max_model_len": limits.max_model_len,
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
        "enable_prefix_caching": service.prefix_caching,
    }
    if service.task is Task.GENERATE:
        kwargs["stream_interval"] = service.asked.engine.stream_interval
    if service.accelerator is Accelerator.CPU:
        # without it vLLM compiles, which takes a C++ compiler; `engine.kwargs` of the service may say otherwise
        kwargs["enforce_eager"] = True
    else:
        kwargs["gpu_memory_utilization"] = limits.gpu_memory_utilization
        kwargs["tensor_parallel_size"] = service.asked.engine.tensor_parallel_size
        kwargs["pipeline_parallel_size"] = service.asked.engine.pipeline_parallel_size
    if service.asked.engine.kv_offload_gib:
        kwargs["kv_offloading_size"] = service.asked.engine.kv_offload_gib
    if service.asked.adapters:
        kwargs |= lora_kwargs(service.asked.adapters)
    kwargs |= task_arguments(service) | weights.engine_kwargs(service) | service.engine_kwargs
    if service.asked.api.key:
        # vLLM puts each around those before it, so the gate stands outside all others
        kwargs["middleware"] = [
            *service.engine_kwargs.get("middleware", []),
            gate_middleware(adapters=service.has_adapters, sides=service.has_sides),
        ]
    return kwargs
