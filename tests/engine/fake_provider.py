"""Stand-ins for the providers gcp, kubernetes and random, which a real Pulumi engine starts as plugins.

`python -m tests.engine.fake_provider SOCKET` waits for plugin.py, which Pulumi starts, and gives each of them a stand-in of its
own: it prints its port and serves Pulumi's ResourceProvider on loopback. They check inputs against the SDK's types, make up what
Google or Kubernetes would compute, and keep every object as a file in a folder, so that the next command finds it. Each change is
one line in its operations.jsonl; values never are.

They refuse what the real ones refuse and a wrong order would run into: a cluster with deletion protection, two operations on
node pools of one cluster at a time, a network in use, an object without its namespace or its kind, a cluster that is not
there, a RayService without an operator to finish it.
"""

import contextlib
import dataclasses
import gc
import hashlib
import importlib
import importlib.metadata
import json
import os
import pathlib
import secrets
import socket
import socketserver
import string
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import yaml
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, resource_pb2, resource_pb2_grpc

from tests.engine import replacing, sdk_types
from tests.engine.sdk_types import UNKNOWN

Inputs = dict[str, Any]

CLUSTER = "gcp:container/cluster:Cluster"
NODE_POOL = "gcp:container/nodePool:NodePool"
RELEASE = "kubernetes:helm.sh/v3:Release"
CRD = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"


class Refused(Exception):
    """What the cloud would answer instead of doing it; the message is for a person."""


@dataclasses.dataclass
class Object:
    """One object in the cloud."""

    id: str
    urn: str
    raw_inputs: Inputs
    """As the engine sent them: secrets are marked."""
    outputs: Inputs

    @property
    def type(self) -> str:
        return type_of(self.urn)

    @property
    def inputs(self) -> Inputs:
        return plain(self.raw_inputs)

    @property
    def plain_outputs(self) -> Inputs:
        return plain(self.outputs)


