"""The keys of a service's machines and pods."""

from typing import Annotated

from rayline.facts import defaults
from rayline.facts.capacities import DISK_IMAGE, FLEX_START_MAX_HOURS, RESERVATION
from rayline.facts.choices import Capacity, TaintEffect
from rayline.facts.runtimes import DEFAULT_RUNTIME
from rayline.schema.base import SUBDOMAIN, Arguments, Count, DnsLabel, FromText, ObjectName, Zone, between, form, items

# A registry's host and port, a path in lower case, a tag and a digest (distribution/reference, reference.go).
Image = Annotated[
    str,
    form(
        r"([A-Za-z0-9][-A-Za-z0-9.]*(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
        "a container image such as registry.example.com/team/ray:2.60.0, without a scheme",
        512,
    ),
]
Folder = Annotated[str, form(r"(/[^/\s\x00]+)+/?", "an absolute path of a folder, not / itself", 1024)]
# Syntax of Kubernetes labels: an optional domain and a slash, then a name of at most 63 characters.
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
# Selectors of Services, NetworkPolicies and budgets use them (kuberay v1.7.0, ray-operator/controllers/ray/common/pod.go, labelPod).
_OWN_LABELS = r"rayline/|ray\.io/|app\.kubernetes\.io/(name|created-by|managed-by)$"
LabelKey = Annotated[
    str,
    form(
        rf"(?!{_OWN_LABELS})({SUBDOMAIN}/)?{_NAME}",
        "a label's key: letters, digits, dashes, underscores and dots, with a domain and a slash before it or without; "
        "labels of rayline/, ray.io/ and app.kubernetes.io/ are set by the kit and KubeRay",
        317,
    ),
]
LabelValue = Annotated[
    str, form(rf"({_NAME})?", "a label's value: at most 63 letters, digits, dashes, underscores and dots", 63)
]
NodeLabelKey = Annotated[
    str,
    form(rf"({SUBDOMAIN}/)?{_NAME}", "a node label's key, such as nvidia.com/gpu.product or eks.amazonaws.com/nodegroup", 317),
]
Annotation = Annotated[str, form(r"[^\x00]*", "text of at most 4096 characters", 4096)]
AnnotationKey = Annotated[
    str,
    form(
        rf"(?!rayline/|ray\.io/|gke-gcsfuse/|cluster-autoscaler\.kubernetes\.io/)({SUBDOMAIN}/)?{_NAME}",
        "an annotation's key: like a label's; those of rayline/, ray.io/, gke-gcsfuse/ and cluster-autoscaler.kubernetes.io/ are set by the "
        "kit and KubeRay",
        317,
    ),
]


class TolerationArgs(Arguments):
    """A taint of nodes on which the workers may run, as in a pod."""

    key: NodeLabelKey
    """Key of the taint."""
    value: LabelValue | None = None
    """Value of the taint. Default: any."""
    effect: Annotated[TaintEffect, FromText] | None = None
    """Effect of the taint. Default: every effect."""


class NodesArgs(Arguments):
    """Machines of a service, and their provisioning model, with cluster mode create; or labels and taints of nodes that exist."""

    machine_type: str | None = None
    """Compute Engine machine type. Default: the smallest with the GPU that holds one replica and is sold with the capacity."""
    zones: list[Zone] | None = None
    """Zones of the service's nodes. Default: those of the cluster's region that list the machine type. A reservation has one."""
    capacity: Annotated[Capacity, FromText] = Capacity.ON_DEMAND
    """Provisioning model of the nodes."""
    capacity_order: list[Annotated[Capacity, FromText]] | None = None
    """With capacity ladder: provisioning models in the order to try. Default: reservation (if named), on-demand, flex-start, spot, as far as the machine is sold so."""
    reservation: (
        Annotated[
            str,
            form(
                RESERVATION.pattern,
                "NAME, NAME/reservationBlocks/BLOCK, or with projects/PROJECT/reservations/ before it for another project's",
                512,
            ),
        ]
        | None
    ) = None
    """The Compute Engine reservation: NAME, NAME/reservationBlocks/BLOCK, or projects/PROJECT/reservations/NAME of another project."""
    max_run_hours: (
        Annotated[int, between(1, FLEX_START_MAX_HOURS, "hours: flex-start machines live seven days at most")] | None
    ) = None
    """With flex-start: lifetime of a machine in hours. Default 168."""
    selector: Annotated[dict[NodeLabelKey, LabelValue], items(20, "labels")] = {}
    """With cluster mode existing: labels of the nodes with the GPU, for example nvidia.com/gpu.product. Default: GKE's label of the GPU."""
    tolerations: Annotated[list[TolerationArgs], items(20, "tolerations")] = []
    """With cluster mode existing: taints of these nodes, beside nvidia.com/gpu."""
    secondary_boot_disk: (
        Annotated[str, form(DISK_IMAGE.pattern, "a disk image in the form projects/PROJECT/global/images/IMAGE", 512)] | None
    ) = None
    """Disk image with the container image in it: projects/PROJECT/global/images/IMAGE. Another image is another node pool."""


class WorkersArgs(Arguments):
    """Resources of one worker pod."""

    gpus: Count | None = None
    """GPUs of one worker pod. Default: all of the machine; less lets services share a machine."""
    cpus: Annotated[float, between(defaults.LEAST_CPUS, 1000, "CPUs")] | None = None
    """CPUs of one worker with accelerator cpu, or in a cluster that exists; a fraction is fine, for example 0.25. Default 1; with a GPU a share of Google's machine."""
    memory_gib: Annotated[int, between(1, 10_000, "GiB")] | None = None
    """Memory of one worker with accelerator cpu, or in a cluster that exists, GiB. Default 6; with a GPU a share of Google's machine."""


class VolumeArgs(Arguments):
    """A volume of the head and every worker: a cache of weights, for example."""

    name: DnsLabel
    """Name of the volume, unique in the service."""
    mount_path: Folder
    """Path in the containers."""
    host_path: Folder | None = None
    """Folder of the node. Set this or `claim`."""
    claim: ObjectName | None = None
    """PersistentVolumeClaim in the platform's namespace. Set this or `host_path`."""
    read_only: bool = False
    """Mount it read-only."""


class PodsArgs(Arguments):
    """Image, variables, labels, annotations and volumes of the head and the workers."""

    runtime: str = DEFAULT_RUNTIME
    """Ray version of a tested set of Ray, vLLM and image."""
    image: Image | None = None
    """Container image, in place of the runtime's: a mirror, or a CPU image."""
    env: dict[str, str] = {}
    """Environment variables of every Ray container. Those that the kit owns, and secrets, are refused. A switch of Ray is "0" or "1"."""
    labels: dict[LabelKey, LabelValue] = {}
    """Kubernetes labels of the head and the workers, for example a cost centre or a Kueue queue. A changed label makes a new RayCluster."""
    annotations: Annotated[dict[AnnotationKey, Annotation], items(50, "annotations")] = {}
    """Kubernetes annotations of the head and the workers, for example of a service mesh. A changed annotation makes a new RayCluster."""
    volumes: list[VolumeArgs] = []
    """Volumes of the head and the workers."""
