"""The policy pack in Pulumi's own policy engine, as `rayline up` runs it."""

import pathlib

import pytest

from rayline_cli.deploy import POLICY_PACK
from tests.engine.conftest import a_project
from tests.pulumi_project import PulumiProject

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory, stand_ins: pathlib.Path) -> PulumiProject:
    return a_project(tmp_path_factory.mktemp("policy"), "prod-l4", stand_ins)


def test_a_production_stack_passes_and_one_without_protection_is_stopped(production: PulumiProject) -> None:
    production.change("cluster.deletion_protection", "true")
    fine = production.operate("preview", "--policy-pack", POLICY_PACK)
    assert fine.code == 0, fine.output[-4000:]
    assert "rayline@v" in fine.output
    production.change("cluster.deletion_protection", "false")
    production.change("isolation.pod_security", "privileged")
    stopped = production.operate("preview", "--policy-pack", POLICY_PACK)
    assert stopped.code != 0
    assert "production-clusters-are-protected" in stopped.output
    assert "deletionProtection is not true" in stopped.output
    # an object in a cluster that is yet to be made, by a rule over the whole stack
    assert "pod-security.kubernetes.io/enforce is privileged. Fix: restricted" in stopped.output


def test_a_platform_team_sets_a_limit_in_a_file(production: PulumiProject) -> None:
    production.change("cluster.deletion_protection", "false")
    limits = production.folder / "limits.json"
    limits.write_text('{"gpus-stay-within-the-limit": {"max_gpus": 4}, "production-clusters-are-protected": "disabled"}')
    stopped = production.operate("preview", "--policy-pack", POLICY_PACK, "--policy-pack-config", str(limits))
    assert "the stack may reach 16 GPUs, the limit is 4" in stopped.output
    assert "production-clusters-are-protected" not in stopped.output
