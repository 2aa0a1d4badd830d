"""Keys of a platform: the top of a stack file, and the arguments of InferencePlatform."""

from typing import Annotated

from rayline.cluster.arguments import ClusterArgs
from rayline.endpoint.arguments import EndpointArgs
from rayline.facts import defaults
from rayline.facts.capacities import PROJECT
from rayline.facts.google import REGION
from rayline.head.arguments import HeadArgs
from rayline.hugging_face.arguments import HuggingFaceArgs
from rayline.isolation.arguments import IsolationArgs
from rayline.kuberay.arguments import KuberayArgs
from rayline.models.arguments import BucketArgs
from rayline.schema.base import Arguments, DnsLabel, Line, between, form
from rayline.service.arguments import ServiceArgs

# RayCluster names get a suffix and become part of Service names; KubeRay 1.7 refuses longer RayService names.
MAX_SERVICE_NAME = 47
ServiceName = Annotated[
    str,
    form(
        rf"[a-z]([-a-z0-9]{{0,{MAX_SERVICE_NAME - 2}}}[a-z0-9])?",
        f"a service's name: lower-case letters, digits and dashes, first a letter, last a letter or digit, at most {MAX_SERVICE_NAME} characters",
        MAX_SERVICE_NAME,
    ),
]


class BudgetArgs(Arguments):
    """Limit of the price of the machines. Disks, network and licences are not in it."""

    usd_per_month: Annotated[float, between(1, 1e9, "US dollars")]
    """Most that the machines may cost in a month of 730 hours, with every replica that `autoscaling` allows."""


class InferencePlatformArgs(Arguments):
    """Whole platform: a cluster and the services on it."""

    cluster: ClusterArgs
    """Where the services run."""
    services: dict[ServiceName, ServiceArgs]
    """The services by name; the name becomes the RayService's."""
    project: (
        Annotated[str, form(PROJECT, "a project's id such as my-project-1: 6 to 30 lower-case letters, digits and dashes")]
        | None
    ) = None
    """Google Cloud project of the cluster; required with cluster mode create and with cluster.gke."""
    region: (
        Annotated[
            str,
            form(REGION, "a region such as us-central1, in lower case; a cluster in one zone has that as cluster.location", 63),
        ]
        | None
    ) = None
    """Google Cloud region of the cluster; required with cluster mode create and with cluster.gke."""
    namespace: DnsLabel = defaults.NAMESPACE
    """Kubernetes namespace of the services."""
    create_namespace: bool = True
    """Create the namespace; false, with cluster mode existing: it exists, and outlives the stack."""
    head: HeadArgs = HeadArgs()
    """The Ray heads."""
    kuberay: KuberayArgs = KuberayArgs()
    """The KubeRay operator."""
    hugging_face: HuggingFaceArgs = HuggingFaceArgs()
    """Access to gated models."""
    endpoint: EndpointArgs = EndpointArgs()
    """Endpoint for clients outside the cluster."""
    budget: BudgetArgs | None = None
    """Limit of the price; a stack above it is refused."""
    isolation: IsolationArgs = IsolationArgs()
    """Isolation of the platform from its neighbours in the cluster."""
    models: Line | None = None
    """Folder with files of models, which `rayline model add` writes. A stack has those of `models/` beside Pulumi.yaml."""
    weights: BucketArgs | None = None
    """Bucket with weights, so that new nodes need not download them from Hugging Face."""
