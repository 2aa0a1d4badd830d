"""Pure: a ServicePlan becomes a RayService. No Pulumi, no I/O.

What has to be equal on the head and every worker is one variable here. docs/high-throughput.md lists every difference
from the upstream high-throughput samples with its reason, and a test keeps that list complete.
"""

from typing import Any

import yaml

from rayline.facts import defaults
from rayline.facts.accelerators import ACCELERATORS, GPU_RESOURCE
from rayline.facts.capacities import CAPACITIES
from rayline.facts.choices import Accelerator, Capacity, HeadStore, UpgradeStrategy, WeightsSource
from rayline.facts.labels import (
    AGENT_PORT,
    APPLICATION,
    AUTOSCALER_METRICS_PORT,
    COMPUTE_CLASS_LABEL,
    DASHBOARD_METRICS_PORT,
    DASHBOARD_PORT,
    HF_TOKEN_KEY,
    MANAGED_BY,
    NETWORK_CLAIM,
    NODE_TYPE_LABEL,
    NON_ROOT,
    POOL_LABEL,
    RAY_GROUP,
    RAY_METRICS_PORT,
    RESTRICTED,
    SERVE_PORT,
    SERVICE_LABEL,
    STORE_CA_KEY,
    STORE_FOLDER,
    STORE_PASSWORD_KEY,
    Role,
    llm_deployment,
    priority_class,
    ray_token_secret,
    service_account,
)
from rayline.facts.serve_flags import HAPROXY_METRICS_PORT, SERVE_FLAGS
from rayline.head.types import HeadPlan
from rayline.hugging_face.manifests import token_environment, token_mount, token_volume
from rayline.hugging_face.types import HuggingFacePlan
from rayline.pools.types import NodePool
from rayline.service.api_key import GATE_MIDDLEWARE, gate_environment, gate_mounts, gate_volumes
from rayline.service.drain import DrainTimes, drain_times
from rayline.service.types import ServicePlan
from rayline.weights import manifests as weights


def ray_service(
    service: ServicePlan,
    *,
    namespace: str,
    hugging_face: HuggingFacePlan,
    pool: NodePool | None,
    head: HeadPlan,
    store_address: Any,
) -> dict[str, Any]:
    """The RayService of one service. `pool` is its node pool where this kit makes one, else None.

    `store_address` is where the heads' Redis listens: a text, or what becomes one. It counts only with a head.store.
    """
    environment = _environment(service, hugging_face)
    drain = drain_times(service.asked.rollout.longest_stream_seconds)
    head_group = _head(service, namespace, environment, drain, head, pooled=pool is not None)
    worker_group = _workers(service, namespace, environment, drain, pool)
    if hugging_face.secret and service.weights.source is WeightsSource.HUB:
        for group in (head_group, worker_group):
            _add_volume(group["template"]["spec"], token_volume(), token_mount())
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": service.name,
            "namespace": namespace,
            "labels": {SERVICE_LABEL: service.name} | MANAGED_BY,
            "annotations": {"ray.io/initializing-timeout": f"{service.start_timeout_seconds}s"},
        },
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve_config(service), sort_keys=False, width=1000),
            # KubeRay deletes the RayCluster and the Services and keeps the rest; an absent key means false
            **({"suspend": True} if service.parked else {}),
            "upgradeStrategy": _upgrade_strategy(service),
            # the old cluster outlives the longest stream (kuberay #4126)
            "rayClusterDeletionDelaySeconds": drain.cluster,
            # the head holds no replica and stays out of the data path
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {
                "rayVersion": service.runtime.ray_version,
                "authOptions": {
                    "mode": "token",
                    "secretName": ray_token_secret(service.name, service.asked.rollout.ray_token_generation),
                },
                # KubeRay ignores edits of worker counts on a live RayService (kuberay #4568): Serve's replicas drive the
                # count and the autoscaler follows, from 0 up to what the pool and the quota allow.
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": _autoscaler(service),
                **_fault_tolerance(head, store_address),
                "headGroupSpec": head_group,
                "workerGroupSpecs": [worker_group],
            },
        },
    }


_UPGRADE = {
    UpgradeStrategy.NEW_CLUSTER: "NewCluster",
    UpgradeStrategy.INCREMENTAL: "NewClusterWithIncrementalUpgrade",
    UpgradeStrategy.NONE: "None",
}