class Cloud:
    """Objects as files: providers are processes, several at a time and new ones with each command."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        (folder / "objects").mkdir(parents=True, exist_ok=True)

    def _path(self, package: str, identity: str) -> pathlib.Path:
        return self.folder / "objects" / f"{package}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}.json"

    def get(self, package: str, identity: str) -> Object | None:
        try:
            return Object(**json.loads(self._path(package, identity).read_text()))
        except FileNotFoundError:
            return None

    def put(self, package: str, one: Object) -> None:
        path = self._path(package, one.id)
        part = path.with_suffix(f".{threading.get_ident()}")
        part.write_text(json.dumps(dataclasses.asdict(one)))
        part.rename(path)

    def remove(self, package: str, identity: str) -> None:
        self._path(package, identity).unlink(missing_ok=True)

    def objects(self) -> Iterator[Object]:
        for path in sorted((self.folder / "objects").glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # just deleted by another provider
                yield Object(**json.loads(path.read_text()))

    def of_type(self, suffix: str) -> list[Object]:
        return [one for one in self.objects() if one.type.endswith(suffix)]

    def operations(self) -> list[dict[str, Any]]:
        """The log so far, in the order in which operations ended."""
        log = self.folder / "operations.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @contextlib.contextmanager
    def operation(self, kind: str, urn: str, identity: str = "") -> Iterator[None]:
        """Log what is done in the block, with its begin and end (the machine's monotonic clock); not if it fails."""
        begin = time.monotonic()
        yield
        line = {"op": kind, "type": type_of(urn), "name": name_of(urn), "id": identity, "begin": begin, "end": time.monotonic()}
        with (self.folder / "operations.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")


def type_of(urn: str) -> str:
    """The resource's own type from a URN, whose third part has the types of its parents before it."""
    return urn.split("::")[2].rpartition("$")[2]


def name_of(urn: str) -> str:
    return urn.split("::", 3)[3]


def raw(message: struct_pb2.Struct) -> Inputs:
    """A Struct as Python's types; it knows doubles only, so whole numbers are made whole again."""

    def whole(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: whole(item) for key, item in value.items()}
        if isinstance(value, list):
            return [whole(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    return whole(json_format.MessageToDict(message))


def plain(value: Any) -> Any:
    """A value without the marks around its secrets."""
    if isinstance(value, dict):
        if value.get(rpc._special_sig_key) == rpc._special_secret_sig:
            return plain(value["value"])
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def struct(values: Inputs) -> struct_pb2.Struct:
    return json_format.ParseDict(values, struct_pb2.Struct())


def changed(old: Any, new: Any, path: str = "") -> dict[str, str]:
    """Paths of the leaves that differ (as the engine spells paths), each with add, delete or update."""
    if isinstance(old, dict) or isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        after = new if isinstance(new, dict) else {}
        found = {}
        for key in before.keys() | after.keys():
            step = key if key.isidentifier() else json.dumps([key])
            found |= changed(before.get(key), after.get(key), f"{path}.{step}".lstrip(".") if key == step else path + step)
        if found or (old is not None and new is not None):
            return found
    if isinstance(old, list) and isinstance(new, list):
        found = {}
        for i in range(max(len(old), len(new))):
            found |= changed(old[i] if i < len(old) else None, new[i] if i < len(new) else None, f"{path}[{i}]")
        return found
    if old == new:
        return {}
    return {path: "add" if old is None else "delete" if new is None else "update"}


def without_indexes(path: str) -> str:
    """`nodeConfig.taints[0].key` as `nodeConfig.taints.key`."""
    steps = path.replace('["', ".").replace('"]', "")
    return ".".join(step.partition("[")[0] for step in steps.split("."))


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """What all three have in common."""

    package: str
    """Name of the package."""
    deletes_first = False
    """Whether a replaced object goes before its successor comes."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.configuration: Inputs = {}

    # --- what each package does in its own way

    def faults(self, token: str, inputs: Inputs) -> list[tuple[str, str]]:
        """What is wrong with a resource's inputs, as (property, reason)."""
        resource = sdk_types.resource_class(token)
        if resource is None:
            return [("", f"{token} is no type of {self.package}")]
        return sdk_types.mistakes(sdk_types.input_class(resource), inputs)

    def completed(self, token: str, name: str, inputs: Inputs, old: Inputs, seed: bytes) -> Inputs:
        """Inputs with the defaults that the provider fills in."""
        return inputs

    def identity(self, token: str, name: str, inputs: Inputs) -> str:
        """The new object's id."""
        return name

    def outputs(self, token: str, name: str, inputs: Inputs, preview: bool) -> Inputs:
        """What the cloud computes."""
        return {}

    def forces(self, token: str, path: str) -> bool:
        """Whether a change of a leaf replaces the resource."""
        return replacing.replaces(token, path)

    def takes_over(self) -> bool:
        """Whether a creation takes an object that exists already for its own."""
        return False

    @contextlib.contextmanager
    def creating(self, token: str, inputs: Inputs) -> Iterator[None]:
        """Around a creation. Raises Refused."""
        yield

    @contextlib.contextmanager
    def updating(self, token: str, inputs: Inputs) -> Iterator[None]:
        """Around an update. Raises Refused."""
        yield

    @contextlib.contextmanager
    def deleting(self, one: Object) -> Iterator[None]:
        """Around a deletion. Raises Refused."""
        yield

    # --- the protocol

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=importlib.metadata.version(f"pulumi_{self.package}"))

    def GetSchema(self, request: Any, context: Any) -> Any:
        version = importlib.metadata.version(f"pulumi_{self.package}")
        return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": self.package, "version": version}))

    def CheckConfig(self, request: Any, context: Any) -> Any:
        inputs = raw(request.news)
        arguments = importlib.import_module(f"pulumi_{self.package}").ProviderArgs
        given = {key: value for key, value in inputs.items() if key not in ("version", "__internal", "pluginDownloadURL")}
        # a provider's configuration travels as texts
        faults = [(key, "no such setting of the provider") for key in given if key not in sdk_types.fields(arguments)]
        return provider_pb2.CheckResponse(inputs=struct(inputs), failures=_failures(faults))

    def DiffConfig(self, request: Any, context: Any) -> Any:
        found = changed(plain(raw(request.old_inputs)), plain(raw(request.news)))
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted({path.split(".")[0] for path in found}),
        )

    def Configure(self, request: Any, context: Any) -> Any:
        self.configuration = plain(raw(request.args))
        return provider_pb2.ConfigureResponse(supportsPreview=True, acceptSecrets=True)

    def Check(self, request: Any, context: Any) -> Any:
        inputs, token, name = raw(request.news), type_of(request.urn), name_of(request.urn)
        inputs = self.completed(token, name, inputs, raw(request.olds), request.randomSeed)
        return provider_pb2.CheckResponse(inputs=struct(inputs), failures=_failures(self.faults(token, plain(inputs))))

    def Diff(self, request: Any, context: Any) -> Any:
        token = type_of(request.urn)
        found = changed(plain(raw(request.old_inputs)), plain(raw(request.news)))
        forced = {path for path in found if self.forces(token, without_indexes(path))}
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
            diffs=sorted({path.replace("[", ".").split(".")[0] for path in found}),
            replaces=sorted(forced),
            deleteBeforeReplace=bool(forced) and self.deletes_first,
            hasDetailedDiff=True,
            detailedDiff={
                path: provider_pb2.PropertyDiff(
                    kind=getattr(provider_pb2.PropertyDiff, kind.upper() + ("_REPLACE" if path in forced else "")),
                    inputDiff=True,
                )
                for path, kind in found.items()
            },
        )

    def Create(self, request: Any, context: Any) -> Any:
        token, name, sent = type_of(request.urn), name_of(request.urn), raw(request.properties)
        inputs = plain(sent)
        outputs = self.outputs(token, name, inputs, request.preview) | sent
        if request.preview:
            return provider_pb2.CreateResponse(id="", properties=struct(outputs))
        one = Object(id=self.identity(token, name, inputs), urn=request.urn, raw_inputs=sent, outputs=outputs)
        with _told(context), self.cloud.operation("create", request.urn, one.id), self.creating(token, inputs):
            if self.cloud.get(self.package, one.id) and not self.takes_over():
                raise Refused(f"409: {one.id} already exists")
            self.cloud.put(self.package, one)
        return provider_pb2.CreateResponse(id=one.id, properties=struct(self.answer(one)))

    def Update(self, request: Any, context: Any) -> Any:
        token, sent = type_of(request.urn), raw(request.news)
        # what was computed at creation stays
        computed = {key: value for key, value in raw(request.olds).items() if key not in raw(request.old_inputs)}
        one = Object(request.id, request.urn, raw_inputs=sent, outputs=computed | sent)
        if not request.preview:
            with _told(context), self.cloud.operation("update", request.urn, request.id), self.updating(token, one.inputs):
                if not self.cloud.get(self.package, request.id):
                    raise Refused(f"404: {request.id} not found")
                self.cloud.put(self.package, one)
        return provider_pb2.UpdateResponse(properties=struct(self.answer(one)))

    def Read(self, request: Any, context: Any) -> Any:
        one = self.cloud.get(self.package, request.id)
        if one is None:
            return provider_pb2.ReadResponse()
        return provider_pb2.ReadResponse(id=one.id, inputs=struct(one.raw_inputs), properties=struct(self.answer(one)))

    def Delete(self, request: Any, context: Any) -> Any:
        one = self.cloud.get(self.package, request.id)
        if one is not None:
            with _told(context), self.cloud.operation("delete", request.urn, request.id), self.deleting(one):
                self.cloud.remove(self.package, one.id)
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:
        if request.tok == "gcp:organizations/getProject:getProject":
            answer = provider_pb2.InvokeResponse()
            getattr(answer, "return")["number"] = "123456789012"
            return answer
        return provider_pb2.InvokeResponse(failures=_failures([("", f"the stand-in has no function {request.tok}")]))

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def answer(self, one: Object) -> Inputs:
        """What a read of the object gives."""
        return one.outputs


