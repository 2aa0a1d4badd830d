"""Read the Serve configuration of a RayService. A missing part reads as empty. Nothing is changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from rayline.facts.choices import Task
from rayline.facts.labels import SERVE_PORT, SESSION_ROUTER, decode_deployment, llm_deployment, prefill_deployment


def mapping(value: Any, *path: str) -> Mapping[str, Any]:
    """Return the mapping at a path of keys; an empty one where a key is missing or no mapping."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any, key: str) -> list[Mapping[str, Any]]:
    """Return the mappings in the list at a key; an empty list where there is none."""
    items = value.get(key) if isinstance(value, Mapping) else None
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, (list, tuple)) else []


# Ray's name of the deployment of a model id, by the side of its engine.
_NAMES = {"": llm_deployment, "prefill": prefill_deployment, "decode": decode_deployment}


@dataclass(frozen=True)
class LlmConfig:
    """One LLMConfig: a model with its engine."""

    data: Mapping[str, Any]
    side: str = ""
    """prefill or decode; nothing for an engine that does both."""

    @property
    def model_id(self) -> str:
        """Return the value of `model` in requests."""
        return str(mapping(self.data, "model_loading_config").get("model_id") or "")

    @property
    def model_source(self) -> Any:
        """Return the model's source. Without one the id is the source, as in Ray."""
        return mapping(self.data, "model_loading_config").get("model_source") or self.model_id

    @property
    def engine_kwargs(self) -> Mapping[str, Any]:
        """Return vLLM's arguments."""
        return mapping(self.data, "engine_kwargs")

    @property
    def task(self) -> Task:
        """Return the task, as far as vLLM's arguments name it."""
        if self.engine_kwargs.get("runner") != "pooling":
            return Task.GENERATE
        return Task.CLASSIFY if self.engine_kwargs.get("convert") == "classify" else Task.EMBED

    @property
    def adapters_folder(self) -> str:
        """Return the folder of the LoRA adapters in a bucket; empty where none are loaded."""
        return str(mapping(self.data, "lora_config").get("dynamic_lora_loading_path") or "").rstrip("/")

    @property
    def variables(self) -> Mapping[str, str]:
        """Return the variables that the replicas have in place of the pod's."""
        return mapping(self.data, "runtime_env", "env_vars")

    @property
    def is_on_cpu(self) -> bool:
        """Whether accelerator_config names the CPU."""
        return mapping(self.data, "accelerator_config").get("kind") == "cpu"

    @property
    def deployment(self) -> str:
        """Return the name of the deployment that runs the engine."""
        return _NAMES[self.side](self.model_id)

    @property
    def replicas(self) -> int:
        """Return the number of engines in the LLMConfig itself."""
        count = mapping(self.data, "deployment_config").get("num_replicas", 1)
        return count if isinstance(count, int) else 1


@dataclass(frozen=True)
class ServeApplication:
    """One application of the Serve configuration."""

    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the application's name."""
        return self.data.get("name", "default")

    @property
    def route_prefix(self) -> str:
        """Return the path under which the application answers."""
        return self.data.get("route_prefix", "/")

    @property
    def prefix(self) -> str:
        """Return the path before each of the application's own; empty for an application at /."""
        return self.route_prefix.rstrip("/")

    @property
    def llm_configs(self) -> list[LlmConfig]:
        """Return the application's LLMConfigs. Of two sides, decode is the first: clients reach it."""
        arguments = mapping(self.data, "args")
        sides = [(side, mapping(arguments, f"{side}_config")) for side in ("decode", "prefill")]
        return [LlmConfig(config) for config in mappings(arguments, "llm_configs")] + [
            LlmConfig(config, side) for side, config in sides if config
        ]

    @property
    def model_ids(self) -> list[str]:
        """Return the values of `model` in requests, each once: the engines of two sides have one."""
        return list(dict.fromkeys(config.model_id for config in self.llm_configs))

    @property
    def deployments(self) -> list[Mapping[str, Any]]:
        """Return the settings of deployments, which win over those in the code or in an LLMConfig."""
        return mappings(self.data, "deployments")

    @property
    def variables(self) -> Mapping[str, str]:
        """Return the variables that the replicas have in place of the pod's."""
        return {name: value for config in self.llm_configs for name, value in config.variables.items()}

    @property
    def most_engines(self) -> int:
        """Return the number of vLLM engines: the highest with autoscaling, and with the spare ones of a change."""
        overrides = {
            deployment.get("name"): _most_replicas(deployment)
            for deployment in self.deployments
            if "num_replicas" in deployment or "autoscaling_config" in deployment
        }
        counts = [overrides.get(config.deployment, config.replicas) for config in self.llm_configs]
        return sum(count if isinstance(count, int) else 1 for count in counts)


def _most_replicas(deployment: Mapping[str, Any]) -> Any:
    count = deployment.get("num_replicas") or mapping(deployment, "autoscaling_config").get("max_replicas", 1)
    surge = deployment.get("max_surge_percent")
    return count + ceil(count * surge / 100) if isinstance(count, int) and isinstance(surge, int) else count


@dataclass(frozen=True)
class ServeConfig:
    """The Serve configuration: serveConfigV2, parsed."""

    data: Mapping[str, Any]

    @property
    def applications(self) -> list[ServeApplication]:
        """Return the applications."""
        return [ServeApplication(application) for application in mappings(self.data, "applications")]

    def only(self, application: str) -> "ServeConfig":
        """Return the configuration of one application."""
        one = [data for data in mappings(self.data, "applications") if ServeApplication(data).name == application]
        return ServeConfig({**self.data, "applications": one})

    @property
    def llm_configs(self) -> list[LlmConfig]:
        """Return the LLMConfigs of every application."""
        return [config for application in self.applications for config in application.llm_configs]

    @property
    def model_ids(self) -> list[str]:
        """Return the values of `model` in requests, each once."""
        return list(dict.fromkeys(model_id for application in self.applications for model_id in application.model_ids))

    @property
    def model_sources(self) -> list[str]:
        """Return each model source that is a text, once, in order of appearance."""
        return list(dict.fromkeys(c.model_source for c in self.llm_configs if isinstance(c.model_source, str)))

    @property
    def most_engines(self) -> int:
        """Return the number of vLLM engines; with autoscaling the highest number."""
        return sum(application.most_engines for application in self.applications)

    @property
    def is_disaggregated(self) -> bool:
        """Whether engines compute prompts for others that generate."""
        return any(config.side for config in self.llm_configs)

    @property
    def routes_by_session(self) -> bool:
        """Whether a session stays on one replica."""
        routers = [
            mapping(d, "request_router_config").get("request_router_class") for a in self.applications for d in a.deployments
        ]
        return SESSION_ROUTER in routers

    @property
    def scales_to_zero(self) -> bool:
        """Whether a deployment may have no replica."""
        bounds = [mapping(d, "autoscaling_config") for a in self.applications for d in a.deployments]
        return any(bound.get("min_replicas") == 0 for bound in bounds)

    @property
    def port(self) -> Any:
        """Return the port at which every node's proxy listens."""
        return mapping(self.data, "http_options").get("port", SERVE_PORT)