# In steps of a tenth a minute all traffic has moved in ten.
STEP_SIZE_PERCENT = 10


def _upgrade_strategy(service: ServicePlan) -> dict[str, Any]:
    strategy: dict[str, Any] = {"type": _UPGRADE[service.upgrade]}
    if service.incremental:
        strategy["clusterUpgradeOptions"] = {
            "maxSurgePercent": service.incremental.max_surge_percent,
            "stepSizePercent": service.incremental.step_size_percent
            or min(STEP_SIZE_PERCENT, service.incremental.max_surge_percent),
            "intervalSeconds": service.incremental.interval_seconds,
            "gatewayClassName": service.incremental.gateway_class,
        }
    return strategy


def serve_config(service: ServicePlan) -> dict[str, Any]:
    """The Serve application: one model, because direct streaming takes exactly one."""
    llm: dict[str, Any] = {"model_loading_config": {"model_id": service.served_model_name, "model_source": service.weights.uri}}
    if service.accelerator is Accelerator.CPU:
        llm["accelerator_config"] = {"kind": "cpu"}
    else:
        llm["accelerator_type"] = ACCELERATORS[service.accelerator].ray_type
    llm["engine_kwargs"] = _engine_kwargs(service)
    if not service.asked.engine.log_engine_metrics:
        llm["log_engine_metrics"] = False
    deployment: dict[str, Any] = {
        # always 1: Serve takes a change of `args` for new code and reloads every replica, so the count stands below
        "num_replicas": 1,
        "graceful_shutdown_timeout_s": drain_times(service.asked.rollout.longest_stream_seconds).replica,
    }
    if service.accelerator is Accelerator.CPU:
        # the placement group's one CPU is the replica's; the actor asks for none beside it
        deployment["ray_actor_options"] = {"num_cpus": 0}
    llm["deployment_config"] = deployment
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},
        "logging_config": {"enable_access_log": False},
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": "ray.serve.llm:build_openai_app",
                "args": {"llm_configs": [llm]},
                "deployments": [{"name": llm_deployment(service.served_model_name)} | _replicas(service)],
            }
        ],
    }


def _replicas(service: ServicePlan) -> dict[str, Any]:
    """The fixed count, or the bounds and the target of Serve's autoscaling.

    `max_ongoing_requests` stays at the 1e9 of Ray Serve LLM: a replica does not count what waits for a slot, so a limit
    would hide load from the autoscaling; vLLM has its own queue.
    """
    scaling = service.autoscaling
    if scaling is None:
        return {"num_replicas": service.replicas}
    return {
        "autoscaling_config": {
            "min_replicas": scaling.min_replicas,
            "max_replicas": scaling.max_replicas,
            "target_ongoing_requests": scaling.target_ongoing_requests,
            "upscale_delay_s": scaling.upscale_delay_seconds,
            "downscale_delay_s": scaling.downscale_delay_seconds,
        }
    }


def _engine_kwargs(service: ServicePlan) -> dict[str, Any]:
    limits = service.limits
    kwargs: dict[str, Any] = {
        "max_model_len": limits.max_model_len,
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
        "enable_prefix_caching": service.asked.engine.enable_prefix_caching,
        "stream_interval": service.asked.engine.stream_interval,
    }
    if service.accelerator is Accelerator.CPU:
        # else vLLM compiles, which takes a C++ compiler; `engine.kwargs` of the service has the last word
        kwargs["enforce_eager"] = True
    else:
        kwargs["gpu_memory_utilization"] = limits.gpu_memory_utilization
        kwargs["tensor_parallel_size"] = service.asked.engine.tensor_parallel_size
        kwargs["pipeline_parallel_size"] = service.asked.engine.pipeline_parallel_size
    if service.model.reasoning_parser:
        kwargs["reasoning_parser"] = service.model.reasoning_parser
    if service.model.tool_call_parser:
        kwargs["enable_auto_tool_choice"] = True
        kwargs["tool_call_parser"] = service.model.tool_call_parser
    kwargs |= weights.engine_kwargs(service) | service.engine_kwargs
    if service.asked.api.key:
        # vLLM adds them in this order, each around those before it: the gate stands outside all others
        kwargs["middleware"] = [*service.engine_kwargs.get("middleware", []), GATE_MIDDLEWARE]
    return kwargs


