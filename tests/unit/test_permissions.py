"""What a deployer has to be allowed follows from what the program declares, and no declared type is forgotten."""

import ast
import json
import shlex

import pulumi_gcp
import pytest
import yaml
from typer.testing import CliRunner

from rayline.facts import deployer
from rayline_cli import cli, permissions
from rayline_cli.offline import Declared, Program
from rayline_cli.permissions import UnknownType, plural, roles_for, rules_for
from tests.conftest import ROOT, stacks_of

# Everything of Google's that a stack file can ask for at once.
ALL_OF_IT = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create, system_pool: {max_nodes: 3}}
endpoint:
  exposure: public
  domain: llm.example.com
  rate_limit_per_minute: 600
  iap_members: ["group:ml@example.com"]
head: {store: memorystore}
weights: {bucket: my-models}
hugging_face: {source: secret-manager, secret: projects/secrets-project/secrets/hub}
services:
  qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4, weights: {source: gcs-fuse}}
"""


def calls_of_google() -> set[str]:
    """Names after `gcp.` that the components call: classes of resources, and functions that look something up."""
    found = set()
    for path in (ROOT / "components").rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            # elsewhere `container` is another thing
            if isinstance(node, ast.Call) and "import pulumi_gcp" in text:
                found.add(ast.unparse(node.func))
    # `manager = gcp.certificatemanager` and the like are spelled out
    aliases = {"manager": "gcp.certificatemanager", "compute": "gcp.compute", "container": "gcp.container"}
    spelled = {f"{aliases[one.partition('.')[0]]}.{one.partition('.')[2]}" for one in found if one.partition(".")[0] in aliases}
    return {one.removeprefix("gcp.") for one in found | spelled if one.startswith("gcp.")}


def resolved(name: str) -> object:
    value: object = pulumi_gcp
    for part in name.split("."):
        value = getattr(value, part)
    return value


# --- complete


def test_every_type_that_a_component_can_declare_has_a_row() -> None:
    types = {getattr(resolved(name), "pulumi_type", None) for name in calls_of_google()} - {None}
    assert len(types) >= 20
    assert types <= set(deployer.GOOGLE)
    # and no row is left from a type that went
    assert set(deployer.GOOGLE) <= types


def test_what_the_program_looks_up_is_known() -> None:
    # resourcemanager.projects.get, in the rows of what it is looked up for
    assert {name for name in calls_of_google() if ".get_" in name} == {"organizations.get_project_output"}


def test_a_declared_type_without_a_row_is_an_error_that_names_the_table(stack) -> None:
    known = stack("dev-l4")
    new = Declared("gcp:pubsub/topic:Topic", "t", "urn", "", {}, (), False, False, True, "", (), "", "")
    with pytest.raises(UnknownType, match=r"no role is known for gcp:pubsub/topic:Topic\. Fix: .*deployer\.py"):
        roles_for(Program("dev-l4", known.plan, [*known.resources, new]))


@pytest.mark.parametrize("name", stacks_of("create", "existing", "local"))
def test_every_stack_has_its_roles(stack, name: str) -> None:
    program = stack(name)
    declared = {one.type for one in program.resources if one.type.startswith("gcp:")}
    assert bool(roles_for(program)) == bool(declared)


def test_a_row_names_a_role_of_googles_and_permissions_of_one_service_and_verb() -> None:
    rows = [one for needs in deployer.GOOGLE.values() for one in needs] + [deployer.STATE, deployer.SECRETS_KEY]
    for row in rows:
        assert row.role.startswith("roles/")
        assert row.permissions
        assert all(len(one.split(".")) == 3 for one in row.permissions)


# --- derived


def test_a_stack_with_all_of_it_needs_a_role_for_each_part(record_file) -> None:
    program = record_file(ALL_OF_IT)
    roles = {one.role: one for one in roles_for(program)}
    assert set(roles) == {
        "roles/certificatemanager.owner",
        "roles/compute.networkAdmin",
        "roles/compute.securityAdmin",
        "roles/container.admin",
        "roles/iam.serviceAccountAdmin",
        "roles/iam.serviceAccountUser",
        "roles/iap.admin",
        "roles/redis.admin",
        "roles/resourcemanager.projectIamAdmin",
        "roles/secretmanager.admin",
        "roles/serviceusage.serviceUsageAdmin",
        "roles/storage.admin",
    }
    assert roles["roles/redis.admin"].needed_for == ("redis.Instance",)
    assert "iam.serviceAccounts.actAs" in roles["roles/iam.serviceAccountUser"].permissions


def test_what_a_stack_does_without_it_needs_no_role_for(stack) -> None:
    roles = {one.role for one in roles_for(stack("dev-l4"))}
    assert roles.isdisjoint({"roles/redis.admin", "roles/storage.admin", "roles/iap.admin", "roles/secretmanager.admin"})


def test_an_owner_of_networks_needs_no_viewer_beside_it(stack) -> None:
    roles = {one.role for one in roles_for(stack("dev-l4"))}
    assert {deployer.COMPUTE_VIEWER, deployer.BROWSER}.isdisjoint(roles)


def test_a_role_on_a_secret_is_granted_on_that_secret_alone(record_file) -> None:
    [role] = [one for one in roles_for(record_file(ALL_OF_IT)) if one.role == "roles/secretmanager.admin"]
    assert (role.scope.kind, role.scope.name, role.scope.project) == ("secret", "hub", "secrets-project")
    assert "gcloud secrets add-iam-policy-binding hub --project=secrets-project" in role.command("M")


def test_a_bucket_that_exists_is_granted_on_and_not_the_project(record_file) -> None:
    program = record_file(ALL_OF_IT.replace("bucket: my-models", "bucket: my-models, create: false, mirror: false"))
    [role] = [one for one in roles_for(program) if one.role == "roles/storage.admin"]
    assert (role.scope.kind, role.scope.name) == ("bucket", "my-models")
    assert "storage.buckets.create" not in role.permissions


def test_who_may_change_the_projects_policy_may_grant_only_what_the_stack_grants(stack) -> None:
    [role] = [one for one in roles_for(stack("dev-l4")) if one.role == "roles/resourcemanager.projectIamAdmin"]
    granted = {one.inputs["role"] for one in stack("dev-l4").of_type("projects/iAMMember:IAMMember")}
    assert set(role.grants_only) == granted
    condition = shlex.split(role.command("M"))[-1]
    assert condition.startswith("--condition=^:^title=rayline-grants:expression=api.getAttribute(")
    # the separator occurs nowhere else
    assert condition.count(":") == 2


def test_state_and_key_of_googles_need_roles_of_their_own_whatever_the_cluster(stack) -> None:
    key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    roles = roles_for(stack("kind"), state="gs://my-state/team", secrets_provider=f"gcpkms://{key}")
    assert {(one.role, one.scope.kind, one.scope.name) for one in roles} == {
        ("roles/storage.objectUser", "bucket", "my-state"),
        ("roles/cloudkms.cryptoKeyEncrypterDecrypter", "key", key),
    }
    assert roles_for(stack("kind"), state="https://api.pulumi.com", secrets_provider="passphrase") == []


def test_every_command_can_be_pasted(record_file) -> None:
    for role in roles_for(record_file(ALL_OF_IT), state="gs://my-state"):
        words = shlex.split(role.command('"$MEMBER"'))
        assert words[0] == "gcloud"
        assert "--member=$MEMBER" in words
        assert f"--role={role.role}" in words


@pytest.mark.parametrize(
    ("member", "taken"),
    [
        ("user:me@acme.com", True),
        ("serviceAccount:deployer@my-project.iam.gserviceaccount.com", True),
        ("principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/*", True),
        ("me@acme.com", False),
        ("user:me", False),
        ("allUsers", False),
    ],
)
def test_a_member_that_iam_does_not_take_is_refused_with_the_forms(member: str, taken: bool) -> None:
    result = CliRunner().invoke(cli.app, ["permissions", "--stack", "prod-l4", "--member", member])
    assert result.exit_code == (0 if taken else 2), result.output
    assert taken or "user:EMAIL, group:EMAIL" in " ".join(result.stderr.replace("│", " ").split())


# --- in a cluster that exists


def test_a_cluster_that_exists_needs_rules_for_every_declared_kind(stack) -> None:
    program = stack("kind")
    rules = rules_for(program)
    for one in program.resources:
        if one.type.startswith("kubernetes:") and "kind" in one.inputs:
            namespace = one.inputs["metadata"].get("namespace") or ""
            [rule] = [rule for rule in rules[namespace] if rule.resource == plural(one.inputs["kind"])]
            assert set(deployer.VERBS) <= set(rule.verbs), one.type


def test_rules_for_namespaces_do_not_reach_beyond_them(stack) -> None:
    rules = rules_for(stack("kind"))
    assert {rule.resource for rule in rules[""]} == {"customresourcedefinitions", "namespaces", "priorityclasses"}
    assert set(rules) == {"", "kuberay-system", "rayline"}


def test_rules_are_cluster_roles_that_kubernetes_takes(stack) -> None:
    text = permissions.as_text(stack("kind"), [])
    documents = list(yaml.safe_load_all(text.partition("\n# DEPLOYER")[0]))
    assert documents == permissions.cluster_roles(stack("kind"))
    for document in documents:
        assert (document["apiVersion"], document["kind"]) == ("rbac.authorization.k8s.io/v1", "ClusterRole")
        for rule in document["rules"]:
            assert set(rule) == {"apiGroups", "resources", "verbs"}


def test_a_cluster_of_the_stacks_own_and_this_machine_need_no_rules(stack) -> None:
    assert rules_for(stack("prod-l4")) == {}
    assert rules_for(stack("local")) == {}


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("NetworkPolicy", "networkpolicies"),
        ("PriorityClass", "priorityclasses"),
        ("Gateway", "gateways"),
        ("RayService", "rayservices"),
        ("Ingress", "ingresses"),
    ],
)
def test_a_kinds_resource_is_its_plural(kind: str, resource: str) -> None:
    assert plural(kind) == resource


# --- shown


def test_the_text_has_a_table_and_a_command_for_each_role(stack) -> None:
    program = stack("prod-l4")
    roles = roles_for(program)
    text = permissions.as_text(program, roles, member="group:platform@example.com")
    assert "MEMBER=group:platform@example.com" in text
    for role in roles:
        assert role.command('"$MEMBER"') in text.splitlines()


def test_this_machine_needs_nothing(stack) -> None:
    assert permissions.as_text(stack("local"), roles_for(stack("local"))) == "local: nothing, it runs on this machine"


def test_the_data_is_plain(stack) -> None:
    program = stack("prod-b200")
    data = json.loads(json.dumps(permissions.as_data(program, roles_for(program))))
    assert data["mode"] == "create"
    assert {"role", "on", "permissions", "needed_for", "grants_only", "command"} == set(data["roles"][0])
