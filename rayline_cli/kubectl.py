"""Until the laboratory uses rayline_cli.clients.kubernetes."""

from rayline_cli.clients.kubernetes import Kubectl

__all__ = ["Kubectl"]
