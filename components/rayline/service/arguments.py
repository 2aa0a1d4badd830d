"""The keys of a service. dev-l4 sets three of them; the others have defaults or are planned."""

from typing import Annotated, Any

from rayline.facts import defaults
from rayline.facts.choices import Accelerator, Routing, Speculation, Task, UpgradeStrategy
from rayline.facts.lora import LORA_RANKS
from rayline.facts.runtimes import DEFAULT_RUNTIME
from rayline.models.arguments import WeightsArgs
from rayline.pools.arguments import LABEL_NAME, LabelValue, NodesArgs
from rayline.schema.base import (
    LABEL,
    SUBDOMAIN,
    Arguments,
    Count,
    DnsLabel,
    Domain,
    FromText,
    Line,
    ObjectName,
    between,
    form,
    items,
)

Replicas = Annotated[int, between(1, defaults.MOST_WORKERS, "replicas")]
Seconds = Annotated[int, between(0, 86400, "seconds")]
Percent = Annotated[int, between(1, 100)]
# A registry's host and port, a path in lower case, a tag and a digest (distribution/reference, reference.go).
Image = Annotated[
    str,
    form(
        r"([A-Za-z0-9][-A-Za-z0-9.]*(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
        "a container image such as registry.example.com/team/ray:2.60.0, without a scheme",
        512,
    ),
]
Folder = Annotated[str, form(r"(/[^/\s\x00]+)+/?", "an absolute path of a folder, not / itself", 1024)]
# Selectors of Services, NetworkPolicies and budgets use them (kuberay v1.7.0, ray-operator/controllers/ray/common/pod.go, labelPod).
_OWN_LABELS = r"rayline/|ray\.io/|app\.kubernetes\.io/(name|created-by|managed-by)$"
LabelKey = Annotated[
    str,
    form(
        rf"(?!{_OWN_LABELS})({SUBDOMAIN}/)?{LABEL_NAME}",
        "a label's key: letters, digits, dashes, underscores and dots, with a domain and a slash before it or without; "
        "labels of rayline/, ray.io/ and app.kubernetes.io/ are set by the kit and KubeRay",
        317,
    ),
]
Annotation = Annotated[str, form(r"[^\x00]*", "text of at most 4096 characters", 4096)]
AnnotationKey = Annotated[
    str,
    form(
        rf"(?!rayline/|ray\.io/|gke-gcsfuse/|cluster-autoscaler\.kubernetes\.io/)({SUBDOMAIN}/)?{LABEL_NAME}",
        "an annotation's key: like a label's; those of rayline/, ray.io/, gke-gcsfuse/ and cluster-autoscaler.kubernetes.io/ are set by the "
        "kit and KubeRay",
        317,
    ),
]


class AutoscalingArgs(Arguments):
    """Replicas that scale with the load, in place of `replicas`."""

    min_replicas: Annotated[int, between(0, defaults.MOST_WORKERS, "replicas")] = 1
    """Replicas without load. 0 gives back the GPUs, and the next request waits until the model is loaded. A new RayCluster begins with as many, and with at least 1."""
    max_replicas: Replicas
    """Replicas under the highest load; the node pool is planned for them."""
    target_ongoing_requests: Annotated[float, between(0.1, 100_000)] | None = None
    """Requests in progress for each replica, as a target. Derived: three quarters of those that a replica works on at once."""
    # the delays are Ray 2.60's own (AutoscalingConfig in ray/serve/config.py), stated
    upscale_delay_seconds: Seconds = 30
    """Seconds of higher load before replicas are added."""
    downscale_delay_seconds: Seconds = 600
    """Seconds of lower load before replicas are removed."""
    downscale_to_zero_delay_seconds: Seconds | None = None
    """With min_replicas 0: seconds without a request before the last replica is removed. Default: downscale_delay_seconds."""
    time_to_first_token_ms: Annotated[float, between(1, 3_600_000, "ms")] | None = None
    """Time to first token that nine of ten requests keep, ms: replicas are added while it is longer. Needs `prometheus`. Default: only requests in progress count."""
    prometheus: (
        Annotated[
            str,
            form(r"https?://[^\s\x00/@?#]+(/[^\s\x00?#]*)?", "an address such as http://prometheus.monitoring.svc:9090", 512),
        ]
        | None
    ) = None
    """Address of a Prometheus that has the service's metrics, as the head reaches it. With time_to_first_token_ms."""

    @property
    def to_zero(self) -> bool:
        """Whether no replica runs without load."""
        return self.min_replicas == 0


