"""The faults, as rows, in the order of the table in docs/measured/faults.md.

A fault under other settings follows the one that it is to be compared with. The order of injection is that of the services:
faults of one service follow each other in one session, each on the state that the previous fault left.
"""

from __future__ import annotations

from collections.abc import Mapping

from rayline_bench.faults.parts import CONTROLLER, HAPROXY, MANAGER, ROUTER
from rayline_bench.faults.scenes import Fault, FaultService
from rayline_bench.faults.strikes import (
    change,
    kill_a_streaming_replica,
    kill_every,
    kill_one_router,
    lose_the_head,
    lose_the_head_and_start_it_again,
    lose_the_worker,
)

QUICKER: Mapping[str, str] = {
    "RAY_SERVE_LLM_DEFAULT_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_INGRESS_ROUTER_REPLICAS_PER_NODE": "2",
}
"""Settings that shorten what a fault costs."""
RELOAD_TOKENS = 12000
"""Of streams that outlast a reload of HAProxy."""
SHORT_LIMIT_SECONDS = 10
"""The least rollout.longest_stream_seconds that a stack may say; RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S follows from it."""

TWO_REPLICAS = FaultService({"replicas": 2})
QUICK_CHECKS = FaultService({"replicas": 2, "pods": {"env": QUICKER}})
SHORT_LIMIT = FaultService({"rollout": {"longest_stream_seconds": SHORT_LIMIT_SECONDS}})
WORKER_LOST = FaultService({}, two_nodes=True)
HEAD_LOST = FaultService({}, two_nodes=True, clients_at_worker=True)
HEAD_WITH_STORE = FaultService({}, two_nodes=True, clients_at_worker=True, store=True)
SERVICES = (TWO_REPLICAS, QUICK_CHECKS, SHORT_LIMIT, WORKER_LOST, HEAD_LOST, HEAD_WITH_STORE)

ENGINE_KILLED = ("engine killed", "SIGKILL to the engine of one of two replicas; its API server lives on")
HAPROXY_KILLED = ("HAProxy killed", "SIGKILL to the haproxy process, the only one")
RELOADED = (
    "HAProxy reloaded under long streams",
    "SIGKILL to the LLMRouter replica, so that HAProxy is reloaded twice under long streams",
)