def _failures(faults: list[tuple[str, str]]) -> list[Any]:
    return [provider_pb2.CheckFailure(property=path, reason=f"{path}: {reason}" if path else reason) for path, reason in faults]


@contextlib.contextmanager
def _told(context: grpc.ServicerContext) -> Iterator[None]:
    """A refusal as the call's error."""
    try:
        yield
    except Refused as refusal:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refusal))


class Google(Provider):
    """gcp."""

    package = "gcp"
    _busy: dict[str, threading.Lock] = {}

    def completed(self, token: str, name: str, inputs: Inputs, old: Inputs, seed: bytes) -> Inputs:
        resource = sdk_types.resource_class(token)
        if resource is None or "name" in inputs or "namePrefix" in inputs:
            return inputs
        arguments = sdk_types.input_class(resource)
        if "name" not in sdk_types.fields(arguments) or "name" in sdk_types.required(arguments):
            return inputs
        # the bridge's automatic names: the resource's name, a hyphen and seven hex digits (pulumi-terraform-bridge, AutoName)
        return inputs | {"name": old.get("name") or f"{name}-{hashlib.sha256(seed).hexdigest()[:7]}"}

    def identity(self, token: str, name: str, inputs: Inputs) -> str:
        project = inputs.get("project") or self.configuration.get("project", "")
        place = inputs.get("location") or inputs.get("region") or "global"
        part = next((inputs[key] for key in ("name", "accountId", "service") if key in inputs), None) or name
        parent = f"{inputs['cluster']}/" if "cluster" in inputs else ""
        return f"projects/{project}/{place}/{token.split(':')[1].rpartition('/')[2]}s/{parent}{part}"

    def outputs(self, token: str, name: str, inputs: Inputs, preview: bool) -> Inputs:
        resource = sdk_types.resource_class(token)
        assert resource is not None  # Check has refused it
        identity = self.identity(token, name, inputs)
        made: Inputs = {}
        for key, kind in sdk_types.computed(resource).items():
            if kind is str and key not in ("id", "urn"):
                made[key] = UNKNOWN if preview else f"{key}-of-{identity}"
            elif kind is int:
                made[key] = UNKNOWN if preview else 1
        if preview:
            later = ("controlPlaneEndpointsConfig", "masterAuth") if token == CLUSTER else ()
            return made | dict.fromkeys(later, UNKNOWN)
        made["project"] = inputs.get("project") or self.configuration.get("project", "")
        made["selfLink"] = f"https://www.googleapis.com/v1/{identity}"
        if token == "gcp:serviceaccount/account:Account":
            made["email"] = f"{inputs['accountId']}@{made['project']}.iam.gserviceaccount.com"
            made["member"] = f"serviceAccount:{made['email']}"
        if token == "gcp:redis/instance:Instance":
            made["serverCaCerts"] = [{"cert": f"certificate-of-{identity}"}]
        return made

    def answer(self, one: Object) -> Inputs:
        if one.type != CLUSTER:
            return one.outputs
        # an input block in which Google fills in the address
        endpoints = one.inputs.get("controlPlaneEndpointsConfig") or {}
        dns = (endpoints.get("dnsEndpointConfig") or {}) | {"endpoint": dns_name(one)}
        certificate = {"clusterCaCertificate": f"certificate-of-{one.id}"}
        return one.outputs | {
            "controlPlaneEndpointsConfig": endpoints | {"dnsEndpointConfig": dns},
            "masterAuth": (one.inputs.get("masterAuth") or {}) | certificate,
        }

    @contextlib.contextmanager
    def _alone(self, token: str, inputs: Inputs) -> Iterator[None]:
        """GKE takes one operation on a cluster's pools at a time (terraform-provider-google #10366)."""
        if token != NODE_POOL:
            yield
            return
        lock = self._busy.setdefault(inputs["cluster"], threading.Lock())
        if not lock.acquire(blocking=False):
            raise Refused(f"400: cluster {inputs['cluster']} is running an operation on another node pool")
        try:
            time.sleep(0.3)  # long enough that an engine which does not wait would meet it
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def creating(self, token: str, inputs: Inputs) -> Iterator[None]:
        with self._alone(token, inputs):
            yield

    @contextlib.contextmanager
    def updating(self, token: str, inputs: Inputs) -> Iterator[None]:
        with self._alone(token, inputs):
            yield

    @contextlib.contextmanager
    def deleting(self, one: Object) -> Iterator[None]:
        # true unless it is said to be false, in the provider too
        if one.type == CLUSTER and one.inputs.get("deletionProtection", True):
            raise Refused(f"Cannot destroy cluster {one.id} because deletionProtection is set to true")
        if one.type in ("gcp:compute/network:Network", "gcp:compute/subnetwork:Subnetwork"):
            users = [other.id for other in self.cloud.objects() if other.id != one.id and _mentions(other.inputs, one.id)]
            if users:
                raise Refused(f"400: {one.id} is already being used by {', '.join(users)}")
        with self._alone(one.type, one.inputs):
            yield


