"""IAM roles and Kubernetes rights of a deployer, derived from the resources that a stack's program declares."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, get_args

from rayline.endpoint.arguments import Member
from rayline.facts import deployer
from rayline.facts.choices import ClusterMode, OperatorSource
from rayline.facts.deployer import Needs, Rule

from .errors import FailedError
from .offline import Declared, Program
from .prerequisites import GROUPS, needed_objects
from .render import dump

MEMBER = "serviceAccount:deployer@{project}.iam.gserviceaccount.com"
"""Default principal of the commands; a principalSet of a workload identity pool is the other usual one."""

# Kinds that stand for objects of other kinds.
_BEHIND = {
    "kubernetes:helm.sh/v3:Release": deployer.RELEASE,
    "kubernetes:yaml/v2:ConfigGroup": deployer.CONFIG_GROUP,
    "kubernetes:batch/v1:Job": deployer.JOB,
}


@dataclass(frozen=True)
class Scope:
    """The resource that a role is granted on."""

    kind: str
    """project, bucket, secret, service account or key."""
    name: str
    project: str


@dataclass(frozen=True)
class IamRole:
    """A predefined Google role that a deployer needs."""

    role: str
    scope: Scope
    permissions: tuple[str, ...]
    """Permissions of it that the deployer uses."""
    needed_for: tuple[str, ...]
    """Types of resources, the state or the secrets."""
    grants_only: tuple[str, ...] = ()
    """Roles that it may grant and take away, where a condition limits it to those."""

    def command(self, member: str) -> str:
        """Return the gcloud command that grants it; `member` as a shell reads it."""
        name, project = shlex.quote(self.scope.name), shlex.quote(self.scope.project)
        granted = {
            "project": f"projects add-iam-policy-binding {name}",
            "bucket": f"storage buckets add-iam-policy-binding gs://{name}",
            "secret": f"secrets add-iam-policy-binding {name} --project={project}",
            "service account": f"iam service-accounts add-iam-policy-binding {name} --project={project}",
            "key": f"kms keys add-iam-policy-binding {name}",
        }[self.scope.kind]
        command = f"gcloud {granted} --member={member} --role={self.role}"
        if self.grants_only:
            roles = ", ".join(f"'{role}'" for role in self.grants_only)
            expression = deployer.GRANTS_ONLY.format(roles=roles)
            # the expression has commas, so the parts are separated by a colon (`gcloud topic escaping`)
            return f'{command} --condition="^:^title=rayline-grants:expression={expression}"'
        # else gcloud prompts for one where the policy has any
        return f"{command} --condition=None" if self.scope.kind == "project" else command


(_, _PRINCIPAL) = get_args(Member)
MEMBER_FORMS = (
    "user:EMAIL, group:EMAIL, serviceAccount:EMAIL, domain:DOMAIN, or principal:// and principalSet:// with an identity of a "
    "workload identity pool"
)


def is_member(text: str) -> bool:
    """Return whether IAM takes the name of a principal (docs.cloud.google.com/iam/docs/principal-identifiers)."""
    return _PRINCIPAL.holds(text)


class UnknownType(FailedError):
    """The program declares a Google type for which there is no row."""


def roles_for(program: Program, *, state: str | None = None, secrets_provider: str | None = None) -> list[IamRole]:
    """Return the roles that a deployer of the program needs in Google Cloud, by name.

    `state` is the address of Pulumi's backend and `secrets_provider` the key of the stack's secrets. Both count where they are
    Google's. Raises UnknownType.
    """
    uses: dict[tuple[str, Scope], tuple[set[str], set[str]]] = {}

    def add(needs: Needs, scope: Scope, reason: str) -> None:
        permissions, reasons = uses.setdefault((needs.role, scope), (set(), set()))
        permissions.update(needs.permissions)
        reasons.add(reason)

    for resource in program.resources:
        if resource.type.startswith("gcp:"):
            for needs in _needs(resource.type):
                add(needs, _scope(program, resource, needs), _short(resource.type))
    if state and state.startswith("gs://"):
        add(deployer.STATE, Scope("bucket", state.removeprefix("gs://").partition("/")[0], ""), "Pulumi's state")
    if secrets_provider and secrets_provider.startswith("gcpkms://"):
        key = secrets_provider.removeprefix("gcpkms://").partition("?")[0]
        add(deployer.SECRETS_KEY, Scope("key", key, ""), "the stack's secrets")
    return [
        IamRole(role, scope, tuple(sorted(permissions)), tuple(sorted(reasons)), _grants_only(program, role, scope))
        for (role, scope), (permissions, reasons) in sorted(uses.items(), key=lambda use: (use[0][0], use[0][1].name))
        if not any((other, scope) in uses for other in deployer.HELD_BY.get(role, ()))
    ]


def _needs(kind: str) -> tuple[Needs, ...]:
    try:
        return deployer.GOOGLE[kind]
    except KeyError:
        fix = "add a row to GOOGLE in components/rayline/facts/deployer.py"
        raise UnknownType(f"no role is known for {kind}. Fix: {fix}") from None


def _short(kind: str) -> str:
    """Return a type as the SDK writes it: compute.Network."""
    _, module, name = kind.split(":")
    return f"{module.partition('/')[0]}.{name}"


def _scope(program: Program, resource: Declared, needs: Needs) -> Scope:
    project = program.plan.cluster.project or ""
    if needs.on == "stack":
        return Scope("project", project, project)
    project = resource.inputs.get("project") or project
    everywhere = Scope("project", project, project)
    if needs.on == "project":
        return everywhere
    value: Any = resource.inputs
    for step in needs.on.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    # a role is granted before the stack makes a resource of its own; the recorder writes outputs in brackets
    made = {bucket.inputs.get("name") for bucket in program.of_type("storage/bucket:Bucket")}
    if not isinstance(value, str) or value.startswith("(") or value in made:
        return everywhere
    kind = {"bucket": "bucket", "secretId": "secret", "nodeConfig.serviceAccount": "service account"}[needs.on]
    return Scope(kind, value, project)


def _grants_only(program: Program, role: str, scope: Scope) -> tuple[str, ...]:
    if role != deployer.PROJECT_IAM_ADMIN:
        return ()
    grants = [grant.inputs for grant in program.of_type("projects/iAMMember:IAMMember")]
    return tuple(sorted({grant["role"] for grant in grants if (grant.get("project") or scope.project) == scope.project}))


# --- Kubernetes


def rules_for(program: Program) -> dict[str, list[Rule]]:
    """Return the rules that a deployer needs in the cluster, by namespace; those of the whole cluster under an empty name.

    Empty on this machine, and for a cluster of the stack's own, whose IAM role covers it.
    """
    if program.plan.cluster.mode is not ClusterMode.EXISTING:
        return {}
    verbs: dict[str, dict[tuple[str, str], set[str]]] = {}
    for namespace, rule in _rules(program):
        verbs.setdefault(namespace, {}).setdefault((rule.group, rule.resource), set()).update(rule.verbs)
    return {
        namespace: [Rule(*key, tuple(sorted(allowed))) for key, allowed in sorted(rules.items())]
        for namespace, rules in sorted(verbs.items())
    }


def _rules(program: Program) -> Iterator[tuple[str, Rule]]:
    namespace = program.plan.namespace
    for resource in program.resources:
        if not resource.type.startswith("kubernetes:"):
            continue
        # a Release has its namespace beside its values
        here = (resource.inputs.get("metadata") or resource.inputs).get("namespace") or ""
        for rule in _BEHIND.get(resource.type, ()):
            yield here, rule
        if resource.type.endswith(":Release"):
            for rule in deployer.RELEASE_WATCHED:
                yield namespace, rule
        elif "kind" in resource.inputs:
            group = resource.inputs["apiVersion"].rpartition("/")[0]
            yield here, Rule(group, plural(resource.inputs["kind"]), deployer.VERBS)
    for rule in deployer.VERIFY:
        yield namespace, rule
    yield from _looks(program)


def _looks(program: Program) -> Iterator[tuple[str, Rule]]:
    """Yield what `rayline up` looks at before Pulumi runs."""
    plan = program.plan
    for needed in needed_objects(program):
        if needed.kind in GROUPS:
            yield needed.namespace, Rule(GROUPS[needed.kind], plural(needed.kind), ("get",))
    if plan.kuberay.source is OperatorSource.PREINSTALLED and plan.isolation:
        yield plan.isolation.operator_namespace, Rule("", "pods", ("get", "list"))
    if plan.cluster.on_google:
        yield "", Rule("", "nodes", ("get", "list"))


def plural(kind: str) -> str:
    """Return the name of a kind's resource, as Kubernetes forms it for every kind that the kit declares."""
    name = kind.lower()
    if name.endswith(("s", "x", "ch", "sh")):
        return f"{name}es"
    if name.endswith("y") and name[-2] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}s"


