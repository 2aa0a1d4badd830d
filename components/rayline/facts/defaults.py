"""Defaults of the kit that the plan decides or several modules read.

A default that a key alone has stands where the key is declared, in a room's arguments.py.
"""

from rayline.facts.choices import UpgradeStrategy

NAMESPACE = "rayline"

# --- services
REPLICAS = 1
UPGRADE = UpgradeStrategy.NEW_CLUSTER
SPARE_REPLICAS = 1
# A context that covers chat and retrieval; longer is one setting away and costs concurrency. The upstream Qwen sample sets
# none, so vLLM would try the model's 262,144 tokens.
MAX_MODEL_LEN = 16384
# Tokens of one event of a streamed answer. vLLM's default is 1 (vllm 0.29.0 vllm/config/scheduler.py); docs/measured/settings.md
# has what this saves and what it costs.
STREAM_INTERVAL = 4
# LoRA adapters in one engine step. vLLM's default of 1 makes requests for different adapters wait for each other
# (vllm 0.29.0 vllm/config/lora.py).
ACTIVE_ADAPTERS = 4
# Give a first start this long, seconds: GPU node, 20 GB image, weights, compilation. On expiry KubeRay deletes the clusters.
INITIALIZING_TIMEOUT_SECONDS = 5400
# The same where nodes come from a queue (flex-start), which waits for hours: a day.
QUEUED_START_TIMEOUT_SECONDS = 86400
# Idle GPU workers are removed after this time, seconds (KubeRay's 60 is too twitchy for nodes that take minutes to come).
IDLE_TIMEOUT_SECONDS = 300
# A worker group's maximum in a cluster: far above any service, and still a number that a mistake in Ray cannot pass.
MOST_WORKERS = 1000

# --- autoscaling
TARGET_SHARE_OF_CONCURRENCY = 0.75  # of the requests that a replica works on at once; the rest is time to load another
# Give a request this long while no replica runs, seconds: a GPU node with its driver, a 20 GB image, weights, compilation.
WAKE_SECONDS = 1800

# --- weights
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
SYSTEM_MACHINE_TYPE = "e2-standard-16"  # the KubeRay high-throughput guide's CPU node

# --- isolation
OPERATOR_NAMESPACE = "kuberay-system"
# Namespaces of the collectors of Google's managed Prometheus: the operator's own, and GKE's managed one.
GOOGLE_COLLECTOR_NAMESPACES = ("gmp-system", "gke-gmp-system")
# Pods beside the Ray nodes that the quota leaves room for: KubeRay's clean-up Jobs, copies of weights, an operator's debug pod.
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
# Logs of Ray: each file of a process has up to six parts of 512 MB (LOGGING_ROTATE_BYTES and LOGGING_ROTATE_BACKUP_COUNT, ray 2.60.0
# ray/_common/ray_constants.py). A head that fills the node's disk takes the other pods of the node along.
HEAD_DISK_GIB = 2
HEAD_DISK_LIMIT_GIB = 20