def _mentions(value: Any, text: str) -> bool:
    if isinstance(value, dict):
        return any(_mentions(item, text) for item in value.values())
    if isinstance(value, list):
        return any(_mentions(item, text) for item in value)
    return value == text


def dns_name(cluster: Object) -> str:
    """Address of a cluster's control plane, in the form of GKE's."""
    return f"gke-{hashlib.sha256(cluster.id.encode()).hexdigest()[:16]}.{cluster.inputs['location']}.gke.goog"


# Kinds that every cluster has although neither the SDK nor a stack brings them: GKE's own.
GKE_GROUPS = (
    "gateway.networking.k8s.io",
    "networking.gke.io",
    "monitoring.googleapis.com",
    "cloud.google.com",
    "secrets-store.csi.x-k8s.io",
)


class Kubernetes(Provider):
    """kubernetes."""

    package = "kubernetes"
    deletes_first = True  # every object of the kit has a name of its own, which its successor needs

    def faults(self, token: str, inputs: Inputs) -> list[tuple[str, str]]:
        if token == RELEASE:
            return super().faults(token, inputs)
        found = []
        if inputs.get("metadata") != UNKNOWN and not (inputs.get("metadata") or {}).get("name"):
            found.append(("metadata.name", "missing: objects of the kit have a name that does not change"))
        said = f"kubernetes:{inputs.get('apiVersion')}:{inputs.get('kind')}"
        if said not in (token, token.replace("kubernetes:core/", "kubernetes:")):
            found.append(("apiVersion", f"the object says {said}, its resource {token}"))
        resource = sdk_types.resource_class(_canonical(token))
        if resource is not None:
            return found + sdk_types.mistakes(sdk_types.input_class(resource), inputs)
        import pulumi_kubernetes.meta.v1 as meta

        metadata = inputs.get("metadata")
        if isinstance(metadata, dict):
            found += sdk_types.mistakes(meta.ObjectMetaArgs, metadata, "metadata.")
        return found

    def identity(self, token: str, name: str, inputs: Inputs) -> str:
        """namespace/name, behind the kind so that it is the object's alone."""
        metadata = inputs["metadata"] if token != RELEASE else inputs
        return f"{token.split(':', 1)[1]} {metadata.get('namespace', '')}/{metadata.get('name') or name}"

    def outputs(self, token: str, name: str, inputs: Inputs, preview: bool) -> Inputs:
        if token != RELEASE:
            return {}
        return {"name": inputs.get("name") or name, "status": UNKNOWN if preview else {"status": "deployed"}}

    def DiffConfig(self, request: Any, context: Any) -> Any:
        """A provider is replaced, and with it all that it made, when it is about another cluster or may be."""
        before, after = plain(raw(request.old_inputs)), plain(raw(request.news))
        response = super().DiffConfig(request, context)
        keys = [key for key in ("kubeconfig", "context", "cluster") if after.get(key) == UNKNOWN]
        if not keys and server(before) != server(after):
            keys = ["kubeconfig"]
        response.replaces.extend(keys)
        return response

    def _on(self, switch: str) -> bool:
        return str(self.configuration.get(switch, "")).lower() == "true"

    def forces(self, token: str, path: str) -> bool:
        mutable = token == "kubernetes:core/v1:Secret" and self._on("enableSecretMutable")
        if mutable and path.startswith(("data", "stringData")):
            return False
        return super().forces(token, path)

    def takes_over(self) -> bool:
        return self._on("upsertExistingObjects")

    def _reachable(self) -> None:
        """Raises Refused when the kubeconfig names a GKE cluster that is not there."""
        wanted = server(self.configuration)
        if not wanted:
            return
        clusters = self.cloud.of_type(CLUSTER)
        there = [f"https://{address}" for one in clusters for address in (dns_name(one), one.plain_outputs["endpoint"])]
        if wanted not in there:
            raise Refused(f"configured Kubernetes cluster is unreachable: {wanted}")

    @contextlib.contextmanager
    def creating(self, token: str, inputs: Inputs) -> Iterator[None]:
        self._reachable()
        namespace = inputs.get("namespace") if token == RELEASE else inputs["metadata"].get("namespace")
        if namespace and namespace not in ("default", "kube-system"):
            known = [one.inputs["metadata"]["name"] for one in self.cloud.of_type("kubernetes:core/v1:Namespace")]
            if namespace not in known:
                raise Refused(f'namespaces "{namespace}" not found')
        if token != RELEASE and sdk_types.resource_class(_canonical(token)) is None:
            group = inputs["apiVersion"].partition("/")[0]
            served = {one.inputs["metadata"]["name"].partition(".")[2] for one in self.cloud.of_type(CRD)}
            if group not in served and not group.endswith(GKE_GROUPS):
                raise Refused(f'no matches for kind "{inputs["kind"]}" in version "{inputs["apiVersion"]}"')
        yield

    @contextlib.contextmanager
    def updating(self, token: str, inputs: Inputs) -> Iterator[None]:
        self._reachable()
        yield

    @contextlib.contextmanager
    def deleting(self, one: Object) -> Iterator[None]:
        self._reachable()
        if one.type.endswith(":RayService") and not self.cloud.of_type(RELEASE):
            raise Refused(f"{one.id} stays in Terminating: no operator is there to remove its finalizer")
        if one.type == "kubernetes:core/v1:Namespace":
            name = one.inputs["metadata"]["name"]
            inside = [
                other.id
                for other in self.cloud.objects()
                if other.type.startswith("kubernetes:")
                and name in ((other.inputs.get("metadata") or {}).get("namespace"), other.inputs.get("namespace"))
            ]
            if inside:
                raise Refused(f"namespace {name} would take with it {', '.join(inside)}")
        yield

    def Construct(self, request: Any, context: Any) -> Any:
        """yaml/v2's ConfigGroup, a component that the provider brings: one CRD for each of its files."""
        if request.type != "kubernetes:yaml/v2:ConfigGroup":
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the stand-in has no component {request.type}")
        inputs = plain(raw(request.inputs))
        if set(inputs) - {"files"}:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the stand-in knows a ConfigGroup's files only: {sorted(inputs)}")
        options: dict[str, Any] = {"retainOnDelete": request.retainOnDelete, "protect": request.protect, "acceptSecrets": True}
        with grpc.insecure_channel(request.monitorEndpoint) as channel:
            monitor = resource_pb2_grpc.ResourceMonitorStub(channel)
            group = monitor.RegisterResource(
                resource_pb2.RegisterResourceRequest(
                    type=request.type, name=request.name, parent=request.parent, dependencies=request.dependencies, **options
                )
            )
            made = []
            for file in inputs["files"]:
                # ray.io_rayclusters.yaml, as controller-gen names it
                api, plural = pathlib.PurePath(file).stem.split("_")
                child = monitor.RegisterResource(
                    resource_pb2.RegisterResourceRequest(
                        type=CRD,
                        name=f"{request.name}:{plural}.{api}",
                        custom=True,
                        parent=group.urn,
                        provider=request.providers.get("kubernetes", ""),
                        dependencies=request.dependencies,
                        object=struct(
                            {
                                "apiVersion": "apiextensions.k8s.io/v1",
                                "kind": "CustomResourceDefinition",
                                "metadata": {"name": f"{plural}.{api}"},
                                "spec": {
                                    "group": api,
                                    "names": {"kind": plural, "plural": plural},
                                    "scope": "Namespaced",
                                    "versions": [],
                                },
                            }
                        ),
                        **options,
                    )
                )
                made.append(child.urn)
            monitor.RegisterResourceOutputs(
                resource_pb2.RegisterResourceOutputsRequest(urn=group.urn, outputs=struct({"resources": made}))
            )
        return provider_pb2.ConstructResponse(urn=group.urn, state=struct({"resources": made}))


