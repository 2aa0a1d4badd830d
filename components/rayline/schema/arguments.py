"""The arguments of the components. The text under a field is its documentation everywhere: schema, SDKs, docs page.

Plain TypedDicts without `from __future__ import annotations`, Literal or unions: Pulumi's schema reader knows no others.
Defaults live in facts/defaults.py or are derived by the plan.
"""

from typing import Any, NotRequired, TypedDict

import pulumi

from rayline.facts.choices import (
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


class SwitchesArgs(TypedDict):
    """The four switches of Ray Serve's high-throughput mode. All are on unless a stack turns one off."""

    ha_proxy: NotRequired[bool]
    """HAProxy takes the Python proxy's place on every node. Default true."""
    throughput_optimized: NotRequired[bool]
    """gRPC between replicas, one event loop, buffered logs, frozen garbage collection. Needs ha_proxy. Default true."""
    direct_streaming: NotRequired[bool]
    """Tokens go from vLLM to HAProxy to the client and skip the router. Needs ha_proxy. Default true."""
    ray_executor_v2: NotRequired[bool]
    """vLLM's Ray executor V2 (asynchronous scheduling). Default true."""


class VolumeArgs(TypedDict):
    """A volume that the head and every worker mount: a cache of weights, for example."""

    name: str
    """Name of the volume, unique in the service."""
    mount_path: str
    """Where the containers see it."""
    host_path: NotRequired[str]
    """A folder of the node. Give this or `claim`."""
    claim: NotRequired[str]
    """A PersistentVolumeClaim in the platform's namespace. Give this or `host_path`."""
    read_only: NotRequired[bool]
    """Mount it read-only. Default false."""


class AutoscalingArgs(TypedDict):
    """Replicas that follow the load, in place of `replicas`."""

    min_replicas: NotRequired[int]
    """Replicas without load, at least 1; a new RayCluster begins with as many. Default 1."""
    max_replicas: int
    """Replicas under the highest load; the node pool is planned for them."""
    target_ongoing_requests: NotRequired[float]
    """Requests in progress that a replica is kept near. Derived: three quarters of those that it works on at once."""
    upscale_delay_seconds: NotRequired[int]
    """How long the load must ask for more replicas before they come. Default 30."""
    downscale_delay_seconds: NotRequired[int]
    """How long the load must ask for fewer before they go. Default 600."""


class IncrementalUpgradeArgs(TypedDict):
    """How `upgrade: incremental` moves traffic to the new RayCluster (KubeRay's clusterUpgradeOptions)."""

    gateway_class: str
    """Class of the Gateway that KubeRay makes for the service, for example istio; none of GKE's own."""
    max_surge_percent: NotRequired[int]
    """Capacity that may run beside the full one, 1 to 100. Default 100."""
    step_size_percent: NotRequired[int]
    """Traffic that moves in one step, at most max_surge_percent. Default 10."""
    interval_seconds: NotRequired[int]
    """Time between two steps. Default 60."""


class LlmServiceArgs(TypedDict):
    """One model behind one endpoint: a RayService."""

    model: str
    """Model id, a row of docs/models.md, for example Qwen/Qwen3.5-4B."""
    accelerator: Accelerator
    """The card of each replica."""
    replicas: NotRequired[int]
    """Copies of the model that answer requests. Default 1."""
    autoscaling: NotRequired[AutoscalingArgs]
    """Let the number of copies follow the load; not together with `replicas`."""
    park: NotRequired[bool]
    """Delete the service's RayCluster and free its GPUs; name, keys, secrets and node pool stay. Default false."""
    tensor_parallel_size: NotRequired[int]
    """GPUs of one machine that share each layer. Default 1."""
    pipeline_parallel_size: NotRequired[int]
    """Groups of such GPUs that share the layers among them. Default 1."""
    max_model_len: NotRequired[int]
    """Longest prompt plus answer, tokens. Default 16384 (2048 on the CPU), or less where the model or the memory ends earlier."""
    max_num_seqs: NotRequired[int]
    """Requests that a replica works on at once. Derived from the memory that is left for the KV cache."""
    max_num_batched_tokens: NotRequired[int]
    """Tokens of one engine step. Default: vLLM's for the card."""
    gpu_memory_utilization: NotRequired[float]
    """Share of the card's memory that vLLM may take, 0.1 to 0.98. Default 0.92."""
    enable_prefix_caching: NotRequired[bool]
    """Keep the KV cache of common prompt beginnings. Default true."""
    stream_interval: NotRequired[int]
    """Tokens of one event of a streamed answer after the first, at least 1: more cost less CPU and come in bursts. Default 4."""
    log_engine_metrics: NotRequired[bool]
    """vLLM's metrics on Ray's metrics port, in PodMonitoring; false: only on each replica's own /metrics. Default true."""
    served_model_name: NotRequired[str]
    """The `model` that clients ask for. Default: the model id."""
    model_source: NotRequired[str]
    """Where the weights come from when not from Hugging Face: a folder in the container, or a gs:// address with rights as docs/operations.md says."""
    revision: NotRequired[str]
    """Commit, tag or branch of the model on Hugging Face. Default main; a commit makes every replica, now and later, the same."""
    weights: NotRequired[WeightsSource]
    """hub (each worker downloads), gcs-stream (vLLM streams from the bucket of `weights`) or gcs-fuse (it is mounted). Default hub."""
    capacity: NotRequired[Capacity]
    """How Google hands out the nodes. Default on-demand."""
    capacity_order: NotRequired[list[Capacity]]
    """With capacity ladder: what is tried, in this order. Without it reservation (if named), on-demand, flex-start, spot, as far as the machine is sold so."""
    reservation: NotRequired[str]
    """The Compute Engine reservation: NAME, NAME/reservationBlocks/BLOCK, or projects/PROJECT/reservations/NAME of another project."""
    max_run_hours: NotRequired[int]
    """With flex-start: life of a machine, 1 to 168 hours. Default 168."""
    machine_type: NotRequired[str]
    """Compute Engine machine type. Default: the smallest of the card that holds one replica and is sold with the capacity."""
    zones: NotRequired[list[str]]
    """Zones of the service's nodes. Default: those of the cluster's region that list the machine type. A reservation has one."""
    secondary_boot_disk: NotRequired[str]
    """Disk image with the container image in it: projects/PROJECT/global/images/IMAGE. Another image is another node pool."""
    gpus_per_worker: NotRequired[int]
    """GPUs of one worker pod. Default: all of the machine; less lets services share a machine."""
    upgrade: NotRequired[UpgradeStrategy]
    """What a change of image, switches or resources does. Default new-cluster (needs the GPUs twice); none with a reservation."""
    incremental_upgrade: NotRequired[IncrementalUpgradeArgs]
    """Required with `upgrade: incremental`: its Gateway and its steps."""
    switches: NotRequired[SwitchesArgs]
    """The four switches of the high-throughput mode."""
    env: NotRequired[dict[str, str]]
    """Variables of every Ray container, by name: any that the kit does not own and that holds no secret. A switch of Ray's is "0" or "1"."""
    engine_kwargs: NotRequired[dict[str, Any]]
    """Further vLLM engine arguments; those that the plan decides are refused here."""
    runtime: NotRequired[str]
    """Ray version of a tested set of Ray, vLLM and image. Default 2.60.0."""
    image: NotRequired[str]
    """Container image, in place of the runtime's: a mirror, or a CPU image."""
    api_key: NotRequired[bool]
    """Ask clients for a key on every path. Default true, and only with direct_streaming."""
    api_key_generation: NotRequired[int]
    """Raise it by one for a new API key; the key before it stays valid until the next raise. No pod restarts. Default 1."""
    ray_token_generation: NotRequired[int]
    """Raise it by one for a new token of Ray's own (dashboard, jobs). It builds a new RayCluster. Default 1."""
    longest_stream_seconds: NotRequired[int]
    """Longest answer that a change may still finish; every drain time follows from it. Default 300."""
    cpus_per_worker: NotRequired[float]
    """CPUs that one worker with accelerator cpu asks the cluster for; a fraction is fine, for example 0.25. Default 1."""
    memory_gib_per_worker: NotRequired[int]
    """Memory of one worker with accelerator cpu, GiB. Default 6."""
    kv_cache_gib: NotRequired[int]
    """KV cache of one replica with accelerator cpu, GiB. Default 1."""
    volumes: NotRequired[list[VolumeArgs]]
    """Volumes of the head and the workers."""
    hostname: NotRequired[str]
    """Name under which clients outside reach the service: the endpoint's domain itself, or one label before it. Without one: <service>.<domain>."""


class SystemPoolArgs(TypedDict):
    """The CPU pool of Ray heads and operators. Never spot: a lost head is an outage."""

    machine_type: NotRequired[str]
    """Machine type. Default e2-standard-16."""
    min_nodes: NotRequired[int]
    """Fewest nodes, in all zones together. Default 1."""
    max_nodes: NotRequired[int]
    """Most nodes, in all zones together. Default 3."""


class NetworkArgs(TypedDict):
    """Address ranges of the VPC; change them where they collide with a peered network. Fixed after creation."""

    nodes_cidr: NotRequired[str]
    """Nodes. Default 10.0.0.0/18."""
    pods_cidr: NotRequired[str]
    """Pods. Default 10.4.0.0/14."""
    services_cidr: NotRequired[str]
    """Kubernetes Services. Default 10.0.64.0/20."""


class AuthorizedNetworkArgs(TypedDict):
    """Addresses that may reach the control plane's IP endpoint."""

    cidr: str
    """Public or VPC addresses, for example 203.0.113.0/24."""
    name: NotRequired[str]
    """What the console shows beside it."""


class MaintenanceExclusionArgs(TypedDict):
    """A time in which GKE leaves upgrades undone, whatever the window says."""

    name: str
    """Name of the exclusion, unique in the cluster."""
    start: str
    """First moment, UTC, in quotes: "2026-11-20T00:00:00Z"."""
    end: NotRequired[str]
    """Last moment, like `start`. Without it the exclusion lasts until the end of support of the cluster's version."""
    scope: ExclusionScope
    """What is left undone. no-upgrades stops security patches too, so it needs an `end`."""


class MaintenanceArgs(TypedDict):
    """When GKE may upgrade the cluster and its nodes. GKE asks for 48 hours in any 32 days, in stretches of 4 hours or more."""

    start: NotRequired[str]
    """Beginning of the first window, UTC, in quotes. Default 2026-01-03T08:00:00Z, a Saturday."""
    end: NotRequired[str]
    """End of the first window, like `start`. Default 2026-01-03T16:00:00Z."""
    recurrence: NotRequired[str]
    """FREQ=DAILY, or FREQ=WEEKLY;BYDAY= with MO, TU, WE, TH, FR, SA, SU. Default FREQ=WEEKLY;BYDAY=SA,SU."""
    exclusions: NotRequired[list[MaintenanceExclusionArgs]]
    """Times without upgrades."""


class MonitoringArgs(TypedDict):
    """Metrics and logs that Google collects and charges for. GKE's own are always on."""

    managed_prometheus: NotRequired[bool]
    """Managed Service for Prometheus, with metrics of pods, nodes and volumes. Default true."""
    dcgm: NotRequired[bool]
    """GPU metrics; needs managed_prometheus. Default: as managed_prometheus."""
    workload_logs: NotRequired[bool]
    """What pods write goes to Cloud Logging. Default true."""


class ClusterArgs(TypedDict):
    """Where the services run."""

    mode: ClusterMode
    """create (a GKE cluster), existing (a cluster you have: kind, GKE, ...) or local (this machine, no Kubernetes)."""
    location: NotRequired[str]
    """mode create: a region for a regional cluster, a zone for a zonal one. Default: the region."""
    context: NotRequired[str]
    """mode existing: kubeconfig context. Default: the current one."""
    kubeconfig: NotRequired[str]
    """mode existing: path of a kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config."""
    release_channel: NotRequired[ReleaseChannel]
    """mode create: GKE release channel. Default regular."""
    private_nodes: NotRequired[bool]
    """mode create: nodes without public addresses, behind Cloud NAT. Default true."""
    deletion_protection: NotRequired[bool]
    """mode create: refuse to delete the cluster. Default true."""
    system_pool: NotRequired[SystemPoolArgs]
    """mode create: the CPU pool."""
    network: NotRequired[NetworkArgs]
    """mode create: address ranges."""
    zones: NotRequired[list[str]]
    """mode create, regional: zones of the CPU pool. Default: Google picks. GPU pools follow `services.*.zones`."""
    dns_endpoint: NotRequired[bool]
    """mode create: reach the control plane under its DNS name; IAM decides who may. Default true."""
    authorized_networks: NotRequired[list[AuthorizedNetworkArgs]]
    """mode create: also open the control plane's IP endpoint, for these addresses only. Without it there is no such endpoint."""
    maintenance: NotRequired[MaintenanceArgs]
    """mode create: when GKE may upgrade."""
    monitoring: NotRequired[MonitoringArgs]
    """mode create: metrics and logs."""
    image_streaming: NotRequired[bool]
    """mode create: start containers before their image is whole; images of Artifact Registry only. Default true."""
    cost_allocation: NotRequired[bool]
    """mode create: split the bill by namespace and label. Default true."""
    labels: NotRequired[dict[str, str]]
    """mode create: labels of the cluster and what Google makes for it, for the bill."""
    enable_apis: NotRequired[bool]
    """mode create: turn on the Google APIs that the stack needs; they stay on afterwards. Default true."""


class HeadArgs(TypedDict):
    """The Ray head of every service, and what becomes of the service when its head is lost."""

    store: NotRequired[HeadStore]
    """none: a lost head makes every replica load again. memorystore (mode create) or redis: they serve on. Default none."""
    memorystore_gib: NotRequired[int]
    """With store memorystore: size in GiB, 1 to 300. Default 1."""
    address: NotRequired[str]
    """With store redis: host:port, or rediss://host:port for TLS. One that outlives a node."""
    password_secret: NotRequired[str]
    """With store redis: a Secret in the platform's namespace with the key `password`."""
    ca_secret: NotRequired[str]
    """With a rediss address: a Secret there with the key `ca.crt`, the authority of the server's certificate."""
    cpus: NotRequired[float]
    """CPUs of a head. Derived: 4, or 0.25 beside accelerator cpu."""
    memory_gib: NotRequired[int]
    """Memory of a head in GiB; a head without memory is an outage. Derived: 16, or 4 beside accelerator cpu."""


class KuberayArgs(TypedDict):
    """The KubeRay operator."""

    source: NotRequired[OperatorSource]
    """helm (our release), gke-addon (Google runs it) or preinstalled. Default helm."""
    version: NotRequired[str]
    """Chart and CRD version. Default 1.7.0."""
    repository: NotRequired[str]
    """Helm repository. Default KubeRay's own."""
    chart: NotRequired[str]
    """Chart name in the repository, or the path of a chart folder on this machine. Default kuberay-operator."""
    crds: NotRequired[str]
    """Folder or address with the CRD files of that version. Default: the chart folder's crds, or KubeRay's release on GitHub."""
    keep_crds: NotRequired[bool]
    """Leave the CRDs when the stack goes; deleting them deletes every RayService of the cluster. Default: with mode existing."""


class HuggingFaceArgs(TypedDict):
    """Access to gated models."""

    source: NotRequired[TokenSource]
    """pulumi-secret (from `hugging_face_token`), existing-secret, secret-manager (cluster mode create), or none. Default none."""
    secret: NotRequired[str]
    """With source secret-manager: the secret, as NAME (of the cluster's project) or projects/P/secrets/NAME, with /versions/V for one version, else the latest."""
    token: NotRequired[pulumi.Input[str]]
    """The token, with source pulumi-secret."""
    secret_name: NotRequired[str]
    """Name of the Secret; key hf_api_token. Default hf-secret."""


class EndpointArgs(TypedDict):
    """One Gateway (a Google load balancer) in front of all services; it passes /v1 and nothing else. With cluster.mode create."""

    exposure: NotRequired[Exposure]
    """none (the cluster alone), internal (the VPC and what is connected to it) or public (the internet). Default none."""
    domain: NotRequired[str]
    """A domain of yours, for example llm.example.com; the services are names below it. Required with internal and public."""
    tls: NotRequired[Tls]
    """managed (Google issues and renews the certificate), own (see `certificate`) or none (only with internal). Default managed."""
    certificate: NotRequired[str]
    """tls own: with public the name of a Certificate Manager map, with internal that of a TLS Secret in the platform's namespace."""
    rate_limit_per_minute: NotRequired[int]
    """public: requests a minute, counted as rate_limit_by says; more get 429 from Cloud Armor. Default: no limit."""
    rate_limit_by: NotRequired[RateLimitKey]
    """public: count by client-ip, or by api-key (the headers Authorization and x-api-key). Default client-ip."""
    iap_members: NotRequired[list[str]]
    """public: who Identity-Aware Proxy lets through, for example group:ml@example.com; everybody else is refused. Default: no IAP."""
    proxy_cidr: NotRequired[str]
    """internal: addresses of the load balancer's proxies in the VPC, /26 or larger. Default 10.0.80.0/23."""


class IsolationArgs(TypedDict):
    """What keeps the platform and its neighbours apart: cluster modes create and existing."""

    pod_security: NotRequired[PodSecurity]
    """Pod Security Standard that the namespace enforces. Default restricted; `host_path` volumes need privileged."""
    network_policies: NotRequired[bool]
    """Deny all traffic of the namespace except what the services need. Default true; the cluster's network has to enforce it."""
    allow_from_namespaces: NotRequired[list[str]]
    """Namespaces whose pods may call the services on port 8000; without any, a gateway and `kubectl port-forward` only."""
    allow_metrics_from_namespaces: NotRequired[list[str]]
    """Namespaces whose pods may read metrics; when left out, Google's managed collectors with mode create, else none."""
    operator_namespace: NotRequired[str]
    """With kuberay.source preinstalled: where the operator runs. Default kuberay-system."""


class WeightsArgs(TypedDict):
    """A Cloud Storage bucket with weights, for the services with weights gcs-stream or gcs-fuse. Only with cluster mode create."""

    bucket: str
    """Name of the bucket. A model lies in it under MODEL/REVISION/, for example Qwen/Qwen3.5-4B/main/."""
    create: NotRequired[bool]
    """Make the bucket, in the cluster's region. false: it exists. Default true."""
    mirror: NotRequired[bool]
    """Copy the services' models from Hugging Face into it, once each, before they start. false: they are there. Default true."""


class InferencePlatformArgs(TypedDict):
    """A whole platform: a cluster and the services on it."""

    cluster: ClusterArgs
    """Where the services run."""
    services: dict[str, LlmServiceArgs]
    """The services by name; the name becomes the RayService's."""
    project: NotRequired[str]
    """Google Cloud project; required with cluster mode create."""
    region: NotRequired[str]
    """Google Cloud region; required with cluster mode create."""
    namespace: NotRequired[str]
    """Kubernetes namespace of the services. Default rayline."""
    head: NotRequired[HeadArgs]
    """The Ray heads."""
    kuberay: NotRequired[KuberayArgs]
    """The KubeRay operator."""
    hugging_face: NotRequired[HuggingFaceArgs]
    """Access to gated models."""
    endpoint: NotRequired[EndpointArgs]
    """How clients outside the cluster reach the services."""
    isolation: NotRequired[IsolationArgs]
    """What keeps the platform and its neighbours apart."""
    weights: NotRequired[WeightsArgs]
    """A bucket with weights, so that new nodes need not download them from Hugging Face."""
