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