def _environment(service: ServicePlan, hugging_face: HuggingFacePlan) -> list[dict[str, Any]]:
    """One list for every Ray container: Serve reads it on the head and on every worker."""
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in service.env.items()]
    if service.kv_cache_gib is not None:
        variables.append({"name": "VLLM_CPU_KVCACHE_SPACE", "value": str(service.kv_cache_gib)})
    variables += weights.environment(service)
    # pods that read a bucket have no use for the token
    if service.weights.source is WeightsSource.HUB:
        if hugging_face.secret:
            variables += token_environment()
        if hugging_face.secret_name:
            variables.append(from_secret("HF_TOKEN", hugging_face.secret_name, HF_TOKEN_KEY))
    if service.asked.api.key:
        variables += gate_environment()
    return variables


def from_secret(variable: str, secret: str, key: str) -> dict[str, Any]:
    """A variable of a container whose value is in a Secret."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _autoscaler(service: ServicePlan) -> dict[str, Any]:
    memory = f"{defaults.AUTOSCALER_MEMORY_GIB}Gi"
    patience = str(service.start_timeout_seconds)
    return {
        "version": "v2",
        "idleTimeoutSeconds": defaults.IDLE_TIMEOUT_SECONDS,
        "upscalingMode": "Default",
        "resources": {
            "requests": {"cpu": cpu_quantity(service.autoscaler_cpus), "memory": memory},
            "limits": {"memory": memory},
        },
        # pods that still wait for a GPU node or pull the image are not to be killed (kuberay #4226)
        "env": [
            {"name": "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S", "value": patience},
            {"name": "RAY_AUTOSCALER_RECONCILE_REQUEST_STATUS_TIMEOUT_S", "value": patience},
            {"name": "RAY_AUTOSCALER_RECONCILE_RAY_INSTALL_STATUS_TIMEOUT_S", "value": patience},
        ],
        "securityContext": RESTRICTED,
        "volumeMounts": [
            {"name": TOKEN_VOLUME, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True},
            *declared_mounts(service),
        ],
    }


def metrics_ports(service: ServicePlan, role: Role) -> dict[str, int]:
    """Container port name -> port of everything on a head or a worker that Prometheus may read."""
    ports = {"metrics": RAY_METRICS_PORT}
    if role is Role.HEAD:
        ports |= {"as-metrics": AUTOSCALER_METRICS_PORT, "dash-metrics": DASHBOARD_METRICS_PORT}
    if service.on("ha_proxy"):
        ports["haproxy-metrics"] = int(service.env.get(HAPROXY_METRICS_PORT, SERVE_FLAGS[HAPROXY_METRICS_PORT].default))
    return ports


def _container_ports(ports: dict[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def cpu_quantity(count: float) -> str:
    """CPUs as Kubernetes writes them back: whole, or in thousandths."""
    return str(int(count)) if count == int(count) else f"{round(count * 1000)}m"


def _fault_tolerance(head: HeadPlan, address: Any) -> dict[str, Any]:
    """Redis for the GCS. Without externalStorageNamespace, so that each RayCluster of an upgrade has its own (kuberay #1286)."""
    if head.args.store is HeadStore.NONE:
        return {}
    password = {"name": head.password_secret, "key": STORE_PASSWORD_KEY}
    return {"gcsFaultToleranceOptions": {"redisAddress": address, "redisPassword": {"valueFrom": {"secretKeyRef": password}}}}


def _head(
    service: ServicePlan, namespace: str, environment: list[dict[str, Any]], drain: DrainTimes, head: HeadPlan, *, pooled: bool
) -> dict[str, Any]:
    # the token is the autoscaler's only: whoever runs code through the dashboard, in the container beside it, finds none
    volumes, mounts = [_TOKEN, *declared_volumes(service)], declared_mounts(service)
    if head.ca_secret:
        # on the head alone, where the GCS runs; the Job that clears its Redis is made of this container too
        environment = [*environment, {"name": "RAY_REDIS_CA_CERT", "value": f"{STORE_FOLDER}/{STORE_CA_KEY}"}]
        items = [{"key": STORE_CA_KEY, "path": STORE_CA_KEY}]
        volumes.append({"name": "head-store", "secret": {"secretName": head.ca_secret, "items": items}})
        mounts.append({"name": "head-store", "mountPath": STORE_FOLDER, "readOnly": True})
    container = {
        "name": "ray-head",
        "image": service.image,
        "env": environment,
        # all of them or none: a head that declares only some loses the dashboard's Service port
        "ports": _container_ports(
            {"gcs-server": 6379, "dashboard": DASHBOARD_PORT, "client": 10001, "serve": SERVE_PORT}
            | metrics_ports(service, Role.HEAD)
        ),
        "resources": {
            "requests": {"cpu": cpu_quantity(service.head_cpus), "memory": f"{service.head_memory_gib}Gi"},
            "limits": {"memory": f"{service.head_memory_gib}Gi"},
        },
        "readinessProbe": _alive(delay=10, failures=12),
        "livenessProbe": _alive(delay=30, failures=120),
        "securityContext": RESTRICTED,
    }
    spec = _pod_spec(service, namespace, Role.HEAD, container, drain, volumes, mounts)
    if pooled:
        spec["nodeSelector"] = {POOL_LABEL: "system"}
    return {
        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
        "template": {
            "metadata": {
                "labels": {SERVICE_LABEL: service.name},
                # the head is the only one of its kind: the cluster autoscaler leaves it where it is
                "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
            },
            "spec": spec,
        },
    }


def _workers(
    service: ServicePlan, namespace: str, environment: list[dict[str, Any]], drain: DrainTimes, pool: NodePool | None
) -> dict[str, Any]:
    group, on_cpu = service.workers, service.accelerator is Accelerator.CPU
    requests: dict[str, str] = {
        "cpu": cpu_quantity(group.cpus),
        "memory": f"{group.memory_gib}Gi",
        "ephemeral-storage": f"{group.ephemeral_gib}Gi",
    }
    limits: dict[str, str] = {"memory": f"{group.memory_gib}Gi", "ephemeral-storage": f"{group.ephemeral_gib}Gi"}
    if not on_cpu:
        requests[GPU_RESOURCE] = limits[GPU_RESOURCE] = str(group.gpus)
    container = {
        "name": "ray-worker",
        "image": service.image,
        "env": environment,
        "ports": _container_ports({"serve": SERVE_PORT} | metrics_ports(service, Role.WORKER)),
        "resources": {"requests": requests, "limits": limits},
        "readinessProbe": _READINESS,
        "livenessProbe": _alive(delay=30, failures=120),
        "securityContext": RESTRICTED,
    }
    volumes, mounts = (
        [*declared_volumes(service), *weights.volumes(service)],
        [*declared_mounts(service), *weights.mounts(service)],
    )
    if service.asked.api.key:
        # the head holds no replica, so nobody asks it for a key
        volumes += gate_volumes(service.name)
        mounts += gate_mounts()
    spec = _pod_spec(service, namespace, Role.WORKER, container, drain, volumes, mounts)
    spec["topologySpreadConstraints"] = _spread(service)
    metadata: dict[str, Any] = {"labels": {SERVICE_LABEL: service.name}}
    if annotations := weights.annotations(service):
        metadata["annotations"] = annotations
    if not on_cpu:
        spec["nodeSelector"] = _node_selector(service, pool)
        spec["tolerations"] = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
    if pool is not None and pool.capacity is Capacity.LADDER:
        spec["tolerations"].append(
            {"key": COMPUTE_CLASS_LABEL, "operator": "Equal", "value": pool.name, "effect": "NoSchedule"}
        )
    if pool is not None and pool.rdma:
        spec["resourceClaims"] = [{"name": NETWORK_CLAIM, "resourceClaimTemplateName": NETWORK_CLAIM}]
        container["resources"]["claims"] = [{"name": NETWORK_CLAIM}]
    result: dict[str, Any] = {
        "groupName": "workers",
        "replicas": group.workers,
        "minReplicas": 0,
        "maxReplicas": group.max_workers,
        # the operator writes these two empty maps back; without them it becomes the owner of this atomic list and the next
        # server-side apply that changes the list is a conflict
        "scaleStrategy": {},
        "rayStartParams": {"num-cpus": str(group.ray_cpus)} if on_cpu else {},
        "template": {"metadata": metadata, "spec": spec},
    }
    if not on_cpu:
        # Ray Serve LLM asks for this resource; a group without a live pod is infeasible unless it says that it has it
        result["resources"] = {f"accelerator_type:{ACCELERATORS[service.accelerator].ray_type}": "1"}
    return result


# KubeRay's own probe with more patience: its one failure of 2 s flaps on a busy node. Needs bash and wget, as KubeRay's does.
_READINESS = {
    "exec": {
        "command": [
            "bash",
            "-c",
            f"wget --tries 1 -T 4 -q -O- http://localhost:{AGENT_PORT}/api/local_raylet_healthz | grep success"
            f" && wget --tries 1 -T 4 -q -O- http://localhost:{SERVE_PORT}/-/healthz | grep success",
        ]
    },
    "initialDelaySeconds": 10,
    "periodSeconds": 5,
    "timeoutSeconds": 10,
    "failureThreshold": 3,
}


def _alive(*, delay: int, failures: int) -> dict[str, Any]:
    """KubeRay's check of a Ray node, with 10 s to answer on a busy machine; `failures` of 5 s each until it counts."""
    return {
        "httpGet": {"path": "/api/healthz", "port": AGENT_PORT},
        "initialDelaySeconds": delay,
        "periodSeconds": 5,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }


# What a kubelet mounts by itself where a pod lets it, here as a volume that one container can have alone.
TOKEN_VOLUME = "autoscaler-token"
_TOKEN = {
    "name": TOKEN_VOLUME,
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {
                "downwardAPI": {
                    "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
                }
            },
        ]
    },
}


