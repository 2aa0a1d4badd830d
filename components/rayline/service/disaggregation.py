"""Decide how a service divides its replicas into prefill and decode; refuse what cannot work or was not tried."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.choices import Accelerator, Task, UpgradeStrategy
from rayline.facts.labels import decode_deployment, prefill_deployment
from rayline.facts.runtimes import MIN_RAY_VERSION_FOR_DISAGGREGATION
from rayline.models.model import Model
from rayline.service.arguments import DisaggregationArgs, TrafficArgs
from rayline.service.request import ServiceRequest
from rayline.service.types import ServicePlan

LEAST_PREFILL = 2
# Each replica has ports of its own beside those of the others of its machine. Ray counts from 20000 for prefill, and from 22000 for decode
# (ray 2.60.0 llm/_internal/serve/serving_patterns/prefill_decode/builder.py).
_OF_ONE_REPLICA = ("VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT")


def check_disaggregation(request: ServiceRequest, model: Model | None) -> None:
    """Refuse prefill and decode replicas that the service's other settings, the card or the model exclude."""
    disaggregation = request.arguments.disaggregation
    if disaggregation is None:
        return
    if problem := _reason_without(request, model):
        request.refuse("disaggregation", f"{problem}. Fix: leave `disaggregation` out", None)
    if disaggregation.prefill < LEAST_PREFILL:
        why = "without a prefill replica every request waits for the next one to load: 97 s where the only one was killed"
        request.refuse("disaggregation.prefill", f"{why}. Fix: at least {LEAST_PREFILL}")
    _refuse_beside(request)


def side_variables(request: ServiceRequest) -> dict[str, str]:
    """Return the variables of pods with prefill and decode replicas."""
    if request.arguments.disaggregation is None:
        return {}
    # Without a prefill replica a request waits, and Ray has no limit. HAProxy ends it when no byte came for so long.
    variables = {"RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": str(request.arguments.rollout.longest_stream_seconds)}
    if request.on_cpu:
        # UCX, which moves the KV cache for NIXL, looks for InfiniBand and CUDA by default (nixl 1.3.2)
        variables["UCX_TLS"] = "tcp,self,sm"
    if request.on_this_machine:
        # Three engines share the cores. With a thread for each core (vLLM's default), threads that wait for each other at a barrier
        # wait for the other engines too: SmolLM2 gave 0.1 to 0.8 tokens/s on two cores.
        variables |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    return variables


def _reason_without(request: ServiceRequest, model: Model | None) -> str | None:
    """Return why the service cannot have prefill and decode replicas; None where it can."""
    service = request.arguments
    if not service.switches.direct_streaming:
        return "prefill and decode were tried on the direct path alone, and switches.direct_streaming is off"
    if request.has_older_ray(MIN_RAY_VERSION_FOR_DISAGGREGATION):
        return f"it needs Ray {MIN_RAY_VERSION_FOR_DISAGGREGATION}, and pods.runtime is {service.pods.runtime}"
    if service.accelerator is not Accelerator.CPU and not ACCELERATORS[service.accelerator].nvlink:
        return (
            f"PCIe alone connects GPUs of {service.accelerator.value}, and the KV cache of each prompt moves between them: four L4 gave at "
            "best 1,755 tokens/s a GPU, and 1,940 to 1,980 without it (akamaslabs/vllm-benchmark, studies 18 to 27)"
        )
    if (service.task or Task.GENERATE) is not Task.GENERATE or (model and model.pooling and not service.task):
        return "only a model that generates text has a prefill and a decode"
    if model and model.recurrent:
        return (
            f"{model.model} has layers with a state (linear attention, Mamba). vLLM moves it only in another layout of its memory, "
            "VLLM_SSM_CONV_STATE_LAYOUT=DS, which was not tried"
        )
    return None


# Part of a service, its keys, and why they have no place beside `disaggregation`.
_BESIDE = (
    ("engine", ("speculation",), "the drafts of two engines were not tried together"),
    ("engine", ("kv_offload_gib",), "an engine has one connector for its KV cache, and NIXL takes it"),
    ("engine", ("pipeline_parallel_size",), "NIXL was not tried with stages of a pipeline"),
    ("traffic", tuple(TrafficArgs.model_fields), "routing and limits were not tried with two deployments"),
    ("rollout", ("spare_replicas",), "a change of model or engine makes a new RayCluster"),
)

