"""Objects that a stack names and does not make are listed in the plan, and `up` looks for them before Pulumi runs.

The answers of kubectl were recorded with an API server of Kubernetes 1.36.
"""

import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from rayline_cli import cli, deploy
from rayline_cli.clients.kubernetes import Kubectl
from rayline_cli.offline import Program
from rayline_cli.permissions import rules_for
from rayline_cli.plan_cards import stack_card
from rayline_cli.prerequisites import missing, needed_objects
from tests.unit.fake_cluster import FakeCluster

STAND_IN = '''#!{python} -IS
"""kubectl for tests: the recorded answer to a namespace and a command; nothing and 0 where an object does not exist."""
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
with (folder / "calls").open("a") as file:
    print(json.dumps(arguments), file=file)
words = [word for word in arguments if not word.startswith("--context")]
namespace, command = words[1], words[2:]
answers = json.loads((folder / "answers.json").read_text())
code, out, error = answers.get(" ".join([namespace, *command[:3]])) or [0, '{{"items": []}}' if command[-1] == "json" else "", ""]
print(out, end="")
print(error, end="", file=sys.stderr)
sys.exit(code)
'''
FORBIDDEN = (
    'Error from server (Forbidden): secrets "hf-secret" is forbidden: User "eve" cannot get resource "secrets" in API group "" in '
    'the namespace "rayline"\n'
)
NO_TYPE = 'error: the server doesn\'t have a resource type "gatewayclass"\n'

TOKEN = "hugging_face: {source: existing-secret}\n"
REDIS = "head: {store: redis, address: 'rediss://r.example.com:6378', password_secret: redis, ca_secret: redis}\n"
CLAIM = ", pods: {volumes: [{name: cache, mount_path: /cache, claim: weights}]}"
ISTIO = ", rollout: {strategy: incremental, gateway_class: istio}"
MOUNTED = ", weights: {source: gcs-fuse}"


@pytest.fixture
def recorded(record_file: Callable[..., Program]) -> Callable[..., Program]:
    def record(cluster: str = "mode: existing", more: str = "", service: str = "") -> Program:
        return record_file(
            f"gcp:project: my-project\ngcp:region: us-central1\ncluster: {{{cluster}}}\n{more}"
            f"services:\n  qwen: {{model: Qwen/Qwen3.5-4B, accelerator: l4{service}}}\n"
        )

    return record


