"""Plan a service on GPUs: its machine, zones, worker group and cost."""

import re
from math import ceil, floor

from rayline.facts import defaults
from rayline.facts.accelerators import ACCELERATORS, AcceleratorSpec, MachineType
from rayline.facts.choices import Capacity, ClusterMode, WeightsSource
from rayline.facts.google import AI_ZONE, FUSE_SIDECAR_CPUS, FUSE_SIDECAR_MEMORY_GIB
from rayline.facts.prices import node_price
from rayline.models.plan import on_disk_gib
from rayline.pools.arguments import NodesArgs
from rayline.pools.capacity import CapacityPlan, plan_capacity, refuse_machine
from rayline.pools.plan import DAEMONSET_CPUS, DAEMONSET_MEMORY_GIB, allocatable, listed_zones
from rayline.pools.types import PoolKey
from rayline.schema.spelling import hint, meant
from rayline.service import adapters
from rayline.service.limits import check_batch, engine_limits, refuse_fit
from rayline.service.request import KnownService
from rayline.service.scale import group_maximum, plan_autoscaling, spare_workers, start_timeout, surge_workers, workers_for
from rayline.service.types import Draft, MemoryFit, ServicePlan, WorkerGroup

# Of what is left, the share that a worker requests; lands on the requests known to schedule (6 CPU, 24 GiB on g2-standard-8).
WORKER_CPU_SHARE = 0.95
WORKER_MEMORY_SHARE = 0.94


def plan_on_gpus(service: KnownService) -> Draft | None:
    """Decide the machine of a service and all that depends on it; None where no machine fits."""
    arguments, cluster = service.arguments, service.cluster
    spec = ACCELERATORS[arguments.accelerator]
    _refuse_wrong_keys(service)
    capacity = plan_capacity(service.check, f"{service.path}.nodes", arguments.nodes, cluster)
    machine = _choose_machine(service, spec, capacity)
    zones = _choose_zones(service, spec)
    if machine is None:
        return None
    gpus_per_worker = _gpus_per_worker(service, machine)
    rdma = _needs_rdma(service, machine, gpus_per_worker)
    if len(zones) > 1 and (rdma or capacity.capacity is Capacity.RESERVATION):
        why = "network cards reach machines of one zone only" if rdma else "a reservation lives in one zone"
        service.refuse("nodes.zones", f"{why}: name that one, for example [{zones[0]}]", ", ".join(zones))

    limits, fit = engine_limits(service, spec)
    usual = min(defaults.MAX_MODEL_LEN, service.model.max_context)
    if arguments.engine.max_model_len is None and limits.max_model_len < usual:
        service.warnings.append(
            f"{limits.max_model_len:,} tokens of context, less than the usual {usual:,}: no more fit beside {limits.max_num_seqs} requests "
            "(engine.max_model_len, max_num_seqs, tensor_parallel_size and accelerator decide)"
        )
    check_batch(service, limits)
    if not fit.fits:
        refuse_fit(service, spec, limits, fit)

    workers = _workers(service, machine, gpus_per_worker, fit)
    _check_offload(service, workers)
    ways = capacity.ways(machine) or (capacity.capacity,)
    price = node_price(machine.name, cluster.region or "", ways)
    running, most = (0, 0) if arguments.park else (workers.workers, workers.most_workers)
    worker_usd = None if price is None else price * (gpus_per_worker / machine.gpus)
    plan = ServicePlan(
        **service.decided(workers), limits=limits, fit=fit, machine=machine, head_cpus=defaults.HEAD_CPUS,
        autoscaler_cpus=defaults.AUTOSCALER_CPUS, head_memory_gib=defaults.HEAD_MEMORY_GIB, kv_cache_gib=None,
        hourly_usd=None if worker_usd is None else worker_usd * running,
        highest_hourly_usd=None if worker_usd is None else worker_usd * most,
        start_timeout_seconds=start_timeout(ways if cluster.mode is ClusterMode.CREATE else ()),
        autoscaling=plan_autoscaling(arguments, limits, fit),
    )  # fmt: skip
    key = PoolKey(
        machine=machine, capacity=capacity.capacity, ways=ways, zones=zones, reservation=capacity.reservation,
        max_run_hours=capacity.max_run_hours if Capacity.FLEX_START in ways else None,
        secondary_boot_disk=capacity.secondary_boot_disk, rdma=rdma,
    )  # fmt: skip
    return Draft(plan, key)


# What a stack says about nodes that exist.
EXISTING_NODES = ("selector", "tolerations")