class SpeculationArgs(Arguments):
    """Tokens that are drafted, and that the model checks several at a time."""

    method: Annotated[Speculation, FromText]
    """Source of the drafts: ngram (repetitions in the prompt), mtp (the model's own prediction layers) or draft (a smaller model)."""
    tokens: Annotated[int, between(1, 32, "tokens")]
    """Tokens of one draft."""
    model: str | None = None
    """With method draft: the smaller model, with a file and with the same vocabulary."""


class EngineArgs(Arguments):
    """Arguments of the vLLM engine. Keys that are left out are planned from the model and the GPU's memory."""

    tensor_parallel_size: Annotated[int, between(1, 64, "GPUs")] = 1
    """GPUs of one machine that share each layer."""
    pipeline_parallel_size: Annotated[int, between(1, 64)] = 1
    """Groups of such GPUs, each with a share of the layers."""
    max_model_len: Count | None = None
    """Longest prompt plus answer, tokens. Default 16384 (2048 on the CPU), or less where the model or the memory ends earlier."""
    max_num_seqs: Count | None = None
    """Requests that a replica works on at once. Derived from the memory that is left for the KV cache."""
    max_num_batched_tokens: Count | None = None
    """Tokens of one engine step. Default: vLLM's for the GPU."""
    gpu_memory_utilization: Annotated[float, between(0.1, 0.98)] = 0.92  # vLLM 0.29's own default (vllm/config/cache.py)
    """Share of the GPU's memory that vLLM may take."""
    kv_cache_gib: Annotated[int, between(1, 10_000, "GiB")] | None = None
    """KV cache of one replica with accelerator cpu, GiB. Default 1."""
    kv_offload_gib: Annotated[int, between(1, 10_000, "GiB")] | None = None
    """Memory of the machine for what leaves the KV cache of a replica on GPUs, GiB: a second level of the prefix cache. Default: none."""
    enable_prefix_caching: bool = True
    """Reuse the KV cache of common prompt beginnings (prefix cache). With a `task` other than generate the default is false."""
    # vLLM's default is 1 (vllm 0.29.0 vllm/config/scheduler.py); docs/measured/settings.md has what 4 saves and what it costs
    stream_interval: Annotated[int, between(1, 1024, "tokens")] = defaults.STREAM_INTERVAL
    """Tokens per stream event, after the first token. Higher values cost less CPU, and the stream is less smooth."""
    # Ray Serve LLM's default (ray 2.60.0 llm/_internal/serve/core/configs/llm_config.py:250)
    log_engine_metrics: bool = True
    """vLLM's metrics on Ray's metrics port, in PodMonitoring; false: only on each replica's own /metrics."""
    speculation: SpeculationArgs | None = None
    """Draft tokens and check several at a time: fewer steps for an answer. Default: none."""
    kwargs: dict[str, Any] = {}
    """Further vLLM engine arguments. Arguments that the plan decides are refused."""

    def caches_prefixes(self, task: Task) -> bool:
        """Return whether the prefix cache is on: for pooling only where the stack turns it on."""
        return self.enable_prefix_caching and (task is Task.GENERATE or self.said("enable_prefix_caching"))