class Cluster:
    """A kubectl on PATH with recorded answers."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.answers = folder, dict[str, Any]()
        tool = folder / "kubectl"
        tool.write_text(STAND_IN.format(python=sys.executable))
        tool.chmod(0o755)

    def has(self, what: str, out: str = "found\n", namespace: str = "rayline") -> None:
        self.answers[f"{namespace} get {what}"] = [0, out, ""]

    def fails(self, what: str, error: str, namespace: str = "rayline") -> None:
        self.answers[f"{namespace} get {what}"] = [1, "", error]

    def lacks(self, program: Program, *, services: bool = True) -> list[str]:
        (self.folder / "answers.json").write_text(json.dumps(self.answers))
        return missing(Kubectl(program.plan.namespace), program, services=services)

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def cluster(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return Cluster(folder)


# --- what a stack names


@pytest.mark.parametrize(
    ("cluster_keys", "more", "service", "needed"),
    [
        ("mode: create", TOKEN, "", ["Secret hf-secret in rayline with key hf_api_token"]),
        ("mode: existing", REDIS, "", ["Secret redis in rayline with key password and ca.crt"]),
        ("mode: create", "", CLAIM, ["PersistentVolumeClaim weights in rayline"]),
        ("mode: create", "endpoint: {exposure: internal, domain: a.example.com, tls: own, certificate: tls}\n", "", ["Secret tls in rayline with key tls.crt and tls.key"]),
        ("mode: create", "endpoint: {exposure: public, domain: a.example.com, tls: own, certificate: tls}\n", "", ["Certificate Manager map tls"]),
        ("mode: create", "hugging_face: {source: secret-manager, secret: hf}\n", "", ["Secret Manager secret hf"]),
        ("mode: create", "weights: {bucket: my-models, create: false, mirror: false}\n", MOUNTED, ["bucket gs://my-models"]),
        ("mode: existing", "", ISTIO, ["GatewayClass istio"]),
        ("mode: existing", "namespace: team-a\ncreate_namespace: false\nkuberay: {watch_namespaces: [team-b]}\n", "", ["Namespace team-a", "Namespace team-b"]),
        ("mode: existing", "kuberay: {source: preinstalled}\n", "", ["CustomResourceDefinition rayservices.ray.io"]),
        ("mode: existing, gke: true", "weights: {bucket: my-models}\n", MOUNTED, ["CSIDriver gcsfuse.csi.storage.gke.io", "DaemonSet gke-metadata-server in kube-system"]),
        ("mode: existing, gke: true", "endpoint: {exposure: public, domain: a.example.com}\n", "", ["GatewayClass gke-l7-global-external-managed"]),
    ],
)  # fmt: skip
def test_each_object_that_a_stack_names_is_in_its_plan(recorded, cluster_keys, more, service, needed):
    program = recorded(cluster_keys, more, service)
    assert [str(each) for each in needed_objects(program)] == needed
    facts = [fact for fact in stack_card(program).facts if "must exist before the pods start" in fact]
    assert len(facts) == len(needed)
    assert all(text in fact for text, fact in zip(needed, facts, strict=True))


def test_the_stacks_of_this_repository_name_nothing_that_they_do_not_make(program):
    assert needed_objects(program) == []


def test_a_token_that_no_pod_reads_is_not_needed(recorded):
    more = f"{TOKEN}weights: {{bucket: my-models, mirror: false}}\n"
    assert needed_objects(recorded("mode: create", more, MOUNTED)) == []


def test_the_commands_name_the_kubeconfig_context_and_take_secrets_from_files(recorded):
    (needed,) = needed_objects(recorded("mode: existing, context: my eks", TOKEN))
    assert needed.make == "kubectl --context 'my eks' -n rayline create secret generic hf-secret --from-file=hf_api_token=FILE"


# --- what a cluster lacks


def test_everything_that_a_cluster_lacks_is_reported_at_once(recorded, cluster):
    cluster.has("namespace rayline", "namespace/rayline\n")
    lacks = cluster.lacks(recorded(more=TOKEN + REDIS, service=CLAIM))
    assert [each.partition(". Fix: ")[0] for each in lacks] == [
        "Secret redis in rayline with key password and ca.crt does not exist",
        "Secret hf-secret in rayline with key hf_api_token does not exist",
        "PersistentVolumeClaim weights in rayline does not exist",
    ]
    assert all("Fix: kubectl -n rayline " in each for each in lacks)


def test_a_cluster_with_everything_lacks_nothing_and_no_value_of_a_secret_is_read(recorded, cluster):
    cluster.has("secret hf-secret", "hf-secret\nhf_api_token\nother\n")
    cluster.has("persistentvolumeclaim weights", "persistentvolumeclaim/weights\n")
    assert cluster.lacks(recorded(more=TOKEN, service=CLAIM)) == []
    looks = [call[-1] for call in cluster.calls() if "secret" in call]
    assert looks
    assert all(form.startswith("go-template=") and "{{$value}}" not in form for form in looks)


def test_a_secret_without_its_key_is_reported_with_the_key(recorded, cluster):
    cluster.has("namespace rayline", "namespace/rayline\n")
    cluster.has("secret hf-secret", "hf-secret\nother\n")
    (lack,) = cluster.lacks(recorded(more=TOKEN))
    assert lack.startswith("Secret hf-secret in rayline has no key hf_api_token. Fix: ")
    assert lack.endswith(" | kubectl -n rayline apply -f -")


def test_a_kind_that_the_cluster_does_not_know_is_reported(recorded, cluster):
    cluster.fails("gatewayclass.gateway.networking.k8s.io istio", NO_TYPE)
    (lack,) = cluster.lacks(recorded(service=ISTIO))
    assert lack.startswith("GatewayClass istio cannot exist: the cluster does not know its kind. Fix: ")


def test_what_the_deployer_may_not_look_at_stops_nothing(recorded, cluster):
    cluster.fails("secret hf-secret", FORBIDDEN)
    assert cluster.lacks(recorded(more=TOKEN)) == []


def test_a_namespace_that_the_stack_makes_comes_first(recorded, cluster):
    namespace, secret = cluster.lacks(recorded(more=TOKEN))
    assert "rayline up --stack test --without-services" in namespace
    assert secret.startswith("Secret hf-secret in rayline")
    assert cluster.lacks(recorded(more=TOKEN), services=False) == []


# --- the operator


def operator(*arguments: str) -> str:
    return json.dumps({"items": [{"spec": {"containers": [{"args": list(arguments)}]}}]})


@pytest.mark.parametrize("arguments", [("--watch-namespace", "other,third"), ("--watch-namespace=other,third",)])
def test_an_operator_that_does_not_act_in_the_namespace_is_reported(recorded, cluster, arguments):
    cluster.has("customresourcedefinition.apiextensions.k8s.io rayservices.ray.io")
    cluster.has("pods -l", operator(*arguments), "kuberay-system")
    (lack,) = cluster.lacks(recorded(more="kuberay: {source: preinstalled}\n"))
    assert "acts in other, third alone, not in rayline. Fix: kuberay.watch_namespaces: [rayline]" in lack
    assert cluster.lacks(recorded(more="kuberay: {source: preinstalled}\n"), services=False) == [], "its namespace comes first"


@pytest.mark.parametrize("arguments", [(), ("--watch-namespace", "other,rayline")])
def test_an_operator_that_acts_in_the_namespace_is_taken(recorded, cluster, arguments):
    cluster.has("customresourcedefinition.apiextensions.k8s.io rayservices.ray.io")
    cluster.has("pods -l", operator(*arguments), "kuberay-system")
    assert cluster.lacks(recorded(more="kuberay: {source: preinstalled}\n")) == []


# --- a GKE cluster that exists


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("gce://their-project/us-central1-a/n1", "gcp:project is my-project, and the cluster is in project their-project"),
        ("gce://my-project/europe-west4-a/n1", "gcp:region is us-central1, and the cluster is in europe-west4"),
        ("aws:///us-east-1a/i-0abc", "the cluster's nodes are not Google's"),
    ],
)
def test_nodes_of_another_place_are_reported(recorded, cluster, node, message):
    cluster.has("nodes -o", f"{node}\n")
    (lack,) = cluster.lacks(recorded("mode: existing, gke: true"))
    assert message in lack
    assert ". Fix: " in lack


def test_nodes_in_the_stacks_project_and_region_are_taken(recorded, cluster):
    cluster.has("nodes -o", "gce://my-project/us-central1-a/n1\n")
    assert cluster.lacks(recorded("mode: existing, gke: true")) == []


# --- the command


def test_the_rights_of_a_deployer_cover_each_look(recorded):
    rules = rules_for(recorded("mode: existing, gke: true", f"{TOKEN}weights: {{bucket: my-models}}\n", MOUNTED))
    resources = {(namespace, rule.resource) for namespace, allowed in rules.items() for rule in allowed if "get" in rule.verbs}
    assert {("kube-system", "daemonsets"), ("", "csidrivers"), ("", "nodes"), ("rayline", "secrets")} <= resources


def test_a_deployment_without_services_leaves_out_what_has_pods():
    line = deploy.arguments("up", "kind", services=False)
    assert line.count("--exclude") == 3
    assert "**rayline:index:LlmService**" in line
    assert "--exclude" not in deploy.arguments("up", "kind")


def test_up_without_services_ends_after_pulumi(fake: FakeCluster):
    tool = fake.folder / "pulumi"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    result = CliRunner().invoke(cli.app, ["up", "--stack", "kind", "--yes", "--without-services"])
    assert result.exit_code == 0, result.output
    assert "checks" not in result.output
    refused = CliRunner().invoke(cli.app, ["up", "--stack", "local", "--without-services"])
    assert refused.exit_code == 2
