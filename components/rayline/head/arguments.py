"""Keys of `head`."""

from typing import Annotated

from rayline.facts.choices import HeadStore
from rayline.facts.google import MEMORYSTORE_SIZES
from rayline.schema.base import Arguments, FromText, ObjectName, between


class HeadArgs(Arguments):
    """Ray head of each service, and its fault tolerance."""

    store: Annotated[HeadStore, FromText] = HeadStore.NONE
    """Store of Ray's GCS. none: every replica loads again after the loss of a head. memorystore (a GKE cluster) or redis: replicas serve on."""
    # the GCS of a platform's services holds little: the smallest instance of Memorystore
    memorystore_gib: Annotated[int, between(*MEMORYSTORE_SIZES, "GiB")] = 1
    """With store memorystore: size in GiB."""
    address: str | None = None
    """With store redis: host:port, or rediss://host:port for TLS. It has to outlive a node."""
    password_secret: ObjectName | None = None
    """With store redis: a Secret in the platform's namespace with the key `password`."""
    ca_secret: ObjectName | None = None
    """With a rediss address: a Secret there with the key `ca.crt`, the authority of the server's certificate."""
    cpus: Annotated[float, between(0.25, 1000, "CPUs")] | None = None
    """CPUs of a head. Derived: 4, or 0.25 beside accelerator cpu."""
    memory_gib: Annotated[int, between(4, 10000, "GiB")] | None = None
    """Memory of a head in GiB. A head that runs out of memory is an outage. Derived: 16, or 4 beside accelerator cpu."""
