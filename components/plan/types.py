"""What a plan consists of: plain frozen data, and the mistakes that make one impossible."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..facts.accelerators import MachineType
from ..facts.choices import (
    Accelerator,
    Capacity,
    ClusterMode,
    ExclusionScope,
    Exposure,
    HeadStore,
    OperatorSource,
    PodSecurity,
    RateLimitKey,
    ReleaseChannel,
    Tls,
    TokenSource,
    UpgradeStrategy,
    WeightsSource,
)
from ..facts.google import CERTIFICATE_MANAGER_API, IAP_API, LOAD_BALANCER_RANGES
from ..facts.models import Model
from ..facts.runtimes import Runtime
from ..facts.serve_flags import SWITCHES
from ..fit import EngineLimits, MemoryFit


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what was given, what is wrong and what would be right."""

    path: str
    value: Any
    message: str

    def __str__(self) -> str:
        shown = "" if self.value is None else f" (got {getattr(self.value, 'value', self.value)!r})"
        return f"{self.path}{shown}: {self.message}"


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
    zones: tuple[str, ...]
    nodes: int
    """Nodes that the services need when nothing is being replaced and nothing drives autoscaling up; none for parked ones."""
    max_nodes: int
    """Nodes that GKE may have: for every service's most replicas, and for the second cluster that a change builds."""
    boot_disk_gib: int
    hourly_usd: float | None
    min_gke_version: str
    """The oldest GKE version that has the card and everything else that the pool asks for."""
    drain_seconds: int
    """Longest that a pod here may take to end."""
    order: tuple[Capacity, ...] = ()
    """A ladder's rungs, the first to try first. A ladder is a ComputeClass; GKE makes its pools."""
    reservation: str | None = None
    max_run_hours: int | None = None
    """Life of a flex-start machine."""
    secondary_boot_disk: str | None = None
    rdma: bool = False
    """Network cards between machines, for replicas that span them."""


@dataclass(frozen=True)
class WorkerGroup:
    """The worker pods of a service. `cpus` and `memory_gib` are requests of one pod that fit GKE's allocatable."""

    workers: int
    """Workers of the replicas that a service has when nothing drives it up; none run while it is parked."""
    most_workers: int
    """Workers under the highest load that autoscaling answers; equal to `workers` with a fixed count."""
    surge_workers: int
    """Workers that a second cluster adds while a change goes on."""
    max_workers: int
    """The group's own maximum, which a live RayCluster keeps for ever."""
    gpus: int
    ray_cpus: int
    """CPUs that Ray counts on a worker; 0 leaves it to Ray. One for a replica on the CPU, whatever the pod asks for."""
    cpus: float
    memory_gib: int
    ephemeral_gib: int
    replicas_per_worker: float


@dataclass(frozen=True)
class Autoscaling:
    """Ray Serve's request-based autoscaling: the mean of ongoing requests a replica is kept near the target."""

    min_replicas: int
    max_replicas: int
    target_ongoing_requests: float
    upscale_delay_seconds: int
    downscale_delay_seconds: int


@dataclass(frozen=True)
class IncrementalUpgrade:
    """How traffic moves to a new cluster in steps: KubeRay's clusterUpgradeOptions."""

    max_surge_percent: int
    step_size_percent: int
    interval_seconds: int
    gateway_class: str


@dataclass(frozen=True)
class ServiceWeights:
    """Where the replicas of one service read the model from.

    `uri` is what Ray Serve LLM gets as model_source. `folder` is the model's in the bucket, MODEL/REVISION, and both it and
    `bucket` are empty where no bucket is read. `revision` is the one to ask Hugging Face for, None where that is not asked.
    """

    source: WeightsSource
    uri: str
    revision: str | None = None
    bucket: str = ""
    folder: str = ""


