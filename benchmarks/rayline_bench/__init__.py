"""Benchmarks and fault tests of rayline. `cli` adds the commands `rayline bench` and `rayline faults`."""

__version__ = "0.1.0"
