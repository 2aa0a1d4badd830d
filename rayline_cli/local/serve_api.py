"""Until the laboratory uses rayline_cli.clients.serve."""

from rayline_cli.clients.serve import ServeApi, ServeUnreachable

__all__ = ["ServeApi", "ServeUnreachable"]
