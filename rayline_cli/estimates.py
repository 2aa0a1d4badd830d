"""Forecasts of a workload: a published measurement where there is one, else an estimate of NVIDIA's aiconfigurator where it is installed.

aiconfigurator runs as a command, in an environment of its own (`make forecast`). It needs no network for models that it has a
configuration of, or whose config.json lies in a folder or in the Hugging Face cache.
"""

import csv
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import yaml

from rayline.service.arguments import WorkloadArgs
from rayline.service.types import ServicePlan
from rayline.service.workload import Forecast, Outlook, held_at_once, measured_forecast, outlook

from .stack_names import PROJECT_ROOT

# Cards with measured tables for vLLM in aiconfigurator 0.12.0 (aiconfigurator_core/systems/data/*/attention/vllm).
SYSTEMS = {
    "a100-80gb": "a100_sxm",
    "rtx-pro-6000": "rtx_pro_6000_server",
    "h100": "h100_sxm",
    "h200": "h200_sxm",
    "b200": "b200_sxm",
}
# Throughput that Anyscale measured for Qwen3-0.6B on H100, over the estimate: 11,257 of 15,958 and 1,166 of 1,068 tokens a second.
LEAST, MOST = 11257 / 15958, 1166 / 1068
TIME_LIMIT = 300
"""Seconds for one estimate; it takes 8 to 30 on two cores."""
NOT_INSTALLED = "`make forecast` adds estimates of NVIDIA's aiconfigurator"


class NoEstimate(Exception):
    """Absence of an estimate. The message says why."""


@dataclass(frozen=True)
class EstimatedPoint:
    """One load of a replica: requests in progress, times in milliseconds, and requests that it ends in a second."""

    at_once: int
    first_token_ms: float
    token_ms: float
    requests_per_second: float
    vllm: str


@dataclass(frozen=True)
class Estimate:
    """The loads of a replica that aiconfigurator estimated."""

    version: str
    points: tuple[EstimatedPoint, ...]


def prospect_of(service: ServicePlan, workload: WorkloadArgs) -> tuple[Outlook, str]:
    """Return what a service carries of a workload, and the reason where no forecast is known."""
    forecast = measured_forecast(service, workload)
    reason = ""
    if forecast is None or forecast.within is None:
        try:
            forecast = forecast_from(estimate(service, workload), workload, held_at_once(service, workload))
        except NoEstimate as error:
            reason = str(error)
    return outlook(service, workload, forecast), reason


def forecast_from(estimate: Estimate, workload: WorkloadArgs, at_once: int) -> Forecast:
    """Return the highest load of an estimate within the workload's bounds and the requests that a replica holds."""
    bounds = workload.bounds
    least = min(estimate.points, key=lambda point: point.at_once)
    held = [point for point in estimate.points if point.at_once <= max(at_once, least.at_once)]
    kept = [
        point
        for point in held
        if all(bound is None or ms <= bound for ms, bound in zip((point.first_token_ms, point.token_ms), bounds, strict=True))
    ]
    best = max(kept, key=lambda point: point.requests_per_second, default=least)
    return Forecast(
        f"aiconfigurator {estimate.version}, vLLM {best.vllm} tables",
        best.requests_per_second * LEAST,
        best.requests_per_second * MOST,
        within=bool(kept),
        at_once=best.at_once,
        first_token_ms=best.first_token_ms,
        token_ms=best.token_ms,
    )


def installed() -> str | None:
    """Return the path of the command aiconfigurator: that of `make forecast`, else on PATH; None where there is none."""
    own = PROJECT_ROOT / ".tools" / "forecast" / "bin"
    return shutil.which("aiconfigurator", path=os.pathsep.join([str(own), os.environ.get("PATH", os.defpath)]))


def estimate(service: ServicePlan, workload: WorkloadArgs) -> Estimate:
    """Return aiconfigurator's estimate for a replica of a service. It is kept in .rayline/forecast. Raises NoEstimate."""
    system = SYSTEMS.get(service.accelerator.value)
    if system is None:
        raise NoEstimate(
            f"no measurement of this load is on record, and aiconfigurator has no data for {service.accelerator.value}"
        )
    command = installed()
    if command is None:
        raise NoEstimate(f"no measurement of this load is on record; {NOT_INSTALLED}")
    experiment = yaml.safe_dump({"replica": _experiment(service, workload, system)})
    outcome = _outcome(command, experiment)
    if isinstance(outcome, str):
        raise NoEstimate(outcome)
    return outcome


