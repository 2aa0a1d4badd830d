"""What Ray Serve LLM makes of a service's weights: the engine gets the mount's folder or the bucket's address, never the hub's id."""

from typing import Any

import pytest
import yaml

from rayline.platform.plan import make_plan
from rayline.service.serve_config import serve_config

SERVICES = {
    "gcs-fuse": {},
    "gcs-stream": {"pods": {"image": "registry/ray-llm-streamer:1"}, "engine": {"tensor_parallel_size": 2}},
}


@pytest.mark.parametrize(
    ("source", "address"), [("gcs-fuse", "/models/Qwen/Qwen3.5-4B"), ("gcs-stream", "gs://models/Qwen/Qwen3.5-4B/v1")]
)
def test_the_engine_reads_from_where_the_plan_says(source, address):
    # importing vLLM takes half a minute, which other files of this folder do not need to wait for
    from ray.llm._internal.serve.core.configs.llm_config import LLMConfig
    from ray.llm._internal.serve.engines.vllm.vllm_engine import _resolve_hf_model_id_from_mirror

    weights = {"source": source, "revision": "v1"}
    service = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4", "weights": weights, **SERVICES[source]}
    plan = make_plan(
        {
            "project": "my-project",
            "region": "us-central1",
            "cluster": {"mode": "create"},
            "weights": {"bucket": "models"},
            "services": {"qwen": service},
        }
    )
    declared = yaml.safe_load(yaml.safe_dump(serve_config(plan.services[0])))["applications"][0]["args"]["llm_configs"][0]

    engine: Any = LLMConfig(**declared).get_engine_config()
    _resolve_hf_model_id_from_mirror(engine)
    arguments = engine.get_initialization_kwargs()

    assert arguments["model"] == address
    assert arguments["served_model_name"] == ["Qwen/Qwen3.5-4B"]
    loading = {key: arguments.get(key) for key in ("load_format", "safetensors_load_strategy")}
    assert (
        loading
        == {
            "gcs-fuse": {"load_format": None, "safetensors_load_strategy": "prefetch"},
            "gcs-stream": {"load_format": "runai_streamer", "safetensors_load_strategy": None},
        }[source]
    )
