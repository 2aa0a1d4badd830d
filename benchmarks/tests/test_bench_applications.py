"""The workloads without a language model: how they get into an arm, and that their model is one."""

from pathlib import Path

import pytest
import yaml

from rayline_bench import arms
from rayline_bench.workloads import ECHO_APP, RECOMMENDER_APP
from rayline_cli import offline, render


@pytest.fixture(scope="module")
def manifest() -> dict:
    return render.ray_services(offline.record("local"))[0]


def environment(manifest: dict) -> list[dict[str, str]]:
    cluster = manifest["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [
        {entry["name"]: entry.get("value", "") for entry in group["template"]["spec"]["containers"][0]["env"]}
        for group in groups
    ]


@pytest.mark.parametrize("application", [ECHO_APP, RECOMMENDER_APP], ids=lambda one: one.name)
def test_an_application_takes_the_models_place_and_the_rest_of_the_arm_stays(manifest, application):
    changed = application.put_into(manifest, replicas=2)
    before, after = (yaml.safe_load(one["spec"]["serveConfigV2"]) for one in (manifest, changed))
    (declared,) = after["applications"]
    assert declared["import_path"] == f"rayline_bench.apps:{application.name}"
    assert [one["num_replicas"] for one in declared["deployments"]] == [2, 2]
    assert {k: v for k, v in after.items() if k != "applications"} == {k: v for k, v in before.items() if k != "applications"}
    for old, new in zip(environment(manifest), environment(changed), strict=True):
        assert new == old | {"PYTHONPATH": new["PYTHONPATH"]}
        # where Ray's processes find the application
        assert (Path(new["PYTHONPATH"]) / "rayline_bench" / "apps.py").is_file()
    assert changed["spec"]["rayClusterConfig"].keys() == manifest["spec"]["rayClusterConfig"].keys()


def test_the_facts_of_an_arm_do_not_name_the_folder_of_this_clone(manifest):
    facts = arms.RayArm(ECHO_APP.put_into(manifest)).facts()
    assert facts["env PYTHONPATH"] == "(project)/benchmarks"
    assert str(offline.PROJECT_ROOT) not in str(facts)


def test_the_import_paths_lead_to_applications_with_the_named_deployments():
    apps = pytest.importorskip("rayline_bench.apps", reason="needs the `local` extra")
    for application in (ECHO_APP, RECOMMENDER_APP):
        bound = getattr(apps, application.name)(dict(application.args))
        assert bound._bound_deployment.name == application.deployments[0]
        assert application.deployments[1] in (apps.Echo.name, apps.Ranker.name)


def test_the_recommender_scores_each_candidate_by_itself():
    torch = pytest.importorskip("torch", reason="needs the `local` extra")
    apps = pytest.importorskip("rayline_bench.apps", reason="needs the `local` extra")
    torch.manual_seed(0)
    model = apps.Dlrm(cardinality=50).eval()
    dense, sparse = torch.rand(4, apps.DENSE), torch.randint(0, 50, (4, apps.SPARSE))
    with torch.inference_mode():
        scores = model(dense, sparse)
        alone = model(dense[2:3], sparse[2:3])
        other_ids = model(dense[2:3], (sparse[2:3] + 1) % 50)
    assert scores.shape == (4,)
    assert ((scores > 0) & (scores < 1)).all()
    assert torch.allclose(scores[2], alone[0], atol=1e-5)
    assert not torch.allclose(alone, other_ids)
