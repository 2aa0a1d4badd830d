"""The component package: what other programs may use (`pulumi package add`)."""

# ruff: noqa: F401 (type checkers read the names that __getattr__ brings)

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "ComputeClass": "compute_class",
    "EndpointGateway": "gateway",
    "GkeCluster": "gke_cluster",
    "GpuNodePool": "gpu_node_pool",
    "HeadStoreInstance": "head_store",
    "HuggingFaceSecret": "hugging_face_secret",
    "InferencePlatform": "inference_platform",
    "Isolation": "isolation",
    "KuberayCrds": "kuberay_crds",
    "KuberayOperator": "kuberay_operator",
    "LlmService": "llm_service",
    "NetworkClaim": "network_claim",
    "PlatformNetwork": "network",
    "ProjectApis": "project_apis",
    "SecretManagerToken": "secret_manager_token",
    "ServiceRoute": "gateway",
    "WeightsBucket": "weights_bucket",
    "WeightsMirror": "weights_mirror",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    # On demand: Pulumi's SDKs take seconds to import, and facts and plan need none of them.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
