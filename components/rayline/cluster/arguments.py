"""Keys of `cluster`."""

from typing import Annotated

from rayline.facts import defaults
from rayline.facts.capacities import PROJECT
from rayline.facts.choices import ClusterMode, ExclusionScope, ReleaseChannel
from rayline.facts.google import LABEL_KEY, LABEL_VALUE, MOST_LABELS, PODS_RANGE, REGION, SERVICES_RANGE, SYSTEM_DISK_SIZES
from rayline.schema.base import LABEL, Arguments, Cidr, DnsLabel, FromText, Line, Zone, between, form, items

Moment = Annotated[
    str, form(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", 'a time in UTC, in quotes, for example "2026-01-03T08:00:00Z"')
]
Place = Annotated[str, form(r"[a-z]+-[a-z]+[0-9]+(-[a-z0-9]+)?", "a region such as us-central1, or a zone of it", 63)]


class SystemPoolArgs(Arguments):
    """The CPU pool of Ray heads and operators. Never spot: a lost head is an outage."""

    machine_type: str = defaults.SYSTEM_MACHINE_TYPE
    """Compute Engine machine type."""
    min_nodes: Annotated[int, between(1, 1000, "nodes: the Ray heads and the operator need one")] = 1
    """Fewest nodes, in all zones together."""
    max_nodes: Annotated[int, between(1, 1000, "nodes")] = 3
    """Most nodes, in all zones together."""
    disk_gib: Annotated[int, between(*SYSTEM_DISK_SIZES, "GiB: the image of a Ray head takes 40")] = 100
    """Boot disk of each node in GiB. A change replaces the nodes one by one and keeps the pool."""


class ExistingNetworkArgs(Arguments):
    """A VPC and a subnet that exist, also of a host project (Shared VPC). NAT and firewall are their owner's."""

    network: Annotated[
        str, form(rf"projects/{PROJECT}/global/networks/{LABEL}", "projects/PROJECT/global/networks/NETWORK", 200)
    ]
    """The VPC: projects/PROJECT/global/networks/NETWORK."""
    subnetwork: Annotated[
        str,
        form(
            rf"projects/{PROJECT}/regions/{REGION}/subnetworks/{LABEL}",
            "projects/PROJECT/regions/REGION/subnetworks/SUBNET",
            250,
        ),
    ]
    """The subnet, in the region of the stack: projects/PROJECT/regions/REGION/subnetworks/SUBNET."""
    pods_range: DnsLabel = PODS_RANGE
    """Name of the subnet's secondary range for pods."""
    services_range: DnsLabel = SERVICES_RANGE
    """Name of the subnet's secondary range for Kubernetes Services."""

    @property
    def project(self) -> str:
        """Project of the VPC: the host project of a Shared VPC."""
        return self.network.split("/")[1]


class NetworkArgs(Arguments):
    """Address ranges of the VPC, fixed after creation. Change them where they overlap with a peered network."""

    existing: ExistingNetworkArgs | None = None
    """A VPC and a subnet that exist, in place of new ones."""
    # sizes as in Google's cluster-toolkit: nodes /18, pods /14, services /20
    nodes_cidr: Cidr = "10.0.0.0/18"
    """Nodes."""
    pods_cidr: Cidr = "10.4.0.0/14"
    """Pods; each node takes a /24 of it."""
    services_cidr: Cidr = "10.0.64.0/20"
    """Kubernetes Services."""


class AuthorizedNetworkArgs(Arguments):
    """Addresses that may reach the IP endpoint of the control plane."""

    cidr: Cidr
    """Public or VPC addresses, for example 203.0.113.0/24."""
    name: Line | None = None
    """Display name in the console. Default: the range."""


class MaintenanceExclusionArgs(Arguments):
    """Time without upgrades, also inside a maintenance window."""

    name: Line
    """Name of the exclusion, unique in the cluster."""
    start: Moment
    """Start, UTC, in quotes: "2026-11-20T00:00:00Z"."""
    end: Moment | None = None
    """End, like `start`. Without it the exclusion lasts until the end of support of the cluster's version."""
    scope: Annotated[ExclusionScope, FromText]
    """Excluded upgrades. no-upgrades stops security patches too, so it needs an `end`."""


class MaintenanceArgs(Arguments):
    """When GKE may upgrade the cluster and its nodes. GKE needs 48 hours in any 32 days, in windows of 4 hours or more."""

    # weekends, 08:00 to 16:00 UTC: 64 hours in any 32 days, and people are awake in Europe and most of America
    start: Moment = "2026-01-03T08:00:00Z"
    """Start of the first window, UTC, in quotes. The default is a Saturday."""
    end: Moment = "2026-01-03T16:00:00Z"
    """End of the first window, like `start`."""
    recurrence: str = "FREQ=WEEKLY;BYDAY=SA,SU"
    """FREQ=DAILY, or FREQ=WEEKLY;BYDAY= with MO, TU, WE, TH, FR, SA, SU."""
    exclusions: list[MaintenanceExclusionArgs] = []
    """Times without upgrades."""


class MonitoringArgs(Arguments):
    """Metrics and logs that Google collects and charges for. GKE's own metrics are always on."""

    managed_prometheus: bool = True
    """Managed Service for Prometheus, with metrics of pods, nodes and volumes."""
    dcgm: bool | None = None
    """GPU metrics; needs managed_prometheus. Default: as managed_prometheus."""
    workload_logs: bool = True
    """Send the logs of pods to Cloud Logging."""


class ClusterArgs(Arguments):
    """Where the services run."""

    mode: Annotated[ClusterMode, FromText]
    """create (a GKE cluster), existing (a cluster you have: kind, GKE, ...) or local (this machine, no Kubernetes)."""
    location: Place | None = None
    """mode create: a region for a regional cluster, a zone for a zonal one. Default: the region."""
    context: Line | None = None
    """mode existing: kubeconfig context. Default: the current one."""
    kubeconfig: Line | None = None
    """mode existing: path of a kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config."""
    gke: bool = False
    """mode existing: it is a GKE cluster, of gcp:project in gcp:region. `endpoint`, `weights`, Memorystore, Secret Manager and rights on buckets need that."""
    release_channel: Annotated[ReleaseChannel, FromText] = ReleaseChannel.REGULAR
    """mode create: GKE release channel."""
    private_nodes: bool = True
    """mode create: nodes without public addresses, behind Cloud NAT."""
    deletion_protection: bool = True
    """mode create: refuse to delete the cluster. With `gke`: keep the bucket of `weights` and the head store."""
    system_pool: SystemPoolArgs = SystemPoolArgs()
    """mode create: the CPU pool."""
    network: NetworkArgs = NetworkArgs()
    """mode create: address ranges. With `gke`: `existing`, the network of the cluster."""
    zones: list[Zone] | None = None
    """mode create, regional: zones of the CPU pool. Default: Google picks. GPU pools follow `services.*.nodes.zones`."""
    dns_endpoint: bool = True
    """mode create: reach the control plane under its DNS name, with permissions from IAM."""
    authorized_networks: list[AuthorizedNetworkArgs] = []
    """mode create: also open the control plane's IP endpoint, for these addresses only."""
    maintenance: MaintenanceArgs = MaintenanceArgs()
    """mode create: when GKE may upgrade."""
    monitoring: MonitoringArgs = MonitoringArgs()
    """mode create: metrics and logs."""
    image_streaming: bool = True
    """mode create: start containers before their image is complete (image streaming); images of Artifact Registry only."""
    cost_allocation: bool = True
    """mode create: split the bill by namespace and label."""
    labels: Annotated[
        dict[
            Annotated[str, form(LABEL_KEY, "a key: lower-case letters, digits, dashes and underscores, first a letter", 63)],
            Annotated[str, form(LABEL_VALUE, "at most 63 lower-case letters, digits, dashes and underscores", 63)],
        ],
        items(MOST_LABELS, "labels"),
    ] = {}
    """mode create: labels of the cluster and its Google resources, for the bill."""
    enable_apis: bool = True
    """mode create, or `gke`: turn on the Google APIs that the stack needs. They stay on when the stack is destroyed."""
