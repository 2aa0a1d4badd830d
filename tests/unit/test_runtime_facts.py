"""The table of the variables that Ray and vLLM read is that of the installed packages."""

import ast
import importlib.util
import pathlib

import pytest

from rayline.facts.runtime import runtime_facts
from rayline.facts.runtimes import DEFAULT_RUNTIME, RUNTIMES
from rayline.facts.serve_flags import SERVE_FLAGS
from rayline.facts.variables import NO_EFFECT, READERS
from rayline_docs import pages
from rayline_docs import runtime_facts as generator

needs_packages = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("ray", "vllm")), reason="Ray and vLLM are not installed"
)


def test_the_table_is_that_of_the_default_runtime():
    runtime = RUNTIMES[DEFAULT_RUNTIME]
    assert (runtime.ray_version, runtime.vllm_version) == runtime_facts()[:2]


def test_what_other_tables_know_is_in_it():
    ours = {*SERVE_FLAGS, *NO_EFFECT}
    assert ours <= runtime_facts().variables
    assert all(name.startswith(tuple(READERS)) for name in runtime_facts().variables)


def test_it_has_what_each_part_of_ray_reads():
    # Serve, the dashboard, RAY_CONFIG of the C++ programs, vLLM's own list
    assert {
        "RAY_SERVE_HAPROXY_NBTHREAD",
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S",
        "RAY_worker_niceness",
        "RAY_gcs_rpc_server_reconnect_timeout_s",
        "RAYLLM_ENGINE_START_TIMEOUT_S",
        "VLLM_LOGGING_LEVEL",
    } <= runtime_facts().variables
    assert "VLLM_ATTENTION_BACKEND" not in runtime_facts().variables


@needs_packages
def test_the_table_is_current():
    assert generator.FILE.read_text() == generator.text(), f"remove {generator.FILE.name} and run `make docs`"


@needs_packages
def test_the_docs_write_the_table_of_another_runtime(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "FILE", tmp_path / "runtime.json")
    monkeypatch.setattr(generator, "engine_arguments", dict)
    monkeypatch.setattr(generator, "variables", list)
    assert generator.FILE in pages.pages()
    generator.FILE.write_text(generator.text())
    assert generator.FILE not in pages.pages()
    generator.FILE.write_text(generator.text().replace(generator.installed()["vllm"], "0.1"))
    assert generator.FILE in pages.pages()


def test_the_docs_leave_the_table_alone_without_ray_and_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator.importlib.metadata, "packages_distributions", dict)
    assert generator.FILE not in pages.pages()


@needs_packages
def test_every_variable_that_vllm_itself_knows_is_in_the_table():
    assigned = next(
        node.value
        for node in ast.parse((generator.folder("vllm") / "envs.py").read_text()).body
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "environment_variables"
    )
    assert isinstance(assigned, ast.Dict)
    names = {key.value for key in assigned.keys if isinstance(key, ast.Constant)}
    own = {name for name in names if str(name).startswith("VLLM_")}
    assert len(own) > 200
    assert own <= runtime_facts().variables