FAULTS: Mapping[str, Fault] = {
    fault.key: fault
    for fault in (
        Fault(
            "replica", "one of two replicas is killed",
            "replica killed", "SIGKILL to one of two replicas (vLLM's API server)", TWO_REPLICAS, kill_a_streaming_replica(),
            "The streams on it: their state died with the process, and HAProxy cannot repeat an answer that has begun. "
            "New requests are sent to the other replica, because a refused connection may be tried again (`redispatch`).",
        ),
        Fault(
            "engine", "the engine of one of two replicas is killed",
            *ENGINE_KILLED, TWO_REPLICAS, kill_a_streaming_replica(engine_only=True),
            "The streams on it. A stream may also end in good order, with HTTP 200 and `[DONE]` but no tokens: clients should look at "
            "`usage`. The API server ends soon after its engine, and what it refuses until then is not repeated, because the request "
            "may have had an effect.",
        ),
        Fault(
            "engine-quicker", "as engine, with health checks every 2 s",
            *ENGINE_KILLED, QUICK_CHECKS, kill_a_streaming_replica(engine_only=True),
            "As above.",
        ),
        Fault(
            "router", "the LLMRouter replica is killed",
            "router killed", "SIGKILL to the LLMRouter replica, the only one of its node", TWO_REPLICAS, kill_every(ROUTER),
            "No stream. New completions are refused until Serve has noticed and started another router: there is one for "
            "each node, and HAProxy queries no other (ray #66339); `RAY_SERVE_INGRESS_ROUTER_REPLICAS_PER_NODE: '2'` gives it a second. "
            "`GET` requests are answered throughout.",
        ),
        Fault(
            "one-router-of-two", "one of two LLMRouter replicas is killed",
            "one of two routers killed", "SIGKILL to one of 2 LLMRouter replicas of the node", QUICK_CHECKS, kill_one_router,
            "Nothing: HAProxy queries the other router of the node when a connection is refused.",
        ),
        Fault(
            "haproxy", "the haproxy process is killed",
            *HAPROXY_KILLED, TWO_REPLICAS, kill_every(HAPROXY, streams_pass=True),
            "Every stream of the node. New requests wait for Serve: it looks every "
            "`RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S` (10 s) and replaces HAProxy after three failures. In a cluster the readiness "
            "probe takes the pod out of the Service meanwhile. The variable may be lowered in `pods.env`. A new HAProxy says 404 for a "
            "moment, before it has the routes.",
        ),
        Fault(
            "haproxy-quicker", "as haproxy, with health checks every 2 s",
            *HAPROXY_KILLED, QUICK_CHECKS, kill_every(HAPROXY, streams_pass=True),
            "As above, and a shorter wait. `elsewhere` are streams that an older haproxy process was finishing after a reload: it "
            "ends with the manager, which Serve replaces together with HAProxy.",
        ),
        Fault(
            "manager", "the actor that starts HAProxy is killed",
            "HAProxy's manager killed", "SIGKILL to the actor HAProxyManager", TWO_REPLICAS, kill_every(MANAGER, streams_pass=True),
            "As for HAProxy: the process ends with the actor that started it.",
        ),
        Fault(
            "controller", "Serve's controller is killed",
            "controller killed", "SIGKILL to the actor ServeController", TWO_REPLICAS, kill_every(CONTROLLER),
            "Nothing: it is not in the path of a request.",
        ),
        Fault(
            "reload", "HAProxy is reloaded under long streams",
            *RELOADED, TWO_REPLICAS, kill_every(ROUTER, streams_pass=True, reloads=True),
            "Nothing, while streams are shorter than `rollout.longest_stream_seconds` (300 s).",
            long_tokens=RELOAD_TOKENS,
        ),
        Fault(
            "short-limit", "as reload, with rollout.longest_stream_seconds below the streams' length",
            *RELOADED, SHORT_LIMIT, kill_every(ROUTER, streams_pass=True, reloads=True),
            "Streams longer than the limit: an old haproxy process is ended with what it still has (ray #66056).",
            whole=1, long_tokens=RELOAD_TOKENS,
        ),
        Fault(
            "down", "replicas 2 to 1",
            "scaled down, drained", "replicas 2 to 1 while both answer streams", TWO_REPLICAS, change(replicas=1),
            "Nothing: the replica finishes its streams before it ends.",
            whole=1,
        ),
        Fault("up", "replicas 1 to 2", "scaled up", "replicas 1 to 2", TWO_REPLICAS, change(replicas=2), "Nothing."),
        Fault(
            "roll", "a new engine.max_num_seqs, which reloads the replicas",
            "model rolled", "max_num_seqs 16 to 8 in place: Serve reloads one replica after the other", TWO_REPLICAS, change(engine={"max_num_seqs": 8}),
            "Nothing: the old replica ends when another one answers.",
        ),
        Fault(
            "worker", "one of two nodes is lost",
            "worker node lost", "SIGKILL to every process of one of two nodes: raylet, replica, router and HAProxy", WORKER_LOST, lose_the_worker,
            "The streams on its replica, and in a cluster those that came through its HAProxy. A machine that loses power "
            "answers nothing, and each new request that is sent there waits 5 s for it, until HAProxy has seen two checks fail.",
            whole=None,
        ),
        Fault(
            "head", "the head's node is lost, its GCS without a store",
            "head lost, no store", "SIGKILL to every process of the head; its GCS has no store", HEAD_LOST, lose_the_head,
            "Without a store every replica ends when its raylet has given up the GCS, and loads again with the new head. "
            "`head.store` is for that.",
            whole=None, comes_back=False,
        ),
        Fault(
            "head-with-store", "the same with a Redis; needs redis-server on PATH",
            "head lost, with a store", "SIGKILL to every process of the head; Redis keeps its GCS; started again", HEAD_WITH_STORE, lose_the_head_and_start_it_again,
            "What ran on the head itself; in a stack of the kit it holds no replica. Workers serve on; there is no scaling and "
            "no change until the new head is there.",
            whole=None,
        ),
    )
}  # fmt: skip
