"""Names and limits of Google's APIs."""

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
# Secondary ranges of the subnet.
PODS_RANGE, SERVICES_RANGE = "pods", "services"
# Mounts buckets; GKE adds a sidecar to pods with the annotation.
FUSE_DRIVER = "gcsfuse.csi.storage.gke.io"
FUSE_ANNOTATION = "gke-gcsfuse/volumes"
# The sidecar's requests by default (GoogleCloudPlatform/gcs-fuse-csi-driver pkg/webhook/config.go at 01870a9).
FUSE_SIDECAR_CPUS, FUSE_SIDECAR_MEMORY_GIB = 0.25, 0.25

# What GKE's node agents need (GoogleCloudPlatform/cluster-toolkit, node service account): logs, metrics, images. Its list has
# storage.objectViewer too, for every bucket of the project; weights are read with the pods' own identity instead, and images
# come from Artifact Registry.
NODE_ROLES = (
    "roles/logging.logWriter",
    "roles/monitoring.metricWriter",
    "roles/monitoring.viewer",
    "roles/stackdriver.resourceMetadata.writer",
    "roles/artifactregistry.reader",
)

# Answers with the number of a project, which the names of pods' identities hold.
PROJECT_API = "cloudresourcemanager.googleapis.com"
# APIs of the project that the stack calls itself or that its cluster calls for it, and what for.
APIS = {
    "compute.googleapis.com": "network, NAT and nodes",
    "container.googleapis.com": "cluster and node pools",
    "iam.googleapis.com": "the nodes' service account",
    PROJECT_API: "the account's roles in the project",
    "logging.googleapis.com": "logs of nodes and pods",
    "monitoring.googleapis.com": "metrics, and Managed Service for Prometheus",
    "artifactregistry.googleapis.com": "images",
}
# Beside them, where the feature is on.
IMAGE_STREAMING_API = "containerfilesystem.googleapis.com"
SECRET_MANAGER_API = "secretmanager.googleapis.com"
STORAGE_API = "storage.googleapis.com"
MEMORYSTORE_API = "redis.googleapis.com"

# Memorystore for Redis: where an instance with TLS listens ("About in-transit encryption"), and its sizes in GiB.
MEMORYSTORE_TLS_PORT = 6378
MEMORYSTORE_SIZES = (1, 300)
CERTIFICATE_MANAGER_API = "certificatemanager.googleapis.com"
IAP_API = "iap.googleapis.com"

# The name of a region, and of a zone, which is its region's and a suffix (Compute Engine, "Regions and zones", identifying a region or zone).
REGION = r"[a-z]+-[a-z]+[0-9]+"
ZONE = REGION + r"-[a-z0-9]+"

# Zones of accelerators only ("AI zones", such as us-central1-ai1a). GKE's zone lists show them, and clusters are not to lie
# there: GoogleCloudPlatform/accelerated-platforms takes names with this part out of node_locations.
AI_ZONE = "-ai"

# What GKE demands of a maintenance window ("Configure maintenance windows and exclusions", considerations): 48 hours in any
# 32 days, of which only stretches of four hours and more count.
MAINTENANCE_HOURS, MAINTENANCE_DAYS, MAINTENANCE_STRETCH_HOURS = 48, 32, 4

# Metrics that GKE collects: its own always, the others with Managed Service for Prometheus (monitoring_config.enable_components).
SYSTEM_METRICS = ("SYSTEM_COMPONENTS",)
WORKLOAD_METRICS = ("STORAGE", "HPA", "POD", "DAEMONSET", "DEPLOYMENT", "STATEFULSET", "KUBELET", "CADVISOR")
GPU_METRICS = "DCGM"  # deploys Google's dcgm-exporter on GPU nodes

# Boot disk of a CPU node, GiB: a Ray head's image takes 40 unpacked (pools/plan.py), the node's system the rest. Google's own limits
# are 10 (pulumi-gcp 10.2, NodePool, bootDisk) and 64 TiB (Compute Engine, "About Persistent Disk").
SYSTEM_DISK_SIZES = (50, 65536)

# GKE gives each node a /24 of the pods' range, at its default of 110 pods for a node ("Configure maximum Pods per node", CIDR ranges for
# Standard clusters). Of a subnet's first range four addresses are not usable (VPC, "Subnets", unusable addresses).
PODS_PREFIX_OF_A_NODE, UNUSABLE_ADDRESSES = 24, 4

# Keys and values of labels on Google's resources (Resource Manager, "Requirements for labels").
LABEL_KEY = r"[a-z][-_a-z0-9]{0,62}"
LABEL_VALUE = r"[-_a-z0-9]{0,63}"
# A resource has at most 64 (the same page).
MOST_LABELS = 64

# Where Google's health checks and, of global load balancers, the proxies come from
# (cloud.google.com/load-balancing/docs/firewall-rules). Proxies of regional ones come from the VPC's proxy-only subnet.
LOAD_BALANCER_RANGES = ("130.211.0.0/22", "35.191.0.0/16")
# A proxy-only subnet has 64 addresses or more (cloud.google.com/load-balancing/docs/proxy-only-subnets).
PROXY_SUBNET_MAX_PREFIX = 26
# Of a backend, seconds: the load balancer's own 30 cut a stream; accelerated-platforms sets this for vLLM. A longer
# rollout.longest_stream_seconds raises it.
BACKEND_TIMEOUT_SECONDS = 3600
# The most that GCPBackendPolicy takes for drainingTimeoutSec (GoogleCloudPlatform/gke-gateway-api, its CRD).
MAX_DRAINING_SECONDS = 3600


def workload_principal(project: str, number: str, namespace: str, account: str) -> str:
    """Return the IAM principal of a Kubernetes ServiceAccount in a cluster of `project`, by Workload Identity Federation for GKE.

    It needs no Google service account (cloud.google.com/kubernetes-engine/docs/how-to/workload-identity).
    """
    pool = f"projects/{number}/locations/global/workloadIdentityPools/{project}.svc.id.goog"
    return f"principal://iam.googleapis.com/{pool}/subject/ns/{namespace}/sa/{account}"
