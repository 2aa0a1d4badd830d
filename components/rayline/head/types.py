"""What the plan of the Ray heads consists of."""

from dataclasses import dataclass

from rayline.facts.choices import HeadStore


@dataclass(frozen=True)
class HeadPlan:
    """The Ray heads. `cpus` and `memory_gib` are None where each service has its own default."""

    store: HeadStore = HeadStore.NONE
    address: str | None = None
    """None without a store, and with Memorystore, which gets its address when it is made."""
    port: int | None = None
    password_secret: str | None = None
    ca_secret: str | None = None
    """None without TLS."""
    memorystore_gib: int = 0
    cpus: float | None = None
    memory_gib: int | None = None