@cache
def _outcome(command: str, experiment: str) -> Estimate | str:
    """Return the estimate of an experiment, or the reason why there is none; from the file of an earlier call where there is one."""
    # another installation has other tables
    key = hashlib.sha256(f"{experiment}{command}{os.stat(command).st_mtime_ns}".encode()).hexdigest()
    kept = PROJECT_ROOT / ".rayline" / "forecast" / f"{key[:32]}.json"
    try:
        data = json.loads(kept.read_text())
        return Estimate(data["version"], tuple(EstimatedPoint(**point) for point in data["points"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        made = _run(command, experiment)
    except NoEstimate as error:
        return str(error)
    # a folder that cannot be written costs the time of the next call, no more
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(made)))
    return made


def _experiment(service: ServicePlan, workload: WorkloadArgs, system: str) -> dict[str, Any]:
    """Return an experiment of `aiconfigurator cli exp`: one replica with the service's parallelism and quantization."""
    engine, gpus = service.asked.engine, service.gpus_per_replica
    tensor = engine.tensor_parallel_size
    # without a bound it would search within bounds of its own
    first, token = (bound or 3_600_000.0 for bound in workload.bounds)
    experiment = {
        "serving_mode": "agg", "backend_name": "vllm", "model_path": _config_of(service), "system_name": system,
        "isl": workload.input_tokens, "osl": workload.output_tokens, "ttft": first, "tpot": token, "total_gpus": gpus,
        "agg_num_gpu_candidates": [gpus], "agg_tp_candidates": [tensor], "agg_pp_candidates": [engine.pipeline_parallel_size],
        "agg_dp_candidates": [1], "agg_moe_tp_candidates": [tensor if service.model.active_parameters else 1],
        "agg_moe_ep_candidates": [1],
    }  # fmt: skip
    if engine.kwargs.get("quantization") == "fp8":
        experiment["gemm_quant_mode"] = "fp8"
    if str(engine.kwargs.get("kv_cache_dtype", "")).startswith("fp8"):
        experiment["kvcache_quant_mode"] = "fp8"
    return experiment


def _config_of(service: ServicePlan) -> str:
    """Return the folder with the model's config.json where this machine has it, else the model's id."""
    from huggingface_hub import constants

    repository = pathlib.Path(constants.HF_HUB_CACHE) / f"models--{service.model_id.replace('/', '--')}"
    folders = [pathlib.Path(service.model_id), *sorted(repository.glob("snapshots/*"))]
    return next((str(folder) for folder in folders if (folder / "config.json").is_file()), service.model_id)


def _run(command: str, experiment: str) -> Estimate:
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "experiment.yaml")
        file.write_text(experiment)
        arguments = [command, "cli", "exp", "--no-color", "--yaml-path", str(file), "--save-dir", folder]
        try:
            done = subprocess.run(
                arguments, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise NoEstimate(f"aiconfigurator did not end within {TIME_LIMIT} s") from None
        except OSError as error:
            raise NoEstimate(
                f"aiconfigurator cannot run: {error.strerror}. Fix: install it again, with `make forecast`"
            ) from None
        tables = list(pathlib.Path(folder).glob("**/replica/pareto.csv"))
        points = read_points(tables[0].read_text().splitlines()) if tables else ()
    said = done.stdout + done.stderr
    if not points and re.search("URLError|HTTP Error", said):
        raise NoEstimate(
            "aiconfigurator lacks the model's config.json. Fix: `rayline model add`, or `hf download MODEL config.json`"
        )
    if not points:
        raise NoEstimate(
            "no measurement of this load is on record, and aiconfigurator has no estimate for this model on this GPU"
        )
    version = re.search(r"AIConfigurator version: (\S+)", said)
    return Estimate(version[1] if version else "of unknown version", points)


def read_points(table: Iterable[str]) -> tuple[EstimatedPoint, ...]:
    """Return the loads in aiconfigurator's table pareto.csv."""
    return tuple(
        EstimatedPoint(int(row["bs"]), float(row["ttft"]), float(row["tpot"]), float(row["seq/s"]), row["version"])
        for row in csv.DictReader(table)
    )
