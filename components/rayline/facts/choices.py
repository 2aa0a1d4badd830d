"""The closed sets a stack file may choose from. One choice is one enum; the order is the order in messages and docs."""

from enum import Enum


class Accelerator(str, Enum):
    """The card that a replica runs on. `cpu` runs the same service without a GPU, for trials and tests."""

    L4 = "l4"
    RTX_PRO_6000 = "rtx-pro-6000"
    H100 = "h100"
    H200 = "h200"
    B200 = "b200"
    CPU = "cpu"


class Capacity(str, Enum):
    """How Google hands out the nodes. One choice, because GKE refuses the combinations."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    FLEX_START = "flex-start"
    RESERVATION = "reservation"
    ANY_RESERVATION = "any-reservation"
    LADDER = "ladder"


class ClusterMode(str, Enum):
    """Where the services run: a GKE cluster that this program creates, a cluster that exists, or this machine."""

    CREATE = "create"
    EXISTING = "existing"
    LOCAL = "local"


class OperatorSource(str, Enum):
    """Who installs the KubeRay operator: our Helm release, GKE's Ray add-on, or somebody already did."""

    HELM = "helm"
    GKE_ADDON = "gke-addon"
    PREINSTALLED = "preinstalled"


class Exposure(str, Enum):
    """Who reaches the services: the cluster alone, the VPC and what is connected to it, or the internet."""

    NONE = "none"
    INTERNAL = "internal"
    PUBLIC = "public"


class Tls(str, Enum):
    """Where the endpoint's certificate comes from: Google issues and renews it, you have one, or there is no TLS."""

    MANAGED = "managed"
    OWN = "own"
    NONE = "none"


class RateLimitKey(str, Enum):
    """Whose requests are counted together: those of one address, or those with the same Authorization and x-api-key headers."""

    CLIENT_IP = "client-ip"
    API_KEY = "api-key"


class TokenSource(str, Enum):
    """Where the Hugging Face token comes from."""

    PULUMI_SECRET = "pulumi-secret"
    EXISTING_SECRET = "existing-secret"
    SECRET_MANAGER = "secret-manager"
    NONE = "none"


class UpgradeStrategy(str, Enum):
    """What a change of the pod template does.

    A second cluster beside the first and one switch, the same with traffic moved in steps, or nothing until the cluster is
    recreated.
    """

    NEW_CLUSTER = "new-cluster"
    INCREMENTAL = "incremental"
    NONE = "none"


class HeadStore(str, Enum):
    """Where a Ray head keeps what it knows, so that another head can go on: nowhere, a Redis of Google's, or yours."""

    NONE = "none"
    MEMORYSTORE = "memorystore"
    REDIS = "redis"


class ExclusionScope(str, Enum):
    """What GKE leaves undone during a maintenance exclusion (container API, MaintenanceExclusionOptions.Scope)."""

    NO_UPGRADES = "no-upgrades"
    NO_MINOR_UPGRADES = "no-minor-upgrades"
    NO_MINOR_OR_NODE_UPGRADES = "no-minor-or-node-upgrades"


class PodSecurity(str, Enum):
    """Kubernetes' Pod Security Standards: what pods of the namespace may ask for."""

    RESTRICTED = "restricted"
    BASELINE = "baseline"
    PRIVILEGED = "privileged"


class WeightsSource(str, Enum):
    """Where a replica reads its weights: Hugging Face, or a Cloud Storage bucket, streamed or mounted."""

    HUB = "hub"
    GCS_STREAM = "gcs-stream"
    GCS_FUSE = "gcs-fuse"


class ReleaseChannel(str, Enum):
    """GKE's release channels."""

    RAPID = "rapid"
    REGULAR = "regular"
    STABLE = "stable"
