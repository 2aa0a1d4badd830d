"""Tested sets of Ray, vLLM and container image.

An unpinned vLLM breaks Ray Serve LLM (ray-project/ray #64006, #62497), so a service names one row and never the parts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """One tested set. `image_confirmed` is False where the tag was not verified in the registry.

    `batches_in_flight`: how many engine steps vLLM reserves sliding-window KV cache for; two since 0.26, with asynchronous
    scheduling (VllmConfig.max_in_flight_tokens; vllm-project/vllm #49878).
    """

    ray_version: str
    vllm_version: str
    image: str
    image_confirmed: bool
    batches_in_flight: int
    source: str


RUNTIMES: dict[str, Runtime] = {
    "2.60.0": Runtime(
        ray_version="2.60.0",
        vllm_version="0.29.0",
        image="rayproject/ray-llm:2.60.0-py312-cu130",
        image_confirmed=False,
        batches_in_flight=2,
        source="ray 2.60.0's own metadata pins vllm 0.29.0 and runs here on the CPU; the tag follows the scheme of 2.56.0 and 2.58.0",
    ),
    "2.56.0": Runtime(
        ray_version="2.56.0",
        vllm_version="0.22.0",
        image="rayproject/ray-llm:2.56.0-py312-cu130",
        image_confirmed=True,
        batches_in_flight=1,
        source="KubeRay samples ray-service.high-throughput-{llm,gemma4}.yaml at v1.7.0",
    ),
}
DEFAULT_RUNTIME = "2.60.0"
# authOptions need 2.52; CVE-2026-27482 (unauthenticated shutdown of Serve) is fixed in 2.54; direct streaming came with 2.56.
MIN_RAY_VERSION = "2.56.0"

# Where Ray and vLLM were read for weights in a bucket. Ray 2.57 gives the engine the model's id in place of the bucket's address
# (ray-project/ray #64978, #65477); 2.60 gives the address (vllm_engine.py, _resolve_hf_model_id_from_mirror).
MIN_RAY_VERSION_FOR_BUCKETS = "2.60.0"

# `max_surge_percent` of a deployment (ray-project/ray #66267, #66290).
MIN_RAY_VERSION_FOR_SURGE = "2.60.0"
# Sessions and limits were tried with this version on the direct path; `backpressure_config` came with 2.58.
MIN_RAY_VERSION_FOR_TRAFFIC = "2.60.0"
# A deployment without replicas behind HAProxy, whose requests wait in the proxy of the head (tests/serve/own_session/test_scale_to_zero.py).
MIN_RAY_VERSION_FOR_ZERO = "2.60.0"
# Several applications on the direct path (tests/serve/own_session/test_several_models.py).
MIN_RAY_VERSION_FOR_APPLICATIONS = "2.60.0"
# PrometheusQueryMixin (ray/serve/autoscaling_policy.py).
MIN_RAY_VERSION_FOR_PROMETHEUS = "2.60.0"

# Ray Serve LLM loads adapters on the direct path, by `_ResolveLoRAMiddleware` (llm/_internal/serve/core/server/llm_server.py).
MIN_RAY_VERSION_FOR_ADAPTERS = "2.60.0"

# `build_pd_openai_app` with direct streaming was run with this version alone (tests/serve/own_session/test_disaggregation.py).
MIN_RAY_VERSION_FOR_DISAGGREGATION = "2.60.0"

KUBERAY_VERSION = "1.7.0"  # the release whose CRDs the manifests are checked against
KUBERAY_CHART = "kuberay-operator"
KUBERAY_CRDS = "https://raw.githubusercontent.com/ray-project/kuberay/v{version}/helm-chart/kuberay-operator/crds"
KUBERAY_CRD_FILES = ("ray.io_rayclusters.yaml", "ray.io_rayjobs.yaml", "ray.io_rayservices.yaml", "ray.io_raycronjobs.yaml")
KUBERAY_REPOSITORY = "https://ray-project.github.io/kuberay-helm/"
