"""Names that Google's APIs and every GKE component share."""

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
# Secondary ranges of the subnet.
PODS_RANGE, SERVICES_RANGE = "pods", "services"
# What GKE's node agents need (GoogleCloudPlatform/cluster-toolkit, node service account): logs, metrics, images.
NODE_ROLES = (
    "roles/logging.logWriter",
    "roles/monitoring.metricWriter",
    "roles/monitoring.viewer",
    "roles/stackdriver.resourceMetadata.writer",
    "roles/artifactregistry.reader",
    "roles/storage.objectViewer",
)

# Where Google's health checks and, of global load balancers, the proxies come from
# (cloud.google.com/load-balancing/docs/firewall-rules). Proxies of regional ones come from the VPC's proxy-only subnet.
LOAD_BALANCER_RANGES = ("130.211.0.0/22", "35.191.0.0/16")
# A proxy-only subnet has 64 addresses or more (cloud.google.com/load-balancing/docs/proxy-only-subnets).
PROXY_SUBNET_MAX_PREFIX = 26
# Of a backend, seconds: the load balancer's own 30 cut a stream; accelerated-platforms sets this for vLLM. A longer
# longest_stream_seconds raises it.
BACKEND_TIMEOUT_SECONDS = 3600
# The most that GCPBackendPolicy takes for drainingTimeoutSec (GoogleCloudPlatform/gke-gateway-api, its CRD).
MAX_DRAINING_SECONDS = 3600
