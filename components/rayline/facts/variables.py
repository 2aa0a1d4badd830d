"""Variables that `env` of a service must not set, and those without effect. Every other one is passed on.

Sources: KubeRay's are those of setContainerEnvVars, configureGCSFaultTolerance and configureTokenAuth (ray-project/kuberay v1.7.0,
ray-operator/controllers/ray/common/pod.go) and of its validation.go. What Ray does with one is Ray 2.60.0's.
"""

# Messages name the key to set instead with the service's path.
_TOKEN = "set hugging_face: a token belongs in a Secret"
_AUTH = "Ray's token is always on and in a Secret: {path}.rollout.ray_token_generation makes a new one"
_STORE = "set head: it says where the heads keep their state"
_KUBERAY = "KubeRay sets it in every pod: leave it out"
_PORT = "the manifests name this port: leave it out"

# The remedy for each variable. "{path}" is the service's path.
OWNED: dict[str, str] = {
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "set {path}.switches.ha_proxy: Ray turns it on with HAProxy",
    "VLLM_CPU_KVCACHE_SPACE": "set {path}.engine.kv_cache_gib instead",
    "VLLM_API_KEY": "set {path}.api.key: a key belongs in a Secret",
    "HF_TOKEN": _TOKEN,
    "HUGGING_FACE_HUB_TOKEN": _TOKEN,
    "HF_TOKEN_PATH": _TOKEN,
    "RAY_AUTH_MODE": _AUTH,
    "RAY_AUTH_TOKEN": _AUTH,
    "RAY_AUTH_TOKEN_PATH": _AUTH,
    "RAY_ENABLE_K8S_TOKEN_AUTH": _AUTH,
    "RAY_REDIS_ADDRESS": _STORE,
    "RAY_REDIS_PASSWORD": _STORE,
    "RAY_REDIS_CA_CERT": _STORE,
    "REDIS_USERNAME": _STORE,
    "REDIS_PASSWORD": _STORE,
    "RAY_external_storage_namespace": _STORE,
    "RAY_gcs_storage": _STORE,
    "RAY_gcs_storage_path": _STORE,
    "RAY_ADDRESS": _KUBERAY,
    "RAY_PORT": _KUBERAY,
    "RAY_IP": _KUBERAY,
    "FQ_RAY_IP": _KUBERAY,
    "RAY_CLUSTER_NAME": _KUBERAY,
    "RAY_CLUSTER_NAMESPACE": _KUBERAY,
    "RAY_CLOUD_INSTANCE_ID": _KUBERAY,
    "RAY_NODE_TYPE_NAME": _KUBERAY,
    "RAY_USAGE_STATS_KUBERAY_IN_USE": _KUBERAY,
    "RAY_USAGE_STATS_EXTRA_TAGS": _KUBERAY,
    "RAY_enable_autoscaler_v2": "the kit states it in autoscalerOptions: leave it out",
    "AUTOSCALER_METRIC_PORT": _PORT,
    "DASHBOARD_METRIC_PORT": _PORT,
    "VLLM_SERVER_DEV_MODE": "it opens vLLM's development endpoints on the service's port: leave it out",
}
# The same for every variable that begins so.
OWNED_PREFIXES: dict[str, str] = {
    "RAYLINE_": "the kit's own: leave it out",
    "KUBERAY_": _KUBERAY,
    "KUBERNETES_": "Kubernetes sets it in every pod: leave it out",
}
# With an API key, and with an autoscaling policy of the kit: both are modules that the pods mount.
PYTHON_PATH = "PYTHONPATH"
PYTHON_PATH_INSTEAD = (
    "the kit sets it with {path}.api.key, so that vLLM finds the gate, and with autoscaling.time_to_first_token_ms: install modules of "
    "your own in {path}.pods.image"
)
# Ray calls the function that it names in each process with an HTTP server (ray/serve/_private/http_util.py).
PROXY_GATE_VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
# With weights hub on GPUs, where the cache is a volume of the kit.
HUB_CACHE = "HF_HOME"
HUB_CACHE_INSTEAD = (
    "the kit puts the cache on a volume of its own: leave it out, or name one in {path}.pods.volumes and a folder of it here"
)

# Read by Ray 2.60.0 and without an effect here, and why.
NO_EFFECT: dict[str, str] = {
    "RAY_SERVE_DEFAULT_HTTP_HOST": "the kit states the address in serveConfigV2",
    "RAY_SERVE_HAPROXY_INGRESS_RETRY_ON": "Ray parses it and never writes it into haproxy.cfg",
    "RAY_SERVE_HAPROXY_INGRESS_RETRIES": "Ray parses it and never writes it into haproxy.cfg",
    "RAY_SERVE_LLM_ROUTER_TO_MODEL_REPLICA_RATIO": "Ray parses it and nothing uses it",
    "RAY_SERVE_LLM_ROUTER_MIN_REPLICAS": "Ray parses it and nothing uses it",
    "RAY_SERVE_LLM_ROUTER_INITIAL_REPLICAS": "Ray parses it and nothing uses it",
    "RAY_SERVE_LLM_ROUTER_MAX_REPLICAS": "Ray parses it and nothing uses it",
    "RAY_SERVE_LLM_ROUTER_TARGET_ONGOING_REQUESTS": "Ray parses it and nothing uses it",
    "RAY_SERVE_LLM_DEFAULT_MAX_REPLICAS": "Ray parses it and nothing uses it",
    "RAYLLM_ENABLE_REQUEST_PROMPT_LOGS": "Ray parses it and nothing uses it",
    "RAYLLM_GUIDED_DECODING_BACKEND": "Ray parses it and nothing uses it",
    "RAYLLM_HOME_DIR": "Ray parses it and nothing uses it",
}

# Programs whose variables begin so, and the names that they make up while they run or that another program reads.
READERS: dict[str, str] = {"RAY_": "Ray", "RAYLLM_": "Ray", "VLLM_": "vLLM"}
ALSO_READ = (
    # ray/_private/services.py, how to start each process
    r"RAY_[A-Z_]+_(VALGRIND|VALGRIND_PROFILER|PERFTOOLS_PROFILER|TMUX|GDB)",
    # ray/_private/runtime_env/plugin.py
    r"RAY_RUNTIME_ENV_\w+_CACHE_SIZE_GB",
    # KubeRay's own command around `ray start` (kuberay v1.7.0, controllers/ray/utils/constant.go)
    r"RAY_START_ULIMIT_OPEN_FILES",
)

# HTTP clients send requests through these; libraries read them in either case.
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
# What must not go through a proxy: the pod itself (KubeRay's probe is a wget to localhost), other pods and Services by their names,
# and the metadata server, which hands out identities (cloud.google.com/compute/docs/metadata/querying-metadata).
NEVER_THROUGH_A_PROXY = ("localhost", "127.0.0.1", "::1")
NEVER_THROUGH_A_PROXY_IN_A_CLUSTER = (".svc", ".cluster.local", "metadata.google.internal", "169.254.169.254")
# What a copy of weights from Hugging Face needs of a service's variables, beside the proxies.
FOR_DOWNLOADS = ("HF_ENDPOINT", "SSL_CERT_FILE", "SSL_CERT_DIR")
