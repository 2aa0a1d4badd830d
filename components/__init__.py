"""The component package: what other programs may use (`pulumi package add`)."""

from .compute_class import ComputeClass
from .gateway import EndpointGateway, ServiceRoute
from .gke_cluster import GkeCluster
from .gpu_node_pool import GpuNodePool
from .head_store import HeadStoreInstance
from .hugging_face_secret import HuggingFaceSecret
from .inference_platform import InferencePlatform
from .isolation import Isolation
from .kuberay_crds import KuberayCrds
from .kuberay_operator import KuberayOperator
from .llm_service import LlmService
from .network import PlatformNetwork
from .network_claim import NetworkClaim
from .project_apis import ProjectApis
from .secret_manager_token import SecretManagerToken
from .weights_bucket import WeightsBucket
from .weights_mirror import WeightsMirror

# The version of both distributions, `rayline-kit` and `rayline`. Setuptools reads it without importing this module.
__version__ = "0.1.0"

__all__ = [
    "ComputeClass",
    "EndpointGateway",
    "GkeCluster",
    "GpuNodePool",
    "HeadStoreInstance",
    "HuggingFaceSecret",
    "InferencePlatform",
    "Isolation",
    "KuberayCrds",
    "KuberayOperator",
    "LlmService",
    "NetworkClaim",
    "PlatformNetwork",
    "ProjectApis",
    "SecretManagerToken",
    "ServiceRoute",
    "WeightsBucket",
    "WeightsMirror",
]
