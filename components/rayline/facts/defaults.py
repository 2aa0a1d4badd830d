"""Defaults that a stack file may override. Each has its one home here: the settings and the plan both read it."""

from rayline.facts.choices import (
    Capacity,
    Exposure,
    PodSecurity,
    RateLimitKey,
    ReleaseChannel,
    Tls,
    UpgradeStrategy,
    WeightsSource,
)

NAMESPACE = "rayline"

# --- services
REPLICAS = 1
CAPACITY = Capacity.ON_DEMAND
UPGRADE = UpgradeStrategy.NEW_CLUSTER
# A context that covers chat and retrieval; longer is one setting away and costs concurrency. The upstream Qwen sample sets
# none, so vLLM would try the model's 262,144 tokens.
MAX_MODEL_LEN = 16384
GPU_MEMORY_UTILIZATION = 0.92  # vLLM 0.29's own default (vllm/config/cache.py), stated
ENABLE_PREFIX_CACHING = True
# Tokens of one event of a streamed answer. vLLM's default is 1 (vllm 0.29.0 vllm/config/scheduler.py); docs/high-throughput.md
# has what this saves and what it costs.
STREAM_INTERVAL = 4
LOG_ENGINE_METRICS = True  # Ray Serve LLM's default (ray 2.60.0 llm/_internal/serve/core/configs/llm_config.py:250)
# The longest answer that a change of the cluster may still finish, seconds. Every drain time is derived from it.
LONGEST_STREAM_SECONDS = 300
# Give a first start this long, seconds: GPU node, 20 GB image, weights, compilation. On expiry KubeRay deletes the clusters.
INITIALIZING_TIMEOUT_SECONDS = 5400
# The same where nodes come from a queue (flex-start), which waits for hours: a day.
QUEUED_START_TIMEOUT_SECONDS = 86400
# Idle GPU workers are removed after this time, seconds (KubeRay's 60 is too twitchy for nodes that take minutes to come).
IDLE_TIMEOUT_SECONDS = 300
# A worker group's maximum in a cluster: far above any service, and still a number that a mistake in Ray cannot pass.
MOST_WORKERS = 1000

# --- autoscaling; the delays are Ray 2.60's own (AutoscalingConfig in ray/serve/config.py), stated
TARGET_SHARE_OF_CONCURRENCY = 0.75  # of the requests that a replica works on at once; the rest is time to load another
UPSCALE_DELAY_SECONDS = 30
DOWNSCALE_DELAY_SECONDS = 600

# --- upgrade: incremental. Surge is KubeRay's default; in steps of a tenth a minute all traffic has moved in ten.
MAX_SURGE_PERCENT = 100
STEP_SIZE_PERCENT = 10
UPGRADE_INTERVAL_SECONDS = 60

# --- weights
WEIGHTS = WeightsSource.HUB
REVISION = "main"

# --- CPU services (accelerator: cpu), for trials and tests
CPU_MAX_MODEL_LEN = 2048
# this and the next: what vLLM 0.29 takes for an API server on the CPU (vllm/engine/arg_utils.py:2751)
CPU_MAX_NUM_SEQS = 128
CPU_MAX_NUM_BATCHED_TOKENS = 2048
CPU_KV_CACHE_GIB = 1
CPU_WORKER_CPUS = 1
LEAST_CPUS = 0.1  # a tenth of a CPU: less is a mistake of writing
CPU_WORKER_MEMORY_GIB = 6

# --- cluster
RELEASE_CHANNEL = ReleaseChannel.REGULAR
SYSTEM_MACHINE_TYPE = "e2-standard-16"  # the KubeRay high-throughput guide's CPU node
SYSTEM_MIN_NODES = 1
SYSTEM_MAX_NODES = 3
NODES_CIDR = "10.0.0.0/18"  # sizes as in Google's cluster-toolkit: nodes /18, pods /14, services /20
PODS_CIDR = "10.4.0.0/14"
SERVICES_CIDR = "10.0.64.0/20"
# Weekends, 08:00 to 16:00 UTC: 64 hours in any 32 days, and people are awake in Europe and most of America. 2026-01-03 is a
# Saturday; a window's first day is where its recurrence begins.
MAINTENANCE_START = "2026-01-03T08:00:00Z"
MAINTENANCE_END = "2026-01-03T16:00:00Z"
MAINTENANCE_RECURRENCE = "FREQ=WEEKLY;BYDAY=SA,SU"

# --- endpoint
EXPOSURE = Exposure.NONE
TLS = Tls.MANAGED
RATE_LIMIT_BY = RateLimitKey.CLIENT_IP
PROXY_CIDR = "10.0.80.0/23"  # the size that Google recommends; behind the ranges of nodes and Services above

# --- isolation
POD_SECURITY = PodSecurity.RESTRICTED
OPERATOR_NAMESPACE = "kuberay-system"
# Namespaces of the collectors of Google's managed Prometheus: the operator's own, and GKE's managed one.
GOOGLE_COLLECTOR_NAMESPACES = ("gmp-system", "gke-gmp-system")
# Pods beside the Ray nodes that the quota leaves room for: KubeRay's clean-up Jobs, copies of weights, somebody's debug pod.
QUOTA_OTHER_PODS = 10

# --- the operator; the chart's own 100m is throttled easily, and its values.yaml reckons 500 MB for 500 Ray pods
OPERATOR_CPUS = 0.5
OPERATOR_MEMORY_GIB = 1

# --- autoscaler sidecar of the head
AUTOSCALER_MEMORY_GIB = 1
AUTOSCALER_CPUS = 0.5
CPU_AUTOSCALER_CPUS = 0.1

# --- head: GCS out of memory is a full outage (kuberay #4287), so more than the samples' 8 GiB in production sizes
HEAD_CPUS = 4.0
HEAD_MEMORY_GIB = 16
CPU_HEAD_CPUS = 0.25  # a trial shares a laptop's cluster with much else
CPU_HEAD_MEMORY_GIB = 4
# A smaller one runs out of memory beside GPUs (kuberay #4287: the samples' head is killed).
MIN_HEAD_MEMORY_GIB = 8
# The GCS of a platform's services holds little; the smallest instance that Google makes.
MEMORYSTORE_GIB = 1
