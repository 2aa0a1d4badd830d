"""Until the laboratory uses rayline_cli.progress."""

from rayline_cli.progress import LiveReport, PlainReport, Report, terminal_report

__all__ = ["LiveReport", "PlainReport", "Report", "terminal_report"]