def _spread(service: ServicePlan) -> list[dict[str, Any]]:
    """Workers over zones and nodes where there is a choice. Soft: a reservation has one zone, and a GPU is where it is.

    Workers that share a replica stay out of the spread over zones: every token would cross between them.
    """
    keys = ["kubernetes.io/hostname"]
    if service.workers.replicas_per_worker >= 1:
        keys.insert(0, "topology.kubernetes.io/zone")
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {SERVICE_LABEL: service.name, NODE_TYPE_LABEL: Role.WORKER.value}},
            # the two clusters of an upgrade each by itself
            "matchLabelKeys": ["ray.io/cluster"],
        }
        for key in keys
    ]


def _node_selector(service: ServicePlan, pool: NodePool | None) -> dict[str, str]:
    if pool is not None and pool.capacity is Capacity.LADDER:
        # the class says the rest; selectors beside it could ask for what none of its rungs has
        return {COMPUTE_CLASS_LABEL: pool.name}
    selector = {"cloud.google.com/gke-accelerator": ACCELERATORS[service.accelerator].gke_type}
    if pool is not None:
        selector[POOL_LABEL] = pool.name
        if label := CAPACITIES[pool.capacity].node_label:
            selector[label] = "true"
    return selector


def _pod_spec(
    service: ServicePlan,
    namespace: str,
    role: Role,
    container: dict[str, Any],
    drain: DrainTimes,
    volumes: list[dict[str, Any]],
    mounts: list[dict[str, Any]],
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        # no empty lists: the operator writes lists back without them and would own them from then on
        "containers": [container | ({"volumeMounts": mounts} if mounts else {})],
        "priorityClassName": priority_class(namespace, role),
        "serviceAccountName": service_account(service.name, role),
        "automountServiceAccountToken": False,
        # else every Service of the namespace becomes seven variables in every process
        "enableServiceLinks": False,
        # Ray drains on SIGTERM; the kubelet waits a little longer. No preStop: `ray stop` would cut the streams before that.
        "terminationGracePeriodSeconds": drain.pod,
        "securityContext": NON_ROOT | {"fsGroup": RAY_GROUP},
    }
    if volumes:
        spec["volumes"] = volumes
    return spec


def _add_volume(spec: dict[str, Any], volume: dict[str, Any], mount: dict[str, Any]) -> None:
    """One more volume of a pod, mounted into its Ray container."""
    spec.setdefault("volumes", []).append(volume)
    spec["containers"][0].setdefault("volumeMounts", []).append(mount)


def declared_volumes(service: ServicePlan) -> list[dict[str, Any]]:
    """Those that the stack file names."""
    return [
        {"name": volume.name}
        | (
            {"hostPath": {"path": volume.host_path}}
            if volume.host_path
            else {"persistentVolumeClaim": {"claimName": volume.claim}}
        )
        for volume in service.asked.pods.volumes
    ]


def declared_mounts(service: ServicePlan) -> list[dict[str, Any]]:
    """Where the stack file wants them."""
    # `readOnly: false` is left out: the operator writes lists back without zero values and would own them from then on,
    # like the worker groups without their two empty maps
    return [
        {"name": v.name, "mountPath": v.mount_path} | ({"readOnly": True} if v.read_only else {})
        for v in service.asked.pods.volumes
    ]