def cluster_roles(program: Program, name: str = "rayline-deployer") -> list[dict[str, Any]]:
    """Return the rules as ClusterRoles: one for the whole cluster, one for each namespace."""
    roles = []
    for namespace, rules in rules_for(program).items():
        # resources of one group with the same verbs share a rule, which is a quarter of the lines
        together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for rule in rules:
            together.setdefault((rule.group, rule.verbs), []).append(rule.resource)
        roles.append(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": f"{name}-{namespace}" if namespace else name},
                "rules": [
                    {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
                    for (group, verbs), resources in together.items()
                ],
            }
        )
    return roles


def _bindings(program: Program, name: str = "rayline-deployer") -> Iterator[str]:
    made = {namespace.inputs["metadata"]["name"] for namespace in program.of_type("core/v1:Namespace")}
    for namespace in rules_for(program):
        role = f"{name}-{namespace}" if namespace else name
        # in a namespace that the stack makes there is no place for a RoleBinding yet
        where = f"-n {namespace} create rolebinding" if namespace and namespace not in made else "create clusterrolebinding"
        yield f'kubectl {where} {role} --clusterrole={role} --user="$DEPLOYER"'


# --- how it looks


def as_data(program: Program, roles: Iterable[IamRole], member: str | None = None) -> dict[str, Any]:
    """Return roles and rules as data for JSON."""
    member = shlex.quote(member or _member(program))
    return {
        "stack": program.stack,
        "mode": program.plan.cluster.mode.value,
        "roles": [
            {
                "role": role.role,
                "on": {"kind": role.scope.kind, "name": role.scope.name},
                "permissions": role.permissions,
                "needed_for": role.needed_for,
                "grants_only": role.grants_only,
                "command": role.command(member),
            }
            for role in roles
        ],
        "cluster_roles": cluster_roles(program),
    }