def refuse_existing_nodes(service: KnownService) -> None:
    """Refuse labels and taints of nodes where the kit makes the nodes."""
    why = "only with cluster.mode existing; here the kit labels and taints the nodes: leave it out"
    service.refuse_if_said("nodes", EXISTING_NODES, why)


def _refuse_wrong_keys(service: KnownService) -> None:
    why = "is for accelerator cpu; here the machine type decides: leave it out"
    service.refuse_if_said("engine", ("kv_cache_gib",), why)
    if service.cluster.mode is ClusterMode.EXISTING:
        bought = [key for key in NodesArgs.model_fields if key not in ("machine_type", *EXISTING_NODES)]
        service.refuse_if_said("nodes", bought, "the nodes of an existing cluster are there already: leave it out")
    else:
        service.refuse_if_said("workers", ("cpus", "memory_gib"), why)
        refuse_existing_nodes(service)
    sizes = service.model.tensor_parallel_sizes()
    if service.tensor not in sizes:
        service.refuse(
            "engine.tensor_parallel_size",
            f"the {service.model.heads} attention heads of {service.arguments.model} are split evenly over "
            f"{', '.join(map(str, sizes))} GPUs only",
        )


def _check_offload(service: KnownService, workers: WorkerGroup) -> None:
    """Refuse a second level of the KV cache that cannot work or does not fit a worker."""
    wanted = service.arguments.engine.kv_offload_gib
    if wanted is None:
        return
    if not service.prefix_caching:
        service.refuse(
            "engine.kv_offload_gib", "what left the KV cache is found by its prefix: enable_prefix_caching, or leave it out"
        )
    replicas = workers.replicas_per_worker
    half = workers.memory_gib * adapters.MOST_OF_MEMORY / max(replicas, 1) * ceil(1 / min(replicas, 1))
    most = max(0, floor(half - adapters.loaded_gib(service)))
    if wanted > most:
        place = f"{replicas:g} replicas of a worker with" if replicas > 1 else "a worker with"
        beside = " beside the adapters" if service.arguments.adapters else ""
        why = f"half of the memory is for it, the rest for Ray and the engine: at most {most}{beside} with {place} {workers.memory_gib} GiB"
        service.refuse("engine.kv_offload_gib", f"{why}, or a larger nodes.machine_type")


def _choose_machine(service: KnownService, spec: AcceleratorSpec, capacity: CapacityPlan) -> MachineType | None:
    card, wanted = service.arguments.accelerator.value, service.arguments.nodes.machine_type
    by_name = {machine.name: machine for machine in spec.machines}
    if wanted and wanted not in by_name:
        service.refuse("nodes.machine_type", f"machines with {card}: {', '.join(by_name)}")
        return None
    candidates = [by_name[wanted]] if wanted else list(spec.machines)
    # of all models of the service: they share its machines
    wide = service.arguments.most_tensor_parallel
    large = [machine for machine in candidates if machine.gpus >= wide] or [m for m in candidates if m.gpus >= service.tensor]
    if not large:
        most = max(machine.gpus for machine in candidates)
        spans = f"; {most} with pipeline_parallel_size {ceil(service.tensor / most)} spans machines"
        service.refuse(
            "engine.tensor_parallel_size",
            f"{wanted or f'the largest {card} machine'} has {most} GPUs, and tensor parallelism stays within a machine: at most {most}"
            f"{'' if service.tensor % most else spans}",
        )
        return None
    # the nodes of an existing cluster are bought already
    bought = service.cluster.mode is not ClusterMode.CREATE
    fitting = [machine for machine in large if bought or capacity.ways(machine)]
    if not fitting:
        refuse_machine(service.check, f"{service.path}.nodes", capacity, large[0])
        return None
    return fitting[0]


def _choose_zones(service: KnownService, spec: AcceleratorSpec) -> tuple[str, ...]:
    region, location = service.cluster.region, service.cluster.location
    if service.cluster.mode is not ClusterMode.CREATE or not region:
        return ()
    zones = service.arguments.nodes.zones
    if zones is not None:
        _check_zones(service, zones, region, spec)
        return tuple(zones)
    if location is not None and location != region and not location.startswith(f"{region}-"):
        return ()  # a location outside the region is refused already
    listed = listed_zones(spec, region, location)
    if not listed:
        _refuse_place(service, spec, location or region, region)
    return listed


