"""Accelerators and the Compute Engine machine types that carry them.

Sources, unless a row says otherwise:
- vCPU and memory: `gcloud compute machine-types list`, dump of 2026-07-01 in Cyclenerd/google-cloud-pricing-cost-calculator.
- A2 machines: Google's GPU page; capacities: accelerated-platforms' ComputeClasses for both A100; flex-start: their SKUs in the catalog.
- zones: skypilot-org/skypilot-catalog, gcp/vms.csv at 006059e; RTX PRO 6000 regions: cloudpilot-ai/karpenter-provider-gcp
  initial-prices.json of 2026-08-03, which names regions only, so that row has no zones and a stack must name them.
- capacities, boot disks, local SSD: GoogleCloudPlatform/cluster-toolkit at 1047080 (2026-06-25) and Google's GPU pages.
- `memory_gib`: what CUDA reports as "total capacity", from public PyTorch out-of-memory messages of that card.
- `nvlink`: NVIDIA's data sheets of the L4 and the RTX PRO 6000 Blackwell Server Edition name PCIe alone.
- `compute_capability`: https://developer.nvidia.com/cuda-gpus
- `max_num_batched_tokens`, `max_num_seqs`: vLLM 0.29's own defaults for a card of that memory (vllm/engine/arg_utils.py),
  stated so that a change of card never changes them silently.
"""

import re
from dataclasses import dataclass, field

from rayline.facts.choices import Accelerator, Capacity

GPU_RESOURCE = "nvidia.com/gpu"
# G2, G4, A2: every way (accelerated-platforms' ComputeClasses list reservation, on-demand, flex-start and spot for these GPUs).
ANY_CAPACITY = frozenset(set(Capacity) - {Capacity.LADDER})
# GKE's price page lists no on-demand price for A4, and a quota page quoted on 2026-09-17 calls its standard quota "Not available".
# Both A4 and A3 Ultra are reserved by name (cluster-toolkit's gke-a4.yaml); flex-start and spot are its own examples, too.
NO_ON_DEMAND = frozenset({Capacity.SPOT, Capacity.FLEX_START, Capacity.RESERVATION})
# A runbook of 2026-08-14 that made the machines says 1, 2 and 4 H100 are never on demand, and that reservations begin at 8.
SPOT_OR_FLEX_START = frozenset({Capacity.SPOT, Capacity.FLEX_START})


@dataclass(frozen=True)
class MachineType:
    """One Compute Engine machine type. `memory_gib` and `vcpus` are the machine's, before GKE takes its share."""

    name: str
    gpus: int
    vcpus: int
    memory_gib: int
    capacities: frozenset[Capacity] = ANY_CAPACITY
    rdma: bool = False
    """Network cards between the machines' GPUs that GKE's managed DRANET hands to pods (its page lists the machine types)."""
    caveat: str = ""
    """Warning of the plan for a service on this machine."""


@dataclass(frozen=True)
class AcceleratorSpec:
    """One accelerator.

    `gke_type` is the node label and `guestAccelerators` type, `ray_type` the name in Ray Serve LLM's `accelerator_type`.
    `memory_gib` is per GPU. `zones` are those that list the machine types; listed does not mean obtainable.
    `machines` are in order of preference for one more replica: the smallest first.
    """

    gke_type: str
    ray_type: str
    compute_capability: float
    memory_gib: float
    max_num_batched_tokens: int
    max_num_seqs: int
    machines: tuple[MachineType, ...]
    zones: tuple[str, ...]
    boot_disk_type: str
    driver_version: str
    min_gke_version: str
    source: str
    notes: str = ""
    local_ssds: dict[str, int] = field(default_factory=dict)
    nvlink: bool = True
    """Whether NVLink connects the GPUs of a machine; otherwise PCIe alone does."""


def _zones(**by_region: str) -> tuple[str, ...]:
    return tuple(f"{region.replace('_', '-')}-{letter}" for region, letters in by_region.items() for letter in letters)


