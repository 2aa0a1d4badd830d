"""Which machine and zones a service gets, and the engine limits that its memory allows."""

import re
from dataclasses import replace
from math import ceil

from rayline.facts import defaults
from rayline.facts.accelerators import ACCELERATORS, AcceleratorSpec, MachineType
from rayline.facts.choices import ClusterMode
from rayline.facts.google import AI_ZONE
from rayline.pools.capacity import CapacityPlan, refuse_machine
from rayline.pools.plan import listed_zones
from rayline.schema.check import Check
from rayline.schema.spelling import hint, meant
from rayline.service.draft import Common, context_tokens
from rayline.service.fit import GIB, largest, memory_fit
from rayline.service.scale import TYPICAL_SHARE_OF_CONTEXT
from rayline.service.types import EngineLimits, MemoryFit


def choose_machine(check: Check, common: Common, spec: AcceleratorSpec, asked: CapacityPlan) -> MachineType | None:
    path, wanted = f"{common.path}.nodes", common.asked.nodes.machine_type
    by_name = {machine.name: machine for machine in spec.machines}
    if wanted and wanted not in by_name:
        check.refuse(f"{path}.machine_type", wanted, f"machines with {common.asked.accelerator.value}: {', '.join(by_name)}")
        return None
    candidates = [by_name[wanted]] if wanted else list(spec.machines)
    large = [machine for machine in candidates if machine.gpus >= common.tensor]
    if not large:
        most = max(machine.gpus for machine in candidates)
        where = wanted or f"the largest {common.asked.accelerator.value} machine"
        pipeline = (
            f"; {most} with pipeline_parallel_size {ceil(common.tensor / most)} spans machines"
            if common.tensor % most == 0
            else ""
        )
        check.refuse(
            f"{common.path}.engine.tensor_parallel_size",
            common.tensor,
            f"{where} has {most} GPUs, and tensor parallelism stays within a machine: at most {most}{pipeline}",
        )
        return None
    # how the nodes of an existing cluster were obtained is not asked
    bought = common.cluster.mode is not ClusterMode.CREATE
    fitting = [machine for machine in large if bought or asked.ways(machine)]
    if not fitting:
        refuse_machine(check, path, asked, large[0])
        return None
    return fitting[0]


def choose_zones(check: Check, common: Common, spec: AcceleratorSpec) -> tuple[str, ...]:
    path, region, location = f"{common.path}.nodes", common.cluster.region, common.cluster.location
    if common.cluster.mode is not ClusterMode.CREATE or not region:
        return ()
    given = common.asked.nodes.zones
    if given is not None:
        _check_zones(check, f"{path}.zones", given, region, spec)
        zones = tuple(given)
    elif location is not None and location != region and not location.startswith(f"{region}-"):
        return ()  # a location outside the region is refused already
    else:
        zones = listed_zones(spec, region, location)
        if not zones:
            _refuse_place(check, common, spec, location or region, region)
    return zones


def need_one_zone(check: Check, path: str, zones: tuple[str, ...], why: str) -> None:
    if len(zones) > 1:
        check.refuse(f"{path}.nodes.zones", ", ".join(zones), f"{why}: name that one, for example [{zones[0]}]")


def _check_zones(check: Check, path: str, given: list[str], region: str, spec: AcceleratorSpec) -> None:
    if not given:
        check.refuse(path, given, f"at least one, for example {region}-b, or leave the key out")
    if len(set(given)) != len(given):
        check.refuse(path, given, "each zone once")
    early = [zone for zone in given if AI_ZONE in zone]
    wrong = [zone for zone in given if zone not in early and not re.fullmatch(f"{re.escape(region)}-[a-z]", zone)]
    if early:
        check.refuse(
            path,
            given,
            f"{', '.join(early)} is an AI zone: they stand in Google's lists before GKE clusters can use them, so leave it out",
        )
    if wrong:
        inside = [zone for zone in spec.zones if zone.startswith(f"{region}-")]
        advice = hint(wrong[0], inside, f"zones of it only, for example {region}-b")
        check.refuse(path, given, f"{', '.join(wrong)} is not in {region}: {advice}")


def _refuse_place(check: Check, common: Common, spec: AcceleratorSpec, where: str, region: str) -> None:
    regions = {zone.rsplit("-", 1)[0] for row in ACCELERATORS.values() for zone in row.zones}
    if region not in regions and meant(region, regions):
        check.refuse("gcp:region", region, f"not known here; did you mean {meant(region, regions)}?")
        return
    inside = [zone for zone in spec.zones if zone.startswith(f"{region}-")]
    listed = inside or sorted({zone.rsplit("-", 1)[0] for zone in spec.zones})
    known = f"known: {', '.join(listed)}" if listed else spec.notes
    check.refuse(
        f"{common.path}.nodes.zones",
        None,
        f"no source lists {common.asked.accelerator.value} in {where}; name the zones, or use another place ({known})",
    )


