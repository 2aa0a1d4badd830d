"""What the program declares has names that Google and Kubernetes take, also under the longest stack name."""

import re

import pytest

from rayline.facts.names import PLATFORM, PULUMI_SUFFIX
from rayline.platform.arguments import MAX_SERVICE_NAME
from rayline_cli.offline import Program

STACK_NAME = "production-of-the-platform-team-in-europe"[:PLATFORM]
SERVICE_NAME = ("qwen-for-the-search-of-" * 3)[:MAX_SERVICE_NAME].ljust(MAX_SERVICE_NAME, "s")
EVERYTHING = """
gcp:project: my-project
gcp:region: us-central1
cluster: {mode: create}
head: {store: memorystore}
endpoint: {exposure: %s, domain: llm.search.example.com%s}
weights: {bucket: my-models}
services:
  %s: {model: Qwen/Qwen3.5-4B, accelerator: l4, weights: {source: gcs-fuse}, nodes: {capacity: flex-start, max_run_hours: 24}}
  gemma:
    model: google/gemma-4-E2B-it
    accelerator: b200
    nodes: {capacity: flex-start, max_run_hours: 24, zones: [us-central1-b]}
  ladder: {model: Qwen/Qwen3.5-4B, accelerator: l4, nodes: {capacity: ladder, capacity_order: [spot, on-demand]}}
"""
# Characters that Google takes; 63 for all others.
LIMITS = {
    "gcp:container/cluster:Cluster": 40,
    "gcp:container/nodePool:NodePool": 40,
    "gcp:redis/instance:Instance": 40,
    "gcp:serviceaccount/account:Account": 30,
}
NAMELESS = ("IAMMember", "IamMember", "Service", "getProject")
# Kinds whose names become labels or names of Services.
SHORT = {"Service": 63, "Namespace": 63, "Job": 63, "RayService": MAX_SERVICE_NAME, "ComputeClass": 63}


@pytest.fixture(params=["public", "internal"])
def program(request: pytest.FixtureRequest, record_file) -> Program:
    more = ", rate_limit_per_minute: 60" if request.param == "public" else ""
    return record_file(EVERYTHING % (request.param, more, SERVICE_NAME), STACK_NAME)


def test_googles_resources_have_names_within_googles_limits(program):
    assert len(STACK_NAME) == PLATFORM
    seen = set()
    for one in program.resources:
        if not one.type.startswith("gcp:") or one.type.endswith(NAMELESS):
            continue
        given = one.inputs.get("accountId") or one.inputs.get("name") or one.inputs.get("title")
        name = given or f"{one.name}-{'0' * (PULUMI_SUFFIX - 1)}"
        assert len(name) <= LIMITS.get(one.type, 63), (one.type, name)
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), (one.type, name)
        seen.add(one.type)
    assert set(LIMITS) <= seen


def test_kubernetes_objects_have_names_within_their_limits(program):
    seen = set()
    for one in program.resources:
        metadata = one.inputs.get("metadata")
        if not one.type.startswith("kubernetes:") or not metadata:
            continue
        kind = one.type.rpartition(":")[2]
        assert len(metadata["name"]) <= SHORT.get(kind, 253), (kind, metadata["name"])
        for value in (metadata.get("labels") or {}).values():
            assert len(value) <= 63
        seen.add(kind)
    assert {"RayService", "ComputeClass", "Job", "Namespace"} <= seen


def test_two_stacks_with_the_same_beginning_share_no_name(record_file):
    def fixed_and_begun(stack: str) -> set[str]:
        found = set()
        for one in record_file(EVERYTHING % ("internal", "", SERVICE_NAME), stack).resources:
            if one.type.startswith("gcp:") and one.custom and not one.type.endswith(NAMELESS):
                found.add(f"{one.type} {one.inputs.get('accountId') or one.inputs.get('name') or one.name}")
        return found - {"gcp:storage/bucket:Bucket my-models"}

    assert not fixed_and_begun(f"{STACK_NAME[:-1]}1") & fixed_and_begun(f"{STACK_NAME[:-1]}2")