def _canonical(token: str) -> str:
    """The core group has an empty name in Kubernetes, and the name core in the SDK."""
    return token.replace("kubernetes:v1:", "kubernetes:core/v1:")


def server(configuration: Inputs) -> str:
    """The API server that a kubeconfig names; empty without one."""
    document = yaml.safe_load(configuration.get("kubeconfig") or "null")
    if not isinstance(document, dict):
        return ""
    contexts = {one["name"]: one["context"]["cluster"] for one in document["contexts"]}
    clusters = {one["name"]: one["cluster"]["server"] for one in document["clusters"]}
    return clusters[contexts[configuration.get("context") or document["current-context"]]]


class Random(Provider):
    """random."""

    package = "random"

    def outputs(self, token: str, name: str, inputs: Inputs, preview: bool) -> Inputs:
        letters = string.ascii_letters + string.digits
        length = inputs.get("length") or 8
        value = UNKNOWN if preview else "".join(secrets.choice(letters) for _ in range(length))
        hashed = UNKNOWN if preview else hashlib.sha256(value.encode()).hexdigest()
        return {"result": value, "bcryptHash": hashed}


PROVIDERS = {kind.package: kind for kind in (Google, Kubernetes, Random)}


def began(pid: int | str) -> str:
    """When a process began, which tells it from a later one with its number; empty where none lives."""
    try:
        state, *fields = pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return ""
    return "" if state == "Z" else fields[18]