def _member(program: Program) -> str:
    return MEMBER.format(project=program.plan.cluster.project or "PROJECT")


def as_text(program: Program, roles: list[IamRole], member: str | None = None) -> str:
    """Return a table of roles and rules, and the commands to paste."""
    mode, stack = program.plan.cluster.mode, program.stack
    if mode is ClusterMode.LOCAL:
        return f"{stack}: nothing, it runs on this machine"
    lines = []
    if roles:
        table = [("role", "on", "for")]
        table += [(role.role, f"{role.scope.kind} {role.scope.name}", ", ".join(role.needed_for)) for role in roles]
        wide, wider = (max(len(row[column]) for row in table) for column in (0, 1))
        lines += [f"{stack}: roles of a deployer in Google Cloud", ""]
        lines += [f"{role:<{wide}}  {on:<{wider}}  {needed_for}" for role, on, needed_for in table]
        lines += ["", "# MEMBER may also be a principalSet of a workload identity pool"]
        lines += [f"MEMBER={shlex.quote(member or _member(program))}"]
        lines += [role.command('"$MEMBER"') for role in roles]
    if mode is ClusterMode.CREATE:
        lines += ["", f"{deployer.CONTAINER_ADMIN} covers the objects in the cluster."]
    elif manifests := cluster_roles(program):
        lines += ["", f"# {stack}: rights of a deployer in the cluster, for kubectl apply -f"]
        lines += ["---\n".join(dump(manifest) for manifest in manifests).rstrip()]
        lines += ["", "# DEPLOYER is the user name at the API server; on GKE an e-mail, which also needs"]
        lines += ["# roles/container.clusterViewer to reach the cluster"]
        lines += list(_bindings(program))
    return "\n".join(lines).strip("\n")
