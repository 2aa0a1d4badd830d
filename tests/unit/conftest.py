"""Fixtures of several unit tests."""

import pathlib

import pytest

from rayline_cli.verify import cluster
from tests.unit.fake_cluster import FakeCluster


@pytest.fixture
def fake(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "test")
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.01)
    return FakeCluster(tmp_path)
