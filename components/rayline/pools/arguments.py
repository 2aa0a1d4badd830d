"""The keys of a service's machines."""

from typing import Annotated

from rayline.facts.capacities import DISK_IMAGE, FLEX_START_MAX_HOURS, RESERVATION
from rayline.facts.choices import Capacity, TaintEffect
from rayline.schema.base import SUBDOMAIN, Arguments, FromText, Zone, between, form, items

# Syntax of Kubernetes labels: an optional domain and a slash, then a name of at most 63 characters.
LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LabelValue = Annotated[
    str, form(rf"({LABEL_NAME})?", "a label's value: at most 63 letters, digits, dashes, underscores and dots", 63)
]
NodeLabelKey = Annotated[
    str,
    form(
        rf"({SUBDOMAIN}/)?{LABEL_NAME}",
        "a node label's key, such as nvidia.com/gpu.product or eks.amazonaws.com/nodegroup",
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