class WorkersArgs(Arguments):
    """Resources of one worker pod."""

    gpus: Count | None = None
    """GPUs of one worker pod. Default: all of the machine; less lets services share a machine."""
    cpus: Annotated[float, between(defaults.LEAST_CPUS, 1000, "CPUs")] | None = None
    """CPUs of one worker with accelerator cpu, or in a cluster that exists; a fraction is fine, for example 0.25. Default 1; with a GPU a share of Google's machine."""
    memory_gib: Annotated[int, between(1, 10_000, "GiB")] | None = None
    """Memory of one worker with accelerator cpu, or in a cluster that exists, GiB. Default 6; with a GPU a share of Google's machine."""


class VolumeArgs(Arguments):
    """A volume of the head and every worker: a cache of weights, for example."""

    name: DnsLabel
    """Name of the volume, unique in the service."""
    mount_path: Folder
    """Path in the containers."""
    host_path: Folder | None = None
    """Folder of the node. Set this or `claim`."""
    claim: ObjectName | None = None
    """PersistentVolumeClaim in the platform's namespace. Set this or `host_path`."""
    read_only: bool = False
    """Mount it read-only."""


class PodsArgs(Arguments):
    """Image, variables, labels, annotations and volumes of the head and the workers."""

    runtime: str = DEFAULT_RUNTIME
    """Ray version of a tested set of Ray, vLLM and image."""
    image: Image | None = None
    """Container image, in place of the runtime's: a mirror, or a CPU image."""
    env: dict[str, str] = {}
    """Environment variables of every Ray container. Those that the kit owns, and secrets, are refused. A switch of Ray is "0" or "1"."""
    labels: dict[LabelKey, LabelValue] = {}
    """Kubernetes labels of the head and the workers, for example a cost centre or a Kueue queue. A changed label makes a new RayCluster."""
    annotations: Annotated[dict[AnnotationKey, Annotation], items(50, "annotations")] = {}
    """Kubernetes annotations of the head and the workers, for example of a service mesh. A changed annotation makes a new RayCluster."""
    volumes: list[VolumeArgs] = []
    """Volumes of the head and the workers."""


class RolloutArgs(Arguments):
    """How a change of the service is rolled out."""

    strategy: Annotated[UpgradeStrategy, FromText] | None = None
    """How a change of image, switches or resources is rolled out. Default new-cluster (needs the GPUs twice); none with a reservation."""
    spare_replicas: Annotated[int, between(0, defaults.MOST_WORKERS, "replicas")] | None = None
    """Replicas that start beside the running ones when the model or `engine` changes; with 0, replicas stop first. Default 1; 0 with strategy none, here and with Ray before 2.60."""
    gateway_class: Line | None = None
    """With strategy incremental, required: class of the Gateway that KubeRay makes for the service, for example istio; none of GKE's own."""
    # surge is KubeRay's default
    max_surge_percent: Percent = 100
    """With strategy incremental: capacity that may run beside the full one."""
    step_size_percent: Percent | None = None
    """With strategy incremental: traffic that moves in one step, at most max_surge_percent. Default 10, or max_surge_percent where that is less."""
    interval_seconds: Annotated[int, between(1, 86400, "seconds")] = 60
    """With strategy incremental: time between two steps."""
    longest_stream_seconds: Annotated[int, between(10, 86400, "seconds")] = 300
    """Longest answer that finishes during a rollout; all drain times derive from it."""
    ray_token_generation: Count = 1
    """Raise it by one for a new Ray token (dashboard, jobs). That makes a new RayCluster."""


class ApiArgs(Arguments):
    """Model name, hostname and API key of the service."""

    served_model_name: Line | None = None
    """Value of `model` in requests. Default: the model id."""
    hostname: str | None = None
    """Hostname of the service at the endpoint: the endpoint's domain itself, or one label before it. Default: <service>.<domain>."""
    key: bool = True
    """Require an API key on every path. Needs switches.direct_streaming."""
    key_generation: Count = 1
    """Raise it by one for a new API key. The previous key stays valid until the next raise. No pod restarts."""