def _fit_on(common: Common, limits: EngineLimits, spec: AcceleratorSpec, tensor_parallel_size: int) -> MemoryFit:
    return memory_fit(
        common.model,
        limits,
        memory_gib=spec.memory_gib,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=common.pipeline,
        prefix_caching=common.asked.engine.enable_prefix_caching,
    )


def engine_limits(check: Check, common: Common, spec: AcceleratorSpec) -> tuple[EngineLimits, MemoryFit]:
    """Explicit limits: what the stack says, else the card's defaults bounded by what the memory holds."""
    engine = common.asked.engine

    def fit(limits: EngineLimits) -> MemoryFit:
        return _fit_on(common, limits, spec, common.tensor)

    most = EngineLimits(
        max_model_len=context_tokens(check, common, defaults.MAX_MODEL_LEN),
        max_num_seqs=engine.max_num_seqs or spec.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens or spec.max_num_batched_tokens,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        batches_in_flight=common.runtime.batches_in_flight,
    )
    roomy = fit(most)
    # the sampler's memory grows with the sequences: where they are ours to choose, fewer may make room for the context
    while engine.max_num_seqs is None and roomy.longest_context < most.max_model_len and most.max_num_seqs > 8:
        most = replace(most, max_num_seqs=most.max_num_seqs // 2)
        roomy = fit(most)
    context = most.max_model_len
    if engine.max_model_len is None and 0 < roomy.longest_context < context:
        context = roomy.longest_context // 256 * 256 or roomy.longest_context
    sequences = most.max_num_seqs
    if engine.max_num_seqs is None:
        # More would only wait or be preempted: requests of an eighth of the context, and never more than fit at all.
        held = int(roomy.sequences(max(1, context // TYPICAL_SHARE_OF_CONTEXT)))
        sequences = max(1, min(sequences, held // 8 * 8 or held))
        while sequences > 1 and not fit(replace(most, max_model_len=context, max_num_seqs=sequences)).fits:
            sequences //= 2
    elif common.model.linear and sequences > roomy.blocks > 0:
        # fewer sequences also take less of the sampler's memory, so more blocks fit beside them
        most_that_fit = max(1, largest(sequences, lambda count: fit(replace(most, max_num_seqs=count)).blocks >= count))
        check.refuse(
            f"{common.path}.engine.max_num_seqs",
            sequences,
            f"every sequence needs a block of its own for its linear-attention state: at most {most_that_fit} fit",
        )
    limits = replace(most, max_model_len=context, max_num_seqs=sequences)
    if context < most.max_model_len and engine.max_model_len is None:
        # fewer sequences than the context was computed with leave room for more of it
        longest = min(fit(limits).longest_context // 256 * 256, most.max_model_len)
        limits = replace(limits, max_model_len=max(context, longest))
    return limits, fit(limits)


def refuse_fit(check: Check, common: Common, spec: AcceleratorSpec, limits: EngineLimits, fit: MemoryFit) -> None:
    """Say by how much, and what would fit."""
    ways = []
    if fit.longest_context > 0:
        ways.append(f"engine.max_model_len {fit.longest_context}")
    gpus = max(machine.gpus for machine in spec.machines)
    for tensor in (2, 4, 8):
        if common.tensor < tensor <= gpus and _fit_on(common, limits, spec, tensor).fits:
            ways.append(f"engine.tensor_parallel_size {tensor}")
            break
    for other, row in ACCELERATORS.items():
        if row.memory_gib > spec.memory_gib and _fit_on(common, limits, row, common.tensor).fits:
            ways.append(f"accelerator {other.value}")
            break
    needed = fit.layout.blocks_per_request(limits.max_model_len, limits.tokens_in_flight) * fit.layout.block_bytes / GIB
    what = (
        f"{common.asked.model} at {limits.max_model_len} tokens does not fit {common.tensor * common.pipeline} x {common.asked.accelerator.value}: "
        f"weights {fit.weights_gib:.1f} + activations and graphs {fit.activation_gib + fit.overhead_gib:.1f} of {fit.usable_gib:.1f} GiB usable per GPU, and the "
        f"KV cache of one request {needed:.1f}: {fit.short_by_gib:.1f} GiB short"
    )
    check.refuse(common.path, None, f"{what}; what fits: {' or '.join(ways) if ways else 'a smaller model'}")
