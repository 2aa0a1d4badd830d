"""Every way in which this machine is not the cluster, with its reason. The code of each is in translate.py and beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One way in which this machine is not the cluster."""

    what: str
    why: str


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "One Ray node plays the head and every worker; CPUs and custom resources of head and groups are added up.",
        "Two Ray nodes on one host cannot both bind HAProxy's port: http_options.host and port are one value each.",
    ),
    Difference(
        "The image is this Python environment; pods, volumes, probes and limits of memory and CPU do not exist.",
        "There is no kubelet. Numbers of CPUs are Ray's bookkeeping only and may exceed the cores of this machine.",
    ),
    Difference(
        "A bundled model's model_source becomes a folder on this machine, and HF_HUB_OFFLINE=1 is set if all are such.",
        "Starts without a network and always with the same weights. The served model_id stays as declared.",
    ),
    Difference(
        "Everything listens on 127.0.0.1: Ray's node address (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, without which `ray "
        "start` replaces 127.0.0.1 by the machine's address), dashboard-host and http_options.host.",
        "A developer's machine is no private network. Exception: see LISTENS_ON_ALL_INTERFACES.",
    ),
    Difference(
        "UCX, which moves the KV cache from prefill to decode, uses the interface lo alone (UCX_NET_DEVICES).",
        "It would listen at the machine's other addresses too.",
    ),
    Difference(
        "HAProxy is started through a wrapper that turns `bind *:PORT` into `bind 127.0.0.1:PORT` in its configuration.",
        "Serve's template binds the metrics and the stats listener to all interfaces and has no setting for it.",
    ),
    Difference(
        "A declared port that is taken moves up by 100s; Ray's workers take any free port instead of 10002-19999.",
        "Other programs, and other sessions of this one, run on the same machine.",
    ),
    Difference(
        "Values of Secrets come from the caller; authOptions becomes RAY_AUTH_MODE and RAY_AUTH_TOKEN.",
        "Those two are what KubeRay injects. Its other variables describe pods and are left out.",
    ),
    Difference(
        "Mounted Secrets are files in a folder of this session, which the next `up` brings up to date; the gate that "
        "requires keys is the file of this project, not a ConfigMap's.",
        "There is no kubelet. The gate reads changed files as it does in a pod.",
    ),
    Difference(
        "Where authOptions declares no token, Ray gets a random one.",
        "It guards the listeners of LISTENS_ON_ALL_INTERFACES, which unpickle what they are sent.",
    ),
    Difference(
        "RAY_*, RAYLLM_*, VLLM_*, PYTHONPATH and PYTHONDONTWRITEBYTECODE of the calling shell are dropped; the rest is inherited.",
        "Only declared switches may decide; and without bytecode each process compiles its imports again.",
    ),
    Difference(
        "NO_PROXY and no_proxy also name 127.0.0.1 and localhost, and PATH begins with this environment's programs.",
        "gRPC and urllib send what is for this machine to a proxy as well; some of Ray's helpers look for `python` and `ray`.",
    ),
    Difference(
        "TORCH_COMPILE_DISABLE=1 is set, unless `enforce_eager: false` is declared and there is a C++ compiler with Python's headers.",
        "vLLM compiles its sampler at the first request also with enforce_eager: ten seconds of each start, or a failure without a compiler.",
    ),
    Difference(
        "LoRA adapters are downloaded to /tmp/ray/llm/lora/cache, which all sessions of this machine share.",
        "Ray has no setting for it (llm/_internal/serve/utils/lora_serve_utils.py, LoraModelLoader). In a cluster each pod has its own.",
    ),
    Difference(
        "Ray's session folder and HAProxy's files live in a folder of this session; compiled kernels go to the cache.",
        "The defaults (/tmp/ray, /tmp/haproxy-serve) are shared by every Ray on the machine.",
    ),
    Difference(
        "The autoscaler does not run: the one node has the CPUs of maxReplicas workers from the start.",
        "So Serve's num_replicas can be raised as in a cluster, without machines to add.",
    ),
    Difference(
        "Neither Ray Client's server nor the autoscaler's monitor starts (rayline_cli/local/ray_start.py, --no-monitor).",
        "Nothing here uses them. Ray Client's server gives up after 30 s on a busy machine, and its end ends Ray.",
    ),
    Difference(
        "The raylet does not wait for the port of the dashboard agent, and time-outs of a start (START_TIMEOUTS) are an hour.",
        "Beside compilers a start takes minutes, and no kubelet tries again. `up` ends when nothing moves any more.",
    ),
    Difference(
        "Once it serves, the session's scheduling group has niceness 5 (/proc/PID/autogroup), where the kernel makes such groups.",
        "vLLM's engine waits by yielding in a loop, and Linux then lets other programs, clients among them, wait for seconds.",
    ),
    Difference("`down` ends processes after 2 s instead of draining.", "There are no other people's requests to wait for."),
    Difference("RAY_USAGE_STATS_ENABLED=0 unless declared.", "A try-out on a laptop sends no reports."),
)

LISTENS_ON_ALL_INTERFACES: Mapping[str, str] = {
    "ray::ServeReplica": (
        "each replica's gRPC server for calls between deployments: the address [::]:0 is hard-coded "
        "(ray/serve/_private/replica.py, _on_initialized). It refuses calls without Ray's token"
    )
}
"""Processes, by the start of their title, that open a listener Ray cannot be told to keep on loopback.

With RAY_AUTH_MODE=token their gRPC servers answer UNAUTHENTICATED to anybody without the token."""