@dataclass(frozen=True)
class ServicePlan:
    """Everything about one service that a manifest, a card in the terminal or a bill needs."""

    name: str
    model_id: str
    model: Model
    served_model_name: str
    weights: ServiceWeights
    accelerator: Accelerator
    runtime: Runtime
    image: str
    replicas: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    limits: EngineLimits
    prefix_caching: bool
    stream_interval: int
    log_engine_metrics: bool
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
    api_key_generation: int
    ray_token_generation: int
    longest_stream_seconds: int
    kv_cache_gib: int | None
    volumes: tuple[Mapping[str, Any], ...]
    hourly_usd: float | None
    """Cost of the workers that run when nothing drives the count up; 0 while parked."""
    start_timeout_seconds: int
    autoscaling: Autoscaling | None = None
    incremental: IncrementalUpgrade | None = None
    parked: bool = False
    own_variables: tuple[str, ...] = ()
    """Names of those in `env` that the stack itself sets."""
    warnings: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs that the replicas use."""
        return 0 if self.machine is None else self.replicas * self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def has_hub_cache(self) -> bool:
        """Whether the kit keeps what Hugging Face sends on a volume of its own. One of the stack may be the cache as well."""
        return (
            self.weights.source is WeightsSource.HUB
            and self.weights.uri == self.model_id
            and self.accelerator is not Accelerator.CPU
            and not self.volumes
        )

    @property
    def running_workers(self) -> int:
        """Worker pods that exist when nothing drives the count up."""
        return 0 if self.parked else self.workers.workers

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
class MaintenanceExclusion:
    """A time without upgrades; without `end` it lasts until the end of support of the cluster's version."""

    name: str
    start: str
    end: str | None
    scope: ExclusionScope


@dataclass(frozen=True)
class Maintenance:
    """The first window, how it comes back, and the times when it does not count. Times are UTC, as Google writes them."""

    start: str
    end: str
    recurrence: str
    exclusions: tuple[MaintenanceExclusion, ...] = ()


@dataclass(frozen=True)
class ClusterPlan:
    """Where the services run."""

    mode: ClusterMode
    project: str | None = None
    region: str | None = None
    location: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    release_channel: ReleaseChannel = ReleaseChannel.REGULAR
    private_nodes: bool = True
    deletion_protection: bool = True
    nodes_cidr: str = ""
    pods_cidr: str = ""
    services_cidr: str = ""
    system_pool: SystemPool | None = None
    zones: tuple[str, ...] = ()
    """Zones of the nodes; empty means that Google picks."""
    dns_endpoint: bool = True
    authorized_networks: tuple[tuple[str, str], ...] = ()
    """(CIDR, name) of each; empty means no IP endpoint."""
    maintenance: Maintenance | None = None
    metrics: tuple[str, ...] = ()
    managed_prometheus: bool = True
    workload_logs: bool = True
    image_streaming: bool = True
    cost_allocation: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    apis: tuple[str, ...] = ()
    """Google APIs to turn on; empty where somebody else does."""
    secret_manager: bool = False
    """The add-on that mounts secrets of Secret Manager."""
    gcs_fuse: bool = False
    """The driver that mounts buckets."""


@dataclass(frozen=True)
class KuberayPlan:
    """How the operator comes into the cluster."""

    source: OperatorSource
    version: str
    repository: str | None
    """None where the chart is a folder on this machine."""
    chart: str
    crd_files: tuple[str, ...]
    keep_crds: bool


@dataclass(frozen=True)
class SecretManagerSecret:
    """A version of a secret in Secret Manager."""

    project: str
    name: str
    version: str

    @property
    def version_name(self) -> str:
        """Its full name in Google's form."""
        return f"projects/{self.project}/secrets/{self.name}/versions/{self.version}"


@dataclass(frozen=True)
class HuggingFacePlan:
    """Where the token is: in the Kubernetes Secret `secret_name`, in Secret Manager, or nowhere."""

    source: TokenSource
    secret_name: str | None
    secret: SecretManagerSecret | None = None