class TrafficArgs(Arguments):
    """Choice of the replica for a request, and limits of the requests of a replica. Another routing replaces the replicas in turn."""

    routing: Annotated[Routing, FromText] = Routing.ROUND_ROBIN
    """round-robin, or sessions: requests with the same header x-session-id go to the same replica, whose prefix cache has their beginning."""
    max_in_progress: Count | None = None
    """Requests that a replica works on or holds in vLLM's queue; others wait in front of it. Default: no limit."""
    max_queued: Annotated[int, between(1, 1_000_000, "requests")] | None = None
    """Requests that wait in front of a replica; more are refused with HTTP 429. Default: as many as max_in_progress."""
    retry_after_seconds: Annotated[int, between(1, 3600, "seconds")] = 5
    """Header Retry-After of such a refusal."""


class AdaptersArgs(Arguments):
    """LoRA adapters of a bucket. A request for MODEL:NAME loads the adapter in the folder NAME, and answers with it. Needs switches.direct_streaming."""

    location: Annotated[
        str,
        form(
            r"(gs|s3|abfss|azure)://[^\s\x00]+",
            "an address such as gs://BUCKET/FOLDER: Ray Serve LLM reads adapters from a bucket alone, not from a folder of this machine",
            1024,
        ),
    ]
    """Folder with a folder for each adapter: gs://BUCKET/FOLDER, which the stack lets the workers read with a GKE cluster."""
    max_loaded: Annotated[int, between(1, 10_000, "adapters")] = 16
    """Adapters that a replica keeps in the worker's memory. Another one replaces the least recently used."""
    max_active: Annotated[int, between(1, 1000, "adapters")] | None = None
    """Adapters in the GPU's memory, and in one engine step; requests for others wait. Default 4, or max_loaded where that is less."""
    max_rank: Annotated[
        int,
        Domain(
            f"one of {', '.join(map(str, LORA_RANKS))}: those of vLLM",
            lambda value: value in LORA_RANKS,
            {"enum": list(LORA_RANKS)},
        ),
    ] = 16
    """Highest rank of an adapter. Each place in the GPU's memory has this size."""

    @property
    def active(self) -> int:
        """Adapters in the GPU's memory."""
        return self.max_active or min(defaults.ACTIVE_ADAPTERS, self.max_loaded)


class DisaggregationArgs(Arguments):
    """Replicas that compute prompts apart from replicas that generate tokens. The KV cache of each prompt moves between them."""

    prefill: Replicas
    """Replicas that compute the KV cache of the prompts, at least 2."""
    decode: Replicas
    """Replicas that receive it and generate the tokens."""


class WorkloadArgs(Arguments):
    """Load of the clients, for the plan's forecast. It changes no replica: the plan card and its warnings say what the load needs."""

    input_tokens: Count
    """Tokens of a prompt, on average."""
    output_tokens: Count
    """Tokens of an answer, on average."""
    requests_per_second: Annotated[float, between(0.001, 1_000_000)] | None = None
    """Requests of all clients in a second. Set this or `concurrent_users`."""
    concurrent_users: Count | None = None
    """Clients that wait for an answer or read one at the same time, each with one request. Set this or `requests_per_second`."""
    time_to_first_token_ms: Annotated[float, between(1, 3_600_000, "ms")] | None = None
    """Bound of the time to first token, milliseconds. Default: none."""
    time_per_output_token_ms: Annotated[float, between(0.1, 3_600_000, "ms")] | None = None
    """Bound of the time between two tokens of an answer, milliseconds. Default: none."""

    @property
    def tokens(self) -> int:
        """Tokens of a request, prompt and answer."""
        return self.input_tokens + self.output_tokens

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The bounds of the time to first token and of the time between two tokens."""
        return self.time_to_first_token_ms, self.time_per_output_token_ms


class SwitchesArgs(Arguments):
    """The four switches of Ray Serve's high-throughput mode. All are on by default."""

    ha_proxy: bool = True
    """HAProxy replaces the Python proxy on every node."""
    throughput_optimized: bool = True
    """gRPC between replicas, one event loop, buffered logs, frozen garbage collection. Needs ha_proxy."""
    direct_streaming: bool = True
    """vLLM streams tokens to HAProxy, past the router. Needs ha_proxy."""
    ray_executor_v2: bool = True
    """vLLM's Ray executor V2 (asynchronous scheduling)."""


