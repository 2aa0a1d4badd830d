"""How a long run ends: SIGTERM as Ctrl-C does, and once only."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _handled(handler: Any, *numbers: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def terminable() -> Any:
    """Let SIGTERM end a block as Ctrl-C does."""
    return _handled(_interrupt, signal.SIGTERM)


def undisturbed() -> Any:
    """Let no second Ctrl-C cut short the ending of processes."""
    return _handled(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM)