ACCELERATORS: dict[Accelerator, AcceleratorSpec] = {
    Accelerator.L4: AcceleratorSpec(
        gke_type="nvidia-l4",
        ray_type="L4",
        compute_capability=8.9,
        memory_gib=22.03,
        max_num_batched_tokens=2048,
        max_num_seqs=256,
        nvlink=False,
        # g2-standard-4 is left out: 12.9 GiB allocatable is too little for a vLLM Ray worker with its shared memory.
        machines=(
            MachineType("g2-standard-8", 1, 8, 32),
            MachineType("g2-standard-12", 1, 12, 48),
            MachineType("g2-standard-16", 1, 16, 64),
            MachineType("g2-standard-32", 1, 32, 128),
            MachineType("g2-standard-24", 2, 24, 96),
            MachineType("g2-standard-48", 4, 48, 192),
            MachineType("g2-standard-96", 8, 96, 384),
        ),
        zones=_zones(
            asia_east1="abc",
            asia_northeast1="abc",
            asia_northeast3="ab",
            asia_south1="abc",
            asia_southeast1="abc",
            europe_west1="bc",
            europe_west2="ab",
            europe_west3="ab",
            europe_west4="abc",
            europe_west6="bc",
            me_central2="ac",
            northamerica_northeast1="bc",
            northamerica_northeast2="ab",
            us_central1="abc",
            us_east1="bcd",
            us_east4="ac",
            us_west1="abc",
            us_west4="ac",
        ),
        boot_disk_type="pd-balanced",
        driver_version="LATEST",  # the KubeRay high-throughput guide requires gpu-driver-version=latest
        min_gke_version="1.30",
        source="24 GB card; 22.03 GiB in PyTorch messages from G2 and g6 machines",
    ),
    Accelerator.A100_40GB: AcceleratorSpec(
        gke_type="nvidia-tesla-a100",
        ray_type="A100",  # from "NVIDIA A100-SXM4-40GB"; Ray adds the longer A100-40G to no node by itself
        compute_capability=8.0,
        memory_gib=39.38,
        max_num_batched_tokens=2048,
        max_num_seqs=256,
        # a2-megagpu-16g is left out: tensor parallelism over 16 GPUs divides the heads of few models.
        machines=(
            MachineType("a2-highgpu-1g", 1, 12, 85),
            MachineType("a2-highgpu-2g", 2, 24, 170),
            MachineType("a2-highgpu-4g", 4, 48, 340),
            MachineType("a2-highgpu-8g", 8, 96, 680),
        ),
        zones=_zones(
            asia_northeast1="ac",
            asia_northeast3="ab",
            asia_southeast1="abc",
            europe_west4="ab",
            me_west1="ac",
            us_central1="abcf",
            us_east1="b",
            us_west1="b",
            us_west3="b",
            us_west4="b",
        ),
        boot_disk_type="pd-balanced",
        driver_version="LATEST",  # as accelerated-platforms' classes for it
        min_gke_version="1.30",
        source="40 GB card; 39.38 to 39.59 GiB in PyTorch messages, the least is taken",
    ),
    Accelerator.A100_80GB: AcceleratorSpec(
        gke_type="nvidia-a100-80gb",
        ray_type="A100",
        compute_capability=8.0,
        memory_gib=79.14,
        # not H100's: vLLM leaves every A100 out of its larger defaults, as they cost it throughput (arg_utils.py, pull request 17885)
        max_num_batched_tokens=2048,
        max_num_seqs=256,
        machines=(
            MachineType("a2-ultragpu-1g", 1, 12, 170),
            MachineType("a2-ultragpu-2g", 2, 24, 340),
            MachineType("a2-ultragpu-4g", 4, 48, 680),
            MachineType("a2-ultragpu-8g", 8, 96, 1360),
        ),
        zones=_zones(asia_southeast1="c", europe_west4="a", us_central1="ac", us_east4="c", us_east5="ab"),
        boot_disk_type="pd-balanced",
        driver_version="LATEST",
        min_gke_version="1.30",
        source="80 GB card; 79.14 to 79.35 GiB in PyTorch messages, the least is taken",
        # 375 GiB for each GPU
        local_ssds={"a2-ultragpu-1g": 1, "a2-ultragpu-2g": 2, "a2-ultragpu-4g": 4, "a2-ultragpu-8g": 8},
    ),
    Accelerator.RTX_PRO_6000: AcceleratorSpec(
        gke_type="nvidia-rtx-pro-6000",
        ray_type="RTX-PRO-6000",
        compute_capability=12.0,
        memory_gib=94.97,
        nvlink=False,
        max_num_batched_tokens=8192,
        max_num_seqs=1024,
        machines=(
            MachineType("g4-standard-48", 1, 48, 180),
            MachineType("g4-standard-96", 2, 96, 360),
            MachineType("g4-standard-192", 4, 192, 720),
            MachineType("g4-standard-384", 8, 384, 1440),
        ),
        zones=(),
        boot_disk_type="hyperdisk-balanced",
        driver_version="LATEST",
        min_gke_version="1.34.0-gke.1662000",
        source="96 GB card; 94.97 GiB in PyTorch messages",
        notes="No source here names zones: set `nodes.zones` from `gcloud compute machine-types list --filter=name=g4-standard-48`.",
    ),
    Accelerator.H100: AcceleratorSpec(
        gke_type="nvidia-h100-80gb",
        ray_type="H100",
        compute_capability=9.0,
        memory_gib=79.18,
        max_num_batched_tokens=8192,
        max_num_seqs=1024,
        machines=(
            MachineType("a3-highgpu-1g", 1, 26, 234, SPOT_OR_FLEX_START),
            MachineType("a3-highgpu-2g", 2, 52, 468, SPOT_OR_FLEX_START),
            MachineType("a3-highgpu-4g", 4, 104, 936, SPOT_OR_FLEX_START),
            MachineType("a3-highgpu-8g", 8, 208, 1872),
        ),
        zones=_zones(
            asia_east1="c",
            asia_northeast1="b",
            asia_south1="c",
            asia_south2="b",
            asia_southeast1="bc",
            australia_southeast1="c",
            europe_north1="c",
            europe_west1="bc",
            europe_west3="c",
            europe_west4="bc",
            europe_west8="c",
            europe_west9="c",
            us_central1="abc",
            us_east4="abc",
            us_east5="a",
            us_west1="ab",
            us_west4="a",
        ),
        boot_disk_type="pd-balanced",
        driver_version="LATEST",
        min_gke_version="1.30",
        source="80 GB card; 79.18 GiB in PyTorch messages",
        local_ssds={"a3-highgpu-8g": 16},
    ),
    Accelerator.H200: AcceleratorSpec(
        gke_type="nvidia-h200-141gb",
        ray_type="H200",
        compute_capability=9.0,
        memory_gib=139.80,
        max_num_batched_tokens=8192,
        max_num_seqs=1024,
        # Google's price page and its quota page disagree on A3 Ultra on demand; the cautious reading is kept.
        machines=(MachineType("a3-ultragpu-8g", 8, 224, 2952, NO_ON_DEMAND, rdma=True),),
        zones=_zones(
            asia_south1="b",
            asia_south2="c",
            europe_west1="b",
            europe_west4="a",
            us_central1="b",
            us_east4="b",
            us_east5="a",
            us_south1="b",
            us_west1="c",
        ),
        boot_disk_type="hyperdisk-balanced",
        driver_version="LATEST",
        min_gke_version="1.31",
        source="141 GB card; 139.80 GiB in PyTorch messages, one of them from a3-ultragpu-8g",
        local_ssds={"a3-ultragpu-8g": 32},
    ),
    Accelerator.B200: AcceleratorSpec(
        gke_type="nvidia-b200",
        ray_type="B200",
        compute_capability=10.0,
        memory_gib=178.35,
        max_num_batched_tokens=16384,
        max_num_seqs=1024,
        machines=(
            MachineType(
                "a4-highgpu-8g",
                8,
                224,
                3968,
                NO_ON_DEMAND,
                rdma=True,
                caveat="no source shows an A4 machine that serves without its RDMA networks: try one before you count on it (docs/hardware.md)",
            ),
        ),
        zones=_zones(
            asia_northeast1="b",
            asia_southeast1="b",
            europe_north1="b",
            europe_west4="b",
            us_central1="b",
            us_east1="b",
            us_east4="b",
            us_south1="b",
            us_west2="c",
            us_west3="bc",
        ),
        boot_disk_type="hyperdisk-balanced",  # "pd-standard disk type cannot be used by a4-highgpu-8g"
        driver_version="LATEST",  # B200 needs R570 or newer
        min_gke_version="1.32.4-gke.1236000",
        source="180 GB card; 178.35 GiB in PyTorch messages; GKE minimum from AI-Hypercomputer/gpu-recipes at 2e1fd5e",
        local_ssds={"a4-highgpu-8g": 32},
    ),
}

