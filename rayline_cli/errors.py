"""Two kinds of errors that the command line shows as one message. All others are bugs and keep their traceback."""


class UsageError(Exception):
    """The command or the configuration is wrong. Exit code 2."""


class FailedError(Exception):
    """The command was right and did not succeed. Exit code 1."""
