"""Types of the plan of the Ray heads."""

from dataclasses import dataclass

from rayline.head.arguments import HeadArgs


@dataclass(frozen=True)
class HeadPlan:
    """Ray heads: `args` is what the stack says, with defaults. The other fields are the store's, and None without one."""

    args: HeadArgs
    port: int | None = None
    password_secret: str | None = None
    ca_secret: str | None = None
    """None without TLS."""
