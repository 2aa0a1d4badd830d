"""Plan the engine limits of a service on GPUs, as the cards' memory allows."""

from dataclasses import replace

from rayline.facts import defaults
from rayline.facts.accelerators import ACCELERATORS, AcceleratorSpec
from rayline.models.model import GIB
from rayline.service.fit import largest, memory_fit, utilization
from rayline.service.request import KnownService
from rayline.service.scale import TYPICAL_SHARE_OF_CONTEXT
from rayline.service.types import EngineLimits, MemoryFit


def _fit_on(service: KnownService, limits: EngineLimits, spec: AcceleratorSpec, tensor_parallel_size: int) -> MemoryFit:
    engine = service.arguments.engine
    if not engine.said("gpu_memory_utilization"):
        limits = replace(limits, gpu_memory_utilization=_share(service, spec, tensor_parallel_size))
    return memory_fit(
        service.loaded,
        limits,
        memory_gib=spec.memory_gib,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=engine.pipeline_parallel_size,
        prefix_caching=service.prefix_caching,
    )


def _share(service: KnownService, spec: AcceleratorSpec, tensor_parallel_size: int) -> float:
    """Return vLLM's share of the memory for the most sequences that the plan may choose, so that fewer do not change it."""
    engine = service.arguments.engine
    sequences = engine.max_num_seqs or spec.max_num_seqs
    gpus = tensor_parallel_size * engine.pipeline_parallel_size
    return utilization(spec.memory_gib, service.model.vocab_size, sequences, engine.gpu_memory_utilization, gpus)


def engine_limits(service: KnownService, spec: AcceleratorSpec) -> tuple[EngineLimits, MemoryFit]:
    """Return explicit limits and how they fit: those of the stack, else the card's defaults as far as the memory allows."""
    engine = service.arguments.engine

    def fit(limits: EngineLimits) -> MemoryFit:
        return _fit_on(service, limits, spec, service.tensor)

    most = service.limits(
        max_model_len=defaults.MAX_MODEL_LEN, max_num_seqs=spec.max_num_seqs, max_num_batched_tokens=spec.max_num_batched_tokens
    )
    share = _share(service, spec, service.tensor)
    if not engine.said("gpu_memory_utilization"):
        most = replace(most, gpu_memory_utilization=share)
    elif share < most.gpu_memory_utilization:
        service.warnings.append(
            f"engine.gpu_memory_utilization {most.gpu_memory_utilization}: CUDA, NCCL and the sampler of {most.max_num_seqs} requests "
            f"need memory beside vLLM's share where a replica has several GPUs; {share} is the most that leaves it"
        )
    roomy = fit(most)
    # The sampler's memory grows with the sequences. Where the stack names no number, fewer may make room for the context.
    while engine.max_num_seqs is None and roomy.longest_context < most.max_model_len and most.max_num_seqs > 8:
        most = replace(most, max_num_seqs=most.max_num_seqs // 2)
        roomy = fit(most)
    context, sequences = most.max_model_len, most.max_num_seqs
    if engine.max_model_len is None and 0 < roomy.longest_context < context:
        context = _rounded(roomy.longest_context)
    if engine.max_num_seqs is None:
        # More would wait or be preempted: requests of an eighth of the context, and never more than fit at all.
        held = int(roomy.sequences(max(1, context // TYPICAL_SHARE_OF_CONTEXT)))
        sequences = max(1, min(sequences, held // 8 * 8 or held))
        while sequences > 1 and not fit(replace(most, max_model_len=context, max_num_seqs=sequences)).fits:
            sequences //= 2
    elif service.model.recurrent and sequences > roomy.blocks > 0:
        # Fewer sequences take less of the sampler's memory, so more blocks fit beside them.
        fitting = max(1, largest(sequences, lambda count: fit(replace(most, max_num_seqs=count)).blocks >= count))
        service.refuse(
            "engine.max_num_seqs",
            f"every sequence needs a block of its own for its linear-attention state: at most {fitting} fit",
        )
    limits = replace(most, max_model_len=context, max_num_seqs=sequences)
    if context < most.max_model_len and engine.max_model_len is None:
        # Fewer sequences than at first leave room for a longer context.
        longest = min(fit(limits).longest_context // 256 * 256, most.max_model_len)
        limits = replace(limits, max_model_len=max(context, longest))
    return limits, fit(limits)


def _rounded(tokens: int) -> int:
    return tokens // 256 * 256 or tokens


def refuse_fit(service: KnownService, spec: AcceleratorSpec, limits: EngineLimits, fit: MemoryFit) -> None:
    """Refuse a model that does not fit: by how much, and what would fit."""
    ways = [f"engine.max_model_len {fit.longest_context}"] if fit.longest_context > 0 else []
    gpus = max(machine.gpus for machine in spec.machines)
    larger = (size for size in (2, 4, 8) if service.tensor < size <= gpus and size in service.model.tensor_parallel_sizes())
    if size := next((size for size in larger if _fit_on(service, limits, spec, size).fits), None):
        ways.append(f"engine.tensor_parallel_size {size}")
    for other, row in ACCELERATORS.items():
        if row.memory_gib > spec.memory_gib and _fit_on(service, limits, row, service.tensor).fits:
            ways.append(f"accelerator {other.value}")
            break
    needed = fit.layout.blocks_per_request(limits.max_model_len, limits.tokens_in_flight) * fit.layout.block_bytes / GIB
    what = (
        f"{service.arguments.model} at {limits.max_model_len} tokens does not fit {service.gpus_per_replica} x "
        f"{service.arguments.accelerator.value}: weights {fit.weights_gib:.1f} + activations and graphs "
        f"{fit.activation_gib + fit.overhead_gib:.1f} of {fit.usable_gib:.1f} GiB usable per GPU, and the "
        f"KV cache of one request {needed:.1f}: {fit.short_by_gib:.1f} GiB short"
    )
    service.check.refuse(service.path, None, f"{what}; what fits: {' or '.join(ways) if ways else 'a smaller model'}")


def check_batch(service: KnownService, limits: EngineLimits) -> None:
    """Refuse engine steps that hold fewer tokens than sequences, or than a prompt of an encoder."""
    if service.loaded.is_encoder and limits.max_num_batched_tokens < limits.max_model_len:
        why = f"an encoder computes a prompt in one step, and engine.max_model_len is {limits.max_model_len}. Fix: at least as many"
        service.refuse("engine.max_num_batched_tokens", why)
    if limits.max_num_batched_tokens < limits.max_num_seqs:
        key = "max_num_batched_tokens" if service.arguments.engine.max_num_batched_tokens else "max_num_seqs"
        service.refuse(
            f"engine.{key}",
            f"a step of {limits.max_num_batched_tokens} tokens is too small for {limits.max_num_seqs} sequences: "
            "max_num_batched_tokens is at least max_num_seqs",
        )
