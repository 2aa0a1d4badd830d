"""What can go wrong with a benchmark."""


class BenchUsageError(Exception):
    """What was asked for makes no sense; the message says what is right."""


class BenchError(Exception):
    """The benchmark stopped; the message says why, and what to do."""