class StandIn(socketserver.BaseRequestHandler):
    """One stand-in in a process of its own, for one plugin.py."""

    def handle(self) -> None:
        asked, outputs, _, _ = socket.recv_fds(self.request, 4096, 2)
        for output, own in zip(outputs, (1, 2), strict=True):
            os.dup2(output, own)
            os.close(output)
        package, _, folder = asked.decode().partition(" ")
        cloud = Cloud(pathlib.Path(folder))
        # a component holds a thread while its children take others
        threads = futures.ThreadPoolExecutor(max_workers=32)
        server_ = grpc.server(threads, options=[("grpc.max_receive_message_length", -1)])
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(PROVIDERS[package](cloud), server_)
        port = server_.add_insecure_port("127.0.0.1:0")
        server_.start()
        with (cloud.folder / "processes").open("a") as log:
            log.write(f"{os.getpid()} {began(os.getpid())}\n")
        print(port, flush=True)
        self.request.recv(1)  # returns when plugin.py ends
        os._exit(0)


class StandIns(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    """Starts each stand-in as a copy of this process, which has loaded the SDKs.

    Pulumi starts every provider anew for every command. Loading an SDK takes longer than the command itself.
    """

    max_children = 1000  # at this number it would wait for one to end
    parent = os.getppid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.parent:
            raise SystemExit("the tests have ended")


def main() -> None:
    for token in replacing.TYPES:
        resource = sdk_types.resource_class(token)
        assert resource is not None, token
        sdk_types.fields(sdk_types.input_class(resource))
        sdk_types.computed(resource)
    gc.freeze()  # a copy would copy the memory of what it only looks through
    with StandIns(sys.argv[1], StandIn) as server_:
        print("ready", flush=True)
        server_.serve_forever()


if __name__ == "__main__":
    main()
