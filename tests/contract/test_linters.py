"""The rendered manifests of every stack against checkov and kube-score. lint_exceptions.yaml has what stays, with its reason."""

import functools
import json
import pathlib
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from rayline_cli import render
from tests.conftest import recorded, stacks_of

HERE = pathlib.Path(__file__).parent
CHECKOV = HERE.parents[1] / ".tools" / "checkov" / "bin" / "checkov"
KUBE_SCORE = shutil.which("kube-score")


@functools.cache
def exceptions(program: str) -> dict[str, str]:
    """The findings of a program that stay, each with its reason."""
    return yaml.safe_load((HERE / "lint_exceptions.yaml").read_text())[program]


def pods(service: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods that KubeRay makes of a RayService, with the labels that the kit's selectors read (kuberay v1.7.0, common/pod.go)."""
    cluster, name = service["spec"]["rayClusterConfig"], service["metadata"]["name"]
    groups = [("head", cluster["headGroupSpec"])] + [("worker", group) for group in cluster["workerGroupSpecs"]]
    result = []
    for role, group in groups:
        template = group["template"]
        labels = template["metadata"].get("labels", {}) | {"ray.io/cluster": name, "ray.io/node-type": role}
        meta = template["metadata"] | {
            "name": f"{name}-{role}",
            "namespace": service["metadata"]["namespace"],
            "labels": labels,
        }
        result.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder for each stack that deploys, with its manifests and the pods of its RayServices."""
    result = tmp_path_factory.mktemp("manifests")
    for stack in stacks_of("create", "existing"):
        program, own = recorded(stack), result / stack
        own.mkdir()
        for name, text in render.files(program).items():
            if not name.endswith(".values.yaml"):
                (own / name).write_text(text)
        for service in render.ray_services(program):
            (own / f"pods-{service['metadata']['name']}.yaml").write_text(yaml.safe_dump_all(pods(service)))
    return result


@pytest.mark.full
@pytest.mark.skipif(not CHECKOV.exists(), reason="needs checkov: `make test-full`")
def test_checkov_finds_only_exceptions_with_a_reason(folder: pathlib.Path):
    command = [str(CHECKOV), "-d", str(folder), "--framework", "kubernetes", "-o", "json", "--quiet", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 200
    found = {check["check_id"] for check in report["results"]["failed_checks"]}
    assert found == {*exceptions("checkov")}, [check["check_name"] for check in report["results"]["failed_checks"]]


@pytest.mark.skipif(not KUBE_SCORE, reason="needs kube-score on PATH")
def test_kube_score_finds_only_exceptions_with_a_reason(folder: pathlib.Path):
    found = set()
    for stack in folder.iterdir():
        files = [str(path) for path in sorted(stack.iterdir())]
        done = subprocess.run(
            [str(KUBE_SCORE), "score", "-o", "json", *files], capture_output=True, text=True, timeout=120, check=False
        )
        for checked in json.loads(done.stdout):
            bad = [check for check in checked["checks"] if not check["skipped"] and check["grade"] < 10]
            found |= {comment["summary"] for check in bad for comment in check["comments"]}
    assert found == {*exceptions("kube-score")}
