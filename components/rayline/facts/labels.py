"""Names, labels, keys and ports that several rooms and the command line share."""

from enum import Enum

APPLICATION = "llm"
SESSION_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
ROUTER = "LLMRouter"  # Ray Serve LLM's name of the deployment that picks a replica for HAProxy
SERVE_PORT = 8000
DASHBOARD_PORT = 8265
RAY_METRICS_PORT, AUTOSCALER_METRICS_PORT, DASHBOARD_METRICS_PORT = 8080, 44217, 44227
AGENT_PORT = 52365  # the dashboard agent, which answers the kubelet's probes
# Every Ray pod of a service carries it, whatever RayCluster it belongs to: KubeRay's own ray.io/cluster changes with every
# upgrade. Budgets, policies and monitors select by it.
SERVICE_LABEL = "rayline/service"
# Every object of a benchmark's run carries it; the value is the run's name. Never SERVICE_LABEL: that would let its Job into all
# of Ray's ports.
BENCH_LABEL = "rayline/bench"
# Name of the stack that owns the operator.
STACK_LABEL = "rayline/stack"
# The task of a RayService whose model does not generate: vLLM's arguments do not tell rerank from the others.
TASK_ANNOTATION = "rayline/task"


def task_annotation(application: str) -> str:
    """Return the annotation with the task of an application's model."""
    return TASK_ANNOTATION if application == APPLICATION else f"{TASK_ANNOTATION}-{application}"


# Every object of the kit carries it.
MANAGED_BY = {"app.kubernetes.io/managed-by": "rayline"}
# Nodes of this kit's pools carry it; the value is "system" or the GPU pool's name.
POOL_LABEL = "rayline/pool"
# KubeRay's: "head" or "worker".
NODE_TYPE_LABEL = "ray.io/node-type"
# GKE's label and taint of a ComputeClass's nodes; the value is the class's name.
COMPUTE_CLASS_LABEL = "cloud.google.com/compute-class"
# Variable of pods with prefill and decode replicas: its value changes with the engine's arguments.
ENGINE_VARIABLE = "RAYLINE_ENGINE"
# The claim template of the namespace for the network cards between machines, and the claim's name in a pod.
NETWORK_CLAIM = "rdma"
# Of the Secrets that belong to the heads' Redis.
STORE_PASSWORD_KEY, STORE_CA_KEY = "password", "ca.crt"
STORE_FOLDER = "/etc/rayline/head-store"
HF_TOKEN_KEY = "hf_api_token"
RAY_TOKEN_KEY = "auth_token"  # the key that KubeRay reads
# The rayproject images run as this user and group.
RAY_USER, RAY_GROUP = 1000, 100
# Requirements of Pod Security "restricted" for a pod, and for each of its containers.
NON_ROOT = {"runAsNonRoot": True, "runAsUser": RAY_USER, "runAsGroup": RAY_GROUP, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


class Role(str, Enum):
    """Role of a platform's pod. The first two are KubeRay's node types."""

    HEAD = "head"
    WORKER = "worker"
    BATCH = "batch"


def service_account(service: str, role: Role) -> str:
    """Return the ServiceAccount of a service's head or workers; all upgrades keep it."""
    return f"{service}-{role.value}"


def priority_class(namespace: str, role: Role) -> str:
    """Return the name of a platform's PriorityClass, an object of the whole cluster."""
    return f"{namespace}-{role.value}"


def ray_token_secret(service: str, generation: int = 1) -> str:
    """Return the name of the Secret with Ray's own token (dashboard, jobs, GCS).

    Ray reads the token when a process starts, so another generation is another Secret, and with it another RayCluster.
    """
    return f"{service}-ray-auth" + (f"-{generation}" if generation > 1 else "")


def serve_service_name(service: str) -> str:
    """Return the name of the Service that KubeRay makes for the endpoint; all upgrades keep it."""
    return f"{service}-serve-svc"


def llm_deployment(served_model_name: str) -> str:
    """Return Ray Serve LLM's name of the model's deployment (ray/llm/_internal/serve/core/server/builder.py)."""
    return f"LLMServer:{_in_a_deployment(served_model_name)}"


def prefill_deployment(served_model_name: str) -> str:
    """Return Ray Serve LLM's name of the deployment that computes prompts (serving_patterns/prefill_decode/builder.py)."""
    return f"Prefill:{_in_a_deployment(served_model_name)}"


def decode_deployment(served_model_name: str) -> str:
    """Return Ray Serve LLM's name of the deployment that generates tokens, and that clients reach."""
    return f"Decode:{_in_a_deployment(served_model_name)}"


def _in_a_deployment(served_model_name: str) -> str:
    return served_model_name.replace("/", "--").replace(".", "_")
