"""A second session beside the first, with switches declared off; then edits, mistakes and a crash in it."""

from __future__ import annotations

import pytest

from rayline_cli.local import runtime, session
from rayline_cli.local.runtime import LocalRuntimeError
from rayline_cli.verify import Outcome, check_switches
from tests.serve.serving import API_KEY, SECOND, Served, get, ray_service, wait_until, with_model


def test_the_second_session_takes_other_ports_and_says_so(served: Served, second: Served):
    assert set(served.running.ports.values()).isdisjoint(second.running.ports.values())
    assert any("ports already in use" in line for line in second.report.lines)


def test_both_sessions_answer_on_their_own_port(served: Served, second: Served):
    key = {"Authorization": f"Bearer {API_KEY}"}
    assert get(f"{served.running.url}/v1/models", headers=key).status_code == 200
    # The second declares no key, so it answers without one: the two are not confused.
    assert get(f"{second.running.url}/v1/models").status_code == 200


def test_no_process_belongs_to_both(served: Served, second: Served):
    first_pids = {process.pid for process in served.session.processes()}
    assert first_pids.isdisjoint({process.pid for process in second.session.processes()})


def test_without_direct_streaming_rays_own_front_is_deployed(second: Served):
    deployments = runtime.status(second.state_dir).replicas
    assert deployments is not None
    assert set(deployments) == {"LLMServer:tiny", "OpenAiIngress"}


SEEN_OFF = {
    "direct streaming: deployments",
    "direct streaming: router in HAProxy",
    "direct streaming: path of the tokens",
    "throughput settings of Serve",
    "vLLM's Ray executor V2",
}


def test_switches_declared_off_are_seen_off_and_do_not_pass(second: Served):
    off = {check.name for check in second.running.checks if check.outcome is Outcome.OFF}
    failed = [check for check in second.running.checks if check.outcome is Outcome.FAIL]
    assert (off, failed) == (SEEN_OFF, [])


def test_each_of_them_fails_where_every_switch_is_expected_on(second: Served):
    target = second.target()
    target.expected = target.expected.all_on()
    found = {check.name: check for check in check_switches(target)}
    failed = {name for name, check in found.items() if check.outcome is Outcome.FAIL}
    # HAProxy talks to replicas of OpenAiIngress here, not to the model's
    assert failed == SEEN_OFF | {"HAProxy: replicas as servers"}
    assert "OpenAiIngress" in found["direct streaming: deployments"].evidence
    assert "counts 0 from the replica's own server" in found["direct streaming: path of the tokens"].evidence
    assert "RAY_SERVE_USE_GRPC_BY_DEFAULT=0, not 1" in found["throughput settings of Serve"].evidence


def test_declared_haproxy_threads_are_in_its_configuration(served: Served, second: Served):
    def threads(one: Served) -> list[str]:
        config = next(one.session.folder.glob("h/*/haproxy.cfg")).read_text()
        return [line.split()[1] for line in config.splitlines() if line.split()[:1] == ["nbthread"]]

    assert threads(served) == ["1"]
    assert threads(second) == ["2"]


def test_a_changed_serve_config_is_applied_in_place(second: Served):
    ray_before = second.session.supervisor_pid
    changed = second.up(ray_service(**SECOND, engine={"max_model_len": 512}))
    assert not changed.already_running
    assert second.session.supervisor_pid == ray_before, "Ray was not restarted"
    served_length = get(f"{changed.url}/v1/models").json()["data"][0].get("max_model_len")
    assert served_length in (512, None), "the answer came from the new configuration"
    assert "512" in str(second.session.sent)


def test_a_wrong_engine_argument_is_told_in_vllms_words(second: Served):
    with pytest.raises(LocalRuntimeError, match=r"max_model_lenn"):
        second.up(with_model(ray_service(**SECOND), engine_kwargs={"max_model_lenn": 1}))


def test_a_context_longer_than_the_model_is_told_in_vllms_words(second: Served):
    with pytest.raises(LocalRuntimeError, match=r"max_model_len \(100000\) is greater than"):
        second.up(with_model(ray_service(**SECOND), engine_kwargs={"max_model_len": 100000}))


def test_more_cpus_than_ray_has_are_told_with_both_numbers(second: Served):
    with pytest.raises(LocalRuntimeError, match=r"All replicas together request 1\d\d CPU, and this Ray has \d\."):
        second.up(with_model(ray_service(**SECOND), deployment_config={"ray_actor_options": {"num_cpus": 100}}))


def test_a_dead_ray_takes_everything_with_it_and_down_cleans_up(second: Served):
    before = second.session
    raylet = next(process for process in before.processes() if "raylet/raylet" in " ".join(process.cmdline()[:1]))
    raylet.kill()
    assert wait_until(lambda: not before.processes(), 40), "a half-dead Ray is ended, as a pod would be"
    status = runtime.status(second.state_dir)
    assert not status.running
    assert "Ray has ended" in status.detail
    runtime.down(second.state_dir, second.report)
    assert session.load(second.state_dir) is None
    assert not before.folder.exists()
    assert runtime.status(second.state_dir).detail == "nothing runs"