def _check_zones(service: KnownService, zones: list[str], region: str, spec: AcceleratorSpec) -> None:
    if not zones:
        service.refuse("nodes.zones", f"at least one, for example {region}-b, or leave the key out")
    if len(set(zones)) != len(zones):
        service.refuse("nodes.zones", "each zone once")
    early = [zone for zone in zones if AI_ZONE in zone]
    wrong = [zone for zone in zones if zone not in early and not re.fullmatch(f"{re.escape(region)}-[a-z]", zone)]
    if early:
        service.refuse(
            "nodes.zones",
            f"{', '.join(early)} is an AI zone: they stand in Google's lists before GKE clusters can use them, so leave it out",
        )
    if wrong:
        inside = [zone for zone in spec.zones if zone.startswith(f"{region}-")]
        advice = hint(wrong[0], inside, f"zones of it only, for example {region}-b")
        service.refuse("nodes.zones", f"{', '.join(wrong)} is not in {region}: {advice}")


def _refuse_place(service: KnownService, spec: AcceleratorSpec, where: str, region: str) -> None:
    regions = {zone.rsplit("-", 1)[0] for row in ACCELERATORS.values() for zone in row.zones}
    if region not in regions and meant(region, regions):
        service.check.refuse("gcp:region", region, f"not known here; did you mean {meant(region, regions)}?")
        return
    inside = [zone for zone in spec.zones if zone.startswith(f"{region}-")]
    listed = inside or sorted({zone.rsplit("-", 1)[0] for zone in spec.zones})
    known = f"known: {', '.join(listed)}" if listed else spec.notes
    card = service.arguments.accelerator.value
    service.refuse("nodes.zones", f"no source lists {card} in {where}; name the zones, or use another place ({known})")


def _gpus_per_worker(service: KnownService, machine: MachineType) -> int:
    """Return the GPUs of one worker pod: those that the stack names, else all of the machine."""
    wanted, tensor = service.arguments.workers.gpus, service.tensor
    gpus = wanted or machine.gpus
    if gpus > machine.gpus:
        service.refuse("workers.gpus", f"at most {machine.gpus}, which is what {machine.name} has")
    elif machine.gpus % tensor and wanted is None:
        service.refuse(
            "engine.tensor_parallel_size", f"has to divide the {machine.gpus} GPUs of {machine.name}, so that none is left over"
        )
    elif gpus % tensor or machine.gpus % gpus:
        service.refuse(
            "workers.gpus",
            f"a multiple of tensor_parallel_size {tensor} that divides the {machine.gpus} GPUs of {machine.name}",
            gpus,
        )
    return gpus


def _needs_rdma(service: KnownService, machine: MachineType, gpus_per_worker: int) -> bool:
    """Return whether a replica spans machines whose GPUs communicate over network cards."""
    spans = service.gpus_per_replica > gpus_per_worker
    rdma = spans and machine.rdma and service.cluster.mode is ClusterMode.CREATE
    if rdma and gpus_per_worker != machine.gpus:
        why = f"a replica that spans machines takes all network cards of each: leave it out, or {machine.gpus}"
        service.refuse("workers.gpus", why, gpus_per_worker)
    return rdma


def _workers(service: KnownService, machine: MachineType, gpus_per_worker: int, fit: MemoryFit) -> WorkerGroup:
    scale, gpus_per_replica = service.scale, service.gpus_per_replica
    most_workers = workers_for(scale.most_replicas, gpus_per_replica, gpus_per_worker)
    share = gpus_per_worker / machine.gpus
    cpus, memory = allocatable(machine)
    if service.weights.source is WeightsSource.GCS_FUSE:
        # every worker pod has the mount's sidecar beside it
        cpus -= FUSE_SIDECAR_CPUS * machine.gpus / gpus_per_worker
        memory -= FUSE_SIDECAR_MEMORY_GIB * machine.gpus / gpus_per_worker
    surge, sizes = service.arguments.rollout.max_surge_percent, service.arguments.workers
    return WorkerGroup(
        workers=workers_for(scale.replicas, gpus_per_replica, gpus_per_worker),
        most_workers=most_workers,
        surge_workers=surge_workers(scale, surge, gpus_per_replica, gpus_per_worker),
        spare_workers=spare_workers(scale, gpus_per_replica, gpus_per_worker),
        max_workers=group_maximum(service.cluster.mode, most_workers),
        gpus=gpus_per_worker,
        ray_cpus=0,
        # nodes that exist may be smaller or larger than Google's machine with that GPU
        cpus=sizes.cpus or floor((cpus - DAEMONSET_CPUS) * WORKER_CPU_SHARE * share),
        memory_gib=sizes.memory_gib or floor((memory - DAEMONSET_MEMORY_GIB) * WORKER_MEMORY_SHARE * share / 2) * 2,
        ephemeral_gib=on_disk_gib(service.weights.source, fit.weights_gib * gpus_per_replica)
        + adapters.on_disk_gib(service)
        + 10,
        replicas_per_worker=gpus_per_worker / gpus_per_replica,
    )
