"""An arm of the benchmark on a real server: it can be frozen and comes back."""

from __future__ import annotations

import time

import psutil
import pytest

from rayline_bench import cpu
from rayline_bench.servers import Server
from rayline_cli.clients.openai import NoAnswer, OpenAiClient
from rayline_cli.local import runtime
from rayline_cli.verify import Outcome
from tests.serve.serving import API_KEY, Served

FROZEN_SECONDS = 25
"""Longer than Serve's check of a replica (every 10 s, 10 s to answer) and GCS's check of a node (3 s) take to notice."""


@pytest.fixture
def arm(served: Served):
    """The shared session as an arm of a benchmark; it runs on afterwards."""
    one = Server("kit", served.running.url, "tiny", API_KEY, served.session, None)
    yield one
    one.resume()


def ids(server: Server) -> set[int]:
    return {process.pid for process in server.processes()}


def test_a_frozen_arm_uses_no_cpu_and_comes_back_as_it_was(served: Served, arm: Server):
    before = ids(arm)
    arm.pause()
    with OpenAiClient(arm.url, API_KEY) as client, pytest.raises(NoAnswer):
        client.ask("tiny", timeout_seconds=2)
    used = cpu.snapshot(arm.processes())
    time.sleep(FROZEN_SECONDS)
    spent = cpu.between(used, cpu.snapshot(arm.processes()))
    assert {role for role, seconds in spent.items() if seconds} <= {cpu.OTHER}, "only the supervisor runs on"
    arm.resume()
    assert served.session.processes()
    workers = {pid for pid in before if not psutil.Process(pid).cmdline()[0].startswith("ray::IDLE")}
    assert workers <= ids(arm), "nobody was declared dead meanwhile"
    assert runtime.status(served.state_dir).healthy
    assert {check.outcome for check in served.up(served.manifest).checks} <= {Outcome.PASS, Outcome.NOT_APPLICABLE}
