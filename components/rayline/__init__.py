"""Component package for Pulumi programs (`pulumi package add`)."""

# ruff: noqa: F401 (type checkers read the names that __getattr__ brings)

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayline.cluster.gke_cluster import GkeCluster
    from rayline.cluster.network import PlatformNetwork
    from rayline.cluster.project_apis import ProjectApis
    from rayline.endpoint.gateway import EndpointGateway, ServiceRoute
    from rayline.head.head_store import HeadStoreInstance
    from rayline.hugging_face.hugging_face_secret import HuggingFaceSecret
    from rayline.hugging_face.secret_manager_token import SecretManagerToken
    from rayline.isolation.isolation import Isolation
    from rayline.kuberay.crds import KuberayCrds
    from rayline.kuberay.operator import KuberayOperator
    from rayline.models.bucket import WeightsBucket
    from rayline.models.mirror import WeightsMirror
    from rayline.platform.inference_platform import InferencePlatform
    from rayline.pools.compute_class import ComputeClass
    from rayline.pools.gpu_node_pool import GpuNodePool
    from rayline.pools.network_claim import NetworkClaim
    from rayline.service.llm_service import LlmService

# The version of both distributions, `rayline-cli` and `rayline`. Setuptools reads it without importing this module.
__version__ = "0.1.0"

_MODULES = {
    "ComputeClass": "pools.compute_class",
    "EndpointGateway": "endpoint.gateway",
    "GkeCluster": "cluster.gke_cluster",
    "GpuNodePool": "pools.gpu_node_pool",
    "HeadStoreInstance": "head.head_store",
    "HuggingFaceSecret": "hugging_face.hugging_face_secret",
    "InferencePlatform": "platform.inference_platform",
    "Isolation": "isolation.isolation",
    "KuberayCrds": "kuberay.crds",
    "KuberayOperator": "kuberay.operator",
    "LlmService": "service.llm_service",
    "NetworkClaim": "pools.network_claim",
    "PlatformNetwork": "cluster.network",
    "ProjectApis": "cluster.project_apis",
    "SecretManagerToken": "hugging_face.secret_manager_token",
    "ServiceRoute": "endpoint.gateway",
    "WeightsBucket": "models.bucket",
    "WeightsMirror": "models.mirror",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    # On demand: Pulumi's SDKs take seconds to import, and facts and plan need none of them.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
