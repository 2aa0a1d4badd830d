"""What `ray start` on this machine leaves out and does before, against the Ray that is installed; nothing of it is started."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="needs the `local` extra")

from ray import _raylet
from ray._private import services
from ray._private.parameter import RayParams

from rayline_cli.local import ray_start
from rayline_cli.local.environment import START_TIMEOUTS

NODE = "ab" * 28


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Arguments that Ray's own start_raylet was called with; before_start may wrap it."""
    calls: list[dict] = []
    real = services.start_raylet
    signature = inspect.signature(real)

    @functools.wraps(real)
    def start_raylet(*positional, **named):
        calls.append(dict(signature.bind_partial(*positional, **named).arguments))
        return "started"

    monkeypatch.setattr(services, "start_raylet", start_raylet)
    return calls


def call_start_raylet(folder: Path, port: int) -> object:
    """services.start_raylet with something for every argument without a default."""
    needed = {
        name: None
        for name, parameter in inspect.signature(services.start_raylet).parameters.items()
        if parameter.default is parameter.empty
    }
    known = {"session_dir": str(folder), "node_id": NODE, "dashboard_agent_listen_port": port}
    return services.start_raylet(**{**needed, **known})


def test_ray_client_is_left_out():
    params = RayParams(ray_client_server_port=10001)
    before = services.start_raylet
    try:
        ray_start.before_start(params, head=True)
    finally:
        services.start_raylet = before
    assert params.ray_client_server_port is None


def test_ray_finds_the_hook_by_its_name():
    module, function = ray_start.HOOK.rsplit(".", 1)
    assert getattr(importlib.import_module(module), function) is ray_start.before_start


def test_the_raylet_finds_the_dashboard_agents_port_before_that_says_it(started: list[dict], tmp_path: Path):
    ray_start.before_start(SimpleNamespace(), head=True)
    assert call_start_raylet(tmp_path, 52365) == "started"
    assert started[0]["node_id"] == NODE
    name = _raylet.DASHBOARD_AGENT_LISTEN_PORT_NAME  # pyright: ignore[reportAttributeAccessIssue]
    found = _raylet.wait_for_persisted_port(str(tmp_path), NODE, name, 0)  # pyright: ignore[reportAttributeAccessIssue]
    assert found == 52365


def test_a_port_that_the_agent_chooses_is_waited_for(started: list[dict], tmp_path: Path):
    ray_start.before_start(SimpleNamespace(), head=True)
    call_start_raylet(tmp_path, 0)
    assert len(started) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("variable", "source"), START_TIMEOUTS.items())
def test_a_time_out_that_is_raised_is_one_that_is_read(variable: str, source: str):
    package = source.split("/")[0]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    assert variable.encode() in (Path(spec.origin).parent.parent / source).read_bytes()