# Volumes are named api-keys-NAME, with at most 63 characters.
ApplicationName = Annotated[
    str, form(LABEL, "lower-case letters, digits and dashes, first a letter, last a letter or digit, at most 54 characters", 54)
]


class ApplicationApiArgs(Arguments):
    """Model name and API key of a further model."""

    served_model_name: Line | None = None
    """Value of `model` in requests. Default: the model id."""
    key_generation: Count = 1
    """Raise it by one for a new API key, as in the service's own `api`."""


class ApplicationArgs(Arguments):
    """A further model in the RayCluster of a service, on the same GPU and with the same pods. Needs switches.direct_streaming."""

    model: str
    """Model with a file: one of docs/models.md, or one that `rayline model add` wrote."""
    task: Annotated[Task, FromText] | None = None
    """Answer of the model: generate, embed, rerank or classify. Default: that of the model's file."""
    replicas: Replicas = defaults.REPLICAS
    """Replicas of the model."""
    autoscaling: AutoscalingArgs | None = None
    """Scale the replicas with the load. Not together with `replicas`."""
    engine: EngineArgs = EngineArgs()
    """Arguments of the vLLM engine."""
    weights: WeightsArgs = WeightsArgs()
    """Source of the weights."""
    api: ApplicationApiArgs = ApplicationApiArgs()
    """Model name and API key."""
    traffic: TrafficArgs = TrafficArgs()
    """Choice of the replica, and limits."""


class ServiceArgs(Arguments):
    """One model behind one endpoint: a RayService."""

    model: str
    """Model with a file: one of docs/models.md, or one that `rayline model add` wrote. For example Qwen/Qwen3.5-4B."""
    accelerator: Annotated[Accelerator, FromText]
    """GPU of each replica, or cpu."""
    task: Annotated[Task, FromText] | None = None
    """Answer of the model: generate (text), embed (vectors), rerank (documents by relevance) or classify. Default: that of the model's file."""
    replicas: Replicas = defaults.REPLICAS
    """Replicas of the model."""
    autoscaling: AutoscalingArgs | None = None
    """Scale the replicas with the load. Not together with `replicas`."""
    park: bool = False
    """Delete the service's RayCluster and free its GPUs; name, keys, secrets and node pool stay."""
    engine: EngineArgs = EngineArgs()
    """Arguments of the vLLM engine."""
    weights: WeightsArgs = WeightsArgs()
    """Source of the weights."""
    nodes: NodesArgs = NodesArgs()
    """Machines, and their provisioning model."""
    workers: WorkersArgs = WorkersArgs()
    """Resources of one worker pod."""
    pods: PodsArgs = PodsArgs()
    """Image, variables, labels and volumes of the pods."""
    rollout: RolloutArgs = RolloutArgs()
    """How a change is rolled out."""
    api: ApiArgs = ApiArgs()
    """Model name, hostname and API key."""
    switches: SwitchesArgs = SwitchesArgs()
    """The four switches of the high-throughput mode."""
    traffic: TrafficArgs = TrafficArgs()
    """Choice of the replica, and limits."""
    adapters: AdaptersArgs | None = None
    """LoRA adapters, loaded from a bucket at their first request."""
    disaggregation: DisaggregationArgs | None = None
    """Replicas for prefill and replicas for decode, in place of `replicas`. Not on cards without NVLink, such as the L4."""
    workload: WorkloadArgs | None = None
    """Load of the clients, for the plan's forecast."""
    applications: dict[ApplicationName, ApplicationArgs] = {}
    """Further models in the same RayCluster, each at the path /NAME with an API key of its own. Default: none."""

    @property
    def most_tensor_parallel(self) -> int:
        """The most GPUs that share each layer of a model."""
        engines = [self.engine, *(application.engine for application in self.applications.values())]
        return max(engine.tensor_parallel_size for engine in engines)