@dataclass(frozen=True)
class EndpointPlan:
    """How clients outside of the cluster reach the services. Only `exposure` says something while that is none."""

    exposure: Exposure
    resource_name: str = ""
    """Of the address, the policies and the proxies' subnet in Google Cloud."""
    certificate_name: str = ""
    """Of a managed certificate and what belongs to it."""
    domain: str = ""
    tls: Tls = Tls.NONE
    certificate: str | None = None
    hostnames: Mapping[str, str] = field(default_factory=dict)
    """Service -> the name that clients use."""
    rate_limit_per_minute: int | None = None
    rate_limit_by: RateLimitKey = RateLimitKey.CLIENT_IP
    iap_members: tuple[str, ...] = ()
    proxy_cidr: str | None = None
    """Where the proxies of an internal load balancer are."""

    @property
    def source_ranges(self) -> tuple[str, ...]:
        """Address ranges from which the load balancer's health checks and proxies come to port 8000; empty without one."""
        if self.exposure is Exposure.NONE:
            return ()
        return LOAD_BALANCER_RANGES + ((self.proxy_cidr,) if self.proxy_cidr else ())

    @property
    def apis(self) -> tuple[str, ...]:
        """Google APIs that only the endpoint needs."""
        certificate = (CERTIFICATE_MANAGER_API,) if self.tls is Tls.MANAGED else ()
        return certificate + ((IAP_API,) if self.iap_members else ())

    @property
    def urls(self) -> dict[str, str]:
        """Service -> address of its OpenAI-compatible API for clients outside."""
        scheme = "http" if self.tls is Tls.NONE else "https"
        return {service: f"{scheme}://{hostname}/v1" for service, hostname in self.hostnames.items()}


@dataclass(frozen=True)
class Quota:
    """The most that the namespace may hold."""

    pods: int
    gpus: int
    """0 where no service runs on GPUs."""


@dataclass(frozen=True)
class IsolationPlan:
    """What keeps the platform and its neighbours apart."""

    pod_security: PodSecurity
    network_policies: bool
    allow_from_namespaces: tuple[str, ...]
    """Namespaces whose pods may call the services."""
    allow_metrics_from_namespaces: tuple[str, ...]
    operator_namespace: str
    metadata_server: bool
    """Pods may ask GKE's metadata server, which is how Workload Identity hands out tokens."""
    managed_prometheus: bool
    """Google's managed Prometheus is there to read a PodMonitoring."""
    quota: Quota = Quota(pods=0, gpus=0)
    outbound_ports: tuple[int, ...] = ()
    """Ports outside that the services' variables and engine arguments name."""


@dataclass(frozen=True)
class BucketPlan:
    """The bucket with weights. `keep`: a destroyed stack leaves it, because the cluster is protected from deletion too."""

    name: str
    create: bool
    mirror: bool
    keep: bool


@dataclass(frozen=True)
class Mirror:
    """One copy of a model from Hugging Face into the bucket. `image` is one that the CPU nodes have anyway: a Ray head's."""

    model_id: str
    revision: str
    folder: str
    image: str
    weights_gib: float
    env: Mapping[str, str] = field(default_factory=dict)
    """Of the first service that reads it: how it reaches Hugging Face."""


@dataclass(frozen=True)
class HeadPlan:
    """The Ray heads. `cpus` and `memory_gib` are None where each service has its own default."""

    store: HeadStore = HeadStore.NONE
    address: str | None = None
    """None without a store, and with Memorystore, which gets its address when it is made."""
    port: int | None = None
    password_secret: str | None = None
    ca_secret: str | None = None
    """None without TLS."""
    memorystore_gib: int = 0
    cpus: float | None = None
    memory_gib: int | None = None


@dataclass(frozen=True)
class Plan:
    """The whole platform, decided."""

    namespace: str
    cluster: ClusterPlan
    kuberay: KuberayPlan
    hugging_face: HuggingFacePlan
    head: HeadPlan
    endpoint: EndpointPlan
    isolation: IsolationPlan | None
    """None on this machine."""
    bucket: BucketPlan | None
    mirrors: tuple[Mirror, ...]
    pools: tuple[NodePool, ...]
    services: tuple[ServicePlan, ...]
    hourly_usd: float | None
    """Running cost at the planned sizes, with the cluster fee, without what is in `unpriced`; None where nothing is bought."""
    unpriced: tuple[str, ...]
    """Machines whose price in this region is not known here."""
    price_source: str
    warnings: tuple[str, ...] = ()