# Machine types for the CPU pool that holds the Ray heads and the operator; same sources as above.
SYSTEM_MACHINES: dict[str, MachineType] = {
    machine.name: machine
    for machine in (
        MachineType("e2-standard-4", 0, 4, 16),
        MachineType("e2-standard-8", 0, 8, 32),
        MachineType("e2-standard-16", 0, 16, 64),
        MachineType("n2-standard-8", 0, 8, 32),
        MachineType("n2-standard-16", 0, 16, 64),
        MachineType("n4-standard-8", 0, 8, 32),
        MachineType("n4-standard-16", 0, 16, 64),
    )
}
# Boot disks of their nodes. N4 machines take Hyperdisk alone (kubernetes-sigs/gcp-compute-persistent-disk-csi-driver #1819; hashicorp/
# terraform-provider-google #19890), and E2 and N2 none.
SYSTEM_BOOT_DISKS = {name: "hyperdisk-balanced" if name.startswith("n4-") else "pd-balanced" for name in SYSTEM_MACHINES}

_BEFORE_AMPERE = (
    "vLLM 0.29 has bfloat16, FlashAttention and FlashInfer from compute capability 8.0 on, and below that its Triton attention "
    "lacks shared memory for some models (vllm-project/vllm issues 36802 and 57712). Fix: l4"
)
_NOT_SOLD = "no list of Google's machines here has it. Fix: l4 (24 GB), or rtx-pro-6000 (96 GB)"
# Accelerators without a row: a pattern of their names, the reason and the nearest card.
OTHER_ACCELERATORS: tuple[tuple[str, str], ...] = (
    (r"a100.*", "it has 40 or 80 GB. Fix: a100-40gb or a100-80gb"),
    (r"(t4|v100|p100|p4|k80)\b.*", _BEFORE_AMPERE),
    (r"(l40s?|a10g?|a30|a40|rtx[-_ ](?!pro[-_ ]6000).*)", _NOT_SOLD),
    (r"rtx[-_ ]pro[-_ ]6000.*", "did you mean rtx-pro-6000?"),
    (r"h100[-_](mega|plus).*", "its machine a3-megagpu-8g has no row here. Fix: h100"),
    (r"(h100|h200|b200)[-_ ].*", "a card has its short name here. Fix: h100, h200 or b200"),
    (r"(b300|gb[23]00).*", "its machines have no row here. Fix: b200"),
    (
        r"(tpu.*|v\d+(e|p|x|litepod)?(-\d+)?|ct\d.*|trillium|ironwood)",
        "a TPU is out of scope: this kit serves on NVIDIA GPUs. Fix: a GPU, the smallest is l4",
    ),
)


def other_accelerator(name: str) -> str | None:
    """Return the card that another name of Google's or Ray's stands for, or the reason for no row; None for an unknown name."""
    word = name.strip().lower()
    cards = [
        card.value
        for card, spec in ACCELERATORS.items()
        if word in {card.value, spec.gke_type, spec.ray_type.lower(), *(machine.name for machine in spec.machines)}
    ]
    if len(cards) == 1:
        return f"did you mean {cards[0]}?"
    plain = re.sub(r"^(nvidia[-_ ])?(tesla[-_ ])?", "", word)
    return next((reason for pattern, reason in OTHER_ACCELERATORS if re.fullmatch(pattern, plain)), None)
