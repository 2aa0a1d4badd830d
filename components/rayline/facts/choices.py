"""The enumerations of a stack file. Messages and docs keep their order."""

from enum import Enum


class Accelerator(str, Enum):
    """GPU of a replica. `cpu` runs the same service without one, for trials and tests."""

    L4 = "l4"
    A100_40GB = "a100-40gb"
    A100_80GB = "a100-80gb"
    RTX_PRO_6000 = "rtx-pro-6000"
    H100 = "h100"
    H200 = "h200"
    B200 = "b200"
    CPU = "cpu"


class Capacity(str, Enum):
    """Provisioning model of the nodes. One value, because GKE refuses combinations."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    FLEX_START = "flex-start"
    RESERVATION = "reservation"
    ANY_RESERVATION = "any-reservation"
    LADDER = "ladder"


class TaintEffect(str, Enum):
    """Effect of a taint, as Kubernetes has them."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Routing(str, Enum):
    """Choice of a replica for a request: in turn, or one replica for each session."""

    ROUND_ROBIN = "round-robin"
    SESSIONS = "sessions"


class Speculation(str, Enum):
    """Source of drafted tokens: the prompt itself, the model's own prediction layers, or a smaller model."""

    NGRAM = "ngram"
    MTP = "mtp"
    DRAFT = "draft"


class Task(str, Enum):
    """Answer of a model: text, vectors, documents by relevance, or classes. All but the first are vLLM's pooling."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"
    CLASSIFY = "classify"


class ClusterMode(str, Enum):
    """Place of the services: a GKE cluster that this program creates, a cluster that exists, or this machine."""

    CREATE = "create"
    EXISTING = "existing"
    LOCAL = "local"


class OperatorSource(str, Enum):
    """Source of the KubeRay operator: the kit's Helm release, GKE's Ray add-on, or installed already."""

    HELM = "helm"
    GKE_ADDON = "gke-addon"
    PREINSTALLED = "preinstalled"


class Exposure(str, Enum):
    """Clients of the services: in the cluster alone, in the VPC and its connected networks, or on the internet."""

    NONE = "none"
    INTERNAL = "internal"
    PUBLIC = "public"


class Tls(str, Enum):
    """Source of the endpoint's certificate: Google issues and renews it, it is yours, or there is no TLS."""

    MANAGED = "managed"
    OWN = "own"
    NONE = "none"


class RateLimitKey(str, Enum):
    """Key of the rate limit: the client's address, or the Authorization and x-api-key headers."""

    CLIENT_IP = "client-ip"
    API_KEY = "api-key"


class TokenSource(str, Enum):
    """Source of the Hugging Face token."""

    PULUMI_SECRET = "pulumi-secret"
    EXISTING_SECRET = "existing-secret"
    SECRET_MANAGER = "secret-manager"
    NONE = "none"


class UpgradeStrategy(str, Enum):
    """Rollout of a changed pod template.

    A second cluster beside the first and one switch, the same with traffic moved in steps, or nothing until the cluster is
    recreated.
    """

    NEW_CLUSTER = "new-cluster"
    INCREMENTAL = "incremental"
    NONE = "none"


class HeadStore(str, Enum):
    """Store of the GCS state for fault tolerance: none, Memorystore, or your own Redis."""

    NONE = "none"
    MEMORYSTORE = "memorystore"
    REDIS = "redis"


class ExclusionScope(str, Enum):
    """Upgrades that GKE does not make during a maintenance exclusion (container API, MaintenanceExclusionOptions.Scope)."""

    NO_UPGRADES = "no-upgrades"
    NO_MINOR_UPGRADES = "no-minor-upgrades"
    NO_MINOR_OR_NODE_UPGRADES = "no-minor-or-node-upgrades"


class PodSecurity(str, Enum):
    """Kubernetes' Pod Security Standards of the namespace."""

    RESTRICTED = "restricted"
    BASELINE = "baseline"
    PRIVILEGED = "privileged"


class WeightsSource(str, Enum):
    """Source of the weights: Hugging Face, or a Cloud Storage bucket, streamed or mounted."""

    HUB = "hub"
    GCS_STREAM = "gcs-stream"
    GCS_FUSE = "gcs-fuse"


class ReleaseChannel(str, Enum):
    """GKE's release channels."""

    RAPID = "rapid"
    REGULAR = "regular"
    STABLE = "stable"