_ARGUMENTS = {
    "kv_transfer_config": "disaggregation decides it",
    "speculative_config": "the drafts of two engines were not tried together",
    "data_parallel_size": "Ray makes other deployments of it, which were not tried",
}


def _refuse_beside(request: ServiceRequest) -> None:
    """Refuse the keys that have no meaning, or were not tried, beside prefill and decode replicas."""
    service = request.arguments
    for part, keys, why in _BESIDE:
        request.refuse_if_said(part, keys, f"{why}: leave it out, or `disaggregation`", value=None)
    if service.said("replicas"):
        request.refuse("replicas", "disaggregation has the replicas of each side: leave it out")
    if not service.api.key:
        request.refuse(
            "api.key", "the gate also refuses requests that would stop a decode engine: leave it out, or `disaggregation`"
        )
    if not service.engine.log_engine_metrics:
        request.refuse("engine.log_engine_metrics", "`rayline verify` counts the transfers by these metrics: leave it out")
    for key, why in (
        ("autoscaling", "replicas of two sides that scale apart were not tried"),
        ("adapters", "adapters were not tried on two sides"),
        ("applications", "further models were not tried beside two sides"),
        ("workload", "the forecast is of replicas that compute the prompt and the answer"),
    ):
        if getattr(service, key):
            request.refuse(key, f"{why}: leave it out, or `disaggregation`", None)
    if service.rollout.strategy is UpgradeStrategy.INCREMENTAL:
        request.refuse("rollout.strategy", "shares of two deployments were not tried: new-cluster, or none")
    for name, why in _ARGUMENTS.items():
        if name in service.engine.kwargs:
            request.refuse(f"engine.kwargs.{name}", f"{why}: leave it out", None)
    for name in _OF_ONE_REPLICA:
        if name in service.pods.env:
            why = "each replica has an address of its own, which Ray sets: leave it out"
            request.refuse(f"pods.env.{name}", why, service.pods.env[name])


def disaggregation_warnings(service: ServicePlan) -> list[str]:
    """Warn of what makes prefill and decode slow, or a change of them felt."""
    if service.asked.disaggregation is None:
        return []
    warnings = []
    if service.upgrade is UpgradeStrategy.NONE:
        warnings.append(
            "with rollout.strategy none a change of model or engine takes place in the running RayCluster, and replicas of two "
            "versions give each other a KV cache that is not theirs: park the service before such a change"
        )
    workers = service.workers.most_workers
    if service.machine and workers > 1:
        warnings.append(
            f"its replicas run on {workers} workers, and between workers the KV cache moves by TCP: with workers.gpus "
            f"{service.gpus} on one machine it stays on NVLink"
        )
    return [f"{service.name}: disaggregation: {warning}" for warning in warnings]


def application(service: ServicePlan, sides: DisaggregationArgs, llm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of Serve's application that is of prefill and decode; `llm` is the LLMConfig of both."""
    name = service.served_model_name
    return {
        "import_path": "ray.serve.llm:build_pd_openai_app",
        "args": {"prefill_config": _side(service, llm, "kv_producer"), "decode_config": _side(service, llm, "kv_consumer")},
        "deployments": [
            {"name": prefill_deployment(name), "num_replicas": sides.prefill},
            {"name": decode_deployment(name), "num_replicas": sides.decode},
        ],
    }


def _side(service: ServicePlan, llm: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return the LLMConfig of one side. A copy: YAML would write a shared part as an alias."""
    side = deepcopy(dict(llm))
    # a request whose KV cache does not come is refused: to compute the prompt again would hold up the answers of others
    transfer = {"kv_connector": "NixlConnector", "kv_role": role, "kv_load_failure_policy": "fail"}
    if service.accelerator is Accelerator.CPU:
        transfer["kv_buffer_device"] = "cpu"
    side["engine_kwargs"]["kv_transfer_config"] = transfer
    return side
